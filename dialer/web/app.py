"""The application: routes of all pages, static files, headers."""

from __future__ import annotations

from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialer.domain.roles import Role
from dialer.web.access import Page, guarded, stranger
from dialer.web.live import Streams
from dialer.web.pages import calls, cells, changes, dead, overview, pbxs, people, queues, sign_in
from dialer.web.rendering import HEADERS, message_page
from dialer.web.site import Site, site_of
from dialer.web.texts import n_

_MODULES = (overview, cells, pbxs, queues, calls, dead, changes, people, sign_in)


def pages() -> list[Page]:
    """Return every page, with the role that it needs."""
    streams = Streams([one for module in _MODULES for one in module.LIVE])
    return [
        *(one.page() for one in streams.pages),
        *(one for module in _MODULES for one in module.PAGES),
        Page(path="/events", show=streams.show, needs=Role.VIEW, is_stream=True),
        Page(path="/healthz", show=_health, needs=None),
    ]


def application(site: Site) -> ASGIApp:
    """Return the page of this site."""
    routes: list[BaseRoute] = [
        Route(one.path, guarded(one), methods=[one.method]) for one in pages()
    ]
    static = resources.files("dialer.web") / "static"
    routes.append(Mount("/static", StaticFiles(directory=str(static))))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused, Exception: _failed})
    app.state.site = site
    return WithHeaders(app)


async def _health(request: Request) -> Response:
    """Say whether Redis answered lately: 200 or 503."""
    look = await site_of(request).hub.now(max_age_s=5.0)
    return PlainTextResponse(look.trouble or "ok", status_code=503 if look.trouble else 200)


async def _refused(request: Request, error: Exception) -> Response:
    """Say that there is no such page, or not this method."""
    assert isinstance(error, HTTPException)
    request.state.visitor = stranger(request)
    text = n_("There is no such page.") if error.status_code == 404 else str(error.detail)
    return message_page(request, text, status=error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    """Say that a page failed; Starlette raises the error for the log."""
    request.state.visitor = stranger(request)
    return message_page(request, n_("The page failed; its log has the reason."), status=500)


class WithHeaders:
    """Adds the security headers to every response, also to errors and streams."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_static = scope["path"].startswith("/static/")
                message["headers"] = [
                    *message.get("headers", ()),
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in HEADERS.items()
                        if not (is_static and name == "Cache-Control")
                    ),
                ]
            await send(message)

        await self.app(scope, receive, with_headers)
