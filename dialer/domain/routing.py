"""Choose the PBX of each call: the one with room and the fewest recent starts for its capacity.

Calls in use would be a worse measure: a PBX that ends its calls at once always looks idle, and
would get all of them. They decide only between PBXs that started nothing recently.

Plans a batch from one reading of the registry. Then the registry's atomic lease grants or
refuses each slot, so that two bridges never use the same free slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from dialer.domain.room import PbxLoad, recent_starts


@dataclass(slots=True)
class Turns:
    """Order of PBXs with the same load: smooth weighted round robin, as in nginx.

    Each gets its turn in proportion to its capacity. Otherwise calls that are so short or rare
    that every PBX is idle before the next call would all go to the first PBX.
    """

    _credit: dict[str, int] = field(default_factory=dict)

    def next(self, alike: Sequence[PbxLoad]) -> PbxLoad:
        """Return the next of these PBXs (at least one) and count its turn. Ties: the first."""
        for p in alike:
            self._credit[p.name] = self._credit.get(p.name, 0) + p.max_calls
        best = max(alike, key=lambda p: self._credit[p.name])
        self._credit[best.name] -= sum(p.max_calls for p in alike)
        return best


@dataclass(slots=True)
class Returns:
    """What a PBX that takes calls again, or is new, counts for besides what it started.

    While it was away, the others started calls. Without this it would first get all the calls that
    it missed, in the moment of its return.
    """

    _taking: set[str] = field(default_factory=set)
    _missed: dict[str, tuple[float, int]] = field(default_factory=dict)

    def level(self, pbxs: Iterable[PbxLoad], now_us: int) -> tuple[PbxLoad, ...]:
        """Return the PBXs as they count for `plan`; call it with each reading of the registry."""
        loads = [
            replace(p, recent_starts=p.recent_starts + self._missed_by(p.name, now_us))
            for p in pbxs
        ]
        back = {p.name for p in loads if p.is_taking_calls} - self._taking
        others = [p for p in loads if p.is_taking_calls and p.name not in back]
        least = min((p.recent_starts / p.max_calls for p in others), default=0.0)
        for i, p in enumerate(loads):
            missed = least * p.max_calls - p.recent_starts
            if p.name in back and missed > 0:
                self._missed[p.name] = (self._missed_by(p.name, now_us) + missed, now_us)
                loads[i] = replace(p, recent_starts=p.recent_starts + missed)
        self._taking = {p.name for p in loads if p.is_taking_calls}
        return tuple(loads)

    def _missed_by(self, name: str, now_us: int) -> float:
        return recent_starts(*self._missed.get(name, (0.0, now_us)), now_us)


def plan(
    trunks: Sequence[str | None],
    pbxs: Iterable[PbxLoad],
    turns: Turns | None = None,
    *,
    at_most: int | None = None,
) -> list[str | None]:
    """Return a PBX for each call, None if none has room.

    Args:
        trunks: for each call the trunk that it needs, None for any.
        pbxs: the PBXs of the cell, in the order the cell names them.
        turns: chooses between equal loads, and is changed; None begins with the first PBX.
        at_most: how many calls get a PBX, in order; None for no limit. If the cell has no room
            for a call, that call must not use the pace of a PBX, which other cells share.
    """
    loads = list(pbxs)
    turns = turns or Turns()
    given = dict.fromkeys((p.name for p in loads), 0)
    over: dict[tuple[str, str], int] = {}  # calls that the plan has given a trunk of a PBX
    left = len(trunks) if at_most is None else at_most
    chosen: list[str | None] = []
    for trunk in trunks:
        fit = [
            p
            for p in loads
            if p.room > given[p.name]
            and p.room_for(trunk) > over.get((p.name, p.trunk_of(trunk)), 0)
        ]
        if left <= 0 or not fit:
            chosen.append(None)
            continue
        load = {p.name: _load(p, given[p.name]) for p in fit}
        least = min(load.values())
        best = turns.next([p for p in fit if load[p.name] == least])
        given[best.name] += 1
        way = best.name, best.trunk_of(trunk)
        over[way] = over.get(way, 0) + 1
        left -= 1
        chosen.append(best.name)
    return chosen


def _load(pbx: PbxLoad, given: int) -> tuple[float, float]:
    """Return what one more call is weighed by; `given` is how many the plan has given it."""
    started = (pbx.recent_starts + given) / pbx.max_calls
    in_use = (pbx.calls + given) / pbx.max_calls
    return started, in_use
