"""Which PBX takes a call: the least loaded by its capacity, among those that may.

Plans for a batch against one reading of the registry; the registry's own atomic
step then grants or refuses each slot, so that no two plans share a free slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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


def plan(trunks: Sequence[str | None], pbxs: Iterable[PbxLoad]) -> list[str | None]:
    """A PBX for each call, None where none has room.

    Args:
        trunks: for each call the trunk that it asks for, None for any.
        pbxs: the PBXs of the cell, in the order the cell names them, which breaks ties.
    """
    loads = list(pbxs)
    given = dict.fromkeys((p.name for p in loads), 0)
    chosen: list[str | None] = []
    for trunk in trunks:
        fit = [p for p in loads if p.room > given[p.name] and (trunk is None or trunk in p.trunks)]
        best = min(fit, key=lambda p: (p.calls + given[p.name]) / p.max_calls, default=None)
        if best is not None:
            given[best.name] += 1
        chosen.append(best.name if best else None)
    return chosen
