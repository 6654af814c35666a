"""Which PBX takes a call: the least loaded by its capacity, among those that may.

Plans for a batch against one reading of the registry; the registry's own atomic
step then grants or refuses each slot, so that no two plans share a free slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxLoad:
    """One PBX as the registry saw it a moment ago.

    `ready` means: its worker lives and its AMI link is up. `starts` is how many calls
    its pacing (`cps`) lets start right now.
    """

    name: str
    ready: bool
    calls: int
    max_calls: int
    starts: int
    trunks: frozenset[str] = frozenset()

    @property
    def room(self) -> int:
        """Calls it can take right now."""
        return max(0, min(self.max_calls - self.calls, self.starts)) if self.ready else 0


@dataclass(slots=True)
class Turns:
    """Whose turn it is among PBXs that are loaded alike: each as often as its capacity says.

    Without it, calls so short or so rare that every PBX is idle when the next one comes would all
    go to the first. This is smooth weighted round robin, as in nginx.
    """

    _credit: dict[str, int] = field(default_factory=dict)

    def next(self, alike: Sequence[PbxLoad]) -> PbxLoad:
        """One of these, which are at least one. Equal turns go by their order."""
        for p in alike:
            self._credit[p.name] = self._credit.get(p.name, 0) + p.max_calls
        best = max(alike, key=lambda p: self._credit[p.name])
        self._credit[best.name] -= sum(p.max_calls for p in alike)
        return best


def plan(
    trunks: Sequence[str | None], pbxs: Iterable[PbxLoad], turns: Turns | None = None
) -> list[str | None]:
    """A PBX for each call, None where none has room.

    Args:
        trunks: for each call the trunk that it asks for, None for any.
        pbxs: the PBXs of the cell, in the order the cell names them.
        turns: breaks ties and is changed by it; one that is new begins with the first.
    """
    loads = list(pbxs)
    turns = turns or Turns()
    given = dict.fromkeys((p.name for p in loads), 0)
    chosen: list[str | None] = []
    for trunk in trunks:
        fit = [p for p in loads if p.room > given[p.name] and (trunk is None or trunk in p.trunks)]
        if not fit:
            chosen.append(None)
            continue
        load = {p.name: (p.calls + given[p.name]) / p.max_calls for p in fit}
        least = min(load.values())
        best = turns.next([p for p in fit if load[p.name] == least])
        given[best.name] += 1
        chosen.append(best.name)
    return chosen
