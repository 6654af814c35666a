"""One element of the dead list, as it is, to be corrected. The trail says who looked."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response

from dialer.dead_list import MAY_HAVE_RUNG, DeadElements
from dialer.domain.people import Did
from dialer.domain.request import mask_in
from dialer.multcall.rawjson import ELEMENT_MAX_BYTES
from dialer.store.ledger import DeadEntry
from dialer.store.parameters import WHY_AT_MOST
from dialer.web.hub import Look
from dialer.web.pages.call import note, zone_of
from dialer.web.pages.dead.elements import FIELD, GONE, elements, named
from dialer.web.rendering import message_page, page
from dialer.web.site import site_of


async def show_entry(request: Request) -> Response:
    """Show the entry of the query, with its telephone number.

    Raises:
        ConfigError: there is no such cell.
    """
    name, cell = request.query_params.get("name", ""), request.query_params.get("cell", "")
    look = await site_of(request).hub.now()
    it = elements(request, look, cell)
    found = await named(it.dead, [name])
    if not found:
        text = f"{cell} has no such dead entry: {GONE}, or it was never there."
        return message_page(request, text, status=404)
    await note(request, Did.NUMBER_SEEN, f"dead entry {name} of {cell}", "")
    return entry_page(request, look, it, found[0])


def entry_page(
    request: Request,
    look: Look,
    it: DeadElements,
    entry: DeadEntry,
    *,
    status: int = 200,
    trouble: str = "",
    element: str | None = None,
    why: str = "",
    sent_before: Collection[str] = (),
) -> Response:
    """Return the page of an entry. `element` and `why` are what was typed, `trouble` what is wrong.

    `sent_before` are the ids as which entries like it were sent, as far as the visitor knows.
    The caller has noted that the visitor sees the number, or the visitor typed it.
    """
    is_request = entry.source == "request"
    raw = entry.raw if element is None else element.encode("utf-8", "replace")
    return page(
        request,
        "dead_entry.html",
        status=status,
        cell=it.cell.name,
        entry=entry,
        message=mask_in(entry.message),
        zone=zone_of(look, it.cell.name),
        element=raw[:ELEMENT_MAX_BYTES].decode(errors="replace"),
        problems=it.problems(raw) if is_request and not trouble else (),
        can_be_sent=is_request and len(entry.raw) <= ELEMENT_MAX_BYTES,
        is_too_long=len(entry.raw) > ELEMENT_MAX_BYTES,
        may_have_rung=entry.reason in MAY_HAVE_RUNG or bool(sent_before),
        sent_before=sorted(sent_before),
        trouble=trouble,
        why=why,
        why_max=WHY_AT_MOST,
        field=FIELD,
    )
