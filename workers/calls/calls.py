"""The calls that this worker is claiming, is following, or followed until their end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dialer.domain.call import Call, Ending
from dialer.domain.channel import uniqueids_of
from dialer.domain.followed import Followed
from workers.calls.remembered import Remembered


@dataclass(slots=True)
class Calls:
    """Followed calls by id. Belongs to the worker's event loop."""

    remembered: Remembered = field(default_factory=Remembered)
    _followed: dict[str, Followed] = field(default_factory=dict)
    _by_uniqueid: dict[str, str] = field(default_factory=dict)
    _by_cell: dict[str, set[str]] = field(default_factory=dict)
    _claiming: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, call_id: object) -> bool:
        return call_id in self._followed

    def get(self, call_id: str) -> Followed | None:
        """Return the followed call, None if it is not followed."""
        return self._followed.get(call_id)

    def by_uniqueid(self, uniqueid: str) -> str | None:
        """Return the id of the followed call whose channel has that Uniqueid, None if none has."""
        return self._by_uniqueid.get(uniqueid)

    def followed(self) -> list[Followed]:
        """Return every followed call."""
        return [*self._followed.values()]

    def answered(self) -> int:
        """Return how many followed calls are answered."""
        return sum(f.is_answered for f in self._followed.values())

    def of_cell(self, cell: str) -> list[str]:
        """Return the ids of a cell's calls that are followed, or that ended here recently."""
        up = [call_id for call_id, f in self._followed.items() if f.request.cell == cell]
        return [*up, *self.remembered.recent(cell)]

    def put(self, followed: Followed) -> None:
        """Add a followed call, or replace its state."""
        call_id = followed.call.call_id
        if call_id not in self._followed:
            self._by_uniqueid |= dict.fromkeys(uniqueids_of(call_id), call_id)
            self._by_cell.setdefault(followed.request.cell, set()).add(call_id)
        self._followed[call_id] = followed

    def drop(self, call_id: str) -> None:
        """Remove a call that was given back or has ended."""
        followed = self._followed.pop(call_id, None)
        if followed is not None:
            of_cell = self._by_cell[followed.request.cell]
            of_cell.discard(call_id)
            if not of_cell:
                del self._by_cell[followed.request.cell]
        for uniqueid in uniqueids_of(call_id):
            self._by_uniqueid.pop(uniqueid, None)

    def end(self, call: Call, ending: Ending) -> None:
        """Remove a call that ended, and remember its ending."""
        self.drop(call.call_id)
        self.remembered.note(call, ending)

    @contextmanager
    def claiming(self, call_id: str) -> Iterator[None]:
        """Mark the call as being claimed: in the ledger maybe claimed, its Originate not sent."""
        self._claiming[call_id] += 1
        try:
            yield
        finally:
            self._claiming[call_id] -= 1
            if not self._claiming[call_id]:
                del self._claiming[call_id]

    def in_cell(self, cell: str) -> list[Followed]:
        """Return the followed calls of a cell."""
        return [self._followed[call_id] for call_id in self._by_cell.get(cell, ())]

    def being_claimed(self) -> list[str]:
        """Return the ids of calls whose claim, or its return, is awaited."""
        return [*self._claiming]

    def is_claiming(self, call_id: str) -> bool:
        """True while the reply to a claim, or to its return, is awaited."""
        return call_id in self._claiming
