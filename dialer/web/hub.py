"""One reader for all viewers: the newest snapshot, read only while somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from redis.exceptions import RedisError

from dialer.errors import DialerError
from dialer.monitor.collector import Seen

#: A look is at most this old when a page is made, and streams get one each such time. In seconds.
LOOK_EVERY_S: Final = 1.0

#: A look that takes longer has failed, in seconds.
WITHIN_S: Final = 3.0


class NotRead(DialerError):
    """Redis did not answer since the page was started."""

    code = "not_read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is shown. `number` grows with each look. `trouble`: why this is an old snapshot, or ''.

    `at` is when `seen` was read; `took_s` is how long the last look took.
    """

    number: int
    seen: Seen
    at: datetime
    trouble: str = ""
    took_s: float = 0.0

    @property
    def age_s(self) -> float:
        """Age of what is shown, in seconds."""
        return max(0.0, (datetime.now(UTC) - self.at).total_seconds())


@dataclass(slots=True)
class Hub:
    """`read` takes a snapshot. Without viewers nothing is read.

    A look runs in a task of its own: a viewer who leaves does not cancel it for the others.
    """

    read: Callable[[], Awaitable[Seen]]
    every_s: float = LOOK_EVERY_S
    within_s: float = WITHIN_S
    _last: Look | None = None
    _tried_at: float = float("-inf")
    _tries: int = 0
    _trouble: str = ""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _looking: asyncio.Task[None] | None = None

    async def now(self, *, max_age_s: float | None = None) -> Look:
        """Return a look that is not older than `every_s`, or the last one that succeeded.

        Raises:
            NotRead: none ever succeeded.
        """
        async with self._turn:
            if time.monotonic() - self._tried_at >= (
                self.every_s if max_age_s is None else max_age_s
            ):
                if self._looking is None or self._looking.done():
                    self._looking = asyncio.create_task(self._look(), name="look at the system")
                await asyncio.shield(self._looking)
        if self._last is None:
            raise NotRead(f"Redis does not answer ({self._trouble}): see that it runs")
        return self._last

    async def after(self, number: int) -> Look:
        """Wait until there is a later look than that of this number."""
        while True:
            look = await self.now()
            if look.number > number:
                return look
            await asyncio.sleep(max(0.01, self._tried_at + self.every_s - time.monotonic()))

    async def _look(self) -> None:
        began = time.monotonic()
        self._tries += 1
        try:
            async with asyncio.timeout(self.within_s):
                seen = await self.read()
        except (RedisError, OSError, DialerError) as error:  # a timeout is an OSError
            self._trouble = str(error) or f"no answer in {self.within_s:g} s"
            if (last := self._last) is not None:
                self._last = Look(
                    number=self._tries, seen=last.seen, at=last.at, trouble=self._trouble
                )
        else:
            took_s = time.monotonic() - began
            self._trouble = ""
            self._last = Look(number=self._tries, seen=seen, at=datetime.now(UTC), took_s=took_s)
        self._tried_at = time.monotonic()
