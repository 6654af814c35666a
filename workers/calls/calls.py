"""The calls that this worker follows, those that it is claiming, and those that ended here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dialer.domain.call import Call, Ending
from dialer.domain.followed import Followed
from workers.calls.remembered import Remembered


@dataclass(slots=True)
class Calls:
    """Owns them all. Belongs to the worker's event loop."""

    remembered: Remembered = field(default_factory=Remembered)
    _followed: dict[str, Followed] = field(default_factory=dict)
    _claiming: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, call_id: object) -> bool:
        return call_id in self._followed

    def get(self, call_id: str) -> Followed | None:
        """The followed call, None if it is not followed."""
        return self._followed.get(call_id)

    def followed(self) -> list[Followed]:
        """Every followed call."""
        return [*self._followed.values()]

    def of_cell(self, cell: str) -> list[str]:
        """The ids of a cell's calls that are followed or ended here not long ago."""
        up = [call_id for call_id, f in self._followed.items() if f.request.cell == cell]
        return [*up, *self.remembered.recent(cell)]

    def put(self, followed: Followed) -> None:
        """Follow a call, or keep its new state."""
        self._followed[followed.call.call_id] = followed

    def drop(self, call_id: str) -> None:
        """No longer follow a call that was given back."""
        self._followed.pop(call_id, None)

    def end(self, call: Call, ending: Ending) -> None:
        """No longer follow a call that ended; remember how."""
        self._followed.pop(call.call_id, None)
        self.remembered.note(call, ending)

    @contextmanager
    def claiming(self, call_id: str) -> Iterator[None]:
        """The ledger may say that the call is claimed, and no Originate of it was sent."""
        self._claiming[call_id] += 1
        try:
            yield
        finally:
            self._claiming[call_id] -= 1
            if not self._claiming[call_id]:
                del self._claiming[call_id]

    def is_claiming(self, call_id: str) -> bool:
        """True while the reply to a claim, or to its return, is awaited."""
        return call_id in self._claiming
