"""Calls in flight and the last ended ones over all cells, and the search for one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dialer.domain.request import cell_of, mask
from dialer.monitor.stories import Told, not_found, stories
from dialer.store.ledger import Ended, InFlight, LedgerReads
from dialer.web.access import Page
from dialer.web.hub import Look
from dialer.web.live import LivePage, shown
from dialer.web.pages import call
from dialer.web.pages.call import AWAY, ID_MAX, LIVE_WITHIN_S, path_of, said, zone_of
from dialer.web.site import WITHIN_S, Site, site_of

#: Calls in flight that are shown.
CALLS_SHOWN: Final = 100


# --- calls in flight -------------------------------------------------------------------------


async def in_flight(site: Site, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the newest calls of all cells, and those that ended last."""
    cells = look.seen.snapshot.cells
    calls, trouble, ended = list[InFlight](), look.trouble, list[Ended]()
    if not trouble:
        (calls, trouble), ended = await asyncio.gather(
            _newest(site, [*cells]), _ended(site, [*cells])
        )
    return {
        "total": sum(state.counts.live for state in cells.values()),
        "calls": [_row(look, one) for one in calls],
        "calls_shown": CALLS_SHOWN,
        "calls_trouble": trouble,
        "ended": [_ended_row(look, one) for one in ended],
    }


async def _newest(site: Site, cells: Sequence[str]) -> tuple[list[InFlight], str]:
    """Return the newest calls, and why some cannot be read, '' if they all can.

    Each cell gets one command, and each of the newest calls of them all.
    """
    try:
        async with asyncio.timeout(LIVE_WITHIN_S):
            reads = {cell: LedgerReads(site.steps_of(cell), cell) for cell in cells}
            found = await asyncio.gather(*map(_newest_of, reads.values()))
            named = sorted((one for ids, _ in found for one in ids), reverse=True)[:CALLS_SHOWN]
            rows = await asyncio.gather(
                *(
                    one.flights([name for _, name in named if cell_of(name) == cell])
                    for cell, one in reads.items()
                )
            )
    except AWAY as error:
        return [], said(error)
    calls = {one.call_id: one for of_cell in rows for one in of_cell}
    trouble = "; ".join(why for _, why in found if why)
    return [calls[name] for _, name in named if name in calls], trouble


async def _ended(site: Site, cells: Sequence[str]) -> list[Ended]:
    """Return the calls that ended last; those of a cell that cannot be read are missing.

    Why it cannot is said of the calls in flight.
    """

    async def of(cell: str) -> list[Ended]:
        try:
            return await LedgerReads(site.steps_of(cell), cell).ended(CALLS_SHOWN)
        except ResponseError:
            return []

    try:
        async with asyncio.timeout(LIVE_WITHIN_S):
            found = await asyncio.gather(*map(of, cells))
    except AWAY:
        return []
    calls = {one.call_id: one for of_cell in found for one in of_cell}
    return sorted(calls.values(), key=lambda one: one.at, reverse=True)[:CALLS_SHOWN]


async def _newest_of(reads: LedgerReads) -> tuple[list[tuple[float, str]], str]:
    """Return the newest calls of a cell; none, and why, if Redis refuses."""
    try:
        return await reads.newest(CALLS_SHOWN), ""
    except ResponseError as error:
        return [], f"{reads.cell}: {error}"


def _row(look: Look, one: InFlight) -> dict[str, Any]:
    cell, _, request_id = one.call_id.partition(":")
    return {
        "cell": cell,
        "id": request_id,
        "state": one.state or "",
        "pbx": one.pbx,
        "since": one.since,
        "number": mask(one.number),
        "zone": zone_of(look, cell),
    }


def _ended_row(look: Look, one: Ended) -> dict[str, Any]:
    cell, _, request_id = one.call_id.partition(":")
    return {
        "cell": cell,
        "id": request_id,
        "result": one.result,
        "pbx": one.pbx,
        "at": one.at,
        "zone": zone_of(look, cell),
    }


# --- search ----------------------------------------------------------------------------------


async def around_calls(request: Request) -> Mapping[str, Any]:
    """Return what the form shows before a search."""
    return {"sought": "", "found": (), "trouble": ""}


async def search(request: Request) -> Response | None:
    """Go to the call that has the id of the form; list those of several cells."""
    sought = request.query_params.get("id", "").strip()
    if not sought:
        return None
    site = site_of(request)
    cells = [cell.name for cell in site.file.cells]
    found, away = await _search(site, cells, sought) if len(sought) <= ID_MAX else ([], [])
    if len(found) == 1 and not away:
        return RedirectResponse(path_of(*_names_of(found[0])), status_code=303)
    trouble = not_found(sought, cells) if not found else ""
    if away:
        trouble = f"the Redis of {', '.join(away)} does not answer; {trouble}".rstrip("; ")
    return await shown(
        CALLS,
        request,
        status=200 if found else 404,
        sought=sought,
        found=[_names_of(one) for one in found],
        trouble=trouble,
    )


async def _search(site: Site, cells: Sequence[str], sought: str) -> tuple[list[Told], list[str]]:
    """Return the calls of an id in these cells, and the cells whose Redis does not answer."""

    async def in_cell(cell: str) -> list[Told] | None:
        try:
            async with asyncio.timeout(WITHIN_S):
                return await stories(site.steps_of(cell), cell, sought)
        except AWAY:
            return None

    rows = await asyncio.gather(*map(in_cell, cells))
    away = [cell for cell, row in zip(cells, rows, strict=True) if row is None]
    return [one for row in rows for one in row or ()], away


def _names_of(found: Told) -> tuple[str, str]:
    """Return the cell and the request id."""
    cell, _, request_id = found.story.call_id.partition(":")
    return cell, request_id


CALLS = LivePage(
    path="/calls",
    template="calls.html",
    live_template="calls_live.html",
    context=in_flight,
    around=around_calls,
    instead=search,
)
LIVE: Sequence[LivePage] = (CALLS, *call.LIVE)
PAGES: Sequence[Page] = call.PAGES
