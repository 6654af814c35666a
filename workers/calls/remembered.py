"""Recently ended calls, kept in memory to repair a Redis that lost its last writes.

A Redis that replaces another, or starts again from its file, may lack the last writes. Its ledger
then has a call as waiting that was already dialed. Asterisk's channel is gone, so only this memory
prevents a second call. It is lost when the worker ends.

A call is kept no longer than in the ledger, because its `IdRequisicao` may be used again later.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from dialer.domain.call import Call, Ending
from dialer.domain.request import cell_of
from dialer.store.keys import DONE_RETENTION_S

#: Calls kept: some hours of a PBX that starts five calls a second. 0.7 kB each, 35 MB at most.
MOST: Final = 50_000

#: How many are compared with a recovered ledger; it lacks only writes of the last seconds.
RECENT: Final = 2_000


@dataclass(slots=True)
class Remembered:
    """The last `most` calls that ended here in the last `DONE_RETENTION_S`, oldest first.

    `clock` returns seconds of a monotonic clock.
    """

    most: int = MOST
    clock: Callable[[], float] = time.monotonic
    #: When each ended, by the clock, and how.
    _calls: OrderedDict[str, tuple[float, Call, Ending]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._calls)

    def note(self, call: Call, ending: Ending) -> None:
        """Remember the ending of a call."""
        self._calls[call.call_id] = (self.clock(), call, ending)
        self._calls.move_to_end(call.call_id)
        self._drop_old()

    def get(self, call_id: str) -> tuple[Call, Ending] | None:
        """Return the call and its ending, None if it is not remembered."""
        self._drop_old()
        found = self._calls.get(call_id)
        return found[1:] if found else None

    def recent(self, cell: str) -> Iterator[str]:
        """Return the ids of a cell's last ended calls, the last one first."""
        self._drop_old()
        of_cell = (call_id for call_id in reversed(self._calls) if cell_of(call_id) == cell)
        return islice(of_cell, RECENT)

    def _drop_old(self) -> None:
        oldest = self.clock() - DONE_RETENTION_S
        while self._calls:
            since, _, _ = next(iter(self._calls.values()))
            if len(self._calls) <= self.most and since > oldest:
                return
            self._calls.popitem(last=False)
