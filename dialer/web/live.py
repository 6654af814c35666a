"""Pages that change while somebody looks: made once for all who look at the same.

A stream sends the live part of a page each time that the hub has read the system. A viewer who is
slow gets the newest one next; nothing is kept for anybody.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from dialer.domain.roles import Role
from dialer.errors import ConfigError
from dialer.web.access import NEEDED, SESSION_WITHIN_S, Page, session_of, token_of
from dialer.web.hub import Look
from dialer.web.rendering import message_page, page, rendered
from dialer.web.site import Site, Visitor, site_of, visitor_of
from dialer.web.texts import n_

#: A stream ends at most this long after its session, in seconds.
SESSION_CHECKED_EVERY_S: Final = 15.0

#: A viewer who does not take the stream for so long is disconnected, in seconds.
SEND_WITHIN_S: Final = 20.0

#: The script loads the page again: there is nothing more to see here.
OVER: Final = ServerSentEvent("", event="over").encode()

#: Most streams at a time.
STREAMS_MAX: Final = 1_000

#: Most streams of one session at a time.
SESSION_STREAMS_MAX: Final = 20

#: What a live page shows: by the look, and the names in its path.
Context = Callable[[Site, Look, Mapping[str, str]], Awaitable[Mapping[str, Any]]]

#: What a page shows beside its live part.
Around = Callable[[Request], Awaitable[Mapping[str, Any]]]

#: Another answer than the page, for instance where a search leads; None for the page.
Instead = Callable[[Request], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePage:
    """A page whose part changes. `template` is the page, it includes `live_template`.

    `context` must depend on nothing but its arguments: all viewers share what it returns. `around`
    returns what else one visitor is shown, and what does not change while the visitor looks.
    `instead` may answer a request in another way.
    """

    path: str
    template: str
    live_template: str
    context: Context
    needs: Role = Role.VIEW
    around: Around | None = None
    instead: Instead | None = None

    def page(self) -> Page:
        """Return it for the routes."""
        return Page(path=self.path, show=self._show, needs=self.needs)

    async def _show(self, request: Request) -> Response:
        other = await self.instead(request) if self.instead is not None else None
        return await shown(self, request) if other is None else other

    def names_in(self, path: str) -> dict[str, str] | None:
        """Return the names in a path of this page, None if it is another page's."""
        pattern, _, _ = compile_path(self.path)
        found = pattern.fullmatch(path)
        return found.groupdict() if found is not None else None

    def path_of(self, names: Mapping[str, str]) -> str:
        """Return the path of this page with these names; a form on it may have another path."""
        _, shape, _ = compile_path(self.path)
        return shape.format_map(names)


async def shown(
    live: LivePage,
    request: Request,
    *,
    status: int = 200,
    names: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a live page as it is now; `more` is for what does not change while one looks.

    `names` are those in its path, if it is not the path of the request.
    """
    site = site_of(request)
    names = request.path_params if names is None else names
    look = await site.hub.now()
    context = await live.context(site, look, names)
    around = await live.around(request) if live.around is not None else {}
    known: dict[str, Any] = {"look": look, "site": site, "self_live": live.live_template}
    known["path"] = live.path_of(names)
    return page(request, live.template, status=status, **{**known, **context, **around, **more})


@dataclass(slots=True)
class _Made:
    """The live part of one page for one language and role, while somebody looks at it."""

    viewers: int = 0
    number: int = 0
    event: bytes = b""
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Counted(EventSourceResponse):
    """A stream that counts for its session from the request until it has ended."""

    def __init__(self, events: AsyncIterator[bytes], of_sessions: Counter[str], token: str) -> None:
        super().__init__(
            events,
            ping=30,
            send_timeout=SEND_WITHIN_S,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._of_sessions, self._token = of_sessions, token
        of_sessions[token] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._of_sessions[self._token] -= 1
            if not self._of_sessions[self._token]:
                del self._of_sessions[self._token]


@dataclass(slots=True)
class Streams:
    """The streams of all viewers. `pages` are the live ones. `of_sessions` counts them by token.

    At most `session_max` are of one session.
    """

    pages: Sequence[LivePage]
    session_max: int = SESSION_STREAMS_MAX
    of_sessions: Counter[str] = field(default_factory=Counter)
    _made: dict[tuple[str, str, Role], _Made] = field(default_factory=dict)

    async def show(self, request: Request) -> Response:
        """Return the stream of the page that the query names."""
        path = request.query_params.get("page", "")
        for live in self.pages:
            if (names := live.names_in(path)) is not None:
                break
        else:
            return message_page(request, n_("There is no such page."), status=404)
        visitor = visitor_of(request)
        if not visitor.may(live.needs):
            return message_page(request, NEEDED[live.needs], status=403)
        if self.of_sessions.total() >= STREAMS_MAX:
            return message_page(request, n_("Too many viewers: try again later."), status=503)
        token = token_of(request)
        if self.of_sessions[token] >= self.session_max:
            text = n_("Too many pages are open in this session: close some of them.")
            return message_page(request, text, status=503)
        return _Counted(self._events(request, live, path, names), self.of_sessions, token)

    async def _events(
        self, request: Request, live: LivePage, path: str, names: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        site, visitor = site_of(request), visitor_of(request)
        loop = asyncio.get_running_loop()
        checked_at, number = loop.time(), 0
        assert visitor.session is not None, "guarded"
        kind = (path, visitor.texts.name, visitor.session.user.role)
        made = self._made.setdefault(kind, _Made())
        made.viewers += 1
        try:
            while True:
                look = await site.hub.after(number)
                number = look.number
                if loop.time() - checked_at > SESSION_CHECKED_EVERY_S:
                    checked_at = loop.time()
                    if not await self._is_still(request, visitor):
                        yield OVER
                        return
                event = await self._event(site, visitor, live, names, look, made)
                yield event
                if event is OVER:
                    return
        finally:
            made.viewers -= 1
            if not made.viewers:
                del self._made[kind]

    async def _is_still(self, request: Request, visitor: Visitor) -> bool:
        """True if the session lives and has the same role; also if Redis does not say."""
        try:
            async with asyncio.timeout(SESSION_WITHIN_S):
                session = await session_of(request)
        except OSError:
            return True
        return session is not None and session.user == (visitor.session and visitor.session.user)

    async def _event(
        self,
        site: Site,
        visitor: Visitor,
        live: LivePage,
        names: Mapping[str, str],
        look: Look,
        made: _Made,
    ) -> bytes:
        """Return the part of a page for this look; it is made once for all alike."""
        async with made.making:
            if made.number != look.number:
                made.event = await self._rendered(site, visitor, live, names, look)
                made.number = look.number
        return made.event

    async def _rendered(
        self, site: Site, visitor: Visitor, live: LivePage, names: Mapping[str, str], look: Look
    ) -> bytes:
        try:
            context = await live.context(site, look, names)
        except ConfigError:  # the cell left the settings; the page says so when it is loaded again
            return OVER
        shared = Visitor(session=visitor.session, texts=visitor.texts, address="")
        fixed = {"look": look, "site": site, "visitor": shared}
        html = rendered(live.live_template, visitor.texts, fixed | dict(context))
        return ServerSentEvent(json.dumps({"html": html}), event="live").encode()
