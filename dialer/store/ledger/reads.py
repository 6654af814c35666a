"""Read access to one cell's ledger, and its keys."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis.exceptions import RedisError, ResponseError

from dialer.domain.call import State
from dialer.domain.numbers import BY_DIGITS, Numbering
from dialer.domain.story import Story, story_of
from dialer.errors import StepsStopped, StoreUnavailable
from dialer.multcall.fields import PLAIN, Fields
from dialer.multcall.keys import CellKeys
from dialer.store.entry import Entry
from dialer.store.keys import LedgerKeys
from dialer.store.ledger.in_flight import (
    FIELDS,
    Ended,
    InFlight,
    ended_in,
    in_flight_of,
    number_in,
    state_in,
)
from dialer.store.steps import Steps, redis_time

#: Entries read in one round trip: parsing them takes about 4 ms.
SLICE: Final = 100

#: States in which a call has a slot of its PBX.
_HOLDING: Final = frozenset(State) - {State.ENDED, State.DONE}


@dataclass(frozen=True, slots=True)
class LedgerReads:
    """Read access to one cell's ledger.

    `push` is `multcall.push`, where Multcall appends. `fields` are the names in the answers to it.
    `numbering` says which numbers are the same telephone.
    """

    steps: Steps
    cell: str
    push: Literal["right", "left"] = "right"
    fields: Fields = PLAIN
    numbering: Numbering = BY_DIGITS

    @property
    def keys(self) -> LedgerKeys:
        """The ledger's keys of this cell."""
        return LedgerKeys(self.cell, self.numbering)

    @property
    def wire(self) -> CellKeys:
        """Multcall's keys of this cell."""
        return CellKeys(self.cell)

    @property
    def _push(self) -> str:
        return "RPUSH" if self.push == "right" else "LPUSH"

    @property
    def head(self) -> str:
        """The end of Multcall's lists from which elements are taken."""
        return "LEFT" if self.push == "right" else "RIGHT"

    async def live(self) -> list[str]:
        """Return the ids of all calls that are not done."""
        return names_in(await self.steps.read("ZRANGE", self.keys.live, 0, -1))

    async def slot_holders(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the calls among these that have a slot: call id to PBX."""
        names = list(ids)
        rows = await self.steps.read_many(
            [("HMGET", self.keys.call(i), "state", "pbx") for i in names]
        )
        return {
            name: pbx.decode(errors="replace")
            for name, (state, pbx) in zip(names, rows, strict=True)
            if pbx and state_in(state) in _HOLDING
        }

    async def entries(self, ids: Iterable[str]) -> list[Entry]:
        """Return the entries of the calls among these that are not done.

        Reads and parses them in slices, so that thousands do not block the event loop.
        """
        names = list(ids)
        found: list[Entry] = []
        for start in range(0, len(names), SLICE):
            some = names[start : start + SLICE]
            hashes = await self.steps.read_many([("HGETALL", self.keys.call(i)) for i in some])
            found += [
                Entry.from_hash(name, fields)
                for name, fields in zip(some, hashes, strict=True)
                if b"request" in fields
            ]
        return found

    async def in_flight(self, at_most: int) -> list[InFlight]:
        """Return the newest calls that are not done, the newest first."""
        return await self.flights([name for _, name in await self.newest(at_most)])

    async def newest(self, at_most: int) -> list[tuple[float, str]]:
        """Return when the newest calls that are not done were admitted, in ms, and their ids."""
        flat = await self.steps.read("ZRANGE", self.keys.live, 0, at_most - 1, "REV", "WITHSCORES")
        own = f"{self.cell}:"
        return [
            (admitted_ms if math.isfinite(admitted_ms) else 0.0, name)
            for name, admitted_ms in scored(flat)
            if name.startswith(own)
        ]

    async def ended(self, at_most: int) -> list[Ended]:
        """Return the calls that ended last, the newest first."""
        rows = await self.steps.read("LRANGE", self.keys.ended, 0, at_most - 1)
        return [call for row in rows if (call := ended_in(row, self.cell)) is not None]

    async def flights(self, ids: Sequence[str]) -> list[InFlight]:
        """Return what is shown of these calls, without those that are done in the meantime."""
        found: list[InFlight] = []
        for start in range(0, len(ids), SLICE):
            some = ids[start : start + SLICE]
            rows = await asyncio.gather(*map(self._shown, some))
            found += map(in_flight_of, some, rows)
        return [call for call in found if call.state is not State.DONE]

    async def _shown(self, call_id: str) -> Sequence[bytes | None]:
        """Return the values of `FIELDS`, none if the key is of another type."""
        try:
            row: Sequence[bytes | None] = await self.steps.read(
                "HMGET", self.keys.call(call_id), *FIELDS
            )
        except ResponseError:
            return [None] * len(FIELDS)
        return row

    async def number(self, call_id: str) -> str:
        """Return the number of a call, '' if it is not known; that of a done call is not kept."""
        (request,) = await self.steps.read("HMGET", self.keys.call(call_id), "request")
        return number_in(request, call_id)

    async def story(self, call_id: str) -> Story | None:
        """Return the story of a call of the last 24 hours, None if there is none of that id."""
        fields = await self.steps.read("HGETALL", self.keys.call(call_id))
        text = {
            name.decode(errors="replace"): value.decode(errors="replace")
            for name, value in fields.items()
            if name not in (b"request", b"head", b"tail")
        }
        return story_of(call_id, text) if text else None

    async def calls(self) -> int:
        """Return how many calls of the cell are not done."""
        return int(await self.steps.read("ZCARD", self.keys.live))

    async def sizes(self) -> tuple[int, int]:
        """Return how many calls are not done, and how many requests are in Multcall's list."""
        live, waiting = await self.steps.read_many(
            [("ZCARD", self.keys.live), ("LLEN", self.wire.request)]
        )
        return int(live), int(waiting)

    async def served_by(self) -> dict[str, float]:
        """Return the bridges of the cell with the seconds since their last heartbeats."""
        now_ms = await redis_time(self.steps) * 1000
        flat = await self.steps.read("ZRANGE", self.keys.bridges, 0, -1, "WITHSCORES")
        return {name: (now_ms - seen_ms) / 1000 for name, seen_ms in scored(flat)}

    async def hand(self, bridge: str) -> list[bytes]:
        """Return the requests in the bridge's hand, oldest first."""
        return list(await self.steps.read("LRANGE", self.keys.hand(bridge), 0, -1))

    async def code_hand(self, bridge: str) -> list[bytes]:
        """Return the codes in the bridge's hand, oldest first."""
        return list(await self.steps.read("LRANGE", self.keys.code_hand(bridge), 0, -1))


def scored(reply: Sequence[Any]) -> list[tuple[str, float]]:
    """Return members and scores of a reply, which has pairs in RESP3 and is flat in RESP2."""
    if reply and isinstance(reply[0], bytes):
        reply = list(zip(reply[::2], reply[1::2], strict=True))
    return [(member.decode(errors="replace"), float(score)) for member, score in reply]


def names_in(ids: Iterable[bytes]) -> list[str]:
    """Return names from Redis, without those that are no text: they are not ours."""
    return [i.decode() for i in ids if i.decode(errors="replace").encode() == i]


def is_of_one_element(error: Exception) -> bool:
    """True if one element caused the error, and not Redis, the network, memory or stopped steps."""
    others = RedisError | OSError | MemoryError | StepsStopped | StoreUnavailable
    return not isinstance(error, others)
