"""The trail: who changed live parameters, and undo; for administrators, what else users did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from dialer.domain.parameters import Change
from dialer.domain.people import Deed
from dialer.domain.roles import Role
from dialer.errors import DialerError
from dialer.steering import NoSuchChange, words
from dialer.store.keys import CHANGES_KEPT
from dialer.store.parameters import WHY_AT_MOST, ParameterStore
from dialer.store.people import People
from dialer.web.access import Page
from dialer.web.live import LivePage
from dialer.web.pages.steer import number_in, reason, seen_at, sentences, steered
from dialer.web.rendering import page
from dialer.web.site import site_of, visitor_of

#: Changes, and deeds, on one page.
ON_A_PAGE: Final = 100

#: Changes that are read at once.
AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One page of the trail. `older`: the next page begins below this change, 0 if it is the last.

    `of` is the cell or PBX that is shown, '' for all.
    """

    changes: Sequence[Change]
    older: int
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDeeds:
    """One page of deeds. `older`: the next page begins before this deed, '' if it is the last.

    `before`: it begins before this deed itself, '' if it is the first.
    """

    deeds: Sequence[Deed]
    before: str
    older: str


async def _show(request: Request) -> Response:
    return await _page(request)


async def _undo(request: Request) -> Response:
    """Undo a change; say it beside the changes if that is not possible."""
    text, of = request.path_params["number"], request.state.form.get("of", "")
    try:
        number = number_in(text)
        if number is None:
            raise NoSuchChange(f"there is no change {text[:20]}")
        undone = number
        await steered(request, lambda steering: steering.undo(undone, why=reason(request)))
    except DialerError as error:
        return await _page(request, of=of, status=409, troubles=sentences(error))
    return await seen_at(request, f"/changes?{urlencode({'of': of})}" if of else "/changes")


async def _page(
    request: Request, *, of: str = "", status: int = 200, troubles: Sequence[str] = ()
) -> Response:
    site, asked = site_of(request), request.query_params
    of = of or asked.get("of", "")
    below = number_in(asked.get("below", "")) or 0
    names = [*(cell.name for cell in site.file.cells), *(pbx.name for pbx in site.file.pbxs)]
    has_deeds = visitor_of(request).may(Role.ADMIN) and not (of or below)
    return page(
        request,
        "changes.html",
        status=status,
        path="/changes",
        site=site,
        shown=await shown_changes(site.collector.parameters, of=of, below=below),
        below=below,
        names=sorted({*names, *([of] if of else [])}),
        deeds=await shown_deeds(site.people, asked.get("before", "")) if has_deeds else None,
        troubles=troubles,
        words_of=_words,
        at=_at,
        why_at_most=WHY_AT_MOST,
    )


async def shown_deeds(people: People, before: str = "") -> ShownDeeds:
    """Return the newest deeds and failed sign-ins; with `before`, an `id`, those before it."""
    trails = [await read(ON_A_PAGE + 1, before) for read in (people.deeds, people.failures)]
    found = sorted(chain(*trails), key=_place, reverse=True)
    older = found[ON_A_PAGE - 1].id if len(found) > ON_A_PAGE else ""
    return ShownDeeds(deeds=found[:ON_A_PAGE], before=before, older=older)


def _place(deed: Deed) -> tuple[int, ...]:
    """Return what sorts the deeds of several trails: Redis gives an id by its time."""
    return tuple(map(int, deed.id.split("-")))


async def shown_changes(store: ParameterStore, *, of: str = "", below: int = 0) -> Shown:
    """Return the newest changes of a cell or PBX, or of all; with `below`, those before it."""
    found: list[Change] = []
    async for change in _newest(store, below, AT_ONCE if of else ON_A_PAGE + 1):
        if not of or change.subject.name == of:
            found.append(change)
        if len(found) > ON_A_PAGE:
            return Shown(changes=found[:-1], older=found[-2].number, of=of)
    return Shown(changes=found, older=0, of=of)


async def _newest(store: ParameterStore, below: int, at_once: int) -> AsyncIterator[Change]:
    left = 2 * CHANGES_KEPT  # the stream may have a few more than it keeps
    while left > 0 and (some := await store.changes(at_most=at_once, below=below)):
        for change in some:
            yield change
        below, left = some[-1].number, left - len(some)


def _words(change: Change) -> list[str]:
    return [words(change.subject, edit) for edit in change.edits]


def _at(one: Change | Deed) -> datetime:
    """Return when a change was made, or a deed done."""
    return datetime.fromtimestamp(one.at_ms / 1000, UTC)


LIVE: Sequence[LivePage] = ()
PAGES: Sequence[Page] = (
    Page(path="/changes", show=_show),
    Page(path="/changes/{number}/undo", show=_undo, needs=Role.OPERATE, method="POST"),
)
