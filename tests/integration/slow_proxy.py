"""Stands between a program and a Redis and makes every reply late, as a far or busy server does."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self


@dataclass(slots=True)
class SlowProxy:
    """Forwards TCP from a port of its own to `target`; replies arrive `delay_s` seconds late."""

    target: int
    delay_s: float
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, thence = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, thence]
        with contextlib.suppress(OSError):
            await asyncio.gather(
                self._pump(reader, thence, 0.0), self._pump(there, writer, self.delay_s)
            )

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(65536):
            loop.call_later(delay_s, sink.write, data)
        loop.call_later(delay_s, sink.close)
