"""What every part of the bridge works with: one cell, its ledger, the registry, the PBXs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dialer.bridge.dispatch import Dispatcher
from dialer.domain.request import CallRequest
from dialer.settings import Cell, Pbx
from dialer.store.ledger import BridgeLedger
from dialer.store.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeCell:
    """One cell as one bridge serves it.

    `bridge` is this process's name in the ledger. `all_pbxs` names every PBX of the settings.
    """

    bridge: str
    cell: Cell
    pbxs: tuple[Pbx, ...]
    all_pbxs: tuple[str, ...]
    ledger: BridgeLedger
    registry: Registry
    dispatcher: Dispatcher

    def pbx(self, name: str) -> Pbx:
        """The PBX of that name."""
        return next(p for p in self.pbxs if p.name == name)

    def trunk(self, request: CallRequest) -> str | None:
        """The trunk that a PBX must have for this call, None for any."""
        return request.trunk or self.cell.trunk

    def is_paused_by_hours(self, at: datetime) -> bool:
        """True while the calling hours are over and requests wait for them."""
        limits = self.cell.limits
        return limits.outside_hours == "hold" and not limits.is_open(at)

    async def give_back(self, pbx: str, call_ids: Iterable[str]) -> int:
        """Gives slots of a PBX back, but for calls that are there after all.

        Another bridge may have leased, admitted or moved the same call meanwhile: the slot is
        the call's and not the bridge's. Returns how many calls were not there.
        """
        ids = list(call_ids)
        if not ids:
            return 0
        held = await self.ledger.slot_holders(ids)
        unused = [call_id for call_id in ids if held.get(call_id) != pbx]
        await self.registry.release(pbx, unused)
        return len(unused)
