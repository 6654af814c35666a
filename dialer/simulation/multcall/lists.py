"""Multcall's side of one cell's lists, with retries during outages of Redis.

Guarantees that nothing is pushed twice and nothing popped is lost if a reply is lost: every
step may be repeated. Does not know the meaning of the elements.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.multcall.fields import PLAIN, Fields
from dialer.multcall.keys import CellKeys
from dialer.store.client import is_passing

Push = Literal["right", "left"]

#: Lifetime of the player's own keys in Redis, in seconds.
RETENTION_S: Final = 3600

#: Most elements popped in one turn.
BATCH: Final = 500

#: Longest wait for an element in one turn, in seconds.
BLOCK_S: Final = 1.0

#: Pause between two retries while Redis is down, in seconds.
RETRY_PAUSE_S: Final = 0.1

_T = TypeVar("_T")


def _script(name: str) -> str:
    folder = resources.files("dialer.simulation.multcall") / "lua"
    return (folder / f"{name}.lua").read_text(encoding="utf-8")


PUSH_ONCE: Final = _script("push_once")
POP_ONCE: Final = _script("pop_once")


@dataclass(slots=True)
class CellLists:
    """The lists of one cell. `run` makes this player's own keys unique.

    Elements have our names of the fields here, and those of `fields` in Redis.
    """

    redis: Redis
    cell: str
    run: str
    push: Push = "right"
    fields: Fields = PLAIN

    @property
    def wire(self) -> CellKeys:
        """The keys shared by Multcall and the dialer."""
        return CellKeys(self.cell)

    def _own(self, what: str) -> str:
        """Return a key of this player; it expires after `RETENTION_S`, `clean` deletes it."""
        return f"multcall-simulated:{self.run}:{self.cell}:{what}"

    async def append(self, key: str, elements: Sequence[tuple[str, bytes]]) -> None:
        """Push (name, element) pairs to a list; names must be unique within the list."""
        flat = [part for name, raw in elements for part in (name, self.fields.to_wire(raw))]
        verb = "RPUSH" if self.push == "right" else "LPUSH"
        pushed = self._own(f"pushed:{key}")
        await self._through(
            lambda: self.redis.eval(PUSH_ONCE, 2, key, pushed, verb, RETENTION_S, *flat)
        )

    async def elements(self, key: str) -> AsyncIterator[list[bytes]]:
        """Yield batches of new elements of a list, without end."""
        head = "LEFT" if self.push == "right" else "RIGHT"
        hand, last = self._own(f"hand:{key}"), self._own(f"turn:{key}")
        turn = received = 0
        while True:
            turn += 1
            args = (turn, received, head, BATCH, RETENTION_S)
            found = await self._through(
                lambda args=args: self.redis.eval(POP_ONCE, 3, key, hand, last, *args)  # type: ignore[misc]
            )
            received = len(found)
            if found:
                yield [self.fields.to_ours(raw) for raw in found]
            else:
                await self._wait(key, hand, head)

    async def counters(self) -> tuple[bytes | None, bytes | None]:
        """Return Counter and CounterACK."""
        keys = [self.wire.counter, self.wire.counter_ack]
        counter, counter_ack = await self._through(lambda: self.redis.mget(keys))
        return counter, counter_ack

    async def clean(self) -> None:
        """Delete the player's own keys."""
        wire = self.wire
        own = [self._own(f"pushed:{key}") for key in (wire.request, wire.code)]
        own += [
            self._own(f"{w}:{key}") for w in ("hand", "turn") for key in (wire.ack, wire.response)
        ]
        await self._through(lambda: self.redis.delete(*own))

    async def _wait(self, key: str, hand: str, head: str) -> None:
        """Wait for an element and move it into the hand; the next turn reads the hand."""
        try:
            await self.redis.blmove(key, hand, BLOCK_S, head, "RIGHT")  # type: ignore[arg-type]
        except (RedisError, OSError) as error:
            if not is_passing(error):
                raise
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _through(self, step: Callable[[], Awaitable[_T]]) -> Any:
        """Repeat an idempotent step until it succeeds."""
        while True:
            try:
                return await step()
            except (RedisError, OSError) as error:
                if not is_passing(error):
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)
