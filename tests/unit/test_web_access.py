"""Requests that do not end, pages that do not answer, and headers of any shape."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Scope

from dialer.web.access import Page, Refused, form_of, guarded, require_own_origin

ANY_HEADER = st.text(alphabet=st.characters(max_codepoint=255), max_size=40)


def scope(**more: Any) -> Scope:
    known = {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "scheme": "https",
        "server": ("dialer.test", 443),
        "client": ("127.0.0.1", 1),
    }
    return known | more


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def status_of(page: Page, *, within_s: float) -> int:
    """Return the status of the answer of a page that is behind the checks."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    app = Starlette(routes=[Route(page.path, guarded(page, within_s=within_s))])
    await app(scope(), never, send)
    return int(sent[0]["status"])


async def test_page_that_does_not_answer_is_given_up() -> None:
    async def hanging(request: Request) -> Response:
        await asyncio.Event().wait()
        return PlainTextResponse("late")

    assert await status_of(Page(path="/x", show=hanging, needs=None), within_s=0.05) == 503


async def test_form_that_comes_too_slowly_is_refused() -> None:
    with pytest.raises(Refused, match="in time"):
        await form_of(Request(scope(method="POST"), never), within_s=0.05)


@given(host=ANY_HEADER, origin=ANY_HEADER, referer=ANY_HEADER)
def test_no_header_breaks_the_check_of_the_origin(host: str, origin: str, referer: str) -> None:
    given_headers = {"host": host, "origin": origin, "referer": referer}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given_headers.items()]
    try:
        require_own_origin(Request(scope(headers=raw)))
    except Refused:
        return
    own = f"https://{host}"
    assert origin == own or (not origin and referer.startswith(f"{own}/"))
