"""What a bridge says of itself in the registry: its clock and its broker, for the monitor."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from dialer.bridge.dispatch import Dispatcher
from dialer.store.clock import RedisClock
from dialer.store.registry import SKEW_WARNED_S, BridgeState, Registry, skew_words

logger = logging.getLogger(__name__)

#: How often it is written, in seconds.
EVERY_S: Final = 1.0

#: Pause after Redis refused it, in seconds.
REFUSED_PAUSE_S: Final = 5.0


@dataclass(slots=True)
class OwnState:
    """The state of the bridge named `bridge`. `clock` measures the registry's Redis."""

    bridge: str
    registry: Registry
    dispatcher: Dispatcher
    clock: RedisClock = field(default_factory=RedisClock)
    _is_skewed: bool = False

    async def run(self) -> None:
        """Write the state until cancelled."""
        while True:
            try:
                await self.write()
            except RedisError as error:
                logger.error(  # noqa: TRY400  # needs no traceback
                    "Redis refused a command; trying again",
                    extra={
                        "redis": "the registry's Redis",
                        "part": "own state",
                        "error": str(error),
                    },
                )
                await asyncio.sleep(REFUSED_PAUSE_S)
            await asyncio.sleep(EVERY_S)

    async def write(self) -> None:
        """Measure the clock, look at the broker and write the state once."""
        self.dispatcher.look()
        await self.clock.measure(self.registry.steps)
        self._warn_of_skew(self.clock.skew_s)
        state = BridgeState(skew_s=self.clock.skew_s, broker=self.dispatcher.problem)
        await self.registry.bridge_beat(self.bridge, state)

    def _warn_of_skew(self, skew_s: float) -> None:
        """Log once that the clock differs, and once that it agrees again."""
        is_skewed = abs(skew_s) > SKEW_WARNED_S
        if is_skewed is self._is_skewed:
            return
        self._is_skewed = is_skewed
        if is_skewed:
            logger.error(
                "Clock of this host differs from Redis; the time of Redis is used",
                extra={"problem": skew_words(skew_s)},
            )
        else:
            logger.warning("Clock of this host agrees with Redis again")
