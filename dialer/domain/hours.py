"""Calling hours of a cell: windows by weekday, in the customers' time zone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Time on `days` (Monday is 0) from `start`, included, to `end`, not included.

    If `end` is not after `start`, the window ends on the next day.
    """

    days: frozenset[int]
    start: time
    end: time

    def contains(self, local: datetime) -> bool:
        """True if the local time is in the window."""
        now, today = local.time(), local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= now < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and now >= self.start) or (
            yesterday in self.days and now < self.end
        )


def is_open(windows: Iterable[Window], zone: tzinfo, at: datetime) -> bool:
    """True if `at` is in any window; always true if there are no windows."""
    windows = tuple(windows)
    return not windows or any(window.contains(at.astimezone(zone)) for window in windows)
