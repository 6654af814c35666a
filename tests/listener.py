"""A TCP server of a test that leaves no connection behind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: Turns of the event loop until an accepted connection has reached its `serve`.
TURNS = 10


@dataclass(slots=True)
class Listener:
    """Listens on 127.0.0.1 while it is entered; `serve` gets each connection.

    Leaving it aborts every connection, and those that `serve` added with `also`: `writers`.
    """

    serve: Serve
    port: int = 0
    context: ssl.SSLContext | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, ssl=self.context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None, "not started"
        self._server.close()
        # A connection that was just accepted is nobody's yet: it would be left open.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()

    def also(self, writer: asyncio.StreamWriter) -> None:
        """Abort this connection too, when the server stops."""
        self.writers.append(writer)

    def cut(self) -> None:
        """Abort every connection."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio makes one for each connection"
        self._tasks.add(task)
        self.writers.append(writer)
        try:
            await self.serve(reader, writer)
        finally:
            self._tasks.discard(task)
