"""One look at the whole system: every PBX and every cell, read from Redis. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dialer.settings_tables import Pbx
from dialer.store.ledger import CellCounts, Ledger
from dialer.store.registry import PbxState, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How everything stands at one moment."""

    pbxs: Mapping[str, PbxState]
    cells: Mapping[str, CellCounts]

    def troubles(self) -> list[str]:
        """What keeps calls from being dialed or answered, one sentence each."""
        return [
            *(sentence for name, pbx in self.pbxs.items() if (sentence := _pbx_trouble(name, pbx))),
            *(
                f"{name}: {counts.waiting} requests wait, and no PBX takes calls"
                for name, counts in self.cells.items()
                if counts.waiting and not any(p.load.ready for p in self.pbxs.values())
            ),
            *(
                f"{name}: {counts.dead} elements on the dead list; read dialer:dead:{name}"
                for name, counts in self.cells.items()
                if counts.dead
            ),
        ]


async def look(registry: Registry, pbxs: Sequence[Pbx], ledgers: Sequence[Ledger]) -> Snapshot:
    """Reads everything once."""
    return Snapshot(
        pbxs=await registry.pbxs(pbxs),
        cells={ledger.cell: await ledger.counts() for ledger in ledgers},
    )


def _pbx_trouble(name: str, pbx: PbxState) -> str | None:
    if pbx.load.ready:
        return None
    if not pbx.instance:
        return f"{name}: no worker ever came; start 'celery -A dialer worker -Q {name}' on its host"
    if pbx.link == "stopping":
        return f"{name}: its worker was stopped"
    if not pbx.alive:
        return f"{name}: its worker has been silent for {pbx.silent_s:.0f} s; see its log"
    return f"{name}: no AMI link for {pbx.unready_s:.0f} s; is its Asterisk up?"
