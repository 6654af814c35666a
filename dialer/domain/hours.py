"""When a cell may ring people: windows by weekday, in the customers' time zone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Open from `start` up to, not including, `end` on `days` (Monday is 0).

    An `end` not after `start` means that it ends on the next day.
    """

    days: frozenset[int]
    start: time
    end: time

    def contains(self, local: datetime) -> bool:
        """True if a local time lies within."""
        now, today = local.time(), local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= now < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and now >= self.start) or (
            yesterday in self.days and now < self.end
        )


def is_open(windows: Iterable[Window], zone: tzinfo, at: datetime) -> bool:
    """True if any window holds `at`; always true where there are no windows."""
    windows = tuple(windows)
    return not windows or any(window.contains(at.astimezone(zone)) for window in windows)
