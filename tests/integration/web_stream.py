"""A stream of `dialer web` up to its first event; httpx would wait for the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import Message, Scope

from tests.integration.web_site import Web
from tests.waiting import PATIENCE_S


@dataclass(slots=True)
class Stream:
    """What came of a stream until it was closed."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    text: str = ""


async def first_event(web: Web, page: str, *, within_s: float = PATIENCE_S) -> Stream:
    """Open the stream of a page as the browser of `web`, and close it after the first event."""
    found, is_enough = Stream(), asyncio.Event()
    cookie = "; ".join(f"{one.name}={one.value}" for one in web.client.cookies.jar)
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": "/events",
        "raw_path": b"/events",
        "root_path": "",
        "query_string": f"page={quote(page, safe='')}".encode(),
        "headers": [(b"host", b"dialer.test"), (b"cookie", cookie.encode())],
        "client": ("127.0.0.1", 50_000),
        "server": ("dialer.test", 443),
    }
    begins = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        if (message := next(begins, None)) is not None:
            return message
        await is_enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            found.status = message["status"]
            found.headers = Headers(raw=list(message["headers"]))
        else:
            found.text += message.get("body", b"").decode()
            if "event: live" in found.text or not message.get("more_body", False):
                is_enough.set()

    async with asyncio.timeout(within_s):
        await web.app(scope, receive, send)
    return found
