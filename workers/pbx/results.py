"""Count what became of this worker's calls in the last minute; the bridge judges the PBX by it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

#: What is counted: calls claimed, Originates that Asterisk accepted, accepted ones of which no
#: event ever came, answered calls that did not reach their target, calls expired before the dial,
#: calls that no message announced in time, calls that the trunk or the network refused.
Name = Literal[
    "claimed", "accepted", "no_word", "not_handed_over", "expired", "unannounced", "congested"
]

NAMES: Final[tuple[Name, ...]] = get_args(Name)

#: Length of the window, in seconds.
WINDOW_S: Final = 60


@dataclass(slots=True)
class Results:
    """Counts of the last `WINDOW_S` seconds. `monotonic` returns seconds of a monotonic clock."""

    monotonic: Callable[[], float] = time.monotonic
    _seconds: deque[tuple[int, Counter[Name]]] = field(default_factory=deque)

    def count(self, name: Name) -> None:
        """Count one call."""
        now = int(self.monotonic())
        if not self._seconds or self._seconds[-1][0] != now:
            self._seconds.append((now, Counter()))
        self._seconds[-1][1][name] += 1
        self._forget_old()

    def take_back(self, name: Name) -> None:
        """Count one call less, because it went well in the end."""
        for _, counts in reversed(self._seconds):
            if counts[name]:
                counts[name] -= 1
                return

    def last_minute(self) -> dict[Name, int]:
        """Return the number of calls for each name, also those that are 0."""
        self._forget_old()
        total: Counter[Name] = sum((counts for _, counts in self._seconds), Counter())
        return {name: total[name] for name in NAMES}

    def _forget_old(self) -> None:
        oldest = int(self.monotonic()) - WINDOW_S
        while self._seconds and self._seconds[0][0] <= oldest:
            self._seconds.popleft()
