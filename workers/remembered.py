"""How the calls of the last hours ended, for a ledger that forgot it.

A Redis that takes another's place, or starts again from its file, may lack the last writes: then
the ledger asks for a call to be dialed that was dialed. Asterisk's channel is gone, so only
this memory knows. Lives and dies with the worker.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from dialer.domain.call import Call, Ending
from dialer.domain.request import cell_of

#: Calls kept: hours at a busy PBX's five calls a second. 0.7 kB each, 35 MB at most.
MOST: Final = 50_000

#: As many are held against a ledger that came back; what it lacks is seconds old.
RECENT: Final = 2_000


@dataclass(slots=True)
class Remembered:
    """The last `most` calls that ended here, oldest first."""

    most: int = MOST
    _calls: OrderedDict[str, tuple[Call, Ending]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._calls)

    def note(self, call: Call, ending: Ending) -> None:
        """The call is over."""
        self._calls[call.call_id] = (call, ending)
        if len(self._calls) > self.most:
            self._calls.popitem(last=False)

    def get(self, call_id: str) -> tuple[Call, Ending] | None:
        """The call as it was and how it ended, None where that is not known."""
        return self._calls.get(call_id)

    def recent(self, cell: str) -> Iterator[str]:
        """The calls of a cell that ended last."""
        of_cell = (call_id for call_id in reversed(self._calls) if cell_of(call_id) == cell)
        return islice(of_cell, RECENT)
