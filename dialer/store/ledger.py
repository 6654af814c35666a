"""The ledger of one cell: the state of every call, changed in atomic steps only.

Each method is one Lua step (`lua/`). The states a step may start from come from the
domain's table, so this module decides nothing. Every step may be repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from dialer.domain import call as domain
from dialer.domain.call import LEGAL, Ending, State
from dialer.domain.request import CallRequest, call_id
from dialer.multcall.keys import CellKeys
from dialer.multcall.messages import ack, response_parts
from dialer.store.entry import Entry, pairs, to_ms
from dialer.store.keys import (
    BRIDGE_FORGOTTEN_AFTER_S,
    DONE_RETENTION_S,
    IDLE_RETENTION_S,
    LedgerKeys,
)
from dialer.store.steps import Steps

#: A bridge that was not heard of for this long is dead and its hand is taken over, in seconds.
BRIDGE_DEAD_AFTER_S: Final = 10.0

_MANY: Final = 10_000


class Admission(StrEnum):
    """What became of a request at the ledger's door."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"
    FULL = "full"
    NUMBER_LIMIT = "number_limit"
    GONE = "gone"


#: The states in which a call that has a PBX holds a slot there.
_HOLDING: Final = frozenset(State) - {State.ENDED, State.DONE}


def _legal(event: type[domain.Event], within: Collection[State] = frozenset(State)) -> str:
    return " " + " ".join(sorted(LEGAL[event] & set(within))) + " "


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A call that no worker has claimed. `pbx` is None where it waits for one."""

    call_id: str
    state: State
    epoch: int
    pbx: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """How many of a cell's elements stand where: requests not yet taken, calls, dead elements."""

    waiting: int
    live: int
    unclaimed: int
    awaiting: int
    dead: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """One cell's ledger. `push` is the end at which a producer appends (`multcall.push`)."""

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

    # --- the bridge's hand ---------------------------------------------------------

    async def take(self, bridge: str, *, at_most: int, threads: int) -> tuple[list[bytes], int]:
        """Fills the bridge's hand with requests up to `at_most`, and as the cell has room for.

        Returns all that is in hand, oldest first, and the room left in the cell.
        """
        keys = self.keys
        room, *hand = await self.steps.run(
            "take",
            [self.wire.request, keys.hand(bridge), keys.live, keys.bridges],
            [at_most, self.head, threads, keys.hand(""), bridge, IDLE_RETENTION_S],
        )
        return list(hand), int(room)

    async def take_codes(self, bridge: str, *, at_most: int) -> list[bytes]:
        """Fills the bridge's hand with codes up to `at_most`; returns all that is in it."""
        keys = self.keys
        _, *hand = await self.steps.run(
            "take",
            [self.wire.code, keys.code_hand(bridge), keys.live, keys.bridges],
            [at_most, self.head, -1, "", bridge, IDLE_RETENTION_S],
        )
        return list(hand)

    async def take_over(self, bridge: str) -> list[tuple[str, int]]:
        """Says that `bridge` lives; returns whom it took something over from, and how much."""
        keys = self.keys
        flat = await self.steps.run(
            "takeover",
            [keys.bridges],
            [
                bridge,
                int(BRIDGE_DEAD_AFTER_S * 1000),
                keys.hand(""),
                keys.code_hand(""),
                IDLE_RETENTION_S,
                BRIDGE_FORGOTTEN_AFTER_S * 1000,
            ],
        )
        return [(name.decode(), int(n)) for name, n in zip(flat[::2], flat[1::2], strict=True)]

    async def leave(self, bridge: str) -> int:
        """The bridge stops: puts back what it has in hand; returns how much that was."""
        keys, wire = self.keys, self.wire
        back = await self.steps.run(
            "leave",
            [keys.bridges, keys.hand(bridge), wire.request, keys.code_hand(bridge), wire.code],
            [bridge, self.head, int(BRIDGE_DEAD_AFTER_S * 1000)],
        )
        return int(back)

    # --- admission -----------------------------------------------------------------

    async def admit(
        self,
        bridge: str,
        raw: bytes,
        request: CallRequest,
        *,
        pbx: str,
        threads: int,
        repeat: str,
        expires_at: datetime | None = None,
        most_per_number: int = 0,
        number_window_s: float = 0,
    ) -> Admission:
        """Admits a request in hand, queued to `pbx`; `repeat` is the dead entry for a repeat."""
        keys = self.keys
        from_admission = request.valid_for_s is not None and expires_at is None
        reply = await self.steps.run(
            "admit",
            [
                keys.hand(bridge),
                keys.call(request.call_id),
                keys.live,
                keys.queued,
                self.wire.counter,
                keys.dead,
                keys.number(request.number),
            ],
            [
                raw,
                request.call_id,
                threads,
                repeat,
                pbx,
                to_ms(expires_at) if expires_at else "",
                most_per_number,
                int(number_window_s * 1000),
                int((request.valid_for_s or 0) * 1000) if from_admission else "",
                secrets.token_hex(8),
            ],
        )
        return Admission(reply.decode())

    async def refuse(
        self,
        bridge: str,
        raw: bytes,
        *,
        request_id: str | None,
        response: str = "",
        dead: str = "",
        repeat: str = "",
    ) -> bool:
        """Answers a request without dialing; `dead` and `repeat` are entries of the dead list.

        Returns false where it was a repeat or in this hand no more.
        """
        keys = self.keys
        reply = await self.steps.run(
            "refuse",
            [
                keys.hand(bridge),
                keys.call(call_id(self.cell, request_id or "")),
                keys.dead,
                self.wire.response,
            ],
            [raw, dead, response if request_id else "", repeat, self._push, DONE_RETENTION_S],
        )
        return bool(reply == b"refused")

    # --- queueing ------------------------------------------------------------------

    async def place(self, waiting: Waiting, pbx: str) -> int:
        """Queues a waiting call to `pbx`; returns its epoch, 0 where it went on meanwhile."""
        epoch = await self.steps.run(
            "place",
            [self.keys.call(waiting.call_id), self.keys.queued],
            [waiting.call_id, _legal(domain.Queued), waiting.epoch, pbx],
        )
        return int(epoch)

    async def due(self, *, older_than_s: float, pbx: str = "") -> list[Waiting]:
        """Waiting calls not published for that long, now marked as published."""
        keys = self.keys
        flat = await self.steps.run(
            "due", [keys.queued], [int(older_than_s * 1000), keys.call(""), _MANY, pbx]
        )
        text = [value.decode() if isinstance(value, bytes) else str(value) for value in flat]
        return [
            Waiting(call_id=i, state=State(s), epoch=int(e), pbx=p or None)
            for i, s, e, p in zip(text[::4], text[1::4], text[2::4], text[3::4], strict=True)
        ]

    # --- the worker's steps --------------------------------------------------------

    async def claim(
        self, call_id: str, *, pbx: str, epoch: int, at: datetime, boot: str, token: str
    ) -> Entry | None:
        """Takes the call for this worker; None where the task is void."""
        keys = self.keys
        flat = await self.steps.run(
            "claim",
            [keys.call(call_id), keys.queued, keys.claimed(pbx)],
            [call_id, _legal(domain.Claimed), pbx, epoch, to_ms(at), boot, token],
        )
        return Entry.from_hash(call_id, pairs(flat)) if flat else None

    async def unclaim(self, call_id: str, *, pbx: str, token: str) -> bool:
        """Gives a claimed call back; only where nothing was sent to Asterisk."""
        keys = self.keys
        reply = await self.steps.run(
            "unclaim",
            [keys.call(call_id), keys.queued, keys.claimed(pbx)],
            [call_id, _legal(domain.Unclaimed), token],
        )
        return bool(reply)

    async def accept(
        self,
        request: CallRequest,
        *,
        pbx: str,
        uniqueid: str,
        attempts: int,
        at: datetime,
        code_wait_s: float,
    ) -> bool:
        """Notes that Asterisk took the call, and sends the ACK. False where the call is over."""
        keys, wire = self.keys, self.wire
        reply = await self.steps.run(
            "accept",
            [keys.call(request.call_id), keys.awaiting, wire.counter_ack, wire.ack],
            [
                request.call_id,
                _legal(domain.Accepted),
                ack(request=request, pbx=pbx, uniqueid=uniqueid, at=at),
                self._push,
                to_ms(at),
                uniqueid,
                attempts,
                int(code_wait_s * 1000),
            ],
        )
        return bool(reply != b"refused")

    async def answer(self, call_id: str, *, at: datetime) -> bool:
        """Notes that the customer answered."""
        reply = await self.steps.run(
            "answer", [self.keys.call(call_id)], [_legal(domain.Answered), to_ms(at)]
        )
        return bool(reply)

    async def end(
        self,
        call: domain.Call,
        request: CallRequest,
        ending: Ending,
        *,
        within: Collection[State] = frozenset(State),
    ) -> str:
        """Ends a call: `done` (the Response went out), `ended` (with its code) or `void`.

        `within` are the states in which the caller's reason to end it still holds.
        """
        keys, wire = self.keys, self.wire
        parts = response_parts(
            request=request,
            pbx=call.pbx,
            uniqueid=call.uniqueid,
            attempts=call.attempts,
            dialed_at=call.dialed_at,
            answered_at=call.answered_at or ending.answered_at,
            ending=ending,
        )
        reply = await self.steps.run(
            "end",
            [
                keys.call(call.call_id),
                keys.live,
                keys.queued,
                keys.claimed(call.pbx or ""),
                wire.counter,
                wire.response,
            ],
            [
                call.call_id,
                _legal(domain.Ended, within),
                call.epoch,
                parts.head,
                parts.tail,
                ending.result,
                self._push,
                DONE_RETENTION_S,
            ],
        )
        return str(reply.decode())

    # --- codes ---------------------------------------------------------------------

    async def code(
        self, bridge: str, raw: bytes, *, call_id: str, code_json: str, orphan: str, second: str
    ) -> str:
        """Delivers a code that is in hand; `orphan` and `second` are entries of the dead list."""
        keys, wire = self.keys, self.wire
        reply = await self.steps.run(
            "code",
            [
                keys.code_hand(bridge),
                keys.call(call_id),
                keys.live,
                keys.awaiting,
                wire.counter,
                wire.counter_ack,
                wire.response,
                keys.dead,
            ],
            [
                raw,
                call_id,
                code_json,
                orphan,
                second,
                self._push,
                DONE_RETENTION_S,
                _legal(domain.CodeCame),
            ],
        )
        return str(reply.decode())

    async def bury_code(self, bridge: str, raw: bytes, dead: str) -> None:
        """Sends an unreadable code from the hand to the dead list."""
        await self.steps.run("bury", [self.keys.code_hand(bridge), self.keys.dead], [raw, dead])

    async def late_codes(self) -> list[str]:
        """Lets calls go on whose code is late; returns their ids."""
        keys, wire = self.keys, self.wire
        ids = await self.steps.run(
            "late_codes",
            [keys.awaiting, keys.live, wire.counter, wire.counter_ack, wire.response],
            [keys.call(""), self._push, DONE_RETENTION_S, 500],
        )
        return [i.decode() for i in ids]

    # --- reading -------------------------------------------------------------------

    async def claimed(self, pbx: str) -> list[Entry]:
        """Every call that this PBX's worker has claimed and not ended."""
        ids = await self.steps.read("SMEMBERS", self.keys.claimed(pbx))
        return await self.entries(i.decode() for i in ids)

    async def live(self) -> list[str]:
        """Every call that is not done."""
        return [i.decode() for i in await self.steps.read("ZRANGE", self.keys.live, 0, -1)]

    async def holding(self, ids: Iterable[str]) -> dict[str, str]:
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
        waiting, live, unclaimed, awaiting, dead = await self.steps.read_many(
            [
                ("LLEN", self.wire.request),
                ("ZCARD", keys.live),
                ("ZCARD", keys.queued),
                ("ZCARD", keys.awaiting),
                ("LLEN", keys.dead),
            ]
        )
        return CellCounts(
            waiting=waiting, live=live, unclaimed=unclaimed, awaiting=awaiting, dead=dead
        )

    async def hand(self, bridge: str) -> list[bytes]:
        """The requests that the bridge has in hand, oldest first."""
        return list(await self.steps.read("LRANGE", self.keys.hand(bridge), 0, -1))

    async def code_hand(self, bridge: str) -> list[bytes]:
        """The codes that the bridge has in hand, oldest first."""
        return list(await self.steps.read("LRANGE", self.keys.code_hand(bridge), 0, -1))
