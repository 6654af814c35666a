"""The clock of a worker: the time of the registry's Redis, so that one clock decides for all.

Redis writes when a request expires. A worker whose host has a wrong clock must neither end calls
too early nor write times before the request was created.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

logger = logging.getLogger(__name__)

#: A difference beyond this is logged, in ms.
WARN_MS: Final = 2_000

#: Beyond this the PBX takes no calls: the host's other clocks (CDR, recordings) are wrong too.
REFUSE_MS: Final = 30_000

#: A reply that took longer says too little about the time, in seconds.
SLOW_S: Final = 1.0


@dataclass(slots=True)
class RedisClock:
    """Time of Redis, from the replies to the heartbeats.

    Between them it goes on by the monotonic clock, so that a jump of the host's clock changes
    nothing. `host` returns the host's time, `monotonic` seconds of a monotonic clock.
    """

    host: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    _skew: timedelta = timedelta()
    _heard: tuple[datetime, float] | None = None
    _has_warned: bool = False

    def hear(self, now_ms: int, sent_at: float) -> None:
        """Use a time of Redis; it is the reply to a step sent at that monotonic time.

        A reply tells the time to half of what it took. If the present time agrees with it, it
        stays: a slow reply of a busy host must not replace a better one.
        """
        took_s = self.monotonic() - sent_at
        if took_s > SLOW_S:
            return
        redis = datetime.fromtimestamp(now_ms / 1000, UTC) + timedelta(seconds=took_s / 2)
        if abs(self.now() - redis) > timedelta(seconds=took_s / 2) or self._heard is None:
            self._heard = redis, self.monotonic()
        self._skew = self.host() - self.now()
        if abs(self.skew_ms) <= WARN_MS:
            self._has_warned = False
        elif not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The clock of this host differs from Redis; synchronize it (NTP, chrony)",
                extra={"skew_ms": self.skew_ms},
            )

    @property
    def skew_ms(self) -> int:
        """How much the host's clock is ahead of Redis, in ms."""
        return round(self._skew / timedelta(milliseconds=1))

    def now(self) -> datetime:
        """Return the time of Redis now; the host's before the first reply."""
        if self._heard is None:
            return self.host()
        redis, heard_at = self._heard
        return redis + timedelta(seconds=self.monotonic() - heard_at)

    def of_host(self, at: datetime) -> datetime:
        """Convert a time that this host's clock gave to the time of Redis."""
        return at - self._skew

    @property
    def trouble(self) -> str:
        """A sentence with the cure if the host's clock is wrong, else empty."""
        if abs(self.skew_ms) <= REFUSE_MS:
            return ""
        way = "ahead of" if self.skew_ms > 0 else "behind"
        return (
            f"this host's clock is {abs(self.skew_ms) / 1000:.0f} s {way} the clock of Redis: "
            "synchronize it (NTP, chrony) on both hosts"
        )
