"""Feed events to the followed calls and carry out the effects of `domain.follow`.

Decides nothing about a call. An event changes the call in memory at once; its ledger writes are
queued in the order of the events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, assert_never

from dialer.domain.call import Call, Ending, Result
from dialer.domain.channel import (
    AmiEvent,
    Record,
    channel_id,
    is_channel_id,
    uniqueid_of,
    uniqueids_of,
)
from dialer.domain.endings import NO_WORD
from dialer.domain.follow import follow
from dialer.domain.follow_events import (
    AskChannel,
    AskList,
    AskRecord,
    ChannelMissing,
    ChannelThere,
    ChannelUnavailable,
    FollowEffect,
    FollowEvent,
    HangUp,
    HangUpAsked,
    HangUpRefused,
    LogEndMissed,
    NoteAmd,
    NoteHandOver,
    RecordRead,
    RecordUnavailable,
    StartTimer,
    Timeouts,
    WriteAck,
    WriteAnswered,
    WriteEnd,
)
from dialer.domain.followed import Followed
from dialer.domain.request import CallRequest, cell_of
from dialer.errors import AmiUnavailable
from dialer.store.entry import Entry
from dialer.store.ledger.fence import Fence
from dialer.store.registry import Registry
from workers.ami import AmiLink
from workers.ami.events import channel_found, read_record
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.calls.journal import Journal
from workers.pbx.hand_overs import HandOvers
from workers.pbx.state import PbxState

logger = logging.getLogger(__name__)

#: Longest wait for the ledger write of an ended call before its PBX slot is released, in seconds.
SLOT_WITHIN_S: Final = 1.0

#: Calls that need the channel list within this time share one list, in seconds.
LIST_DELAY_S: Final = 0.05


@dataclass(slots=True)
class Tracker:
    """Executor of effects. Belongs to the worker's event loop.

    `on_done` is called for every call that ended here, to send Celery's task event. `fence` is
    the fencing number of this worker.
    """

    state: PbxState
    link: AmiLink
    cells: Cells
    calls: Calls
    journal: Journal
    registry: Registry
    hand_overs: HandOvers
    on_done: Callable[[Call, Ending], None]
    timeouts: Timeouts = field(default_factory=Timeouts)
    slot_within_s: float = SLOT_WITHIN_S
    fence: Fence = field(default_factory=Fence)
    #: Events of calls that are not followed yet, by Uniqueid; collected inside `buffering`.
    _unfollowed: dict[str, list[tuple[AmiEvent, datetime]]] = field(default_factory=dict)
    _buffering: int = 0
    _to_list: set[str] = field(default_factory=set)
    _no_amd: bool = False

    # --- events --------------------------------------------------------------------

    def on_event(self, event: AmiEvent) -> None:
        """Feed an AMI event to its call; ignore events of other channels."""
        uniqueid = uniqueid_of(event)
        now = self.state.clock.now()
        call_id = self.calls.by_uniqueid(uniqueid)
        if call_id is not None:
            self.feed(call_id, event, now)
        elif self._buffering and (is_channel_id(uniqueid) or cell_of(uniqueid) in self.cells):
            self._unfollowed.setdefault(uniqueid, []).append((event, now))

    @contextmanager
    def buffering(self) -> Iterator[None]:
        """Buffer events of calls that are not followed yet; `adopt` applies them."""
        self._buffering += 1
        try:
            yield
        finally:
            self._buffering -= 1
            if not self._buffering:
                self._unfollowed.clear()

    def feed(
        self, call_id: str, event: FollowEvent, at: datetime | None = None
    ) -> list[asyncio.Task[Any]]:
        """Apply an event to a followed call; return the background tasks that it started."""
        followed = self.calls.get(call_id)
        if followed is None:
            return []
        followed, effects = follow(followed, event, at or self.state.clock.now())
        self.calls.put(followed)
        tasks = [self._carry_out(followed, effect) for effect in effects]
        return [task for task in tasks if task is not None]

    def follow(self, entry: Entry, token: str) -> Followed:
        """Follow a call that was claimed with this `token`; its Originate is not sent yet."""
        followed = self._followed(entry, token, channel_id(entry.call.call_id))
        self.calls.put(followed)
        return followed

    def adopt(self, entry: Entry) -> None:
        """Follow a claimed call whose Originate may have been sent by another worker."""
        followed = self._followed(entry, "", entry.call.uniqueid or "")
        self.calls.put(replace(followed, sent=True, missed=True))
        for uniqueid in followed.uniqueids:
            for event, at in self._unfollowed.pop(uniqueid, ()):
                self.feed(entry.call.call_id, event, at)

    def _followed(self, entry: Entry, token: str, uniqueid: str) -> Followed:
        cell = self.cells.get(entry.request.cell)
        return Followed(
            call=entry.call,
            request=entry.request,
            boot=entry.boot,
            token=token,
            uniqueid=uniqueid,
            wants_amd=cell is not None and cell.amd != "off",
            confirms=self.state.confirms,
            ring_timeout_s=entry.request.ring_timeout_s or (cell.ring_timeout if cell else 30),
        )

    # --- effects -------------------------------------------------------------------

    def _carry_out(self, f: Followed, effect: FollowEffect) -> asyncio.Task[Any] | None:
        call_id = f.call.call_id
        match effect:
            case WriteAck():
                return self._write_ack(f)
            case WriteAnswered(at=at):
                return self._write_answered(f, at)
            case WriteEnd(ending=ending):
                self.calls.end(f.call, ending)
                if ending.error is not None and ending.error.code == NO_WORD:
                    self.state.results.count(NO_WORD)
                if ending.result is Result.CONGESTION:
                    self.state.results.count("congested")
                self.hand_overs.ended(f.request.cell, call_id)
                return self.write_end(f.call, f.request, ending)
            case AskRecord():
                return self.journal.start(self._ask_record(call_id))
            case AskChannel():
                return self.journal.start(self._ask_channel(call_id))
            case AskList():
                self._schedule_list(call_id)
            case HangUp(uniqueids=uniqueids):
                return self.journal.start(self._hang_up(call_id, uniqueids))
            case _:
                self._note(f, effect)
        return None

    def _note(
        self, f: Followed, effect: StartTimer | NoteAmd | NoteHandOver | LogEndMissed
    ) -> None:
        match effect:
            case StartTimer(timer=timer):
                after_s = self.timeouts.of(timer)
                asyncio.get_running_loop().call_later(after_s, self.feed, f.call.call_id, timer)
            case NoteAmd(works=works):
                self._note_amd(f.request.cell, works=works)
            case NoteHandOver(handed=handed):
                self.hand_overs.note(f.request.cell, f.call.call_id, handed)
            case LogEndMissed():
                logger.warning("End of a call missed", extra={"call_id": f.call.call_id})
            case _:
                assert_never(effect)

    def _write_ack(self, f: Followed) -> asyncio.Task[bool]:
        call, cell = f.call, self.cells.get(f.request.cell)
        assert cell is not None, "only calls of served cells are followed"
        ledger = self.cells.ledger(cell.name)
        return self.journal.write(
            cell.name,
            "accept",
            lambda: ledger.accept(
                f.request,
                pbx=self.state.name,
                uniqueid=call.uniqueid or channel_id(call.call_id),
                attempts=call.attempts,
                at=call.accepted_at or self.state.clock.now(),
                code_wait_s=cell.timeout_command_ack,
            ),
        )

    def _write_answered(self, f: Followed, at: datetime) -> asyncio.Task[bool]:
        cell = f.request.cell
        ledger = self.cells.ledger(cell)
        return self.journal.write(cell, "answer", lambda: ledger.answer(f.call.call_id, at=at))

    def write_end(self, call: Call, request: CallRequest, ending: Ending) -> asyncio.Task[None]:
        """Write the end with the Response (sent now or with the code), then release the slot."""
        return self.journal.start(self._write_end(call, request, ending))

    async def _write_end(self, call: Call, request: CallRequest, ending: Ending) -> None:
        cell, ledger = request.cell, self.cells.ledger(request.cell)
        is_one_step = ledger.steps is self.registry.steps
        end = ledger.end_release if is_one_step else ledger.end
        other_cells_need_it = asyncio.get_running_loop().call_later(
            self.slot_within_s, self.release_slot, cell, call.call_id
        )
        try:
            reply = await self.journal.until_taken(cell, "end", lambda: end(call, request, ending))
        finally:
            other_cells_need_it.cancel()
        if not is_one_step:
            self.release_slot(cell, call.call_id)
        if reply != "void":
            self.on_done(replace(call, ending=ending), ending)
        if self.state.has_include and (call.answered_at or ending.answered_at):
            for uniqueid in [call.uniqueid] if call.uniqueid else uniqueids_of(call.call_id):
                await self.link.delete_record(uniqueid)

    def release_slot(self, cell: str, call_id: str) -> asyncio.Task[None]:
        """Release the call's slot in the registry."""
        return self.journal.write(cell, "release", lambda: self.release([call_id]))

    async def release(self, call_ids: list[str]) -> None:
        """Release slots in the registry, unless this worker is fenced."""
        await self.registry.release(self.state.name, call_ids, fence=self.fence.number)

    async def hang_up(self, call_id: str) -> str:
        """Hang up a followed call; return why Asterisk does not, '' if it does.

        A call without a channel is hung up when it has one.
        """
        tasks = self.feed(call_id, HangUpAsked())
        return next((str(answer) for answer in await asyncio.gather(*tasks) if answer), "")

    async def _hang_up(self, call_id: str, uniqueids: tuple[str, ...]) -> str:
        """Hang up a channel; return why it is not hung up. The call goes on then."""
        refusal = ""
        for uniqueid in uniqueids:
            try:
                refusal = await self.link.hang_up(uniqueid)
            except (AmiUnavailable, ValueError) as error:
                refusal = str(error)
            if not refusal:
                logger.warning("Call hung up for an operator", extra={"call_id": call_id})
                return ""
        extra = {"call_id": call_id, "reason": refusal}
        logger.error("Call could not be hung up", extra=extra)
        self.feed(call_id, HangUpRefused())
        return refusal

    # --- asking --------------------------------------------------------------------

    async def _ask_record(self, call_id: str) -> None:
        answer: FollowEvent = RecordUnavailable()
        try:
            record = await self._record(self._uniqueids(call_id))
        except AmiUnavailable:
            pass  # the timer RecordDue asks again
        else:
            answer = RecordRead(record=record, has_include=self.state.has_include)
        self.feed(call_id, answer)

    async def _record(self, uniqueids: tuple[str, ...]) -> Record | None:
        for uniqueid in uniqueids:
            if text := await self.link.record(uniqueid):
                return self._on_redis_time(read_record(text))
        return None

    def _uniqueids(self, call_id: str) -> tuple[str, ...]:
        followed = self.calls.get(call_id)
        return followed.uniqueids if followed else ()

    def _on_redis_time(self, record: Record | None) -> Record | None:
        """Correct the times of a record, which the clock of the PBX's host gave."""
        if record is None:
            return None
        of_host = self.state.clock.of_host
        return replace(
            record,
            answered_at=of_host(record.answered_at),
            ended_at=of_host(record.ended_at) if record.ended_at else None,
        )

    async def _ask_channel(self, call_id: str) -> None:
        try:
            found = [await self.link.has_channel(one) for one in self._uniqueids(call_id)]
        except AmiUnavailable:
            self.feed(call_id, ChannelUnavailable())
        else:
            self.feed(call_id, ChannelThere() if any(found) else ChannelMissing())

    def _schedule_list(self, call_id: str) -> None:
        if not self._to_list:
            self.journal.start(self._ask_list())
        self._to_list.add(call_id)

    async def _ask_list(self) -> None:
        """Ask for the channel list; feed the result to every call that needs it.

        If the link is down, try again later. If it breaks while Asterisk lists its channels, do
        nothing: the reconciliation after the reconnect compares all calls with the list.
        """
        await asyncio.sleep(LIST_DELAY_S)
        wanted, self._to_list = self._to_list, set()
        if not self.link.ready:  # the reconciliation after the reconnect may be over already
            for call_id in [one for one in wanted if one in self.calls]:
                later = asyncio.get_running_loop().call_later
                later(self.timeouts.channel_wait_s, self._schedule_list, call_id)
            return
        session = self.link.session
        try:
            live = await self.link.channels()
        except AmiUnavailable as error:
            if self.link.ready:
                self.link.drop(f"Asterisk does not list its channels ({error})")
            return
        if self.link.session == session:
            for call_id in wanted:
                found = channel_found(live, self._uniqueids(call_id), self.state.boot)
                self.feed(call_id, found)

    def _note_amd(self, cell: str, *, works: bool) -> None:
        """Log once if AMD does not run, and once if it runs again."""
        if works is not self._no_amd:
            return
        self._no_amd = not works
        extra = {"pbx": self.state.name, "cell": cell}
        if works:
            logger.warning("AMD runs again", extra=extra)
        else:
            logger.error(
                "AMD does not run, every answered call is treated as a person: put "
                "deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so",
                extra=extra,
            )
