"""State of the whole system: every PBX and every cell, read from Redis. Read-only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dialer.settings.tables import Pbx
from dialer.store.ledger import CellCounts, LedgerReads
from dialer.store.registry import PbxState, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State at one moment. `pbxs_of_cells` has the PBXs that each cell may use."""

    pbxs: Mapping[str, PbxState]
    cells: Mapping[str, CellCounts]
    pbxs_of_cells: Mapping[str, Collection[str]]

    def troubles(self) -> list[str]:
        """Return what prevents calls from being dialed or answered, one sentence each."""
        return [
            *(sentence for name, pbx in self.pbxs.items() if (sentence := _pbx_trouble(name, pbx))),
            *(
                f"{name} takes no calls of {cell}: {reason}"
                for name, pbx in self.pbxs.items()
                if pbx.load.ready
                for cell, reason in pbx.lacking.items()
                if name in self.pbxs_of_cells.get(cell, ())
            ),
            *(
                f"{name}: {counts.waiting} requests wait, and no PBX takes calls"
                for name, counts in self.cells.items()
                if counts.waiting and not any(p.load.ready for p in self.pbxs.values())
            ),
            *(
                f"{name}: {parked} requests wait for trunk {trunk}, and no PBX with it takes calls"
                for name, counts in self.cells.items()
                for trunk, parked in counts.parked.items()
                if parked and not self._is_ready(name, trunk)
            ),
            *(
                f"{name}: {counts.dead} elements on the dead list; read dialer:dead:{name}"
                + (f"; {counts.dropped} older ones were dropped" if counts.dropped else "")
                for name, counts in self.cells.items()
                if counts.dead
            ),
        ]

    def _is_ready(self, cell: str, trunk: str) -> bool:
        """True if any PBX of the cell that has this trunk is ready."""
        pbxs = [self.pbxs[name] for name in self.pbxs_of_cells.get(cell, ()) if name in self.pbxs]
        return any(pbx.load.ready and pbx.load.has_trunk(trunk) for pbx in pbxs)


async def take_snapshot(
    registry: Registry,
    pbxs: Sequence[Pbx],
    ledgers: Sequence[LedgerReads],
    pbxs_of_cells: Mapping[str, Collection[str]],
) -> Snapshot:
    """Read the state of all PBXs and cells once."""
    return Snapshot(
        pbxs_of_cells=pbxs_of_cells,
        pbxs=await registry.pbxs([pbx.limits for pbx in pbxs]),
        cells={ledger.cell: await ledger.counts() for ledger in ledgers},
    )


def _pbx_trouble(name: str, pbx: PbxState) -> str | None:
    if pbx.load.ready:
        return None
    if not pbx.instance:
        return f"{name}: no worker yet; start 'celery -A dialer worker -Q {name}' on its host"
    if pbx.link == "stopping":
        return f"{name}: its worker was stopped"
    if not pbx.is_alive:
        return f"{name}: no heartbeat of its worker for {pbx.silent_s:.0f} s; see its log"
    return f"{name}: no AMI link for {pbx.unready_s:.0f} s; is its Asterisk up?"
