"""The bridge's steps: its hand, parked requests, admission, waiting calls, codes.

Every method is one Lua step or one read. `dialer.domain.room` and `dialer.bridge` decide which
requests to fetch and which PBX gets a call.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from dialer.domain import call as domain
from dialer.domain.call import Result
from dialer.domain.request import CallRequest, call_id
from dialer.store.entry import to_ms
from dialer.store.keys import (
    BRIDGE_FORGOTTEN_AFTER_S,
    CALL_PREFIX,
    DONE_RETENTION_S,
    IDLE_RETENTION_S,
)
from dialer.store.ledger.call_steps import legal
from dialer.store.ledger.waiting import WaitingCalls
from dialer.store.steps import Arg

logger = logging.getLogger(__name__)

#: After this time without a heartbeat a bridge is dead; another takes over its hand. In seconds.
BRIDGE_DEAD_AFTER_S: Final = 10.0

#: Unclaimed calls of a cell that are looked at.
UNCLAIMED_LOOKED_AT: Final = 200

#: Most parked requests that one step puts back into the list of Multcall.
RETURNED: Final = 1_000


class Delivery(StrEnum):
    """Result of delivering a code in hand."""

    STORED = "stored"
    DONE = "done"
    ORPHAN = "orphan"
    SECOND = "second"
    GONE = "gone"


class Admission(StrEnum):
    """Result of an admission. `NO_SLOT`: its PBX has no room, or not yet by its pace."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"
    FULL = "full"
    NUMBER_LIMIT = "number_limit"
    NO_SLOT = "no_slot"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Result of `fetch`: this bridge's hand, oldest first, and the counts of the cell.

    `live` is how many calls are not done, `in_hand` how many requests all bridges have in hand,
    `parked` how many requests wait for each trunk, `unclaimed` how many calls the worker of each
    PBX has not claimed, if that was asked.
    """

    hand: list[bytes]
    live: int = 0
    in_hand: int = 0
    parked: Mapping[str, int] = field(default_factory=dict)
    unclaimed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admissible:
    """A request that may be admitted; it waits in the list `source` (hand or parked).

    `stored` is the request as the ledger keeps it, by the strict wire; default: `raw`.
    """

    source: str
    raw: bytes
    request: CallRequest
    expires_at: datetime | None = None
    most_per_number: int = 0
    number_window_s: float = 0
    stored: bytes = b""

    def values(self, pbx: str) -> tuple[Arg, ...]:
        """Return the values of the request that `_admit.lua` takes, with a new token."""
        expires_at, valid_for_s = self.expires_at, self.request.valid_for_s
        from_admission = valid_for_s is not None and expires_at is None
        return (
            self.raw,
            self.request.call_id,
            pbx,
            to_ms(expires_at) if expires_at else "",
            int((valid_for_s or 0) * 1000) if from_admission else "",
            secrets.token_hex(8),
            self.stored or self.raw,
            self.most_per_number,
            int(self.number_window_s * 1000),
        )


class BridgeLedger(WaitingCalls):
    """One cell's ledger, with the steps of a bridge."""

    __slots__ = ()

    # --- the bridge's hand and the parked requests -----------------------------------

    async def fetch(
        self, bridge: str, *, at_most: int, threads: int, sees_unclaimed: bool = False
    ) -> Fetched:
        """Move requests from Multcall's list to this bridge's hand.

        The hand gets at most `at_most` elements, and only as many as the cell's `threads` allow.
        `sees_unclaimed`: count also the calls that no worker has claimed.
        """
        keys = self.keys
        live, in_hand, hand, parked, unclaimed = await self.steps.run(
            "fetch",
            [
                *(self.wire.request, keys.hand(bridge), keys.live, keys.bridges, keys.parking),
                keys.queued,
            ],
            [
                at_most,
                self.head,
                threads,
                keys.hand(""),
                bridge,
                IDLE_RETENTION_S,
                keys.parked(""),
                CALL_PREFIX,
                UNCLAIMED_LOOKED_AT if sees_unclaimed else 0,
            ],
        )
        names = [name.decode(errors="replace") for name in parked[::2]]
        return Fetched(
            hand=list(hand),
            live=int(live),
            in_hand=int(in_hand),
            parked=dict(sorted(zip(names, map(int, parked[1::2]), strict=True))),
            unclaimed=Counter(pbx.decode(errors="replace") for pbx in unclaimed),
        )

    async def fetch_codes(self, bridge: str, *, at_most: int) -> list[bytes]:
        """Move codes to the bridge's hand, up to `at_most`; return the whole hand."""
        keys = self.keys
        hand = await self.steps.run(
            "fetch_codes",
            [self.wire.code, keys.code_hand(bridge), keys.bridges],
            [at_most, self.head, bridge, IDLE_RETENTION_S],
        )
        return list(hand)

    async def take_over(self, bridge: str) -> list[tuple[str, int]]:
        """Send the heartbeat of `bridge` and take over the hands of dead bridges.

        Return (dead bridge, number of elements) pairs.
        """
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
        return [
            (name.decode(errors="replace"), int(n))
            for name, n in zip(flat[::2], flat[1::2], strict=True)
        ]

    async def return_hand(self, bridge: str) -> int:
        """Put the hand of a stopping bridge back into Multcall's lists.

        Return how many elements went back.
        """
        keys, wire = self.keys, self.wire
        back = await self.steps.run(
            "return_hand",
            [keys.bridges, keys.hand(bridge), wire.request, keys.code_hand(bridge), wire.code],
            [bridge, self.head, int(BRIDGE_DEAD_AFTER_S * 1000)],
        )
        return int(back)

    async def return_parked(self, bridge: str) -> int:
        """Put up to `RETURNED` parked requests of a removed cell back into Multcall's list.

        Return how many went back: 0 if none is parked, or if another bridge serves the cell.
        """
        keys = self.keys
        dead_after_ms = int(BRIDGE_DEAD_AFTER_S * 1000)
        back = await self.steps.run(
            "return_parked",
            [keys.bridges, self.wire.request, keys.parking],
            [bridge, self.head, dead_after_ms, keys.parked(""), RETURNED],
        )
        return int(back)

    async def has_parked(self) -> bool:
        """True if a request is parked, or was a moment ago."""
        return bool(await self.steps.read("SCARD", self.keys.parking))

    async def has_requests(self, bridge: str) -> bool:
        """True if an element is in this bridge's hands, or is parked and no other bridge lives.

        Another living bridge dials the parked requests, or returns them when it stops.
        """
        keys = self.keys
        seconds, _ = await self.steps.read("TIME")
        living_since_ms = int((seconds - BRIDGE_DEAD_AFTER_S) * 1000)
        hand, code_hand, parking, living = await self.steps.read_many(
            [
                ("LLEN", keys.hand(bridge)),
                ("LLEN", keys.code_hand(bridge)),
                ("SCARD", keys.parking),
                ("ZRANGEBYSCORE", keys.bridges, living_since_ms, "+inf"),
            ]
        )
        is_alone = not set(living) - {bridge.encode()}
        return bool(hand or code_hand or (parking and is_alone))

    async def park(self, source: str, requests: Sequence[tuple[str, bytes]]) -> int:
        """Move requests from the list `source` to the parked list of their trunk.

        Return how many were in `source`.
        """
        keys = self.keys
        n = await self.steps.run(
            "park",
            [source, keys.parking],
            [keys.parked(""), *(value for pair in requests for value in pair)],
        )
        return int(n)

    async def parked(self, wanted: Mapping[str, int]) -> dict[str, list[bytes]]:
        """Return the first parked requests of each trunk, up to the given number, oldest first."""
        rows = await self.steps.read_many(
            [("LRANGE", self.keys.parked(t), 0, n - 1) for t, n in wanted.items()]
        )
        return dict(zip(wanted, rows, strict=True))

    async def parked_slice(self, trunk: str, start: int, n: int) -> list[bytes]:
        """Return up to `n` parked requests of a trunk, from position `start` on."""
        key = self.keys.parked(trunk)
        return list(await self.steps.read("LRANGE", key, start, start + n - 1))

    # --- admission -----------------------------------------------------------------

    async def check(
        self, requests: Sequence[CallRequest], *, number_window_s: float = 0
    ) -> list[int | None]:
        """Return for each request the calls to its number in the window; None if its id was used.

        The count is 0 if there is no window.
        """
        if not requests:
            return []
        keys = self.keys
        counts = await self.steps.run(
            "check",
            [k for r in requests for k in (keys.call(r.call_id), keys.number(r.number))],
            [int(number_window_s * 1000)],
        )
        return [None if int(n) < 0 else int(n) for n in counts]

    async def admit(self, one: Admissible, *, pbx: str, threads: int) -> Admission:
        """Admit a request that has its slot, queued to `pbx`.

        Only `ADMITTED` changes anything. The caller must bury a duplicate.
        """
        keys, request = self.keys, one.request
        reply = await self.steps.run(
            "admit",
            [
                *(one.source, keys.call(request.call_id), keys.live, keys.queued),
                *(keys.number(request.number), self.wire.counter),
            ],
            [threads, *one.values(pbx)],
        )
        return Admission(reply.decode())

    async def admit_many(
        self,
        requests: Sequence[Admissible],
        *,
        pbx: str,
        threads: int,
        registry: tuple[Sequence[str], Sequence[Arg]],
        trunks: Sequence[str] = (),
    ) -> list[Admission]:
        """Lease slots of a PBX and admit requests; only if the registry is on the same server.

        `registry` are the keys and arguments of the lease, `trunks` the trunk that each call takes
        there; without them no trunk's limit counts. Only `ADMITTED` changes anything. The
        caller must bury a duplicate.
        """
        keys = self.keys
        lease_keys, lease_args = registry
        ways = trunks or [""] * len(requests)
        replies = await self.steps.run(
            "admit_many",
            [*lease_keys, keys.live, keys.queued, self.wire.counter],
            [
                *(*lease_args, threads, keys.call("")),
                *(
                    value
                    for one, trunk in zip(requests, ways, strict=True)
                    for value in (
                        *(one.source, keys.number(one.request.number), trunk),
                        *one.values(pbx),
                    )
                ),
            ],
            calls=[keys.call(one.request.call_id) for one in requests],
        )
        return [Admission(reply.decode()) for reply in replies]

    async def refuse(
        self,
        source: str,
        raw: bytes,
        *,
        request_id: str | None,
        response: str = "",
        dead: str = "",
        result: Result = Result.INVALID_REQUEST,
    ) -> str:
        """Answer a request that waits in the list `source`, without dialing.

        `dead` is its entry for the dead list, None for no entry. Return `refused`, `duplicate`
        (nothing was changed; the caller must bury it) or `gone`.
        """
        keys = self.keys
        # Without an id the step uses no call key. The same key for all of them would make `Steps`
        # run one refusal per round trip.
        call = keys.call(call_id(self.cell, request_id)) if request_id else keys.dead
        reply, dropped = await self.steps.run(
            "refuse",
            [source, call, keys.dead, self.wire.response, keys.dropped],
            [raw, dead, response if request_id else "", self._push, DONE_RETENTION_S, result],
        )
        self._check_dropped(int(dropped))
        return str(reply.decode())

    async def bury(self, source: str, raw: bytes, dead: str) -> bool:
        """Move an element from the list `source` to the dead list; return false if it is gone."""
        keys = self.keys
        dropped = await self.steps.run("bury", [source, keys.dead, keys.dropped], [raw, dead])
        self._check_dropped(int(dropped))
        return int(dropped) >= 0

    # --- codes ---------------------------------------------------------------------

    async def code(self, bridge: str, raw: bytes, *, call_id: str, code_json: str) -> Delivery:
        """Deliver a code that is in hand.

        An `ORPHAN` or `SECOND` code stays in the hand; the caller must bury it.
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
        """Time out overdue codes; return the ids of their calls."""
        keys, wire = self.keys, self.wire
        ids = await self.steps.run(
            "late_codes",
            [keys.awaiting, keys.live, wire.counter, wire.counter_ack, wire.response],
            [keys.call(""), self._push, DONE_RETENTION_S, 500],
        )
        return [i.decode(errors="replace") for i in ids]
