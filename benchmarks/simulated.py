"""A simulated PBX as a process of its own, so that its CPU time is not the measured client's.

python -m benchmarks.simulated        prints its port; ends when its standard input does
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Any, Final, Self

from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.stack import ROOT, SECRET

#: Calls ring and talk that long, in seconds.
RING_S: Final = 0.1
TALK_S: Final = 0.2

#: Last two digits of numbers that it answers and clears itself after `TALK_S`.
LAST_TWO: Final = 60


class PbxProcess:
    """The process, as a Stack wants its PBXs: `add` puts it in the place of one."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.simulated"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.communicate()

    async def start(self) -> None:
        """It runs already."""

    async def stop(self) -> None:
        """It ends with the `with` block."""

    def add_to(self, stack: Any, name: str = "pbx01") -> None:
        """Make it a PBX of a Stack, with room for everything."""
        stack.add_pbx(name, table={"max_calls": 10_000, "cps": 1000})
        stack.pbxs[name] = self


async def _serve() -> None:
    habits: dict[str, Any] = {"ring_time": (RING_S, RING_S), "talk_time": (TALK_S, TALK_S)}
    async with SimulatedPbx(secret=SECRET, read="system,call,user,agent", **habits) as pbx:
        print(pbx.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
