"""`dialer web` as a process with hundreds of viewers: idle ones, and slow ones who take nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.usage import rss_bytes
from dialer.domain.roles import Role
from dialer.store.client import connect
from dialer.store.people import People
from dialer.store.steps import Steps
from dialer.web.access import COOKIE
from dialer.web.live import SESSION_STREAMS_MAX
from tests.integration.stack import Stack
from tests.integration.test_flower import free_port
from tests.integration.test_page_in_a_browser import web_of
from tests.waiting import PATIENCE_S, wait_until

IDLE, SLOW = 500, 200

#: Events that the viewers stay for.
EVENTS: Final = 15

#: Events after which slow viewers wait with the one that they do not take.
STUCK: Final = 6

#: Memory may grow by this from then on, in bytes. Kept for 200 slow viewers, 15 events with 100
#: calls would be 200 MB.
GROWTH_MAX: Final = 20_000_000


async def sessions(stack: Stack, n: int) -> list[str]:
    """Return the cookies of that many sessions."""
    steps = Steps(connect(stack.valkey.url(0)), "Redis")
    try:
        people = People(steps)
        await people.put("viewer", Role.VIEW, None, by="test")
        user = await people.user("viewer")
        assert user is not None
        return [f"{COOKIE}={await people.begin_session(user)}" for _ in range(n)]
    finally:
        await steps.close()


class Viewer:
    """A stream of the page of calls. `events` counts what came; a slow one reads nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.events = 0
        self._reader, self._writer = reader, writer
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def of(cls, port: int, cookie: str, *, is_slow: bool) -> AsyncIterator[Viewer]:
        wire = socket.socket()
        wire.setblocking(False)
        if is_slow:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(wire, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=wire, limit=2**20)
        writer.write(
            f"GET /events?page=/calls HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode()
        )
        found = cls(reader, writer)
        if is_slow:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        else:
            found._reading = asyncio.create_task(found._read())
        try:
            yield found
        finally:
            if found._reading is not None:
                found._reading.cancel()
            writer.close()

    async def _read(self) -> None:
        async for line in self._reader:
            self.events += line.startswith(b"event: live")


async def test_hundreds_of_viewers_cost_no_memory_and_no_call(tmp_path: Path) -> None:
    async with Stack(tmp_path, cell={"threads": 100}) as stack, AsyncExitStack() as opened:
        stack.add_pbx(talk_time=(300.0, 300.0))
        await stack.start()
        port = free_port()
        web = await web_of(stack, port)
        await stack.push(100)
        await stack.until_live(100)
        cookies = await sessions(stack, (IDLE + SLOW) // SESSION_STREAMS_MAX + 1)
        viewers = [
            await opened.enter_async_context(
                Viewer.of(port, cookies[n // SESSION_STREAMS_MAX], is_slow=n >= IDLE)
            )
            for n in range(IDLE + SLOW)
        ]
        idle = viewers[:IDLE]

        async def until(events: int) -> None:
            await wait_until(
                lambda: min(one.events for one in idle) >= events,
                f"each viewer got {events} events",
                within_s=2 * PATIENCE_S,
            )

        await until(STUCK)
        before = rss_bytes(web.pid)
        stack.end_calls()
        await stack.push(100)
        await stack.responses(100)
        await stack.until_live(100)  # the next ones are dialed beside all those viewers
        await until(STUCK + EVENTS)
        grown = rss_bytes(web.pid) - before
        print(f"{IDLE} idle and {SLOW} slow viewers: {before / 1e6:.0f} MB, {grown / 1e6:+.1f} MB")
        assert grown < GROWTH_MAX
