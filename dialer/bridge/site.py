"""What every part of the bridge works with: one cell, its ledger, the registry, the PBXs."""

from __future__ import annotations

from dataclasses import dataclass

from dialer.bridge.dispatch import Dispatcher
from dialer.settings import Cell, Pbx
from dialer.store.ledger import Ledger
from dialer.store.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSite:
    """One cell as one bridge serves it. `bridge` is this process's name in the ledger."""

    bridge: str
    cell: Cell
    pbxs: tuple[Pbx, ...]
    ledger: Ledger
    registry: Registry
    dispatcher: Dispatcher

    def pbx(self, name: str) -> Pbx:
        """The PBX of that name."""
        return next(p for p in self.pbxs if p.name == name)
