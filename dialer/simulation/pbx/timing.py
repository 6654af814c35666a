"""Delays of a simulated PBX: ranges, and a seeded random source that draws from them.

Reads no clock; it only returns the seconds between two steps of a call.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from dialer.simulation.pbx.outcomes import Outcome, Version

_T = TypeVar("_T")

RINGBACK_AFTER_S: Final = 0.5
"""A carrier that answers sooner than this sends no 180."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHabits:
    """Behaviour of one PBX's calls. Ranges are (shortest, longest) in seconds."""

    version: Version = "22"
    ring_time_s: tuple[float, float] = (1.0, 4.0)
    talk_time_s: tuple[float, float] = (2.0, 8.0)
    reject_time_s: tuple[float, float] = (0.05, 0.3)
    long_talk_s: float = 300.0
    is_dialplan_included: bool = True
    maxcalls: int = 0


STARVED_AFTER_S: Final = 4.0
"""An Originate that waits longer than this for its channel gives a call that rings too late."""
SIDE_BY_SIDE_S: Final = 0.2
"""Calls of so many seconds of work are started side by side, without a wait."""
REPLIES_WITHIN_S: Final = 1.0
"""AMI itself is never slower than this."""


class Workload:
    """Work of a PBX that starts at most `capacity` calls a second, in order; None: any number.

    What comes beyond waits and is worked off, as by an Asterisk without enough processor.
    """

    def __init__(self) -> None:
        self.capacity: float | None = None
        self._busy_until = 0.0

    def change(self, capacity: float | None, now: float) -> None:
        """Change the capacity; what waits is worked off by the new one."""
        calls = max(0.0, self._busy_until - now) * (self.capacity or 0.0)
        self.capacity = capacity
        self._busy_until = now + calls / capacity if capacity else 0.0

    def wait_s(self, now: float) -> float:
        """Return how long a call that comes now waits until it is started, in seconds."""
        return max(0.0, self._busy_until - now - SIDE_BY_SIDE_S)

    def reply_s(self, now: float) -> float:
        """Return how long AMI takes to reply, in seconds."""
        return min(REPLIES_WITHIN_S, self.wait_s(now))

    def add(self, now: float) -> float:
        """Add one call; return how long it waits until it is started, in seconds."""
        wait_s = self.wait_s(now)
        if self.capacity is not None:
            self._busy_until = max(self._busy_until, now) + 1 / self.capacity
        return wait_s


class Timing:
    """Source of the delays of calls; the same seed gives the same delays."""

    def __init__(self, habits: CallHabits, seed: int | None) -> None:
        self._habits = habits
        self._random = random.Random(seed)

    def reject_s(self) -> float:
        """Return the seconds from the INVITE to the carrier's rejection."""
        return self._random.uniform(*self._habits.reject_time_s)

    def ring_s(self, outcome: Outcome) -> float:
        """Return the seconds from the INVITE to the answer."""
        return outcome.ring_s or self._random.uniform(*self._habits.ring_time_s)

    def talk_s(self, outcome: Outcome) -> float:
        """Return the seconds from the answer to the hangup."""
        if outcome.is_long:
            return self._habits.long_talk_s
        return self._random.uniform(*self._habits.talk_time_s)

    def interleave(self, *threads: Sequence[_T]) -> list[_T]:
        """Merge the events of several Asterisk threads at random; keep the order in each."""
        waiting = [list(reversed(thread)) for thread in threads if thread]
        mixed: list[_T] = []
        while waiting:
            thread = self._random.choice(waiting)
            mixed.append(thread.pop())
            if not thread:
                waiting.remove(thread)
        return mixed
