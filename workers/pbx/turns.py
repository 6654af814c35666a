"""Turns of calls while their PBX is limited: a task waits here before its call is claimed.

A waiting call is still queued, so that it expires, moves and is fenced as any queued call.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Final

from dialer.domain.room import Pace

#: The turns of so many seconds may be given at once, so that a late worker reaches the rate.
TOGETHER_S: Final = 0.2

#: A call and its epoch: the same call may be queued to this PBX again later.
Key = tuple[str, int]


@dataclass(slots=True)
class Turns:
    """The queue of waiting tasks. Belongs to the worker's event loop. Without a limit none waits.

    `rate` is how many turns a second are given, None for no limit.
    """

    rate: float | None = None
    _waiting: dict[Key, asyncio.Future[None]] = field(default_factory=dict)
    _due_us: int = 0
    _timer: asyncio.TimerHandle | None = None
    _is_open: bool = False

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def limit(self, rate: float | None) -> None:
        """Change the limit; calls that wait get their turns by the new one."""
        if rate != self.rate and not self._is_open:
            self.rate = rate
            self._give()

    def open(self) -> None:
        """Give all turns at once, from now on: the worker stops."""
        self.limit(None)
        self._is_open = True

    async def take(self, key: Key) -> bool:
        """Wait for a turn; return false at once if the same call waits already."""
        if self.rate is None:
            return True
        if key in self._waiting:
            return False
        turn = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._timer is None:  # else earlier calls wait for it
            self._give()
        try:
            await turn
        finally:
            self._waiting.pop(key, None)
        return True

    def _give(self) -> None:
        """Give the turns that are due, and come back for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [(key, turn) for key, turn in self._waiting.items() if not turn.done()]
        if not waiting:
            return
        loop = asyncio.get_running_loop()
        due = len(waiting)
        if self.rate is not None:
            burst = max(2, math.ceil(self.rate * TOGETHER_S))
            now_us, pace = int(loop.time() * 1e6), Pace(gap_us=round(1e6 / self.rate), burst=burst)
            due = min(due, pace.starts(self._due_us, now_us))
            self._due_us = pace.next_start_us(self._due_us, now_us) + due * pace.gap_us
            if due < len(waiting):
                self._timer = loop.call_later((self._due_us - now_us) / 1e6, self._give)
        for _, turn in waiting[:due]:
            turn.set_result(None)
