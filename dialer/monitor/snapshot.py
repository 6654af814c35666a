"""State of the whole system: every PBX, cell and bridge, read from Redis. Read-only."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from types import MappingProxyType
from typing import Final

from redis.exceptions import NoPermissionError, RedisError

from dialer.domain.agents import Team
from dialer.domain.limits import Limit
from dialer.domain.why import RESERVED_S, Decision, Obstacle, decide
from dialer.monitor import troubles
from dialer.settings.live import Live
from dialer.settings.tables import Pbx
from dialer.store.keys import ANY_TRUNK, PROBE
from dialer.store.ledger import CellState, Survey
from dialer.store.registry import BridgeState, PbxState, Registry
from dialer.store.situation import situation_of
from dialer.store.steps import Steps, redis_obstacle

#: Outcomes are those of so many minutes.
OUTCOMES_OF_MIN: Final = 60

#: Unclaimed calls are a trouble from this age on, in seconds.
LATE_NAMED_S: Final = 3.0

#: What is read of a server that is known to be down waits so long, in seconds: long enough for a
#: reply if it is back.
DOWN_WITHIN_S: Final = 0.2

#: Lifetime of the probe whether a Redis takes writes, in ms.
PROBE_MS: Final = 1_000

#: No cell is paused, or no PBX drained.
NOBODY: Final[Mapping[str, str]] = MappingProxyType({})

#: What one survey reads: cells with their PBXs.
PbxsOfCells = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State at one moment. `pbxs_of_cells` has the PBXs that each cell may use.

    `bridges` is what each bridge says of itself, `paused` who paused a cell, `closed` has the time
    zone of each cell that is outside its calling hours. `threads` is the most calls at once,
    `queues` the queue of each cell that has one; those in `reserving` dial only for free members.
    `of_multcall` are the cells whose operators Multcall tells, with the calls for each free one.
    `refusing` says of cells which Redis refuses to write for them, or does not answer.
    """

    pbxs: Mapping[str, PbxState]
    cells: Mapping[str, CellState]
    pbxs_of_cells: Mapping[str, Collection[str]]
    bridges: Mapping[str, BridgeState] = field(default_factory=dict)
    paused: Mapping[str, str] = field(default_factory=dict)
    closed: Mapping[str, str] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, str] = field(default_factory=dict)
    reserving: Collection[str] = ()
    of_multcall: Mapping[str, float] = field(default_factory=dict)
    refusing: Mapping[str, Obstacle] = field(default_factory=dict)

    def decision(self, cell: str) -> Decision:
        """Return the limit that binds a cell."""
        state = self.cells[cell]
        names = [name for name in self.pbxs_of_cells.get(cell, ()) if name in self.pbxs]
        of_cell = [self.bridges[name] for name in state.bridges if name in self.bridges]
        is_read = not state.unreadable
        return decide(
            situation_of(
                cell,
                state,
                [
                    self.pbxs[name].reserving(cell) if cell in self.reserving else self.pbxs[name]
                    for name in names
                ],
                threads=self.threads.get(cell, 0),
                paused=self.paused.get(cell, ""),
                closed=self.closed.get(cell, ""),
                redis=self.refusing.get(cell),
                broker=next((one.broker for one in of_cell if one.broker), ""),
                bridge_silent_s=min(state.bridges.values(), default=math.inf) if is_read else 0.0,
                per_agent=self.of_multcall.get(cell, 0.0),
            )
        )

    def troubles(self) -> list[str]:
        """Return what prevents calls from being dialed or answered, one sentence each."""
        elsewhere = {pbx: who for one in self.cells.values() for pbx, who in one.workers.items()}
        counts_of = {cell: state.counts for cell, state in self.cells.items()}
        return [
            *dict.fromkeys(one.reason for one in self.refusing.values()),
            *(f"{cell} is {words}" for cell, words in self.paused.items() if cell in self.cells),
            *(
                f"{cell}: its keys in Redis cannot be read: {state.unreadable}"
                for cell, state in self.cells.items()
                if state.unreadable and cell not in self.refusing
            ),
            *(
                f"{cell} is outside its calling hours (time zone {self.closed[cell]}), and "
                f"{counts.waiting} requests wait; `dialer config show` has the hours"
                for cell, counts in counts_of.items()
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
            *troubles.of_bridges({c: one.bridges for c, one in self.cells.items()}, self.bridges),
            *(sentence for cell in self.cells for sentence in self._late_calls(cell)),
            *(
                f"{cell}: {len(found)} of Multcall's operators cannot be read: {found[0]}"
                for cell in self.of_multcall
                if cell in self.cells and (found := self.cells[cell].operators.problems)
            ),
            *(
                f"{name} takes no calls of {cell}: {reason}"
                for name, pbx in self.pbxs.items()
                if pbx.load.ready
                for cell, reason in pbx.lacking.items()
                if name in self.pbxs_of_cells.get(cell, ()) and not self._is_usual(cell, pbx)
            ),
            *(
                f"{name}: {counts.waiting} requests wait, and no PBX takes calls"
                for name, counts in counts_of.items()
                if counts.waiting
                and not self.state_of(name)
                and not any(p.load.is_taking_calls for p in self._pbxs_of(name))
            ),
            *(
                f"{name}: {parked} requests wait for trunk {trunk}, and no PBX with it takes calls"
                for name, counts in counts_of.items()
                for trunk, parked in counts.parked.items()
                if parked and trunk != ANY_TRUNK and not self._is_taking(name, trunk)
            ),
            *(
                f"{name}: {counts.dead} elements on the dead list: dialer dead list {name}"
                + (f"; {counts.dropped} older ones were dropped" if counts.dropped else "")
                for name, counts in counts_of.items()
                if counts.dead
            ),
        ]

    def team(self, cell: str) -> Team | None:
        """Return the operators of a cell on all its PBXs; None if it has none."""
        if cell in self.of_multcall:
            return self.cells[cell].operators.team
        queue = self.queues.get(cell)
        if queue is None:
            return None
        teams = [pbx.team(queue) for pbx in self._pbxs_of(cell)]
        return reduce(Team.and_, (team for team in teams if team is not None), Team())

    def _is_usual(self, cell: str, pbx: PbxState) -> bool:
        """True if it is no trouble that a PBX takes no calls of a cell: its operators work."""
        return pbx.limits.get(cell) in {Limit.AGENTS_RESERVED, Limit.AGENTS_BUSY}

    def state_of(self, cell: str) -> str:
        """Return `paused`, `closed` or '': why a cell places no calls on purpose."""
        if cell in self.paused:
            return "paused"
        return "closed" if cell in self.closed else ""

    def _late_calls(self, cell: str) -> Iterator[str]:
        """Yield the late calls of PBXs whose workers say that they are ready."""
        state = self.cells[cell]
        late_s = RESERVED_S if cell in self.reserving else LATE_NAMED_S
        ready = {name for name, pbx in self.pbxs.items() if pbx.load.ready}
        return troubles.of_late_calls(
            cell,
            {
                pbx: late
                for pbx, late in state.late.items()
                if pbx in ready and late.oldest_s >= late_s and not self.state_of(cell)
            },
            {pbx: late for pbx, late in state.unanswered.items() if pbx in ready},
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
    surveys: Sequence[tuple[Survey, PbxsOfCells]],
    *,
    live: Live | None = None,
    cells_within_s: float | None = None,
) -> Snapshot:
    """Read the state of all PBXs, cells and bridges once. `live` are the settings in force.

    Each server gets one step for all its cells, the registry two more. `cells_within_s` is how
    long the servers of cells are waited for, in seconds: the cells on one that does not answer in
    this time, or refuses, are unreadable. If it is None, all servers must answer.
    """
    paused, drained = (live.pauses, live.drains) if live is not None else (NOBODY, NOBODY)
    settings = {cell.name: cell for cell in live.settings.cells} if live is not None else {}
    now = datetime.now(UTC)
    limits = [replace(pbx.limits, drained=drained.get(pbx.name, "")) for pbx in pbxs]
    cells: dict[str, CellState] = {}
    refusing: dict[str, Obstacle] = {}
    if cells_within_s is None:
        for survey, some in surveys:
            cells |= await survey.read(some)
    else:
        reads = (_read_or_away(survey, some, cells_within_s) for survey, some in surveys)
        for found, away in await asyncio.gather(*reads):
            cells |= found
            refusing |= dict.fromkeys(found, away) if away is not None else {}
    names = sorted({bridge for state in cells.values() for bridge in state.bridges})
    for survey, some in surveys:
        silent = [cell for cell in some if cells[cell].is_unserved]
        if silent and (refuses := await refusing_server(survey.steps, registry.steps)):
            refusing |= dict.fromkeys(silent, refuses)
    return Snapshot(
        pbxs=await registry.pbxs(limits),
        cells=cells,
        pbxs_of_cells={name: of_cell for _, some in surveys for name, of_cell in some.items()},
        bridges=await registry.bridges(names),
        paused=paused,
        closed={
            name: cell.limits.time_zone
            for name, cell in settings.items()
            if not cell.limits.is_open(now)
        },
        threads={name: cell.threads for name, cell in settings.items()},
        queues={name: cell.queue for name, cell in settings.items() if cell.queue},
        reserving=[name for name, cell in settings.items() if cell.asks_asterisk],
        of_multcall={
            name: cell.calls_of_multcall
            for name, cell in settings.items()
            if cell.agents == "multcall"
        },
        refusing=refusing,
    )


async def _read_or_away(
    survey: Survey, some: PbxsOfCells, within_s: float
) -> tuple[dict[str, CellState], Obstacle | None]:
    """Return the cells of a server; unreadable ones, and why, if it does not answer or refuses."""
    steps = survey.steps
    try:
        async with asyncio.timeout(min(within_s, DOWN_WITHIN_S) if steps.is_down else within_s):
            return await survey.read(some), None
    except (RedisError, OSError) as error:  # a timeout is an OSError
        away = steps.obstacle or redis_obstacle(steps.where, error)
    return dict.fromkeys(some, CellState(unreadable=away.reason)), away


async def refusing_server(*servers: Steps) -> Obstacle | None:
    """Return which of these servers refuses to write, and why; None if all write.

    Then the bridge is silent because of it.
    """
    for steps in servers:
        try:
            await steps.redis.set(PROBE, "", px=PROBE_MS)
        except NoPermissionError:  # this user may only read
            continue
        except RedisError as error:
            return redis_obstacle(steps.where, error)
    return None
