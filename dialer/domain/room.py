"""Number of calls that a cell may start now. No other module decides this.

The bridge reads the numbers from Redis; this module computes how many requests to fetch and to
admit. The Lua steps `fetch`, `lease` and `admit` enforce the same numbers, because two bridges may
decide at the same moment. A property test on a real Redis compares both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

#: A start counts as load for about this long, in seconds; see `recent_starts`.
START_COUNTS_S: Final = 10.0


def recent_starts(counted: float, counted_us: int, now_us: int) -> float:
    """Return how many of the starts counted until then count as load now.

    The number decays: a start counts 1, after `START_COUNTS_S` only 1/e. So a PBX that ends its
    calls at once is not idle for the routing, and attracts no more calls than the others.
    """
    age_s = max(0, now_us - counted_us) / 1e6
    return counted * math.exp(-age_s / START_COUNTS_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxLimits:
    """What the settings allow on one PBX. `cps` is calls started per second.

    `default_trunk` is the trunk of calls that need no particular one. `drained` says who drained
    the PBX, so that it gets no calls, '' if nobody did.
    """

    name: str
    max_calls: int
    cps: float
    trunks: frozenset[str] = frozenset()
    default_trunk: str = ""
    drained: str = ""

    @property
    def pace(self) -> Pace:
        """The pace that `cps` allows.

        The calls of a tenth of a second may start together, so that a bridge that is a little late
        still reaches the rate.
        """
        return Pace(gap_us=round(1_000_000 / self.cps), burst=max(1, math.ceil(self.cps / 10)))

    def pace_at(self, limit: float) -> Pace:
        """Return the pace under a governor's limit of calls a second, 0 for none.

        The calls of a quarter of a second may start together, but never more than without a limit.
        The worker then gives each its turn.
        """
        if not limit or limit >= self.cps:
            return self.pace
        burst = min(self.pace.burst, max(2, math.ceil(limit / 4)))
        return Pace(gap_us=round(1_000_000 / limit), burst=burst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`gap_us` is µs between two starts; `burst` is how many calls may start at once."""

    gap_us: int
    burst: int

    def next_start_us(self, latest_us: int, now_us: int) -> int:
        """Return the time of the next start after the latest one, at this pace.

        A time long past allows at most the burst. One in the future counts as now, but one more
        than a gap ahead is void: the clock was set back.
        """
        if latest_us > now_us + self.gap_us:
            return now_us
        due_us = min(latest_us, now_us) + self.gap_us
        return max(due_us, now_us - self.gap_us * (self.burst - 1))

    def starts(self, latest_us: int, now_us: int) -> int:
        """Return how many calls may start now."""
        due_us = self.next_start_us(latest_us, now_us)
        return 0 if due_us > now_us else (now_us - due_us) // self.gap_us + 1


def trunk_pace(limit: float) -> Pace:
    """Return the pace of a trunk under a governor's limit of calls a second."""
    return Pace(gap_us=round(1_000_000 / limit), burst=max(1, math.ceil(limit / 10)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxLoad:
    """State of one PBX at the last reading of the registry.

    `ready` means that its worker is alive, can place calls and has what the cell needs.
    `calls` is how many slots are leased; `starts` is how many calls may start now by its pace.
    `recent_starts` is how many starts of the last seconds count as load. `is_held`: the bridges'
    verdict is that it takes no calls; then it gets one call, if `is_trial_due`. `start_in_s` is how
    soon its pace allows the next start. `trunk_starts` has for each trunk that the governor limits
    how many calls may start over it now. `agents` is how many calls its free operators allow the
    cell, None if the cell does not reserve operators.
    """

    name: str
    ready: bool
    calls: int
    max_calls: int
    starts: int
    trunks: frozenset[str] = frozenset()
    recent_starts: float = 0.0
    is_held: bool = False
    is_trial_due: bool = False
    start_in_s: float = 0.0
    default_trunk: str = ""
    trunk_starts: Mapping[str, int] = field(default_factory=dict)
    agents: int | None = None

    @property
    def room(self) -> int:
        """How many more calls it can take now."""
        if not self.ready:
            return 0
        most = int(self.is_trial_due) if self.is_held else self.starts
        if self.agents is not None:
            most = min(most, self.agents)
        return max(0, min(self.max_calls - self.calls, self.starts, most))

    @property
    def is_taking_calls(self) -> bool:
        """True if it is ready and its results do not say otherwise."""
        return self.ready and not self.is_held

    def after(self, started: int) -> PbxLoad:
        """Return its state after so many more starts, if nothing else happened."""
        if not started:
            return self
        return replace(
            self,
            calls=self.calls + started,
            starts=max(0, self.starts - started),
            recent_starts=self.recent_starts + started,
            is_trial_due=False,
            agents=self.agents and max(0, self.agents - started),
        )

    def with_queued(self, queued: int) -> PbxLoad:
        """Return its state if so many calls of the cell are queued to it and not claimed yet.

        They have no operator yet in what the worker said.
        """
        return replace(self, agents=max(0, self.agents - queued)) if self.agents else self

    def trunk_of(self, trunk: str | None) -> str:
        """Return the trunk that a call takes here that needs this one, None for any."""
        return trunk or self.default_trunk

    def room_for(self, trunk: str | None) -> int:
        """How many more calls that need this trunk it can take now."""
        if not self.has_trunk(trunk):
            return 0
        return min(self.room, self.trunk_starts.get(self.trunk_of(trunk), self.room))

    def has_trunk(self, trunk: str | None) -> bool:
        """True if the PBX has this trunk; None: a call that needs no particular one."""
        return trunk is None or trunk in self.trunks


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRoom:
    """Number of calls and requests of one cell.

    `threads` is the maximum of live calls; `live` is how many there are; `in_hand` is how many
    requests are in the hands of all its bridges. Parked requests do not count.
    """

    threads: int
    live: int
    in_hand: int

    @property
    def to_fetch(self) -> int:
        """How many more requests its bridges may take from Multcall's list."""
        return max(0, self.threads - self.live - self.in_hand)

    @property
    def to_admit(self) -> int:
        """How many more requests may become calls."""
        return max(0, self.threads - self.live)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Calls that one cell may start now on its PBXs, which are in the order of the settings."""

    cell: CellRoom
    pbxs: tuple[PbxLoad, ...]

    @property
    def of_pbxs(self) -> int:
        """How many calls the PBXs can take now; also the limit for the hand of one bridge."""
        return sum(p.room for p in self.pbxs)

    @property
    def to_fetch(self) -> int:
        """How many more requests to take from Multcall's list if none is in the hand."""
        return min(self.cell.to_fetch, self.of_pbxs)

    @property
    def to_admit(self) -> int:
        """How many calls may start now."""
        return min(self.cell.to_admit, self.of_pbxs)

    @property
    def is_ready(self) -> bool:
        """True if any PBX is ready."""
        return any(p.ready for p in self.pbxs)

    @property
    def is_ample(self) -> bool:
        """True if each ready PBX has room for any call, and the cell too.

        Then a reading that is a little old is good enough for one more request.
        """
        ready = [p for p in self.pbxs if p.ready]
        has_room = all(
            p.room and p.is_taking_calls and not p.trunk_starts and p.agents is None for p in ready
        )
        return bool(ready) and has_room and self.cell.to_fetch > 0

    def after(self, started: Mapping[str, int], left: int) -> Room:
        """Return the room after so many starts by PBX, when `left` requests have left the hand."""
        cell = replace(
            self.cell,
            live=self.cell.live + sum(started.values()),
            in_hand=max(0, self.cell.in_hand - left),
        )
        return Room(cell=cell, pbxs=tuple(p.after(started.get(p.name, 0)) for p in self.pbxs))

    @property
    def start_in_s(self) -> float:
        """How soon the pace of a PBX with a free slot allows a start; infinite if there is none."""
        paced = [p for p in self.pbxs if p.ready and p.calls < p.max_calls and not p.starts]
        return min((p.start_in_s for p in paced), default=math.inf)

    def of_trunk(self, trunk: str | None) -> int:
        """Return how many calls that need this trunk may start now."""
        found = sum(p.room_for(trunk) for p in self.pbxs)
        return min(self.cell.to_admit, found)

    def is_blocked(self, trunk: str | None) -> bool:
        """True if no PBX has room for a call over this trunk, while there is room for others.

        A request for such a trunk is parked, so that others overtake it.
        """
        return self.of_pbxs > 0 and not any(p.room_for(trunk) for p in self.pbxs)

    def from_parked(self, parked: Mapping[str, int], *, at_most: int) -> dict[str, int]:
        """Return how many parked requests to read now, by trunk; the first trunk goes first.

        A trunk that no PBX has any longer counts as any trunk, because its requests may now need
        another trunk or must be refused.
        """
        known: Collection[str] = frozenset().union(*(p.trunks for p in self.pbxs))
        taken: dict[str, int] = {}
        for trunk, waiting in parked.items():
            room = self.of_trunk(trunk if trunk in known else None)
            if n := min(waiting, room, at_most - sum(taken.values())):
                taken[trunk] = n
        return taken
