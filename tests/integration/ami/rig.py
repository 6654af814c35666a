"""An AMI link that runs, and a manager that does as it is told, for tests of the link."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from dialer.settings import Pbx
from tests.listener import Listener
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.ami import link as ami
from workers.ami.events import WANTED_EVENTS

SECRET = "a-pbx-secret"

#: The constants as they are shipped; these tests run with shorter ones.
SHIPPED: dict[str, Any] = dict(vars(ami))


def pbx_at(port: int, **fields: Any) -> Pbx:
    if "secret_file" not in fields:
        fields["secret"] = SecretStr(SECRET)
    trunks = {"tim": "PJSIP/{number}@tim"}
    return Pbx(name="pbx01", port=port, max_calls=10, cps=100, trunks=trunks, **fields)


def fields_for(number: str, call_id: str = "ASR_TIM:1") -> dict[str, str | list[str]]:
    return {
        "Channel": f"PJSIP/{number}@tim",
        "ChannelId": call_id,
        "Context": "dialer-enter",
        "Exten": "s",
        "Priority": "1",
        "Timeout": "30000",
    }


@dataclass(slots=True)
class Rig:
    """A running link and what it told."""

    link: AmiLink
    task: asyncio.Task[None]
    events: list[dict[str, str]]
    ups: list[float]
    downs: list[float]

    async def up(self) -> None:
        await wait_until(lambda: self.link.ready or self.task.done(), "the link is up")
        assert not self.task.done(), self.task

    async def down(self) -> None:
        await wait_until(lambda: not self.link.ready, "the link is down")

    async def lost(self, times: int) -> None:
        await wait_until(lambda: len(self.downs) == times, f"the loss {times} was told")

    async def originate(self, number: str, *, within_s: float = 5.0, n: int = 1) -> None:
        call_id = f"ASR_TIM:{n}"
        await self.link.originate(
            fields_for(number, call_id), action_id=f"{call_id}#1", within_s=within_s
        )


@asynccontextmanager
async def linked(
    pbx: Pbx,
    *,
    on_up: Callable[[AmiLink], Awaitable[Any]] | None = None,
    on_event: Callable[[Mapping[str, str]], None] | None = None,
) -> AsyncIterator[Rig]:
    """A link that runs; `on_up` is what it does before it is ready."""
    events: list[dict[str, str]] = []
    ups: list[float] = []
    downs: list[float] = []

    async def came_up() -> None:
        if on_up is not None:
            await on_up(link)
        ups.append(time.monotonic())

    def heard(fields: Mapping[str, str]) -> None:
        events.append(dict(fields))
        if on_event is not None:
            on_event(fields)

    link = AmiLink(pbx, WANTED_EVENTS, heard, came_up, lambda: downs.append(time.monotonic()))
    task = asyncio.create_task(link.run(), name="the link")
    try:
        yield Rig(link, task, events, ups, downs)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


FULLY_BOOTED = "Event: FullyBooted\r\nStatus: Fully Booted\r\n\r\n"


@dataclass(slots=True)
class RawPbx:
    """A manager that logs everybody in and answers pings, if it wants; the rest is the test's."""

    answers_pings: bool = True
    answers_logins: bool = True
    is_booted: bool = True
    received: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _listener: Listener = field(init=False)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> RawPbx:
        self._listener = Listener(self._serve)
        await self._listener.start()
        self.port = self._listener.port
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.stop()

    def cut(self) -> None:
        self._listener.cut()
        self._writers.clear()

    async def say(self, data: bytes, *, in_pieces: bool = False) -> None:
        """Send to the newest connection, byte by byte if asked."""
        writer = self._writers[-1]
        for piece in [data[i : i + 1] for i in range(len(data))] if in_pieces else [data]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    def actions(self, name: str) -> list[str]:
        return [text for text in self.received if f"Action: {name}\r\n" in text]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
        writer.write(b"Asterisk Call Manager/11.0.0\r\n")
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                text = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.received.append(text)
                writer.write(self._answer(text).encode())
        writer.close()

    def _answer(self, text: str) -> str:
        action_id = text.partition("ActionID: ")[2].partition("\r\n")[0]
        success = f"Response: Success\r\nActionID: {action_id}\r\n\r\n"
        if "Action: Login" in text and self.answers_logins:
            return success + (FULLY_BOOTED if self.is_booted else "")
        return success if "Action: Ping" in text and self.answers_pings else ""


def down_reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why the link was said to be down, each time that it was said."""
    return [
        str(vars(r)["reason"])
        for r in caplog.records
        if r.levelno >= logging.ERROR and r.getMessage().startswith("AMI link is down")
    ]


def reasons(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(down_reasons(caplog))
