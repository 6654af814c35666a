"""The clock that decides: a host's clock, corrected by the time of a Redis server.

Hosts may disagree by minutes. So expiry, calling hours and the times on the wire come from the
Redis of the cell, as those that the Lua steps write.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dialer.store.steps import Steps, redis_time

#: A reply that took longer does not tell the time well enough, in seconds.
REPLY_WITHIN_S: Final = 0.5


@dataclass(slots=True)
class RedisClock:
    """The time of one Redis server. `host_time` returns the host's seconds since 1970.

    `skew_s` is how far the host's clock is ahead of the server's; 0 until the first measurement.
    """

    host_time: Callable[[], float] = time.time
    skew_s: float = 0.0
    is_measured: bool = False

    async def measure(self, steps: Steps) -> None:
        """Measure the skew. A slow reply changes nothing, except if there was none before.

        A skew that may be nothing but the time that the reply took counts as none.
        """
        before = self.host_time()
        redis_s = await redis_time(steps)
        after = self.host_time()
        if after - before <= REPLY_WITHIN_S or not self.is_measured:
            is_between = before <= redis_s <= after
            self.skew_s = 0.0 if is_between else (before + after) / 2 - redis_s
            self.is_measured = True

    def now(self) -> datetime:
        """Return the present time of the server."""
        return datetime.fromtimestamp(self.host_time() - self.skew_s, UTC)
