"""Stands in a TCP link on this machine; a subclass changes what passes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self

from tests.listener import Listener


@dataclass(slots=True)
class Forwarder:
    """Takes connections on a port of its own and opens one to `target` for each.

    A context manager; leaving it aborts every connection.
    """

    target: int
    port: int = field(default=0, kw_only=True)
    _listener: Listener = field(init=False)

    async def __aenter__(self) -> Self:
        self._listener = Listener(self._serve)
        await self._listener.start()
        self.port = self._listener.port
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.stop()

    @property
    def writers(self) -> list[asyncio.StreamWriter]:
        """Of each connection that of the program, then that of `target`."""
        return self._listener.writers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, thence = await asyncio.open_connection("127.0.0.1", self.target)
        self._listener.also(thence)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._up(reader, thence), self._down(there, writer))

    async def _up(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass on what the program says to `target`."""
        await _pass_on(source, sink)

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass on what `target` says to the program."""
        await _pass_on(source, sink)


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
    sink.close()
