"""Turns of calls while their PBX has enough to do: a task waits here before its call is claimed.

A waiting call is still queued, so that it expires, moves and is fenced as any queued call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from dialer.domain.room import Pace

#: The turns of so many seconds may be given at once, so that a late worker reaches the rate.
TOGETHER_S: Final = 0.2

#: A turn takes room for at most so many seconds.
TAKES_ROOM_S: Final = 0.25

#: A call and its epoch: the same call may be queued to this PBX again later.
Key = tuple[str, int]


@dataclass(slots=True)
class Turns:
    """The queue of waiting tasks. Belongs to the worker's event loop.

    `room` returns how many more calls Asterisk may get now, besides those that had their turn and
    were not sent yet. Calls that waited get their turns at `cps` at most.
    """

    cps: float
    room: Callable[[], float]
    _waiting: dict[Key, asyncio.Future[None]] = field(default_factory=dict)
    #: When each turn that has not ended was given, by the loop's clock; the oldest first.
    _given: dict[Key, float] = field(default_factory=dict)
    _latest_us: int = 0
    _timer: asyncio.TimerHandle | None = None
    _is_open: bool = False

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def open(self) -> None:
        """Give all turns at once, from now on: the worker stops."""
        self._is_open = True
        self.give()

    async def take(self, key: Key) -> bool:
        """Wait for a turn; return false at once if the same call waits already, or has one.

        The turn lasts until `end`.
        """
        if key in self._waiting or key in self._given:
            return False
        if self._is_open or (not self._waiting and self._room() > 0):
            self._given[key] = asyncio.get_running_loop().time()
            return True
        turn = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._timer is None:  # else earlier calls wait for it
            self.give()
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.pop(key, None)
            self.end(key)
            raise
        return True

    def end(self, key: Key) -> None:
        """End a turn. Others get theirs after what runs now, which may send the call."""
        self._given.pop(key, None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self.give)

    def give(self) -> None:
        """Give the turns for which there is room, and come back for those that are due later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        n = len(self._waiting)
        if n and not self._is_open and (n := min(n, self._room())) > 0:
            n = self._due(n)
        for key in [*islice(self._waiting, max(0, n))]:
            turn = self._waiting.pop(key)
            if not turn.done():
                self._given[key] = asyncio.get_running_loop().time()
                turn.set_result(None)

    def _room(self) -> int:
        """Return how many more turns may be given now.

        A turn that lasts too long does not count: its claim may wait for a Redis that is down, and
        calls of other cells must not wait for that Redis.
        """
        ended = asyncio.get_running_loop().time() - TAKES_ROOM_S
        while self._given and (oldest := next(iter(self._given.items())))[1] < ended:
            del self._given[oldest[0]]
        return math.floor(min(self.room(), 1e9)) - len(self._given)

    def _due(self, n: int) -> int:
        """Return how many of `n` turns are due; look again when the next one is."""
        loop = asyncio.get_running_loop()
        burst = max(2, math.ceil(self.cps * TOGETHER_S))
        now_us, pace = int(loop.time() * 1e6), Pace(gap_us=round(1e6 / self.cps), burst=burst)
        due_us = pace.next_start_us(self._latest_us, now_us)
        due = min(n, pace.starts(self._latest_us, now_us))
        due_us += due * pace.gap_us
        self._latest_us = due_us - pace.gap_us
        if due < n:
            self._timer = loop.call_later((due_us - now_us) / 1e6, self.give)
        return due
