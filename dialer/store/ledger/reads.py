"""What can be read of one cell's ledger, and the keys it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from dialer.domain.call import State
from dialer.multcall.keys import CellKeys
from dialer.store.entry import Entry
from dialer.store.keys import LedgerKeys
from dialer.store.steps import Steps

#: The states in which a call that has a PBX holds a slot there.
_HOLDING: Final = frozenset(State) - {State.ENDED, State.DONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """How many of a cell's elements stand where: requests not yet taken, calls, dead elements."""

    waiting: int
    live: int
    unclaimed: int
    awaiting: int
    dead: int
    dropped: int


@dataclass(frozen=True, slots=True)
class LedgerReads:
    """Reads of one cell's ledger. `push` is the end at which Multcall appends (`multcall.push`)."""

    steps: Steps
    cell: str
    push: Literal["right", "left"] = "right"

    @property
    def keys(self) -> LedgerKeys:
        """Our keys of this cell."""
        return LedgerKeys(self.cell)

    @property
    def wire(self) -> CellKeys:
        """Multcall's keys of this cell."""
        return CellKeys(self.cell)

    @property
    def _push(self) -> str:
        return "RPUSH" if self.push == "right" else "LPUSH"

    @property
    def head(self) -> str:
        """The end of Multcall's lists from which a consumer takes."""
        return "LEFT" if self.push == "right" else "RIGHT"

    async def claimed(self, pbx: str) -> list[Entry]:
        """Every call that this PBX's worker has claimed and not ended."""
        ids = await self.steps.read("SMEMBERS", self.keys.claimed(pbx))
        return await self.entries(i.decode() for i in ids)

    async def live(self) -> list[str]:
        """Every call that is not done."""
        return [i.decode() for i in await self.steps.read("ZRANGE", self.keys.live, 0, -1)]

    async def slot_holders(self, ids: Iterable[str]) -> dict[str, str]:
        """Those of the calls that hold a slot, each with the PBX where it does."""
        names = list(ids)
        rows = await self.steps.read_many(
            [("HMGET", self.keys.call(i), "state", "pbx") for i in names]
        )
        return {
            name: pbx.decode()
            for name, (state, pbx) in zip(names, rows, strict=True)
            if state and pbx and State(state.decode()) in _HOLDING
        }

    async def entries(self, ids: Iterable[str]) -> list[Entry]:
        """The entries of those calls that are not done."""
        names = list(ids)
        hashes = await self.steps.read_many([("HGETALL", self.keys.call(i)) for i in names])
        return [
            Entry.from_hash(name, fields)
            for name, fields in zip(names, hashes, strict=True)
            if b"request" in fields
        ]

    async def calls(self) -> int:
        """How many calls of the cell are not done."""
        return int(await self.steps.read("ZCARD", self.keys.live))

    async def counts(self) -> CellCounts:
        """How many stand where now."""
        keys = self.keys
        waiting, live, unclaimed, awaiting, dead, dropped = await self.steps.read_many(
            [
                ("LLEN", self.wire.request),
                ("ZCARD", keys.live),
                ("ZCARD", keys.queued),
                ("ZCARD", keys.awaiting),
                ("LLEN", keys.dead),
                ("GET", keys.dropped),
            ]
        )
        return CellCounts(
            waiting=waiting,
            live=live,
            unclaimed=unclaimed,
            awaiting=awaiting,
            dead=dead,
            dropped=int(dropped or 0),
        )

    async def hand(self, bridge: str) -> list[bytes]:
        """The requests that the bridge has in hand, oldest first."""
        return list(await self.steps.read("LRANGE", self.keys.hand(bridge), 0, -1))

    async def code_hand(self, bridge: str) -> list[bytes]:
        """The codes that the bridge has in hand, oldest first."""
        return list(await self.steps.read("LRANGE", self.keys.code_hand(bridge), 0, -1))
