"""One AMI connection to the simulated PBX.

Owns the socket, the session's permissions and its output buffer, which is written once per
iteration of the event loop. `actions` handles the actions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from dialer.simulation.pbx.actions import Exchange, answer
from dialer.simulation.pbx.events import Event
from dialer.simulation.pbx.filters import EventFilter, passes
from dialer.simulation.pbx.outcomes import VERSIONS
from dialer.simulation.pbx.wire import AmiReader


class Switchboard(Protocol):
    """The part of the simulated PBX that a session uses."""

    exchange: Exchange
    is_hung: bool

    def opened(self, session: AmiSession) -> None:
        """Register a new connection."""

    def closed(self, session: AmiSession) -> None:
        """Forget a closed connection."""


class AmiSession(asyncio.Protocol):
    """The server side of one AMI connection."""

    def __init__(self, pbx: Switchboard) -> None:
        self.is_authenticated = False
        self.mask = 0
        self.write_permissions = 0
        self.filters: list[EventFilter] = []
        self._pbx = pbx
        self._reader = AmiReader()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_flush_due = False
        self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send Asterisk's banner."""
        transport = cast(asyncio.Transport, transport)  # uvloop's is no such class
        self._transport = transport
        self._pbx.opened(self)
        if self._pbx.is_hung:
            transport.pause_reading()
        version = self._pbx.exchange.floor.habits.version
        self.send(f"{VERSIONS[version].banner}\r\n")

    def data_received(self, data: bytes) -> None:
        """Execute the actions that these bytes complete."""
        for request in self._reader.feed(data):
            if self._is_closing:
                return
            answer(self._pbx.exchange, self, request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; the calls continue."""
        self._transport = None
        self._pbx.closed(self)

    def send(self, text: str) -> None:
        """Queue text for the client."""
        if text:
            self._queue(text.encode())

    def publish(self, event: Event, encode: Callable[[], bytes]) -> None:
        """Queue an event if this session subscribed to it; `encode` returns its bytes."""
        if event.category & ~self.mask or not self.is_authenticated:
            return
        if self.filters and not passes(self.filters, event):
            return
        self._queue(encode())

    def close_gently(self) -> None:
        """Close after everything queued was written."""
        self._is_closing = True

    def drop(self) -> None:
        """Abort the connection; queued text is lost."""
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()

    def hang(self) -> None:
        """Stop reading and writing; output stays queued."""
        if self._transport is not None:
            self._transport.pause_reading()

    def unhang(self) -> None:
        """Resume after `hang`."""
        if self._transport is not None:
            self._transport.resume_reading()
            self._flush()

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._transport is None or self._pbx.is_hung:
            return
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._is_closing:
            self._transport.close()
