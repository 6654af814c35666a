"""Streams of live pages: how many of one session, and what viewers share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Scope

from dialer.domain.roles import Role
from dialer.store.client import cancel
from dialer.web.access import COOKIE, TOKEN_LENGTH
from dialer.web.hub import Look
from dialer.web.live import LivePage, Streams, _Made
from dialer.web.pages.call import ID_MAX, story
from dialer.web.site import Visitor
from dialer.web.texts import texts
from tests.unit.stand_ins import a
from tests.waiting import wait_until

LOOK = Look(number=1, seen=a(), at=datetime(2026, 11, 27, 10, 42, tzinfo=UTC))
SITE = a(zone="UTC")


def visitor() -> Visitor:
    session: Any = a(user=a(name="ana", role=Role.VIEW), csrf="x")
    return Visitor(session=session, texts=texts("en"), address="")


async def empty(site: Any, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
    return {"queues": (), "unreadable": ()}


def live(context: Any = empty) -> LivePage:
    return LivePage(
        path="/queues", template="queues.html", live_template="queues_live.html", context=context
    )


# --- what viewers share ----------------------------------------------------------------------


async def test_a_viewer_who_leaves_leaves_no_empty_event() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slow(site: Any, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
        began.set()
        await may_end.wait()
        return await empty(site, look, names)

    page = live(slow)
    streams, made = Streams([page]), _Made()
    leaving = asyncio.create_task(streams._event(SITE, visitor(), page, {}, LOOK, made))
    await began.wait()
    await cancel([leaving])
    may_end.set()
    event = await streams._event(SITE, visitor(), page, {}, LOOK, made)
    assert event.startswith(b"event: live")


# --- how many --------------------------------------------------------------------------------


async def never(number: int) -> Look:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def request(token: str) -> Request:
    scope: Scope = {
        "type": "http", "method": "GET", "path": "/events", "query_string": b"page=/queues",
        "headers": [(b"cookie", f"{COOKIE}={token * TOKEN_LENGTH}".encode())],
        "state": {"visitor": visitor()}, "app": a(state=a(site=a(hub=a(after=never)))),
    }  # fmt: skip
    return Request(scope)


async def opened_and_left(response: Response, asked: Request, streams: Streams) -> None:
    """Take a stream until it runs, then leave."""
    leaves = asyncio.Event()

    async def receive() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    serving = asyncio.create_task(response(asked.scope, receive, send))
    await wait_until(lambda: streams._made, "the stream runs")
    leaves.set()
    await serving


async def test_a_session_has_a_limit_of_streams() -> None:
    streams = Streams([live()], session_max=2)
    mine, other = request("a"), request("b")
    first, second, third = [await streams.show(mine) for _ in range(3)]
    assert [one.status_code for one in (first, second, third)] == [200, 200, 503]
    assert b"Too many pages are open in this session" in bytes(third.body)
    assert (await streams.show(other)).status_code == 200
    await opened_and_left(first, mine, streams)
    assert (await streams.show(mine)).status_code == 200


async def test_a_session_without_streams_is_forgotten() -> None:
    streams, mine = Streams([live()]), request("a")
    await opened_and_left(await streams.show(mine), mine, streams)
    assert not streams.of_sessions
    assert not streams._made


async def test_an_id_that_is_too_long_is_not_read() -> None:
    def steps_of(cell: str) -> Any:
        pytest.fail("Redis was asked")

    cell = a(name="TIM", limits=a(time_zone="UTC"))
    of_cells = a(cell=lambda name: cell)
    site = a(file=of_cells, steps_of=steps_of)
    look = Look(number=1, seen=a(live=a(settings=of_cells)), at=LOOK.at)
    found = await story(site, look, {"cell": "TIM", "id": "x" * (ID_MAX + 1)})
    assert found["told"] is None
