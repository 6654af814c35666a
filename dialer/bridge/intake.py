"""Takes requests of one cell, as many as it has room for, and admits or refuses each.

A request is in exactly one place at any moment: in Multcall's list, in this bridge's
hand (a list in Redis too, which another bridge takes over), or in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from redis.asyncio import Redis

from dialer.bridge.cell import BridgeCell
from dialer.bridge.dispatch import Nudge
from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import CallRequest, mask
from dialer.domain.routing import PbxLoad, Turns, plan
from dialer.errors import InvalidRequest, StoreUnavailable
from dialer.multcall.answers import dead, invalid_response, response_parts
from dialer.multcall.identity import request_id_of
from dialer.multcall.request import parse_request
from dialer.store.client import wait_and_move
from dialer.store.ledger import Admission

logger = logging.getLogger(__name__)

#: Requests admitted in one go.
BATCH: Final = 100

#: Longest wait for a request before the room is looked at again, in seconds.
BLOCK_S: Final = 1.0

#: Pause before a full cell or a pacing PBX is looked at again, in seconds.
FULL_PAUSE_S: Final = 0.02

#: Pause while no PBX is ready or the calling hours are over, in seconds.
IDLE_PAUSE_S: Final = 0.25


@dataclass(slots=True)
class Intake:
    """The intake of one cell. `blocking` is a client of its own, for BLMOVE occupies it.

    `reload` is set where others put something into this bridge's hand, or took it out. `placing`
    is held while requests go from the hand into the ledger.
    """

    site: BridgeCell
    blocking: Redis
    reload: bool = True
    placing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _hand: list[bytes] = field(default_factory=list)
    _turns: Turns = field(default_factory=Turns)
    #: How many in hand wait for a trunk whose PBXs are full: others may pass them.
    _blocked: int = 0

    async def run(self) -> None:
        """Runs for ever."""
        while True:
            room, pause = await self._room()
            if room > 0:
                await self._fetch(room)
            elif self.reload:
                self.reload = False
                self._hand = await self.site.ledger.hand(self.site.bridge)
            if not self._hand:
                await asyncio.sleep(pause)
                continue
            async with self.placing:
                moved = await self._admit(self._hand[:BATCH])
            if not moved:
                await asyncio.sleep(max(pause, FULL_PAUSE_S))

    async def _room(self) -> tuple[int, float]:
        """How many requests may be taken now, and how long to wait where none may."""
        site = self.site
        if site.is_paused_by_hours(datetime.now(UTC)):
            return 0, IDLE_PAUSE_S
        states = await site.registry.pbxs(site.pbxs, site.cell.name)
        if not any(state.load.ready for state in states.values()):
            return 0, IDLE_PAUSE_S
        room = sum(state.load.room for state in states.values())
        return min(room, BATCH), 0 if room else FULL_PAUSE_S

    async def _fetch(self, room: int) -> None:
        """Takes requests within the room; where there are none, waits for one."""
        site = self.site
        ledger, bridge, threads = site.ledger, site.bridge, site.cell.threads
        at_most = min(BATCH, self._blocked + room)
        self.reload = False
        self._hand, left = await ledger.fetch(bridge, at_most=at_most, threads=threads)
        if self._hand:
            return
        if left <= 0:
            await asyncio.sleep(FULL_PAUSE_S)
        else:
            await self._wait()

    async def _wait(self) -> None:
        ledger = self.site.ledger
        try:
            raw = await wait_and_move(
                self.blocking,
                ledger.wire.request,
                ledger.keys.hand(self.site.bridge),
                head=ledger.head,
                within_s=BLOCK_S,
            )
        except StoreUnavailable:
            self.reload = True  # it may have moved one before the link broke
            await asyncio.sleep(IDLE_PAUSE_S)
        else:
            if raw is not None:
                self._hand.append(raw)

    async def _admit(self, batch: Sequence[bytes]) -> bool:
        """Admits or refuses what is in hand; false where nothing left the hand."""
        readable = [pair for raw in batch if (pair := await self._read(raw))]
        allowed = await self._allowed(readable)
        gone = len(batch) - len(allowed)
        if self.site.is_paused_by_hours(datetime.now(UTC)):
            return gone > 0
        placed = await self._place(allowed)
        return gone + placed > 0

    # --- refusals ------------------------------------------------------------------

    async def _read(self, raw: bytes) -> tuple[bytes, CallRequest] | None:
        try:
            request = parse_request(raw, cell=self.site.cell.name)
            self._check_trunk(request)
        except InvalidRequest as error:
            await self._refuse_invalid(raw, error)
            return None
        return raw, request

    def _check_trunk(self, request: CallRequest) -> None:
        known = {trunk for pbx in self.site.pbxs for trunk in pbx.trunks}
        if request.trunk is not None and request.trunk not in known:
            raise InvalidRequest(
                f"Tronco names no trunk of this cell's PBXs; known are {', '.join(sorted(known))}",
                field="Tronco",
                request_id_json=request.request_id_json,
            )

    async def _refuse_invalid(self, raw: bytes, error: InvalidRequest) -> None:
        now = datetime.now(UTC)
        id_json = error.request_id_json
        logger.warning("Request refused", extra={"cell": self.site.cell.name, "reason": str(error)})
        response = (
            invalid_response(cell=self.site.cell.name, request_id_json=id_json, error=error, at=now)
            if id_json
            else ""
        )
        await self.site.ledger.refuse(
            self.site.bridge,
            raw,
            request_id=request_id_of(id_json) if id_json else None,
            response=response,
            dead=dead(
                raw=raw, source="request", reason="invalid_request", message=str(error), at=now
            ),
            repeat=_repeat(raw, now),
        )
        self._hand.remove(raw)

    async def _allowed(
        self, readable: Sequence[tuple[bytes, CallRequest]]
    ) -> list[tuple[bytes, CallRequest]]:
        """Those that may be dialed now; the others are answered."""
        limits = self.site.cell.limits
        forbidden = (
            await self.site.registry.dnc_contains([r.number for _, r in readable])
            if limits.do_not_call
            else [False] * len(readable)
        )
        now = datetime.now(UTC)
        open_now = limits.is_open(now)
        allowed = []
        for (raw, request), on_list in zip(readable, forbidden, strict=True):
            expires_at = expiry(request)
            if on_list:
                error = CallError(
                    code="do_not_call", message="the number is on the do-not-call set"
                )
                await self._answer(raw, request, Result.CANCELLED, error)
            elif expires_at is not None and expires_at <= now:
                error = CallError(code="expired", message="ValidadeSeg passed before it was dialed")
                await self._answer(raw, request, Result.EXPIRED, error)
            elif not open_now and limits.outside_hours == "expire":
                error = CallError(code="outside_hours", message="the cell's calling hours are over")
                await self._answer(raw, request, Result.EXPIRED, error)
            else:
                allowed.append((raw, request))
        return allowed

    async def _answer(
        self, raw: bytes, request: CallRequest, result: Result, error: CallError
    ) -> None:
        now = datetime.now(UTC)
        parts = response_parts(
            request=request,
            pbx=None,
            uniqueid=None,
            attempts=0,
            dialed_at=None,
            answered_at=None,
            ending=Ending(result=result, ended_at=now, error=error),
        )
        await self.site.ledger.refuse(
            self.site.bridge,
            raw,
            request_id=request.request_id,
            response=f"{parts.head}null{parts.tail}",
            result=result,
            repeat=_repeat(raw, now),
        )
        self._hand.remove(raw)

    # --- admission -----------------------------------------------------------------

    async def _place(self, allowed: Sequence[tuple[bytes, CallRequest]]) -> int:
        """Leases slots, admits, nudges the workers; returns how many left the hand."""
        site = self.site
        states, calls = await asyncio.gather(
            site.registry.pbxs(site.pbxs, site.cell.name), site.ledger.calls()
        )
        chosen = self._plan(
            [site.trunk(request) for _, request in allowed],
            [states[p.name].load for p in site.pbxs],
            at_most=site.cell.threads - calls,
        )
        left = 0
        nudges: list[Nudge] = []
        for pbx in site.pbxs:
            mine = [pair for pair, name in zip(allowed, chosen, strict=True) if name == pbx.name]
            if not mine:
                continue
            lease = await site.registry.lease(pbx, [request.call_id for _, request in mine])
            granted = mine[: lease.granted]
            answers = await asyncio.gather(*(self._admit_one(pbx.name, *pair) for pair in granted))
            unused = []
            for (raw, request), admission in zip(granted, answers, strict=True):
                if admission is Admission.ADMITTED:
                    nudges.append(nudge(request, pbx.name, 1))
                elif request.call_id in lease.new:
                    unused.append(request.call_id)
                left += admission is not Admission.FULL
                if admission in (Admission.ADMITTED, Admission.DUPLICATE):
                    self._drop(raw)
                self.reload |= admission is Admission.GONE
            await site.give_back(pbx.name, unused)
        await site.dispatcher.publish(nudges)
        return left

    def _plan(
        self, trunks: Sequence[str | None], loads: Sequence[PbxLoad], *, at_most: int
    ) -> list[str | None]:
        """A PBX for each request, for `at_most` of them.

        What the cell has no room for must not use up the pace of a PBX that other cells share.
        """
        chosen = plan(trunks, loads, self._turns)
        self._blocked = sum(
            name is None and plan([trunk], loads) == [None]
            for trunk, name in zip(trunks, chosen, strict=True)
        )
        placed = [i for i, name in enumerate(chosen) if name is not None]
        for i in placed[max(0, at_most) :]:
            chosen[i] = None
        return chosen

    async def _admit_one(self, pbx: str, raw: bytes, request: CallRequest) -> Admission:
        limits = self.site.cell.limits
        now = datetime.now(UTC)
        admission = await self.site.ledger.admit(
            self.site.bridge,
            raw,
            request,
            pbx=pbx,
            threads=self.site.cell.threads,
            repeat=_repeat(raw, now),
            expires_at=expiry(request),
            most_per_number=limits.max_attempts_per_number or 0,
            number_window_s=limits.attempts_window_hours * 3600,
        )
        if admission is Admission.NUMBER_LIMIT:
            error = CallError(
                code="number_limit",
                message=f"the number was called {limits.max_attempts_per_number} times "
                f"within {limits.attempts_window_hours:g} hours",
            )
            await self._answer(raw, request, Result.CANCELLED, error)
        elif admission is Admission.DUPLICATE:
            logger.warning("Repeated request, not dialed again", extra={"call_id": request.call_id})
        return admission

    def _drop(self, raw: bytes) -> None:
        if raw in self._hand:
            self._hand.remove(raw)


def nudge(request: CallRequest, pbx: str, epoch: int) -> Nudge:
    """The task for a call, with what Flower shows of it."""
    shown = f"({request.cell!r}, {request.request_id!r}, {mask(request.number)!r})"
    return Nudge(call_id=request.call_id, pbx=pbx, epoch=epoch, shown=shown)


def expiry(request: CallRequest) -> datetime | None:
    """When the request may no longer be dialed, where that is known before admission."""
    if request.created_at is None or request.valid_for_s is None:
        return None
    return request.created_at + timedelta(seconds=request.valid_for_s)


def _repeat(raw: bytes, at: datetime) -> str:
    return dead(
        raw=raw,
        source="request",
        reason="duplicate_request",
        message="this IdRequisicao was there before; it was not dialed again",
        at=at,
    )
