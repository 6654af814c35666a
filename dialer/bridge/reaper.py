"""Repair of slots: compare the slots of the PBXs with the calls of one cell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dialer.bridge.cell import BridgeCell
from dialer.bridge.life import Life
from dialer.bridge.recovery import Recovery

logger = logging.getLogger(__name__)

#: Pause between two comparisons, and minimum age of a slot to be compared, in seconds.
REAP_EVERY_S: Final = 10.0


@dataclass(slots=True)
class Reaper:
    """The reaper of one cell.

    `is_alone` returns false if a cell of the same name is also served on another Redis.
    """

    cell: BridgeCell
    recovery: Recovery
    is_alone: Callable[[], bool] = lambda: True
    life: Life = field(default_factory=Life)
    #: Calls whose entry was found destroyed in the last round.
    _destroyed: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Repair slots until cancelled."""
        while True:
            if not self.life.is_quiet or await self._has_slots():
                await self.reap()
            await asyncio.sleep(REAP_EVERY_S)

    async def _has_slots(self) -> bool:
        """True if the cell had slots of a PBX a short time ago."""
        cell = self.cell
        with_slots = await cell.registry.cells_with_slots(cell.all_pbxs, max_age_s=REAP_EVERY_S / 2)
        return cell.name in with_slots

    async def reap(self) -> None:
        """Repair the slots of all PBXs, and the calls on PBXs that the cell no longer lists.

        Also end calls whose entry was destroyed; they would never give their slots back.
        """
        ledger = self.cell.ledger
        live = await ledger.live()
        await self._end_destroyed(live)
        holders = await ledger.slot_holders(live)
        await self.release_leaked(older_than_s=REAP_EVERY_S)
        await self._restore_lost(holders)
        for name in set(holders.values()) - {pbx.name for pbx in self.cell.pbxs}:
            await self._move_from_former_pbx(name)
            await self.recovery.end_claimed(name)

    async def _end_destroyed(self, live: Iterable[str]) -> None:
        """End calls whose entry was destroyed in two rounds: a replay may bring an entry back."""
        before, self._destroyed = self._destroyed, await self.cell.ledger.destroyed(live)
        await self.recovery.end_destroyed(before & self._destroyed)

    async def release_leaked(self, *, older_than_s: float) -> None:
        """Release slots older than that whose call is not on their PBX.

        Checks all PBXs of the settings, because the cell may have used any of them before. Does
        nothing if the cell is also served on another Redis: the call may be in that ledger.
        """
        if not self.is_alone():
            return
        cell = self.cell
        old = await cell.registry.slots(cell.all_pbxs, cell.name, older_than_s=older_than_s)
        for pbx, ids in old.items():
            leaked = await cell.release_unused(pbx, ids)
            if leaked:
                logger.warning(
                    "Released slots that no call used any longer",
                    extra={"cell": cell.name, "pbx": pbx, "slots": leaked},
                )

    async def _restore_lost(self, holders: dict[str, str]) -> None:
        """Restore the slots of calls if the registry lost them."""
        cell = self.cell
        leased = await cell.registry.slots(cell.all_pbxs, cell.name, older_than_s=0)
        for pbx, ids in leased.items():
            missing = {i for i, name in holders.items() if name == pbx} - set(ids)
            restored = await cell.registry.restore_slots(pbx, await self._still_on(pbx, missing))
            if restored:
                logger.warning(
                    "Restored the lost slots of calls",
                    extra={"cell": cell.name, "pbx": pbx, "slots": restored},
                )

    async def _still_on(self, pbx: str, ids: Iterable[str]) -> list[str]:
        """Return the calls among these that have not ended in the meantime."""
        still = await self.cell.ledger.slot_holders(ids)
        return [i for i, name in still.items() if name == pbx]

    async def _move_from_former_pbx(self, pbx: str) -> None:
        """Move unclaimed calls from a PBX that the cell no longer lists."""
        states = await self.cell.registry.pbxs(self.cell.pbxs, self.cell.name)
        room = sum(state.load.room for state in states.values())
        if room:
            async with self.recovery.moving:
                await self.recovery.move_from(pbx, states, at_most=room)
