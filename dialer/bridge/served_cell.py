"""One served cell: start, supervise and stop its parts, each a background task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.bridge.cell import BridgeCell
from dialer.bridge.codes import Codes
from dialer.bridge.intake import Intake
from dialer.bridge.life import Life
from dialer.bridge.parked import ParkedSweep
from dialer.bridge.plans import CellPlan
from dialer.bridge.reaper import Reaper
from dialer.bridge.recovery import Recovery
from dialer.errors import StepsStopped
from dialer.settings.kept import text_of
from dialer.store.cells import CellBook
from dialer.store.client import cancel

logger = logging.getLogger(__name__)

#: Longest wait at a stop for the round that admits or moves calls, in seconds.
ROUND_WITHIN_S: Final = 1.0

#: Longest wait at a stop for returning the hand, in seconds.
RETURN_HAND_WITHIN_S: Final = 3.5

#: Pause before a part runs again after Redis refused a command, in seconds.
REFUSED_PAUSE_S: Final = 5.0

#: How often the calls of a draining cell are counted, in seconds.
DRAIN_EVERY_S: Final = 0.5

#: Longest time between the lease of a slot and the admission of its call, in seconds.
LEASED_WITHIN_S: Final = 1.0

#: How often the settings of a served cell are stored in its Redis, in seconds.
STORE_EVERY_S: Final = 60.0


@dataclass(slots=True)
class ServedCell:
    """One cell and the parts of the bridge that serve it. `is_alone`: see `Reaper`.

    `is_ending` is set before this object cancels its own tasks; `is_over` is set when a drained
    cell is no longer served.
    """

    plan: CellPlan
    cell: BridgeCell
    clients: tuple[Redis, Redis]
    is_alone: Callable[[], bool]
    life: Life = field(default_factory=Life)
    intake: Intake = field(init=False)
    codes: Codes = field(init=False)
    recovery: Recovery = field(init=False)
    reaper: Reaper = field(init=False)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_ending: bool = False
    is_over: bool = False

    def __post_init__(self) -> None:
        life = self.life
        self.intake = Intake(self.cell, self.clients[0], life)
        self.codes = Codes(self.cell, self.clients[1], life)
        self.recovery = Recovery(self.cell, self.plan.pbx_lost_after_s, life)
        self.reaper = Reaper(self.cell, self.recovery, self.is_alone, life)

    def apply(self, plan: CellPlan) -> None:
        """Serve the cell by other live parameters from now on; calls are not touched."""
        self.plan, cell = plan, self.cell
        cell.settings, cell.pbxs, cell.paused = plan.cell, plan.limits, plan.paused

    async def start(self) -> None:
        """Take over the hands of dead bridges, then start every part.

        Raises:
            Exception: an error of the takeover other than a refusal by Redis.
        """
        await self._take_over()
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "codes": self.codes.run,
            "late codes": self.codes.run_late,
            "recovery": self.recovery.run,
            "reaper": self.reaper.run,
            "kept settings": self._store_settings,
        }
        if not self.plan.draining:
            parts["intake"] = self.intake.run
            parts["parked requests"] = ParkedSweep(self.cell, self.intake).run
        self.tasks = [
            asyncio.create_task(self._repeat_if_refused(part, name), name=name)
            for name, part in parts.items()
        ]
        if self.plan.draining:
            drain = self._repeat_if_refused(partial(self._drain, tuple(self.tasks)), "last calls")
            self.tasks.append(asyncio.create_task(drain, name="last calls"))

    async def _take_over(self) -> None:
        """Take over before the first fetch. If Redis is down, the first heartbeat does it."""
        taking_over = asyncio.create_task(self.recovery.take_over())
        is_done = await self.cell.ledger.steps.wait_done_or_down(taking_over)
        await cancel([taking_over] if not is_done else [])
        try:
            if is_done:
                taking_over.result()
        except RedisError as error:
            self._log_refused("takeover", error)  # the heartbeat tries it again

    async def _repeat_if_refused(self, part: Callable[[], Awaitable[None]], name: str) -> None:
        """Run a part again if Redis refused a command, so that the other cells continue."""
        while True:
            try:
                await part()
                return
            except RedisError as error:
                self._log_refused(name, error)
                await asyncio.sleep(REFUSED_PAUSE_S)

    def _log_refused(self, part: str, error: RedisError) -> None:
        logger.error(
            "Redis refused a command; trying again",
            extra={"cell": self.plan.cell.name, "part": part, "error": str(error)},
            exc_info=error,
        )

    async def _store_settings(self) -> None:
        """Store the cell's settings in its Redis; a restarted process can then finish its calls."""
        book = CellBook(self.cell.ledger.steps)
        while True:
            await book.write(self.plan.cell.name, text_of(self.plan.cell))
            await asyncio.sleep(STORE_EVERY_S)

    async def _drain(self, parts: Sequence[asyncio.Task[None]]) -> None:
        """Wait until a removed cell has no calls left, then stop serving it."""
        ledger, bridge = self.cell.ledger, self.cell.bridge
        while True:
            if await ledger.has_requests(bridge):  # of a dead bridge
                await ledger.return_hand(bridge)
                while await ledger.return_parked(bridge):
                    pass  # in slices: one long step would make every client of Redis wait
            elif not await ledger.calls():
                break
            await asyncio.sleep(DRAIN_EVERY_S)
        self.is_ending = True
        await cancel(parts)
        await self._return_hand()
        # No bridge checks its slots from now on; one that still has the cell may be leasing.
        await asyncio.sleep(LEASED_WITHIN_S)
        await self.reaper.release_leaked(older_than_s=LEASED_WITHIN_S)
        self.is_over = True
        logger.info("Removed cell has no calls left", extra={"cell": self.plan.cell.name})

    async def stop(self) -> None:
        """Stop every part and return the hand, if Redis answers in time."""
        self.is_ending = True
        # Wait for the end of a round if it ends soon. Otherwise a leased slot may stay unused, or
        # an admitted call unpublished, until recovery repairs it.
        try:
            async with asyncio.timeout(ROUND_WITHIN_S):
                await self.intake.admitting.acquire()
                await self.recovery.moving.acquire()
        except TimeoutError:
            pass  # a Redis or the broker is down
        await cancel(self.tasks)
        if not self.is_over:
            await self._return_hand()

    async def _return_hand(self) -> None:
        try:
            async with asyncio.timeout(RETURN_HAND_WITHIN_S):
                await self.cell.ledger.return_hand(self.cell.bridge)
        except (TimeoutError, RedisError, StepsStopped) as error:
            logger.warning(
                "Requests in hand could not be put back; another bridge will take them over",
                extra={
                    "cell": self.plan.cell.name,
                    "error": str(error) or "Redis does not answer",
                },
            )
