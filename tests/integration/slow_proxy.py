"""Stands between a program and a Redis and makes every reply late, as a far or busy server does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.integration.forwarder import Forwarder


@dataclass(slots=True)
class SlowProxy(Forwarder):
    """Forwards TCP from a port of its own to `target`; replies arrive `delay_s` seconds late."""

    delay_s: float

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(65536):
            loop.call_later(self.delay_s, sink.write, data)
        loop.call_later(self.delay_s, sink.close)
