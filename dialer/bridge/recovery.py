"""Recovery of one cell after dead bridges, and PBXs that are dead or take no calls.

Any bridge may do it. Lost messages are no concern of the bridge: the worker finds the calls that
are queued to it by itself.

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
from typing import Final

from dialer.bridge.cell import BridgeCell, nudge
from dialer.bridge.judge import Judge
from dialer.bridge.life import Life
from dialer.bridge.nudges import Nudge
from dialer.domain.call import LEGAL, CallError, Ended, Ending, Queued, Result, State
from dialer.domain.request import CallRequest, cell_of
from dialer.domain.routing import Turns, plan
from dialer.domain.taking import CLAIM_WITHIN_S
from dialer.multcall.answers import dead
from dialer.multcall.identity import readable_id
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting
from dialer.store.ledger.waiting import Unreadable, slices
from dialer.store.registry import PbxState

logger = logging.getLogger(__name__)

#: Pause between two rounds, in seconds.
EVERY_S: Final = 0.5

#: Maximum number of overdue calls in one round.
DUE_AT_ONCE: Final = 1_000

#: States of unclaimed and of claimed calls, from which the bridge may end them.
_WAITING: Final = LEGAL[Queued]
_CLAIMED: Final = LEGAL[Ended] - _WAITING

States = Mapping[str, PbxState]


@dataclass(slots=True)
class Recovery:
    """The recovery of one cell's calls.

    `moving` is locked while calls are moved.
    """

    cell: BridgeCell
    pbx_lost_after_s: float
    life: Life = field(default_factory=Life)
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    judge: Judge = field(init=False)
    _turns: Turns = field(default_factory=Turns)
    #: Since when (loop time) a PBX with calls has been missing in the registry.
    _unknown_since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.judge = Judge(self.cell)

    async def run(self) -> None:
        """Repair calls until cancelled."""
        while True:
            states = await self.cell.states(max_age_s=EVERY_S / 2)
            await self.judge.look(states)
            if not self.life.is_quiet:
                await self._repair(states)
            await asyncio.sleep(EVERY_S)

    async def _repair(self, states: States) -> None:
        async with self.moving:
            if self.life.has_late_calls:
                await self.move_late(states)
            await self.move_from_unready_pbxs(states)
        await self.judge.try_with_queued(states)
        await self.end_lost(states)

    async def take_over(self) -> None:
        """Take over the hands of dead bridges; the intake handles the requests."""
        self.life.stir()
        await self.cell.clock.measure(self.cell.ledger.steps)
        for bridge, n in await self.cell.ledger.take_over(self.cell.bridge):
            logger.warning(
                "Took over the hand of a dead bridge",
                extra={"cell": self.cell.name, "bridge": bridge, "elements": n},
            )

    async def move_late(self, states: States) -> None:
        """Move calls that a ready PBX left unclaimed, and queue those that have no PBX.

        The PBX is judged. Also ends calls that must not be dialed any longer, even if their PBX
        is not ready.
        """
        late: list[str] = []
        async for due in self.cell.ledger.due(older_than_s=CLAIM_WITHIN_S, at_most=DUE_AT_ONCE):
            entries = await self._unexpired(due, states)
            left = [w for w in due if w.call_id in entries and _is_ready(states, w.pbx)]
            late += [w.pbx for w in left if w.pbx]
            # Calls with no PBX, or one that the cell no longer lists, have no slot there.
            homeless = [w for w in due if w.pbx not in states]
            await self._move([*left, *homeless], entries, states)
        if not self.cell.settings.asks_asterisk:  # else they may have waited for an operator
            await self.judge.judge_unclaimed(states, late)

    async def move_from_unready_pbxs(self, states: States) -> None:
        """Move unclaimed calls from PBXs that take no calls to PBXs of the cell with room.

        Reads as many calls as there is room for. Those that find no PBX count as published now,
        so that the next round reads other calls. The trial call of a PBX stays.
        """
        room = sum(state.load.room for state in states.values() if state.load.is_taking_calls)
        for name, state in states.items():
            if not state.load.is_taking_calls and room:
                trial = state.verdict.trial if state.verdict else ""
                await self.move_from(name, states, at_most=room, but=trial)

    async def move_from(self, pbx: str, states: States, *, at_most: int, but: str = "") -> None:
        """Move unclaimed calls of a PBX, `but` one, to PBXs of the cell with room."""
        ledger = self.cell.ledger
        async for due in ledger.due(older_than_s=0, pbx=pbx, at_most=at_most, but=but):
            await self._move(due, await self._unexpired(due, states), states)

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

    async def _move(
        self, waiting: Iterable[Waiting], entries: Mapping[str, Entry], states: States
    ) -> None:
        """Queue calls to other PBXs that have room; those that find none stay on their PBX."""
        cell = self.cell
        moving = [w for w in waiting if w.call_id in entries]
        leaving = {w.pbx for w in moving}
        loads = [state.load for name, state in states.items() if name not in leaving]
        # A PBX on trial gets a call that was moved before only if the cell has no other.
        taking = [load for load in loads if load.is_taking_calls]
        chosen = plan(
            [cell.trunk(entries[w.call_id].request) for w in moving], taking or loads, self._turns
        )
        sent: list[tuple[Waiting, str, int]] = []
        for w, name in zip(moving, chosen, strict=True):
            if name is not None and (
                epoch := await self._move_one(w, name, cell.trunk(entries[w.call_id].request))
            ):
                sent.append((w, name, epoch))
        await self._publish(sent, entries)

    async def _move_one(self, waiting: Waiting, pbx: str, trunk: str | None) -> int:
        """Queue one call to a PBX; return its new epoch, 0 if that failed."""
        cell = self.cell
        if (limits := cell.pbx(pbx)) is None:
            return 0
        lease = await cell.registry.lease(limits, [waiting.call_id], [trunk])
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

    async def _unexpired(self, waiting: Sequence[Waiting], states: States) -> dict[str, Entry]:
        """Return the entries of waiting calls that may be dialed now; end expired ones."""
        now = self.cell.clock.now()
        limits = self.cell.settings.limits
        is_over = limits.outside_hours == "expire" and not limits.is_open(now)
        fresh: list[Entry] = []
        expired: list[Entry] = []
        for entry in await self._entries([w.call_id for w in waiting]):
            is_expired = entry.expires_at is not None and entry.expires_at <= now
            (expired if is_expired else fresh).append(entry)
        for reason, entries in _by_reason(expired, states).items():
            paused = "; an operator paused the cell" if self.cell.paused else ""
            message = f"ValidadeSeg passed before it was dialed{paused or reason}"
            message = self.cell.wire.fields.said(message, "ValidadeSeg")
            error = CallError(code="expired", message=message)
            await self._end(entries, Result.EXPIRED, error, within=_WAITING)
        if is_over:
            error = CallError(code="outside_hours", message="the cell's calling hours are over")
            await self._end(fresh, Result.EXPIRED, error, within=_WAITING)
        if is_over or self.cell.is_paused(now):
            return {}
        return {entry.call.call_id: entry for entry in fresh}

    async def _entries(self, ids: Sequence[str]) -> list[Entry]:
        """Return the entries of calls; end calls that cannot be read, so that no bridge fails."""
        entries, unreadable = await self.cell.ledger.readable(ids)
        for one in unreadable:
            await self._end_unreadable(one)
        return entries

    async def end_destroyed(self, ids: Iterable[str]) -> None:
        """End calls whose entry lost its state or epoch; nothing is known of them but their id."""
        for call_id in ids:
            if (one := await self.cell.ledger.mend(call_id)) is not None:
                logger.error(
                    "A call's entry was destroyed; it is ended and goes to the dead list",
                    extra={"call_id": call_id, "reason": str(one.error)},
                )
                await self._bury_and_end(one, str(one.error))

    async def _end_unreadable(self, one: Unreadable) -> None:
        logger.error(
            "Internal error on a call; it is ended and goes to the dead list as internal_error",
            extra={"call_id": one.call.call_id},
            exc_info=one.error,
        )
        await self._bury_and_end(one, "the dialer failed on this element; its log has the reason")

    async def _bury_and_end(self, one: Unreadable, message: str) -> None:
        call = one.call
        error = CallError(code="internal_error", message=message)
        wire = self.cell.wire
        entry = dead(
            raw=one.raw if wire.is_strict else wire.fields.to_wire(one.raw),
            source="request",
            reason="internal_error",
            message=error.message,
            at=self.cell.clock.now(),
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
        ending = Ending(result=result, ended_at=self.cell.clock.now(), error=error)
        reply = await self.cell.ledger.end(call, entry.request, ending, within=within)
        if reply != "void":
            logger.warning(
                "Call ended by the bridge",
                extra={"call_id": call.call_id, "pbx": call.pbx, "error": error.code},
            )


def _is_ready(states: States, pbx: str | None) -> bool:
    """True if this is a PBX of the cell whose worker says that it is ready."""
    return pbx is not None and pbx in states and states[pbx].load.ready


def _by_reason(expired: Iterable[Entry], states: States) -> dict[str, list[Entry]]:
    """Return expired calls by the words that say what their PBX lacked, '' for nothing known."""
    found: dict[str, list[Entry]] = {}
    for entry in expired:
        state = states.get(entry.call.pbx or "")
        why = state.why_not_taking(entry.request.cell) if state is not None else ""
        reason = f"; it waited for {entry.call.pbx}, which takes no calls: {why}" if why else ""
        found.setdefault(reason, []).append(entry)
    return found
