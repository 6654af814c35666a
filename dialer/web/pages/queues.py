"""The queues: the five columns of the old monitor, of all servers or of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dialer.errors import ConfigError
from dialer.monitor.collector import cells_at
from dialer.monitor.queues import queues
from dialer.store.redis_url import place_of
from dialer.web.access import Page
from dialer.web.hub import Look
from dialer.web.live import LivePage, shown
from dialer.web.site import Site, site_of


async def context(site: Site, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the lists and counters of the cells on the server of the path, by default of all.

    Raises:
        ConfigError: no cell is on that server.
    """
    urls = cells_at(site.file, names.get("server", ""))
    cells = look.seen.snapshot.cells
    return {
        "queues": queues(look.seen.snapshot, urls),
        "unreadable": [name for name in urls if name in cells and cells[name].unreadable],
    }


async def around(request: Request) -> Mapping[str, Any]:
    """Return what the form shows."""
    urls = site_of(request).collector.cell_urls.values()
    return {
        "server": request.path_params.get("server", ""),
        "servers": sorted({place_of(url) for url in urls}),
        "trouble": "",
    }


async def chosen(request: Request) -> Response | None:
    """Go to the page of the server that the form names."""
    server = request.query_params.get("server")
    if server is None:
        return None
    server = server.strip()
    try:
        cells_at(site_of(request).file, server)
    except ConfigError as error:
        return await shown(QUEUES, request, status=422, server=server, trouble=str(error))
    path = f"/queues/{quote(server, safe='')}" if server else "/queues"
    return RedirectResponse(path, status_code=303)


QUEUES = LivePage(
    path="/queues",
    template="queues.html",
    live_template="queues_live.html",
    context=context,
    around=around,
    instead=chosen,
)
OF_SERVER = LivePage(
    path="/queues/{server:path}",
    template="queues.html",
    live_template="queues_live.html",
    context=context,
    around=around,
)
LIVE: Sequence[LivePage] = (QUEUES, OF_SERVER)
PAGES: Sequence[Page] = ()
