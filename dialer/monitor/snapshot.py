"""State of the whole system: every PBX, cell and bridge, read from Redis. Read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from dialer.monitor import troubles
from dialer.settings.live import Live
from dialer.settings.tables import Pbx
from dialer.store.keys import ANY_TRUNK
from dialer.store.ledger import CellCounts, LastMinutes, Late, LedgerReads, Outcomes
from dialer.store.registry import BridgeState, PbxState, Registry

#: A call that waits longer to be claimed is late, in seconds.
LATE_AFTER_S: Final = 3.0

#: A claimed call that Asterisk does not accept for longer is named, in seconds.
UNANSWERED_AFTER_S: Final = 2.0

#: Outcomes are those of so many minutes.
OUTCOMES_OF_MIN: Final = 60

#: No cell is paused, or no PBX drained.
NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CellWaits:
    """What waits in one cell, by PBX: calls not claimed, and claimed calls not yet accepted.

    `bridges` has the seconds since the last heartbeat of each bridge, `workers` the pid and host of
    each PBX's worker, whatever its registry.
    """

    unclaimed: Mapping[str, Late] = field(default_factory=dict)
    unanswered: Mapping[str, Late] = field(default_factory=dict)
    bridges: Mapping[str, float] = field(default_factory=dict)
    workers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State at one moment. `pbxs_of_cells` has the PBXs that each cell may use.

    `bridges` is what each bridge says of itself, `paused` who paused a cell, `closed` has the time
    zone of each cell that is outside its calling hours. `outcomes` has the Responses of each cell
    in the last `OUTCOMES_OF_MIN` minutes, `threads` the most calls at once.
    """

    pbxs: Mapping[str, PbxState]
    cells: Mapping[str, CellCounts]
    pbxs_of_cells: Mapping[str, Collection[str]]
    waits: Mapping[str, CellWaits] = field(default_factory=dict)
    bridges: Mapping[str, BridgeState] = field(default_factory=dict)
    paused: Mapping[str, str] = field(default_factory=dict)
    closed: Mapping[str, str] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)

    def troubles(self) -> list[str]:
        """Return what prevents calls from being dialed or answered, one sentence each."""
        elsewhere = {
            pbx: who for waits in self.waits.values() for pbx, who in waits.workers.items()
        }
        return [
            *(f"{cell} is {words}" for cell, words in self.paused.items() if cell in self.cells),
            *(
                f"{cell} is outside its calling hours (time zone {self.closed[cell]}), and "
                f"{counts.waiting} requests wait; `dialer config show` has the hours"
                for cell, counts in self.cells.items()
                if cell in self.closed and counts.waiting
            ),
            *(
                sentence
                for name, pbx in self.pbxs.items()
                for sentence in troubles.of_pbx(name, pbx, elsewhere.get(name, ""))
            ),
            *(
                sentence
                for name, pbx in self.pbxs.items()
                if pbx.load.ready and not any(state.broker for state in self.bridges.values())
                for sentence in troubles.of_messages(name, pbx)
            ),
            *troubles.of_bridges({c: w.bridges for c, w in self.waits.items()}, self.bridges),
            *(sentence for cell in self.waits for sentence in self._late_calls(cell)),
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
                if counts.waiting
                and not self.state_of(name)
                and not any(p.load.is_taking_calls for p in self._pbxs_of(name))
            ),
            *(
                f"{name}: {parked} requests wait for trunk {trunk}, and no PBX with it takes calls"
                for name, counts in self.cells.items()
                for trunk, parked in counts.parked.items()
                if parked and trunk != ANY_TRUNK and not self._is_taking(name, trunk)
            ),
            *(
                f"{name}: {counts.dead} elements on the dead list; read dialer:dead:{name}"
                + (f"; {counts.dropped} older ones were dropped" if counts.dropped else "")
                for name, counts in self.cells.items()
                if counts.dead
            ),
        ]

    def state_of(self, cell: str) -> str:
        """Return `paused`, `closed` or '': why a cell places no calls on purpose."""
        if cell in self.paused:
            return "paused"
        return "closed" if cell in self.closed else ""

    def _late_calls(self, cell: str) -> Iterator[str]:
        """Yield the late calls of PBXs whose workers say that they are ready."""
        waits = self.waits[cell]
        ready = {name for name, pbx in self.pbxs.items() if pbx.load.ready}
        return troubles.of_late_calls(
            cell,
            {
                pbx: late
                for pbx, late in waits.unclaimed.items()
                if pbx in ready and not self.state_of(cell)
            },
            {pbx: late for pbx, late in waits.unanswered.items() if pbx in ready},
        )

    def _pbxs_of(self, cell: str) -> list[PbxState]:
        return [self.pbxs[name] for name in self.pbxs_of_cells.get(cell, ()) if name in self.pbxs]

    def _is_taking(self, cell: str, trunk: str) -> bool:
        """True if any PBX of the cell that has this trunk takes calls."""
        loads = [pbx.load for pbx in self._pbxs_of(cell)]
        return any(load.is_taking_calls and load.has_trunk(trunk) for load in loads)


async def take_snapshot(
    registry: Registry,
    pbxs: Sequence[Pbx],
    ledgers: Sequence[LedgerReads],
    pbxs_of_cells: Mapping[str, Collection[str]],
    *,
    outcomes: Sequence[LastMinutes] = (),
    live: Live | None = None,
) -> Snapshot:
    """Read the state of all PBXs, cells and bridges once. `live` are the settings in force."""
    paused, drained = (live.pauses, live.drains) if live is not None else (NOBODY, NOBODY)
    cells = {cell.name: cell for cell in live.settings.cells} if live is not None else {}
    now = datetime.now(UTC)
    limits = [replace(pbx.limits, drained=drained.get(pbx.name, "")) for pbx in pbxs]
    found = await asyncio.gather(
        *(_waits(ledger, pbxs_of_cells.get(ledger.cell, ())) for ledger in ledgers)
    )
    waits = {ledger.cell: one for ledger, one in zip(ledgers, found, strict=True)}
    return Snapshot(
        pbxs_of_cells=pbxs_of_cells,
        pbxs=await registry.pbxs(limits),
        paused=paused,
        closed={
            name: cell.limits.time_zone
            for name, cell in cells.items()
            if not cell.limits.is_open(now)
        },
        threads={name: cell.threads for name, cell in cells.items()},
        outcomes={one.reads.cell: await one.read() for one in outcomes},
        cells={ledger.cell: await ledger.counts() for ledger in ledgers},
        waits=waits,
        bridges=await registry.bridges(sorted({b for one in found for b in one.bridges})),
    )


async def _waits(ledger: LedgerReads, pbxs: Collection[str]) -> CellWaits:
    unanswered = {
        pbx: await ledger.unanswered(pbx, older_than_s=UNANSWERED_AFTER_S) for pbx in pbxs
    }
    return CellWaits(
        unclaimed=await ledger.late(older_than_s=LATE_AFTER_S),
        unanswered={pbx: late for pbx, late in unanswered.items() if late is not None},
        bridges=await ledger.served_by(),
        workers=await ledger.workers(pbxs),
    )
