"""One look at the whole system: every PBX and every cell, read from Redis. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dialer.settings.tables import Pbx
from dialer.store.ledger import CellCounts, LedgerReads
from dialer.store.registry import PbxState, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How everything stands at one moment. `serving` are the PBXs that each cell may use."""

    pbxs: Mapping[str, PbxState]
    cells: Mapping[str, CellCounts]
    serving: Mapping[str, Collection[str]]

    def troubles(self) -> list[str]:
        """What keeps calls from being dialed or answered, one sentence each."""
        return [
            *(sentence for name, pbx in self.pbxs.items() if (sentence := _pbx_trouble(name, pbx))),
            *(
                f"{name} takes no calls of {cell}: {reason}"
                for name, pbx in self.pbxs.items()
                if pbx.load.ready
                for cell, reason in pbx.lacking.items()
                if name in self.serving.get(cell, ())
            ),
            *(
                f"{name}: {counts.waiting} requests wait, and no PBX takes calls"
                for name, counts in self.cells.items()
                if counts.waiting and not any(p.load.ready for p in self.pbxs.values())
            ),
            *(
                f"{name}: {counts.dead} elements on the dead list; read dialer:dead:{name}"
                + (f"; {counts.dropped} older ones were dropped" if counts.dropped else "")
                for name, counts in self.cells.items()
                if counts.dead
            ),
        ]


async def look(
    registry: Registry,
    pbxs: Sequence[Pbx],
    ledgers: Sequence[LedgerReads],
    serving: Mapping[str, Collection[str]],
) -> Snapshot:
    """Reads everything once."""
    return Snapshot(
        serving=serving,
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
