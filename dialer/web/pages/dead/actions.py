"""Send dead elements again, corrected, or discard them: one, or many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from dialer.dead_list import (
    MAY_HAVE_RUNG,
    Correction,
    DeadElements,
    Handled,
    SentBefore,
    StillWrong,
    changes_in,
    require_for_many,
)
from dialer.domain.people import Did
from dialer.errors import ConfigError, DialerError, InvalidRequest, StoreUnavailable
from dialer.store.ledger import DeadEntry
from dialer.store.parameters import one_line
from dialer.web.pages.call import AWAY, note, said
from dialer.web.pages.dead.elements import FIELD, GONE, elements, named, names_in
from dialer.web.pages.dead.entry import entry_page
from dialer.web.pages.dead.listing import listing
from dialer.web.rendering import page
from dialer.web.site import WITHIN_S, done_or_refused, site_of

#: A form has so long for all its entries, and the trail for its deed, in seconds. Together with the
#: session less than a page may take, so that what was done is always said.
ACTION_S: Final = 8.0
NOTE_S: Final = 3.0

NOT_TRIED: Final = "not tried, because Redis is slow: send it once more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an entry: the id that it was sent as, or `said` in a sentence.

    `is_away`: Redis did not take it, or did not answer.
    """

    name: str
    sent_as: str = ""
    said: str = ""
    is_away: bool = False


async def send(request: Request) -> Response:
    """Send the entries of the form again; one with the element that the form has."""
    form, until = request.state.form, _deadline()
    it = await _elements(request, until)
    if "element" in form:
        return await _send_one(request, it, until)
    try:
        names = names_in(form)
        typed, wire = form.get("set", "").strip(), it.settings.multcall.wire
        changes = changes_in([typed] if typed else [], wire)
        if len(names) > 1:
            require_for_many(changes, wire)
    except (ConfigError, InvalidRequest) as error:
        return await _again(request, error)
    correction = Correction(changes=changes, why=_why(form))
    return await _send_all(request, it, names, correction, until)


async def discard(request: Request) -> Response:
    """Take the entries of the form out for good."""
    form, until = request.state.form, _deadline()
    it = await _elements(request, until)
    try:
        names = names_in(form)
    except ConfigError as error:
        return await _again(request, error)
    entries = await _named(it, names, until)
    try:
        async with asyncio.timeout_at(until):
            n = await done_or_refused(it.dead.steps, it.discard(entries[::-1], _why(form)))
    except (RedisError, OSError, StoreUnavailable) as error:
        unsure = f"{_away(error)}: some may be discarded, look at the list"
        return await _done(request, it, [Outcome(name=name, said=unsure) for name in names])
    found = {entry.name for entry in entries}
    outcomes = [Outcome(name=name, said="discarded" if name in found else GONE) for name in names]
    if n:
        what = f"{n} of {it.cell.name}: {', '.join(sorted(found))}"
        return await _done(request, it, outcomes, did=Did.DEAD_DISCARDED, what=what)
    return await _done(request, it, outcomes)


async def _send_one(request: Request, it: DeadElements, until: float) -> Response:
    """Send one entry as it was corrected; show the form again if it is still wrong.

    Raises:
        ConfigError: the form names no entry.
        Handled: somebody else was faster.
    """
    form = request.state.form
    entries = await _named(it, names_in(form)[:1], until)
    if not entries:
        raise Handled(GONE)
    (entry,) = entries
    known = frozenset(form.get("sent_before", "").split())
    correction = Correction(
        changes={},
        element=form["element"].encode("utf-8", "replace"),
        why=_why(form),
        may_ring_again=bool(form.get("may_ring_again")),
        sent_before=known,
    )
    try:
        outcome = await _sent(
            it, entry, correction, until=until, cure="tick the box if it is to be rung again"
        )
    except StillWrong as error:
        if isinstance(error, SentBefore):
            known |= {error.request_id}
        look = await site_of(request).hub.now()
        typed = {"element": form["element"], "why": form.get("why", "")}
        return entry_page(
            request, look, it, entry, status=422, trouble=str(error), sent_before=known, **typed
        )
    return await _done_sending(request, it, [outcome])


async def _send_all(
    request: Request,
    it: DeadElements,
    names: Sequence[str],
    correction: Correction,
    until: float,
) -> Response:
    """Send entries, the oldest first, as many as Redis takes in time."""
    entries = await _named(it, names, until)
    gone = {*names} - {entry.name for entry in entries}
    outcomes = [Outcome(name=name, said=GONE) for name in sorted(gone)]
    now = asyncio.get_running_loop().time
    is_away = False
    for entry in entries:
        if is_away or now() > until:
            outcomes.append(Outcome(name=entry.name, said=NOT_TRIED))
            continue
        try:
            one = await _sent(it, entry, correction, until=until, cure="open it, and decide there")
        except DialerError as error:
            one = Outcome(name=entry.name, said=str(error))
        outcomes.append(one)
        is_away = one.is_away
    return await _done_sending(request, it, outcomes)


async def _sent(
    it: DeadElements, entry: DeadEntry, correction: Correction, *, until: float, cure: str
) -> Outcome:
    """Send one entry again. `cure` is what to do if its number may have been rung.

    `until` is when to give up, by the clock of the event loop.

    Raises:
        StillWrong: it would be refused again, or rung again.
        Handled: somebody else was faster.
    """
    if entry.reason in MAY_HAVE_RUNG and not correction.may_ring_again:
        raise StillWrong(f"its number may have been rung already ({entry.reason}): {cure}")
    try:
        async with asyncio.timeout_at(until), asyncio.timeout(WITHIN_S):
            sent_as = await done_or_refused(it.dead.steps, it.send(entry, correction))
    except SentBefore as error:
        raise SentBefore(error.request_id, cure) from None
    except (RedisError, OSError, StoreUnavailable) as error:
        unsure = f"{_away(error)}: it may have been sent, look at the list"
        return Outcome(name=entry.name, said=unsure, is_away=True)
    return Outcome(name=entry.name, sent_as=sent_as)


def _deadline() -> float:
    """Return when the form that came now must have done its work, by the event loop's clock."""
    return asyncio.get_running_loop().time() + ACTION_S


async def _elements(request: Request, until: float) -> DeadElements:
    """Return what the visitor can do with the dead elements of the cell of the form."""
    async with asyncio.timeout_at(until):
        look = await site_of(request).hub.now()
    return elements(request, look, request.state.form.get("cell", ""))


async def _named(it: DeadElements, names: Sequence[str], until: float) -> list[DeadEntry]:
    """Return the entries that the form chose. Nothing is sent or discarded if it is too late."""
    async with asyncio.timeout_at(until):
        return await named(it.dead, names)


def _away(error: BaseException) -> str:
    """Return in a sentence that Redis did not take something, and why."""
    return (
        str(error)
        if isinstance(error, StoreUnavailable)
        else f"Redis does not answer ({said(error)})"
    )


async def _again(request: Request, error: DialerError) -> Response:
    """Return the list as it was, with what is wrong with the form."""
    form = request.state.form
    return await listing(
        request,
        form,
        status=422,
        trouble=str(error),
        ticked=[name.removeprefix(FIELD) for name in form if name.startswith(FIELD)],
        typed={name: form[name] for name in ("set", "why", "all") if name in form},
    )


async def _done_sending(
    request: Request, it: DeadElements, outcomes: Sequence[Outcome]
) -> Response:
    sent = [f"{one.name} as {one.sent_as}" for one in outcomes if one.sent_as]
    if not sent:
        return await _done(request, it, outcomes)
    what = f"{len(sent)} of {it.cell.name}: {', '.join(sent)}"
    return await _done(request, it, outcomes, did=Did.DEAD_SENT, what=what)


async def _done(
    request: Request,
    it: DeadElements,
    outcomes: Sequence[Outcome],
    *,
    did: Did | None = None,
    what: str = "",
) -> Response:
    """Show what became of each entry; the trail gets the deed. The cell's own trail has more."""
    trouble = ""
    if did is not None:
        try:
            async with asyncio.timeout(NOTE_S):
                await note(request, did, what, _why(request.state.form))
        except AWAY as error:
            trouble = f"the trail of the web page has nothing of this: {said(error)}"
    return page(request, "dead_done.html", cell=it.cell.name, outcomes=outcomes, trouble=trouble)


def _why(form: Mapping[str, str]) -> str:
    return one_line(form.get("why", "")).strip()
