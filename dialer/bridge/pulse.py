"""The pulse of a bridge: one heartbeat for all its cells on one Redis server.

It also finds out which cells have anything to do, so that the parts of the others sleep: an idle
cell costs a few commands a second, not one round of each part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from dialer import watchdog
from dialer.bridge.life import Life
from dialer.bridge.recovery import Recovery
from dialer.store.clock import RedisClock
from dialer.store.ledger import Pulsed, pulse
from dialer.store.steps import Steps

logger = logging.getLogger(__name__)

#: Pause between two pulses, in seconds. A quiet cell is left out of every second pulse.
EVERY_S: Final = 0.5

#: Every so many pulses, the lifetime of the heartbeats in Redis is renewed.
RENEW_EVERY: Final = 1_000

#: Pause before a cell whose pulse Redis refused is logged again, in seconds.
REFUSED_PAUSE_S: Final = 5.0


@dataclass(slots=True)
class Beating:
    """A cell that has a pulse while `is_served`. `_refused_at` is when a refusal was logged."""

    life: Life
    recovery: Recovery
    is_served: Callable[[], bool] = lambda: True
    _refused_at: float = -REFUSED_PAUSE_S

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.recovery.cell.name

    def refuse(self, error: RedisError) -> None:
        """Log that Redis refuses the pulse of this cell; its parts ask by themselves."""
        self.life.forget()
        now = asyncio.get_running_loop().time()
        if now - self._refused_at >= REFUSED_PAUSE_S:
            self._refused_at = now
            logger.error(
                "Redis refused a command; trying again",
                extra={"cell": self.name, "part": "heartbeat", "error": str(error)},
            )


@dataclass(slots=True)
class Pulse:
    """The pulse of the bridge named `bridge` on one server, for cells that share its `clock`."""

    bridge: str
    steps: Steps
    clock: RedisClock
    cells: list[Beating] = field(default_factory=list)
    _n: int = 0

    async def run(self) -> None:
        """Send the heartbeat until cancelled.

        A task of its own, because the other tasks wait while the broker or a Redis is down.
        """
        await watchdog.process.keep_beating(
            f"heartbeat {self.steps.where}",
            self.beat,
            every_s=EVERY_S,
            is_down=lambda: self.steps.is_down,
        )

    async def beat(self) -> None:
        """Send one heartbeat, and take over from dead bridges."""
        is_for_all, is_renewal = self._n % 2 == 0, self._n % RENEW_EVERY == 0
        self._n += 1
        beating = [c for c in self.cells if c.is_served() and (is_for_all or not c.life.is_quiet)]
        try:
            await self.clock.measure(self.steps)
        except RedisError as error:  # it refuses everything; the cells of other servers go on
            for cell in beating:
                cell.refuse(error)
            return
        for cell, reply in zip(beating, await self._ask(beating, is_renewal), strict=True):
            await self._take(cell, reply)

    async def _ask(self, cells: Sequence[Beating], is_renewal: bool) -> list[Pulsed | RedisError]:
        """Ask for all cells at once; if Redis refuses, for each alone, so that the others go on."""
        keys = [c.recovery.cell.ledger.keys for c in cells]
        try:
            return await pulse(self.steps, self.bridge, keys, is_renewal=is_renewal)
        except RedisError as error:
            if len(cells) == 1:
                return [error]
        return [reply for cell in cells for reply in await self._ask([cell], is_renewal)]

    async def _take(self, cell: Beating, reply: Pulsed | RedisError) -> None:
        if isinstance(reply, RedisError):
            cell.refuse(reply)
            return
        cell.life.see(reply)
        if reply.can_take_over and cell.is_served():
            try:
                await cell.recovery.take_over()
            except RedisError as error:
                cell.refuse(error)
