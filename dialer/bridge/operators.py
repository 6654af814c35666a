"""Operators that Multcall tells: how many calls they allow the cells of one Redis server.

Operators of Asterisk's queues are the business of the workers, which know what each call waits for.
Of these here only Multcall knows: a cell gets as many calls as it has operators who are free or
busy with one, so that each live call has its operator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from dialer.bridge.cell import BridgeCell
from dialer.multcall.agents import operators_in
from dialer.multcall.keys import CellKeys
from dialer.store.steps import Steps

logger = logging.getLogger(__name__)

#: Pause between two looks, in seconds.
EVERY_S: Final = 0.5


@dataclass(slots=True)
class Watched:
    """A cell while `is_served`. `problem` was logged last."""

    cell: BridgeCell
    is_served: Callable[[], bool] = lambda: True
    problem: str = ""


@dataclass(slots=True)
class Operators:
    """Reads what Multcall tells of the operators of cells on one server."""

    steps: Steps
    cells: list[Watched] = field(default_factory=list)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self.steps.or_none_if_down(self.look())
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Read the operators of the cells that need them, and note how many calls they allow."""
        asked = [one for one in self.cells if one.is_served() and one.cell.settings.asks_multcall]
        if not asked:
            return
        await asyncio.gather(*map(self._look_at, asked))

    async def _look_at(self, one: Watched) -> None:
        cell = one.cell
        try:
            row = await self.steps.read("HGETALL", CellKeys(cell.name).agents)
            found = operators_in(row, cell.clock.now().timestamp())
        except RedisError as error:
            problem = str(error)  # and the last news get old
        else:
            cell.operators = found.team, asyncio.get_running_loop().time()
            problem = found.problems[0] if found.problems else ""
        if problem and problem != one.problem:
            logger.error(
                "Multcall's operators of a cell cannot be read",
                extra={"cell": cell.name, "reason": problem},
            )
        one.problem = problem
