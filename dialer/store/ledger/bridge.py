"""The bridge's steps: its hand, admission, calls that wait for a worker, codes."""

from __future__ import annotations

import logging
import secrets
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Final

from dialer.domain import call as domain
from dialer.domain.call import Result, State
from dialer.domain.request import CallRequest, call_id
from dialer.store.entry import to_ms
from dialer.store.keys import BRIDGE_FORGOTTEN_AFTER_S, DONE_RETENTION_S, IDLE_RETENTION_S
from dialer.store.ledger.call_steps import CallSteps, Waiting, legal

logger = logging.getLogger(__name__)

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


class Delivery(StrEnum):
    """What became of a code in hand."""

    STORED = "stored"
    DONE = "done"
    ORPHAN = "orphan"
    SECOND = "second"
    GONE = "gone"


class BridgeLedger(CallSteps):
    """One cell's ledger as the bridge changes it."""

    __slots__ = ()

    # --- the bridge's hand ---------------------------------------------------------

    async def fetch(self, bridge: str, *, at_most: int, threads: int) -> tuple[list[bytes], int]:
        """Fills the bridge's hand with requests up to `at_most`, and as the cell has room for.

        Returns all that is in hand, oldest first, and the room left in the cell.
        """
        keys = self.keys
        room, *hand = await self.steps.run(
            "fetch",
            [self.wire.request, keys.hand(bridge), keys.live, keys.bridges],
            [at_most, self.head, threads, keys.hand(""), bridge, IDLE_RETENTION_S],
        )
        return list(hand), int(room)

    async def fetch_codes(self, bridge: str, *, at_most: int) -> list[bytes]:
        """Fills the bridge's hand with codes up to `at_most`; returns all that is in it."""
        keys = self.keys
        _, *hand = await self.steps.run(
            "fetch",
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

    async def return_hand(self, bridge: str) -> int:
        """The bridge stops: puts back what it has in hand; returns how much that was."""
        keys, wire = self.keys, self.wire
        back = await self.steps.run(
            "return_hand",
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
                keys.dropped,
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
        result: Result = Result.INVALID_REQUEST,
        dead: str = "",
        repeat: str = "",
    ) -> bool:
        """Answers a request without dialing; `dead` and `repeat` are entries of the dead list.

        Returns false where it was a repeat or in this hand no more.
        """
        keys = self.keys
        reply, dropped = await self.steps.run(
            "refuse",
            [
                keys.hand(bridge),
                keys.call(call_id(self.cell, request_id or "")),
                keys.dead,
                self.wire.response,
                keys.dropped,
            ],
            [
                raw,
                dead,
                response if request_id else "",
                repeat,
                self._push,
                DONE_RETENTION_S,
                result,
            ],
        )
        self._check_dropped(int(dropped))
        return bool(reply == b"refused")

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

    # --- codes ---------------------------------------------------------------------

    async def code(self, bridge: str, raw: bytes, *, call_id: str, code_json: str) -> Delivery:
        """Deliver a code that is in hand.

        An `ORPHAN` or `SECOND` code stays in the hand, for the caller to bury.
        """
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
            ],
            [raw, call_id, code_json, self._push, DONE_RETENTION_S, legal(domain.CodeCame)],
        )
        return Delivery(reply.decode())

    async def late_codes(self) -> list[str]:
        """Stop waiting for codes that are late; return the ids of their calls."""
        keys, wire = self.keys, self.wire
        ids = await self.steps.run(
            "late_codes",
            [keys.awaiting, keys.live, wire.counter, wire.counter_ack, wire.response],
            [keys.call(""), self._push, DONE_RETENTION_S, 500],
        )
        return [i.decode() for i in ids]

    # --- the dead list -------------------------------------------------------------

    async def bury_request(self, bridge: str, raw: bytes, entry: str) -> bool:
        """Move a request from the hand to the dead list as `entry`; false if not in the hand."""
        return await self._bury(self.keys.hand(bridge), raw, entry)

    async def bury_code(self, bridge: str, raw: bytes, entry: str) -> bool:
        """Move a code from the hand to the dead list as `entry`; false if not in the hand."""
        return await self._bury(self.keys.code_hand(bridge), raw, entry)

    async def _bury(self, hand: str, raw: bytes, entry: str) -> bool:
        keys = self.keys
        dropped = await self.steps.run("bury", [hand, keys.dead, keys.dropped], [raw, entry])
        self._check_dropped(int(dropped))
        return int(dropped) >= 0

    def _check_dropped(self, dropped: int) -> None:
        """Warn if the dead list was full, once for each cell."""
        if dropped > 0:
            _warn_dead_list_full(self.cell)


@cache
def _warn_dead_list_full(cell: str) -> None:
    logger.warning(
        "Dead list full; its oldest entries are dropped. Read it, mend what Multcall sends, "
        "then delete it",
        extra={"cell": cell},
    )
