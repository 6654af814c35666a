"""Recovery of one cell after lost messages, dead bridges and dead PBXs. Any bridge may do it.

Every change is one ledger step, so it is harmless if two bridges do it at once. Calls are read in
slices, so that the event loop is not blocked for long.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dialer import watchdog
from dialer.bridge.cell import BridgeCell, nudge
from dialer.bridge.dispatch import Nudge
from dialer.domain.call import LEGAL, CallError, Ended, Ending, Queued, Result, State
from dialer.domain.request import CallRequest, cell_of
from dialer.domain.routing import Turns, plan
from dialer.multcall.answers import dead
from dialer.multcall.identity import readable_id
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting
from dialer.store.ledger.waiting import Unreadable, slices
from dialer.store.registry import PbxState

logger = logging.getLogger(__name__)

#: Pause between two rounds, in seconds.
EVERY_S: Final = 0.5

#: A queued call that nobody claimed is published again after this long, in seconds.
REPUBLISH_AFTER_S: Final = 30.0

#: Maximum number of overdue calls in one round.
DUE_AT_ONCE: Final = 1_000

#: States of unclaimed and of claimed calls, from which the bridge may end them.
_WAITING: Final = LEGAL[Queued]
_CLAIMED: Final = LEGAL[Ended] - _WAITING

States = Mapping[str, PbxState]


@dataclass(slots=True)
class Recovery:
    """The recovery of one cell's calls.

    `moving` is locked while calls are moved or published again.
    """

    cell: BridgeCell
    pbx_lost_after_s: float
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    _turns: Turns = field(default_factory=Turns)
    _instances: dict[str, str] = field(default_factory=dict)
    #: Since when (loop time) a PBX with calls has been missing in the registry.
    _unknown_since: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Repair calls until cancelled."""
        while True:
            states = await self.cell.registry.pbxs(self.cell.pbxs, self.cell.name)
            async with self.moving:
                await self.republish(states)
                await self.move_from_unready_pbxs(states)
            await self.end_lost(states)
            await asyncio.sleep(EVERY_S)

    async def run_heartbeat(self) -> None:
        """Send this bridge's heartbeat and take over from dead bridges, until cancelled.

        A separate task, because the other tasks wait while the broker or a Redis is down.
        """
        await watchdog.process.keep_beating(
            f"heartbeat {self.cell.name}",
            self.take_over,
            every_s=EVERY_S,
            is_down=lambda: self.cell.ledger.steps.is_down,
        )

    async def take_over(self) -> None:
        """Take over the hands of dead bridges; the intake handles the requests."""
        for bridge, n in await self.cell.ledger.take_over(self.cell.bridge):
            logger.warning(
                "Took over the hand of a dead bridge",
                extra={"cell": self.cell.name, "bridge": bridge, "elements": n},
            )

    async def republish(self, states: States) -> None:
        """Publish calls again whose message was lost, and queue those that have no PBX.

        Also ends calls that must not be dialed any longer, even if their PBX is not ready.
        """
        ledger = self.cell.ledger
        async for due in ledger.due(older_than_s=REPUBLISH_AFTER_S, at_most=DUE_AT_ONCE):
            await self._republish(due, states)
        for name, state in states.items():
            known = self._instances.get(name)
            if state.load.ready and state.instance != known:
                self._instances[name] = state.instance
                if known is not None:  # a restarted worker has lost its tasks
                    async for due in ledger.due(older_than_s=0, pbx=name):
                        await self._republish(due, states)

    async def move_from_unready_pbxs(self, states: States) -> None:
        """Move unclaimed calls from PBXs that are not ready to PBXs of the cell with room.

        Reads as many calls as there is room for. Those that find no PBX count as published now,
        so that the next round reads other calls.
        """
        room = sum(state.load.room for state in states.values())
        for name, state in states.items():
            if not state.load.ready and room:
                await self.move_from(name, states, at_most=room)

    async def move_from(self, pbx: str, states: States, *, at_most: int) -> None:
        """Move unclaimed calls of a PBX to PBXs of the cell with room."""
        async for due in self.cell.ledger.due(older_than_s=0, pbx=pbx, at_most=at_most):
            await self._move(due, await self._unexpired(due), states)

    async def end_lost(self, states: States) -> None:
        """End claimed calls of PBXs that have not been ready for too long."""
        for name, state in states.items():
            if state.unready_s >= self.pbx_lost_after_s:
                await self.end_claimed(name)

    async def end_claimed(self, pbx: str) -> None:
        """End the calls claimed by a PBX, unless it has become ready in the meantime."""
        ids = await self.cell.ledger.claimed_ids(pbx)
        # Read it again, because the earlier value is old if this process was stopped in between.
        if not ids or await self._unready_s(pbx) < self.pbx_lost_after_s:
            return
        error = CallError(
            code="pbx_lost",
            message=f"{pbx} or its worker has been gone for "
            f"{self.pbx_lost_after_s:g} s; the result of the call is not known",
        )
        for part in slices(ids):
            lost = [
                entry
                for entry in await self._entries(part)
                if entry.call.pbx == pbx and entry.call.state not in _WAITING
            ]
            await self._end(lost, Result.UNKNOWN, error, within=_CLAIMED)

    async def _unready_s(self, pbx: str) -> float:
        """Return for how long the PBX has not been ready.

        If it is missing in the registry, which may have lost its data, the time begins now.
        """
        unready_s = await self.cell.registry.unready_s(pbx)
        if unready_s < math.inf:
            self._unknown_since.pop(pbx, None)
            return unready_s
        now = asyncio.get_running_loop().time()
        return now - self._unknown_since.setdefault(pbx, now)

    # --- publishing and moving -------------------------------------------------------

    async def _republish(self, due: Sequence[Waiting], states: States) -> None:
        entries = await self._unexpired(due)
        ready = {name for name, state in states.items() if state.load.ready}
        await self._publish([(w, w.pbx or "", w.epoch) for w in due if w.pbx in ready], entries)
        homeless = [
            w for w in due if w.pbx not in states
        ]  # no PBX, or one that the cell no longer lists
        await self._move(homeless, entries, states)

    async def _move(
        self, waiting: Iterable[Waiting], entries: Mapping[str, Entry], states: States
    ) -> None:
        """Queue calls to PBXs that have room; the others stay on their PBX."""
        cell = self.cell
        moving = [w for w in waiting if w.call_id in entries]
        chosen = plan(
            [cell.trunk(entries[w.call_id].request) for w in moving],
            [states[p.name].load for p in cell.pbxs],
            self._turns,
        )
        sent: list[tuple[Waiting, str, int]] = []
        for w, name in zip(moving, chosen, strict=True):
            if name is not None and (epoch := await self._move_one(w, name)):
                sent.append((w, name, epoch))
        await self._publish(sent, entries)

    async def _move_one(self, waiting: Waiting, pbx: str) -> int:
        """Queue one call to a PBX; return its new epoch, 0 if that failed."""
        cell = self.cell
        lease = await cell.registry.lease(cell.pbx(pbx), [waiting.call_id])
        if not lease.granted:
            return 0
        epoch = await cell.ledger.assign(waiting, pbx)
        if not epoch:
            await cell.release_unused(pbx, lease.new)
            return 0
        logger.warning(
            "Call moved to another PBX",
            extra={"call_id": waiting.call_id, "from": waiting.pbx, "pbx": pbx},
        )
        if waiting.pbx is not None:
            await cell.release_unused(waiting.pbx, [waiting.call_id])
        return epoch

    async def _publish(
        self, calls: Sequence[tuple[Waiting, str, int]], entries: Mapping[str, Entry]
    ) -> None:
        nudges: list[Nudge] = [
            nudge(entries[w.call_id].request, pbx, epoch)
            for w, pbx, epoch in calls
            if w.call_id in entries
        ]
        await self.cell.dispatcher.publish(nudges)

    # --- ending ----------------------------------------------------------------------

    async def _unexpired(self, waiting: Sequence[Waiting]) -> dict[str, Entry]:
        """Return the entries of waiting calls that may be dialed now; end expired ones."""
        now = datetime.now(UTC)
        limits = self.cell.settings.limits
        is_over = limits.outside_hours == "expire" and not limits.is_open(now)
        fresh: list[Entry] = []
        expired: list[Entry] = []
        for entry in await self._entries([w.call_id for w in waiting]):
            is_expired = entry.expires_at is not None and entry.expires_at <= now
            (expired if is_expired else fresh).append(entry)
        message = "ValidadeSeg passed before it was dialed"
        message = self.cell.wire.fields.said(message, "ValidadeSeg")
        error = CallError(code="expired", message=message)
        await self._end(expired, Result.EXPIRED, error, within=_WAITING)
        if is_over:
            error = CallError(code="outside_hours", message="the cell's calling hours are over")
            await self._end(fresh, Result.EXPIRED, error, within=_WAITING)
        if is_over or self.cell.is_paused_by_hours(now):
            return {}
        return {entry.call.call_id: entry for entry in fresh}

    async def _entries(self, ids: Sequence[str]) -> list[Entry]:
        """Return the entries of calls; end calls that cannot be read, so that no bridge fails."""
        entries, unreadable = await self.cell.ledger.readable(ids)
        for one in unreadable:
            await self._end_unreadable(one)
        return entries

    async def _end_unreadable(self, one: Unreadable) -> None:
        call = one.call
        logger.error(
            "Internal error on a call; it is ended and goes to the dead list as internal_error",
            extra={"call_id": call.call_id},
            exc_info=one.error,
        )
        error = CallError(
            code="internal_error",
            message="the dialer failed on this element; its log has the reason",
        )
        entry = dead(
            raw=one.raw,
            source="request",
            reason="internal_error",
            message=error.message,
            at=datetime.now(UTC),
        )
        await self.cell.ledger.bury_call(call.call_id, entry)
        request_id = call.call_id.partition(":")[2]
        request = CallRequest(
            cell=cell_of(call.call_id),
            request_id=request_id,
            request_id_json=readable_id(one.raw) or json.dumps(request_id),
            number="",
        )
        was_sent = call.state not in _WAITING
        result = Result.UNKNOWN if was_sent else Result.FAILED
        known = Entry(call=call, request=request, boot="", expires_at=None)
        await self._end([known], result, error, within={call.state})

    async def _end(
        self, entries: Sequence[Entry], result: Result, error: CallError, *, within: Set[State]
    ) -> None:
        """End calls and release their slots."""
        await asyncio.gather(*(self._end_one(e, result, error, within) for e in entries))
        for pbx in {entry.call.pbx for entry in entries}:
            if pbx is not None:
                await self.cell.release_unused(
                    pbx, [e.call.call_id for e in entries if e.call.pbx == pbx]
                )

    async def _end_one(
        self, entry: Entry, result: Result, error: CallError, within: Set[State]
    ) -> None:
        call = entry.call
        ending = Ending(result=result, ended_at=datetime.now(UTC), error=error)
        reply = await self.cell.ledger.end(call, entry.request, ending, within=within)
        if reply != "void":
            logger.warning(
                "Call ended by the bridge",
                extra={"call_id": call.call_id, "pbx": call.pbx, "error": error.code},
            )
