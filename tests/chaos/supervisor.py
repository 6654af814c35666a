"""Plays the supervisor (systemd, Docker) of one program, and arms its failure points."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dialer.failpoints import FIRED
from tests.chaos.faults import BRIDGES, Points
from tests.processes import Program

if TYPE_CHECKING:
    from tests.chaos.chaos import Chaos

#: What a supervisor takes to start a program again, in seconds.
RESTART_AFTER_S = 0.2

#: Exit code of a program that finds no Redis at its start; its supervisor starts it again.
EXIT_REFUSED = 2

#: Share of the starts at which no failure point is armed.
UNARMED = 0.1

#: Nobody is left standing still at a failure point for longer, in seconds.
STOPPED_AT_MOST_S = 3.0


@dataclass(slots=True)
class Supervisor:
    """Keeps the program of that name running until the run closes."""

    chaos: Chaos
    name: str
    rng: random.Random
    _armed: list[str] = field(default_factory=list)
    _stopped_at: float | None = None

    @property
    def _who(self) -> str:
        return "bridge" if self.name in BRIDGES else "worker"

    @property
    def _points(self) -> Points:
        return self.chaos.points[self._who]

    async def keep(self) -> None:
        """Start it again whenever it has ended; a standing one goes on after a while."""
        while not self.chaos.closing.is_set():
            program = self.chaos.site.programs[self.name]
            if not program.is_running:
                await self._start_again(program)
            elif program.is_stopped and program.pid not in self.chaos.stopped:
                await self._go_on(program)
            await asyncio.sleep(0.05)

    async def _start_again(self, program: Program) -> None:
        await self._died(program)
        await asyncio.sleep(RESTART_AFTER_S)
        is_unarmed = self.chaos.enough or self.rng.random() < UNARMED
        self._armed = [] if is_unarmed else self._points.arm()
        program.start(DIALER_FAILPOINTS=",".join(self._armed))

    async def _go_on(self, program: Program) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            point = _fired(program)
            self._points.fired[point] += 1
            await self.chaos.note(f"{self._who} stands still at {point}", self.name)
        elif time.monotonic() - self._stopped_at > self.rng.uniform(0.2, STOPPED_AT_MOST_S):
            program.send(signal.SIGCONT)
            self._stopped_at = None

    async def _died(self, program: Program) -> None:
        """A program is gone: by our hand, at a failure point, refused a start, or it crashed."""
        code = program.process.returncode if program.process else 0
        is_ours = program.pid in self.chaos.killed
        at_point = not is_ours and code == -signal.SIGKILL
        point = _fired(program) if at_point else ""
        self._points.result(self._armed, point)
        if at_point:
            await self.chaos.note(f"{self._who} dies at {point}", self.name)
        elif not is_ours and code != EXIT_REFUSED:
            self.chaos.crashes.append(f"{self.name} ended by itself with exit code {code}")


def _fired(program: Program) -> str:
    """The failure point at which it fired last, by its own word."""
    lines = [line for line in program.said().splitlines() if line.startswith(FIRED)]
    return lines[-1].removeprefix(FIRED) if lines else "an unknown point"
