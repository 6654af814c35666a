"""A bare AMI client and fast simulated PBXs for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Protocol

from dialer.simulation.pbx.server import SimulatedPbx

PATIENCE_S = 10.0
FAST: dict[str, Any] = {
    "ring_time": (0.01, 0.02),
    "talk_time": (0.01, 0.02),
    "reject_time": (0.01, 0.02),
}
LONG: dict[str, Any] = {"ring_time": (0.01, 0.02), "talk_time": (60.0, 60.0)}

Message = dict[str, str]


class Client:
    """A bare AMI client that records all messages in order."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.seen: list[Message] = []
        self.opened.append(self)

    @classmethod
    async def connect(cls, pbx: SimulatedPbx) -> Client:
        return cls(*await asyncio.open_connection(pbx.host, pbx.port))

    @classmethod
    async def logged_in(cls, pbx: SimulatedPbx, events: str = "on") -> Client:
        client = await cls.connect(pbx)
        await client.banner()
        client.send(Action="Login", Username="dialer", Secret="secret", Events=events)
        answer = await client.until(lambda m: "Response" in m)
        assert answer["Response"] == "Success"
        return client

    async def banner(self) -> str:
        line = await asyncio.wait_for(self.reader.readline(), PATIENCE_S)
        return line.decode().rstrip("\r\n")

    def send(self, **headers: str) -> None:
        text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"{text}\r\n".encode())

    async def next(self) -> Message:
        block = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        lines = block.decode().split("\r\n")
        message = dict(line.split(": ", 1) for line in lines if ": " in line)
        self.seen.append(message)
        return message

    async def until(self, wanted: Callable[[Message], bool]) -> Message:
        while True:
            message = await self.next()
            if wanted(message):
                return message

    async def event(self, name: str, **headers: str) -> Message:
        return await self.until(lambda m: m.get("Event") == name and headers.items() <= m.items())

    async def ended(self) -> dict[str, Message]:
        """Return the last event of each name, after Hangup and OriginateResponse arrived."""
        ends = {"Hangup", "OriginateResponse"}
        while not ends <= set(self.names()):
            await self.next()
        return {m["Event"]: m for m in self.seen if "Event" in m}

    async def ask(self, **headers: str) -> Message:
        action_id = f"a{len(self.seen)}-{time.monotonic_ns()}"
        self.send(**headers, ActionID=action_id)
        return await self.until(lambda m: "Response" in m and m.get("ActionID") == action_id)

    def originate(self, number: str, call_id: str, **more: str) -> None:
        headers = {
            "Action": "Originate",
            "Channel": f"PJSIP/{number}@tim",
            "Context": "dialer-enter",
            "Exten": "s",
            "Priority": "1",
            "Timeout": "30000",
            "CallerID": "Sales <1130000000>",
            "Async": "true",
            "ChannelId": call_id,
            "ActionID": f"act-{call_id}",
        }
        self.send(**(headers | more))

    async def is_cut(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(), PATIENCE_S)
        except ConnectionError:
            return True
        return self.reader.at_eof()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def names(self) -> list[str]:
        return [m["Event"] for m in self.seen if "Event" in m]


async def note(client: Client, call_id: str) -> str:
    await client.ask(Action="DBGet", Family="dialer", Key=call_id)
    value = (await client.event("DBGetResponse"))["Val"]
    await client.event("DBGetComplete")
    return value


class MakePbx(Protocol):
    """Start a simulated PBX with short calls."""

    async def __call__(self, **more: Any) -> SimulatedPbx: ...


@asynccontextmanager
async def quick_pbxs() -> AsyncIterator[MakePbx]:
    """Factory of PBXs; the PBXs and all clients are closed after the test."""
    running: list[SimulatedPbx] = []

    async def make(**more: Any) -> SimulatedPbx:
        pbx = SimulatedPbx(**(FAST | more))
        await pbx.start()
        running.append(pbx)
        return pbx

    yield make
    for pbx in running:
        await pbx.stop()
    while Client.opened:
        await Client.opened.pop().close()
