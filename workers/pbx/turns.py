"""Turns of calls while their PBX has enough to do: a task waits here before its call is claimed.

A waiting call is still queued, so that it expires, moves and is fenced as any queued call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dialer.domain.room import Pace

#: The turns of so many seconds may be given at once, so that a late worker reaches the rate.
TOGETHER_S: Final = 0.2

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
    _given: set[Key] = field(default_factory=set)
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
        """Wait for a turn; return false at once if the same call waits already.

        The turn lasts until `end`, or until the call is sent.
        """
        if key in self._waiting:
            return False
        if self._is_open or (not self._waiting and self._room() > 0):
            self._given.add(key)
            return True
        turn = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._timer is None:  # else earlier calls wait for it
            self.give()
        try:
            await turn
        except asyncio.CancelledError:
            self.end(key)
            raise
        finally:
            self._waiting.pop(key, None)
        return True

    def end(self, key: Key) -> None:
        """End a turn. Others get theirs when this call had time to be sent."""
        self._given.discard(key)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self.give)

    def _room(self) -> int:
        return math.floor(min(self.room(), 1e9)) - len(self._given)

    def give(self) -> None:
        """Give the turns for which there is room, and come back for those that are due later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [(key, turn) for key, turn in self._waiting.items() if not turn.done()]
        n = len(waiting) if self._is_open else min(len(waiting), self._room())
        if n <= 0:
            return
        if not self._is_open:
            n = self._due(n)
        for key, turn in waiting[:n]:
            self._given.add(key)
            turn.set_result(None)

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
