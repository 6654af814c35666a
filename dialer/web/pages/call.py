"""One call: its story, its number for those who may see it, and the order to hang it up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dialer.domain.people import Deed, Did
from dialer.domain.request import call_id
from dialer.domain.roles import Role
from dialer.errors import DialerError
from dialer.monitor.stories import Told, not_found, told
from dialer.store.ledger import LedgerReads
from dialer.store.parameters import WHY_AT_MOST
from dialer.web.access import Page
from dialer.web.hub import Look
from dialer.web.live import LivePage, shown
from dialer.web.rendering import page
from dialer.web.site import WITHIN_S, Site, done_or_refused, site_of, visitor_of

#: A live part waits so long for Redis, in seconds: less than until the page says that it is old.
LIVE_WITHIN_S: Final = 2.0

#: Longest wait for the trail before a call is hung up, in seconds: the customer is on the line.
NOTED_WITHIN_S: Final = 2.0

#: No id is longer.
ID_MAX: Final = 129

#: What is raised if a Redis does not answer.
AWAY: Final = (RedisError, OSError, DialerError)


async def story(site: Site, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the story of the call in the path; None if there is none.

    Raises:
        ConfigError: there is no such cell.
    """
    cell, trouble, found = site.file.cell(names["cell"]).name, look.trouble, None
    if not trouble and len(names["id"]) <= ID_MAX:
        try:
            async with asyncio.timeout(LIVE_WITHIN_S):
                found = await told(site.steps_of(cell), cell, names["id"])
        except AWAY as error:
            trouble = said(error)
    return {
        "cell": cell,
        "id": names["id"],
        "told": found,
        "story_trouble": trouble,
        "missing": not_found(names["id"], [cell]),
        "zone": zone_of(look, cell),
    }


async def around_story(request: Request) -> Mapping[str, Any]:
    """Return what is beside a story."""
    return {"trouble": "", "why": "", "why_max": WHY_AT_MOST}


async def missing(request: Request) -> Response | None:
    """Show the page with the status 404 if there is no such call (yet)."""
    cell, request_id = request.path_params["cell"], request.path_params["id"]
    site_of(request).file.cell(cell)
    is_known = len(request_id) <= ID_MAX and await _told(request, cell, request_id) is not None
    return None if is_known else await shown(STORY, request, status=404)


async def hang_up_call(request: Request) -> Response:
    """Hang up the call that the form names. If the trail cannot be written, the page says so."""
    cell, request_id = _named(request)
    why, not_noted = request.state.form.get("why", ""), ""
    try:
        found = await _told(request, cell, request_id)
        if found is None:
            raise DialerError(not_found(request_id, [cell]))
        if not found.story.is_dialed:
            raise DialerError(f"{found.story.call_id} is not dialed now: it is {found.story.state}")
        # First: an order may be carried out although its reply is lost.
        not_noted = await _why_not_noted(request, Did.HUNG_UP, found.story.call_id, why)
        from dialer.hangup import hang_up  # it makes the Celery app

        await asyncio.to_thread(hang_up, found.story.call_id, found.story.pbx)
    except DialerError as error:
        trouble = f"{error}; {not_noted}" if not_noted else str(error)
        return await _story_again(request, cell, request_id, 409, trouble=trouble, why=why)
    if not_noted:
        trouble = f"The call was hung up, but {not_noted}"
        return await _story_again(request, cell, request_id, 200, trouble=trouble)
    return RedirectResponse(path_of(cell, request_id), status_code=303)


async def number(request: Request) -> Response:
    """Show the full number of the call that the form names; the trail says who looked."""
    cell, request_id = _named(request)
    name = call_id(cell, request_id)
    async with asyncio.timeout(WITHIN_S):
        found = await LedgerReads(site_of(request).steps_of(cell), cell).number(name)
    if found:
        await note(request, Did.NUMBER_SEEN, name, request.state.form.get("why", ""))
    context = {"cell": cell, "id": request_id, "number": found}
    return page(request, "call_number.html", status=200 if found else 404, **context)


# --- details ---------------------------------------------------------------------------------


def _named(request: Request) -> tuple[str, str]:
    """Return the cell and the id of a form.

    Raises:
        ConfigError: there is no such cell.
    """
    form = request.state.form
    return site_of(request).file.cell(form.get("cell", "")).name, form.get("id", "")[:ID_MAX]


async def _told(request: Request, cell: str, request_id: str) -> Told | None:
    async with asyncio.timeout(WITHIN_S):
        return await told(site_of(request).steps_of(cell), cell, request_id)


async def _story_again(
    request: Request, cell: str, request_id: str, status: int, **around: Any
) -> Response:
    """Show the page of a call in answer to its form."""
    names = {"cell": cell, "id": request_id}
    return await shown(STORY, request, status=status, names=names, **around)


async def note(request: Request, did: Did, what: str, why: str) -> None:
    """Write to the trail what the visitor does.

    Raises:
        StoreUnavailable: Redis does not take it.
        TimeoutError: it does not answer in time.
    """
    people = site_of(request).people
    deed = Deed(by=visitor_of(request).name, did=did, what=what, why=why)
    async with asyncio.timeout(WITHIN_S):
        await done_or_refused(people.steps, people.note(deed))


async def _why_not_noted(request: Request, did: Did, what: str, why: str) -> str:
    """Write to the trail what the visitor does; return why that is not possible, '' if it is."""
    try:
        async with asyncio.timeout(NOTED_WITHIN_S):
            await note(request, did, what, why)
    except AWAY as error:
        return f"the trail has nothing of it: {said(error)}"
    return ""


def path_of(cell: str, request_id: str) -> str:
    """Return the path of a call's page."""
    return f"/calls/{quote(cell, safe='')}/{quote(request_id, safe='')}"


def zone_of(look: Look, cell: str) -> str:
    """Return the time zone of a cell."""
    return look.seen.live.settings.cell(cell).limits.time_zone


def said(error: BaseException) -> str:
    """Return what is shown of an error."""
    return str(error) or "no answer in time"


STORY = LivePage(
    path="/calls/{cell}/{id:path}",
    template="call.html",
    live_template="call_live.html",
    context=story,
    around=around_story,
    instead=missing,
)
LIVE: Sequence[LivePage] = (STORY,)
PAGES: Sequence[Page] = (
    Page(path="/calls/hangup", show=hang_up_call, needs=Role.OPERATE, method="POST"),
    Page(path="/calls/number", show=number, needs=Role.OPERATE, method="POST"),
)
