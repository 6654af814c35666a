"""A bare AMI client: the most that this Asterisk gives to anybody.

It sends the Originates of our worker, with the same headers and to the same dialplan, and only
counts what becomes of them: no Redis, no ledger, no Multcall.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final, cast

#: How long to wait for the login, in seconds.
LOGIN_WITHIN_S: Final = 10.0

_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """Where an AMI listens, and its user."""

    host: str
    port: int
    username: str
    secret: str


@dataclass(slots=True, kw_only=True)
class BareCall:
    """Times of one call, by the monotonic clock; None: it did not come to that."""

    number: str
    sent_at: float
    accepted_at: float | None = None
    ended_at: float | None = None
    result: bytes = b""

    @property
    def is_good(self) -> bool:
        """True if it was answered and has ended."""
        return self.result == b"Success" and self.ended_at is not None


@dataclass(slots=True, kw_only=True)
class BareClient(asyncio.Protocol):
    """Dials calls at a rate, at most `at_once` at a time. `trunk` has {number}."""

    run: str
    trunk: str
    at_once: int
    ring_timeout_s: int = 30
    calls: dict[bytes, BareCall] = field(default_factory=dict)
    booted: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    _over: int = 0
    _buffer: bytes = b""
    _transport: asyncio.Transport | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def dial(
        self, manager: Manager, numbers: list[str], rate: float, within_s: float
    ) -> dict[bytes, BareCall]:
        """Dial all numbers; return the calls when all have ended, or `within_s` after the last.

        Raises:
            ConnectionError: Asterisk refused the login or closed the connection.
        """
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: self, manager.host, manager.port)
        login = f"Action: Login\r\nUsername: {manager.username}\r\nSecret: {manager.secret}\r\n\r\n"
        transport.write(login.encode())
        try:
            await asyncio.wait_for(self.booted.wait(), LOGIN_WITHIN_S)
            await self._send(numbers, rate)
            deadline = time.monotonic() + within_s
            while self._over < len(self.calls) and time.monotonic() < deadline:
                await self._wait(deadline - time.monotonic())
        except TimeoutError as error:
            raise ConnectionError(f"no FullyBooted within {LOGIN_WITHIN_S:g} s") from error
        finally:
            transport.close()
        return self.calls

    async def _send(self, numbers: list[str], rate: float) -> None:
        start = time.monotonic()
        for n, number in enumerate(numbers):
            while len(self.calls) - self._over >= self.at_once:
                await self._wait(1.0)
            if (early := start + n / rate - time.monotonic()) > 0:
                await asyncio.sleep(early)
            name = f"{self.run}-{n}"
            self.calls[name.encode()] = BareCall(number=number, sent_at=time.monotonic())
            assert self._transport is not None
            self._transport.write(self._originate(name, number))

    async def _wait(self, within_s: float) -> None:
        if self.lost:
            raise ConnectionError("Asterisk closed the AMI connection")
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), min(1.0, max(0.0, within_s)))
        except TimeoutError:
            return

    def _originate(self, name: str, number: str) -> bytes:
        lines = [
            "Action: Originate",
            f"ActionID: {name}",
            f"ChannelId: {name}",
            f"Channel: {self.trunk.replace('{number}', number)}",
            f"Account: {name}",
            "Context: dialer-enter",
            "Exten: s",
            "Priority: 1",
            f"Timeout: {self.ring_timeout_s * 1000}",
            "Async: true",
            "Variable: FORWARD_CONTEXT=dialer-nowhere",
            "Variable: TRANSFER_CONTEXT=dialer-nowhere",
            f"Variable: __DIALER_CALL_ID={name}",
            "Variable: DIALER_CONTEXT=dialer-ura",
            "Variable: DIALER_EXTEN=s",
            "Variable: DIALER_PRIORITY=1",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    # --- what Asterisk says ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no such class

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._news.set()

    def data_received(self, data: bytes) -> None:
        *messages, self._buffer = (self._buffer + data).split(_END)
        for message in messages:
            if message.startswith(b"Event: Hangup\r"):
                self._ended(_value(message, b"\nUniqueid: "))
            elif message.startswith(b"Response: Success\r"):
                if call := self.calls.get(_value(message, b"\nActionID: ")):
                    call.accepted_at = time.monotonic()
            elif message.startswith(b"Event: OriginateResponse\r"):
                self._originated(message)
            elif message.startswith(b"Event: FullyBooted\r"):
                self.booted.set()
        self._news.set()

    def _ended(self, name: bytes) -> None:
        if (call := self.calls.get(name)) and call.ended_at is None:
            call.ended_at = time.monotonic()
            self._over += bool(call.result)

    def _originated(self, message: bytes) -> None:
        if (call := self.calls.get(_value(message, b"\nActionID: "))) and not call.result:
            call.result = _value(message, b"\nResponse: ")
            if call.result != b"Success" and call.ended_at is None:
                call.ended_at = time.monotonic()  # it may have had no channel
            self._over += call.ended_at is not None


def _value(message: bytes, header: bytes) -> bytes:
    """Return a header's value; `header` begins with a line feed and ends with a blank."""
    _, _, rest = message.partition(header)
    return rest.partition(b"\r")[0]
