"""One cell's lists as Multcall handles them, through outages of Redis.

Owns that nothing is pushed twice and nothing popped is lost, whatever becomes of a reply:
every step may be repeated. Knows nothing of what the elements mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.multcall.keys import CellKeys
from dialer.store.client import is_passing

Push = Literal["right", "left"]

#: What the player keeps in Redis for itself is forgotten after this long, in seconds.
RETENTION_S: Final = 3600

#: Elements popped in one turn.
BATCH: Final = 500

#: Longest wait for an element in one turn, in seconds.
BLOCK_S: Final = 1.0

#: Pause between two tries while Redis is away, in seconds.
RETRY_PAUSE_S: Final = 0.1

_T = TypeVar("_T")


def _script(name: str) -> str:
    folder = resources.files("dialer.simulation.multcall") / "lua"
    return (folder / f"{name}.lua").read_text(encoding="utf-8")


PUSH_ONCE: Final = _script("push_once")
TAKE_ONCE: Final = _script("take_once")


@dataclass(slots=True)
class CellLists:
    """The lists of one cell. `run` sets this player's own keys apart from those of others."""

    redis: Redis
    cell: str
    run: str
    push: Push = "right"

    @property
    def wire(self) -> CellKeys:
        """The keys that Multcall and the dialer share."""
        return CellKeys(self.cell)

    def _own(self, what: str) -> str:
        """Set, lists and strings of this player; `RETENTION_S`, deleted by `clean`."""
        return f"multcall-simulated:{self.run}:{self.cell}:{what}"

    async def append(self, key: str, elements: Sequence[tuple[str, bytes]]) -> None:
        """Pushes elements to a list, each with a name that no other element of it has."""
        flat = [part for pair in elements for part in pair]
        verb = "RPUSH" if self.push == "right" else "LPUSH"
        pushed = self._own(f"pushed:{key}")
        await self._through(
            lambda: self.redis.eval(PUSH_ONCE, 2, key, pushed, verb, RETENTION_S, *flat)
        )

    async def elements(self, key: str) -> AsyncIterator[list[bytes]]:
        """Takes whatever comes to a list, for ever."""
        head = "LEFT" if self.push == "right" else "RIGHT"
        hand, last = self._own(f"hand:{key}"), self._own(f"turn:{key}")
        turn = taken = 0
        while True:
            turn += 1
            args = (turn, taken, head, BATCH, RETENTION_S)
            found = await self._through(
                lambda args=args: self.redis.eval(TAKE_ONCE, 3, key, hand, last, *args)  # type: ignore[misc]
            )
            taken = len(found)
            if found:
                yield found
            else:
                await self._wait(key, hand, head)

    async def counters(self) -> tuple[bytes | None, bytes | None]:
        """Counter and CounterACK as they stand."""
        keys = [self.wire.counter, self.wire.counter_ack]
        counter, counter_ack = await self._through(lambda: self.redis.mget(keys))
        return counter, counter_ack

    async def clean(self) -> None:
        """Removes the player's own keys."""
        wire = self.wire
        own = [self._own(f"pushed:{key}") for key in (wire.request, wire.code)]
        own += [
            self._own(f"{w}:{key}") for w in ("hand", "turn") for key in (wire.ack, wire.response)
        ]
        await self._through(lambda: self.redis.delete(*own))

    async def _wait(self, key: str, hand: str, head: str) -> None:
        """Waits for an element and moves it into the hand; what is there is seen afterwards."""
        try:
            await self.redis.blmove(key, hand, BLOCK_S, head, "RIGHT")  # type: ignore[arg-type]
        except (RedisError, OSError) as error:
            if not is_passing(error):
                raise
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _through(self, step: Callable[[], Awaitable[_T]]) -> Any:
        """Runs a step that may be repeated until it got through."""
        while True:
            try:
                return await step()
            except (RedisError, OSError) as error:
                if not is_passing(error):
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)
