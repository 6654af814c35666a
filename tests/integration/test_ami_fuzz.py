"""Hostile AMI frames between a PBX and the worker process of its calls.

DIALER_AMI_FRAMES=10000 pytest tests/integration/test_ami_fuzz.py      # the long form
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.ami.hostile_frames import hostile_frames
from tests.integration.forwarder import Forwarder
from tests.integration.stack import Stack

FRAMES: Final = int(os.environ.get("DIALER_AMI_FRAMES", "1000"))
SEED: Final = int(os.environ.get("DIALER_AMI_SEED", "22"))

#: Last two digits of a number, and how its call ends.
ENDS: Final = {10: "ANSWERED", 70: "BUSY", 75: "REJECTED", 77: "INVALID_NUMBER", 79: "CONGESTION"}


@dataclass
class Injector(Forwarder):
    """Forwards AMI, and says more to the worker between two messages."""

    target: int = 0
    pbx: SimulatedPbx | None = None
    connections: int = 0
    _to_worker: asyncio.StreamWriter | None = None

    async def inject(self, frame: bytes) -> None:
        """Say it to the worker."""
        assert self._to_worker is not None, "the worker is not connected"
        self._to_worker.write(frame)
        await self._to_worker.drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.pbx is not None
        self.target = self.pbx.port  # known only when it runs
        await super()._serve(reader, writer)

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._to_worker = sink
        self.connections += 1
        rest = b""
        while data := await source.read(65_536):
            whole, end, rest = (rest + data).rpartition(b"\r\n\r\n")
            sink.write(whole + end)
        sink.close()


async def test_hostile_frames_leave_link_and_calls_alone(tmp_path: Path) -> None:
    expected: dict[str, str] = {}
    async with Injector() as injector, Stack(tmp_path) as stack:
        slow: dict[str, Any] = {"ring_time": (0.2, 1.0), "talk_time": (2.0, 3.0)}
        pbx = stack.add_pbx("pbx01", table={"port": injector.port}, **slow)
        injector.pbx = pbx
        await stack.start()

        def up() -> list[str]:
            return [call.uniqueid for call in pbx.exchange.floor.live.values()]

        for part in range(0, FRAMES, 100):
            for last_two, result in ENDS.items():
                (request,) = await stack.push(1, last_two=last_two)
                expected[request["IdRequisicao"]] = result
            await stack.until_live(1)
            for frame in hostile_frames(SEED + part, 100, up):
                await injector.inject(frame)
        responses = await stack.responses(len(expected), within_s=60)
        await stack.at_rest()
        link, _ = await stack.heartbeat("pbx01")
        assert {r["IdRequisicao"]: r["Resultado"] for r in responses} == expected
        assert {(r["Amd"], r["Operador"], r["Erro"]) for r in responses} == {(None, None, None)}
        assert max(stack.rings.values()) == 1
        assert (injector.connections, link) == (1, b"up")
        assert "Traceback" not in stack.workers["pbx01"].log
