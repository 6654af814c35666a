"""Stands in one TCP link: cuts it, shuts it, leaves it half open, or rewrites what it brings.

Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

Rewrite = Callable[[bytes], bytes]


def _as_it_is(data: bytes) -> bytes:
    return data


@dataclass(slots=True)
class Proxy:
    """Forwards TCP from a port of its own to `target`, a port on 127.0.0.1.

    `rewriter` makes, for each connection, the function through which the target's bytes pass.
    `made` counts the connections so far.
    """

    target: int
    port: int = 0
    rewriter: Callable[[], Rewrite] = lambda: _as_it_is
    made: int = 0
    is_shut: bool = False
    _server: asyncio.Server | None = None
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End every connection at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def shut(self) -> None:
        """End every connection, and every new one at once, until `reopen`."""
        self.is_shut = True
        self.cut()

    def reopen(self) -> None:
        """Connections are made again."""
        self.is_shut = False

    def hold(self) -> None:
        """From now on nothing passes, and nothing says so: the link is half open."""
        self._flows.clear()

    def let_go(self) -> None:
        """What was held passes."""
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.is_shut:
                raise ConnectionRefusedError
            there, thence = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self.made += 1
        self._writers |= {writer, thence}
        try:
            await asyncio.gather(
                self._pump(reader, thence, _as_it_is), self._pump(there, writer, self.rewriter())
            )
        finally:
            for end in (writer, thence):
                end.transport.abort()
                self._writers.discard(end)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, rewrite: Rewrite
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(rewrite(data))
                await sink.drain()
        sink.transport.abort()
