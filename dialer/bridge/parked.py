"""Refusal of parked requests that must not be dialed any longer: expired or forbidden."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from dialer.bridge.cell import BridgeCell
from dialer.bridge.intake import Intake
from dialer.bridge.refusals import Element

#: Requests per slice, and the pause in seconds after each: 1,000 requests take 2 s.
SLICE: Final = 50
PAUSE_S: Final = 0.1

#: Pause while nothing is parked, in seconds.
IDLE_PAUSE_S: Final = 1.0


@dataclass(slots=True)
class ParkedSweep:
    """Sweep over the parked requests of one cell."""

    cell: BridgeCell
    intake: Intake

    async def run(self) -> None:
        """Check the parked requests in turn until cancelled."""
        while True:
            for trunk in tuple(self.intake.parked):
                await self._sweep(trunk)
            if not self.intake.parked:
                await asyncio.sleep(IDLE_PAUSE_S)

    async def _sweep(self, trunk: str) -> None:
        ledger, refusals = self.cell.ledger, self.intake.refusals
        start = 0
        while rows := await ledger.parked_slice(trunk, start, SLICE):
            elements = [Element(raw, ledger.keys.parked(trunk)) for raw in rows]
            candidates = await refusals.read(elements)
            _, answered = await refusals.allowed(candidates, before_lease=False)
            start += len(candidates) - answered
            await asyncio.sleep(PAUSE_S)
        await asyncio.sleep(PAUSE_S)
