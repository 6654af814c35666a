"""How much is on the dead lists, and the newest entries of one cell. Numbers are masked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, get_args

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from dialer.dead_list import SOUGHT_AMONG
from dialer.multcall.answers import DeadReason
from dialer.multcall.fields import Fields
from dialer.store.ledger import DeadEntry, DeadList, reasons_of
from dialer.store.parameters import WHY_AT_MOST
from dialer.web.hub import Look
from dialer.web.pages.call import said, zone_of
from dialer.web.pages.dead.elements import FIELD, MANY
from dialer.web.pages.dead.excerpts import excerpt, masked
from dialer.web.rendering import page
from dialer.web.site import WITHIN_S, Site, site_of

#: How many entries the page may show.
SIZES: Final = (50, 100, MANY)

#: Entries that are looked at for the counts, of one cell and of all together.
LOOKED_AT: Final = 1_000
LOOKED_AT_IN_ALL: Final = 10_000

#: Characters of a message that are shown.
MESSAGE_MAX: Final = 300

REASONS: Final = (*get_args(DeadReason), "unknown")


async def show_list(request: Request) -> Response:
    """Show the page `/dead`.

    Raises:
        ConfigError: there is no such cell.
    """
    return await listing(request, request.query_params)


async def listing(
    request: Request,
    wanted: Mapping[str, str],
    *,
    status: int = 200,
    trouble: str = "",
    ticked: Collection[str] = (),
    typed: Mapping[str, str] | None = None,
) -> Response:
    """Return the page for the cell, the reason and the number of entries that are wanted.

    `trouble` says why a form was not taken; `ticked` and `typed` are what it had.
    """
    site = site_of(request)
    look = await site.hub.now()
    rows, looked_at = await _by_reason(site, look)
    cell = site.file.cell(wanted.get("cell") or _first(rows)).name
    reason = wanted.get("reason", "")
    reason = reason if reason in REASONS else ""
    at_most = next((n for n in SIZES if wanted.get("limit") == str(n)), SIZES[0])
    entries, unread = await _entries(site, look, cell, at_most, reason)
    return page(
        request,
        "dead.html",
        status=status,
        rows=rows,
        looked_at=looked_at,
        reasons=REASONS,
        sizes=SIZES,
        cell=cell,
        reason=reason,
        at_most=at_most,
        sought_among=SOUGHT_AMONG,
        size=next(row["size"] for row in rows if row["cell"] == cell),
        entries=_rows(entries, look.seen.live.settings.multcall.wire.fields),
        shown=len(entries),
        look=look,
        site=site,
        unread=unread,
        zone=zone_of(look, cell),
        why_max=WHY_AT_MOST,
        many=MANY,
        field=FIELD,
        trouble=trouble,
        ticked=ticked,
        typed={"set": "", "why": "", "all": "", **(typed or {})},
    )


async def _by_reason(site: Site, look: Look) -> tuple[list[Mapping[str, Any]], int]:
    """Return how many entries each cell has, and how many of the newest ones by reason.

    The second value is how many of each cell were looked at.
    """
    states = look.seen.snapshot.cells
    sizes = {cell.name: states[cell.name].counts.dead for cell in site.file.cells}
    filled = [cell for cell, size in sizes.items() if size]
    looked_at = min(LOOKED_AT, max(1, LOOKED_AT_IN_ALL // max(1, len(filled))))

    async def of_cell(cell: str) -> Mapping[str, int]:
        dead = DeadList(site.steps_of(cell), cell)
        return reasons_of(await dead.newest(looked_at, among=looked_at))

    async with asyncio.timeout(WITHIN_S):
        found = await asyncio.gather(*map(of_cell, filled))
    counts = dict(zip(filled, found, strict=True))
    rows: list[Mapping[str, Any]] = [
        {
            "cell": cell,
            "size": size,
            "reasons": counts.get(cell, {}),
            "unreadable": states[cell].unreadable,
        }
        for cell, size in sizes.items()
    ]
    return rows, looked_at


def _first(rows: Collection[Mapping[str, Any]]) -> str:
    """Return the first cell that has entries, or the first cell."""
    return str(next((row["cell"] for row in rows if row["size"]), next(iter(rows))["cell"]))


async def _entries(
    site: Site, look: Look, cell: str, at_most: int, reason: str
) -> tuple[list[DeadEntry], str]:
    """Return the newest entries and '', or none and why Redis refuses to show them."""
    dead = DeadList(site.steps_of(cell), cell, look.seen.live.settings.multcall.push)
    reasons, among = ([reason], SOUGHT_AMONG) if reason else ([], at_most)
    try:
        async with asyncio.timeout(WITHIN_S):
            return await dead.newest(at_most, reasons=reasons, among=among), ""
    except (RedisError, OSError) as error:
        return [], said(error)


def _rows(entries: Sequence[DeadEntry], fields: Fields) -> list[Mapping[str, Any]]:
    """Return a row for each entry; one for those with the same text, because nothing differs."""
    times = Counter(entry.name for entry in entries)
    return [
        {
            "name": entry.name,
            "times": times[entry.name],
            "when": entry.when,
            "source": entry.source,
            "reason": entry.reason,
            "message": masked(entry.message, MESSAGE_MAX),
            "excerpt": excerpt(entry.raw, fields),
        }
        for entry in {entry.name: entry for entry in entries}.values()
    ]
