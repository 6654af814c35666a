"""The figures of a run: its rate and its latencies. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from dialer.simulation.multcall.checker import percentile


def rate_per_s(ends: Sequence[float], first_s: float, own_s: float) -> float:
    """Return the calls per second of a run.

    Divides by the time from the first request to the last end less one call's own ring and talk
    time. (The middle of the completions would mislead: calls that Asterisk starved end in a
    burst.)

    Args:
        ends: when each good call ended; the others do not count.
        first_s: when the first request was made.
        own_s: how long one call rings and talks.
    """
    if not ends:
        return 0.0
    return len(ends) / max(max(ends) - first_s - own_s, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Percentiles in milliseconds; NaN if nothing was measured, which misses every limit."""

    p50: float = math.nan
    p99: float = math.nan
    longest: float = math.nan

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self:
        """Compute it from values in seconds."""
        ordered = sorted(seconds)

        def ms(percent: float) -> float:
            value = percentile(ordered, percent)
            return math.nan if value is None else value * 1000

        return cls(p50=ms(50), p99=ms(99), longest=ms(100))
