"""Holds the ledger against the live channels of Asterisk, whenever the link comes up.

Those alive are followed again. Those gone get their Response: from the record that the shipped
dialplan keeps in AstDB, or with what can be said without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from dialer.domain.call import CallError, Ending, Result, State
from dialer.errors import AmiUnavailable
from dialer.store.entry import Entry
from dialer.store.ledger import WorkerLedger
from workers.ami import AmiLink
from workers.ami.events import CHANNEL_UP, Note, read_note
from workers.calls.tracker import OTHER_HALF_S, Followed, Tracker
from workers.recovery.replay import Reminder

logger = logging.getLogger(__name__)

#: An Originate that a dead link or worker left behind may still make a channel for this long
#: after the link is back; only then is a call whose channel nobody saw taken to be over. Seconds.
STILL_COMING_S: Final = 3.0

#: Any Originate has made its channel by then, or never will, in seconds.
LONG_AGO_S: Final = 180.0

#: A record may still be needed by a worker's next start for this long after its call, in seconds.
RECORD_KEPT_S: Final = 24 * 3600.0

#: A hangup handler may write its record this much after the channel is gone, in seconds.
RECORD_WITHIN_S: Final = 1.0


@dataclass(slots=True)
class Reconciler:
    """Runs on the worker's event loop. `boot` names the Asterisk's present start."""

    link: AmiLink
    tracker: Tracker
    has_include: bool = False
    boot: str = ""
    reminder: Reminder = field(init=False)

    def __post_init__(self) -> None:
        self.reminder = Reminder(self.tracker)

    async def run(self) -> None:
        """Adopts what lives and answers for what is gone.

        Calls that may be answered for only later are left to a task of their own.

        Raises:
            AmiUnavailable: the link was lost meanwhile.
        """
        self.tracker.buffer = []
        before = {i for i, f in self.tracker.calls.items() if f.channel is not None}
        try:
            self.boot = await self.link.boot()
            self.has_include = await self.link.has_include()
            live = await self.link.channels()
            held = await self._held()
            gone = [followed for followed in held if not await self._adopt(followed, live)]
            for event, at in self.tracker.buffer or ():
                self.tracker.apply(event, at)
        finally:
            self.tracker.buffer = None
        if held:
            logger.warning(
                "Ledger held against Asterisk's channels",
                extra={
                    "pbx": self.tracker.pbx,
                    "adopted": len(held) - len(gone),
                    "gone": len(gone),
                },
            )
        await self._answer_for([f for f in gone if not self._came(f, before)])

    def _came(self, followed: Followed, before: Set[str]) -> bool:
        """True where its channel came after the channels were listed: its events tell the rest.

        `before` are the calls that had a channel before the link was lost.
        """
        if followed.channel is None or followed.call.call_id in before:
            return False
        if followed.call.state is State.ORIGINATING:
            self.tracker.accept(followed)
        return True

    async def forget_old(self) -> None:
        """Deletes records of calls long over, left where a link broke before their deletion.

        Raises:
            AmiUnavailable: the link was lost meanwhile.
        """
        now = datetime.now(UTC)
        for call_id, text in (await self.link.notes()).items():
            note = read_note(text)
            last = (note.ended_at or note.answered_at) if note else None
            old = last is None or now - last > timedelta(seconds=RECORD_KEPT_S)
            if old and call_id not in self.tracker.calls:
                await self.link.forget(call_id)

    async def ledger_back(self, ledger: WorkerLedger) -> None:
        """Tells a cell's ledger that is back what it missed, and adopts what nobody follows."""
        await self.reminder.remind(ledger)
        unknown = [e for e in await ledger.claimed(self.tracker.pbx) if not self._is_known(e)]
        if not unknown:
            return
        try:
            live = await self.link.channels()
        except AmiUnavailable:
            return  # the reconciliation at the link's return begins anew
        unknown = [entry for entry in unknown if not self._is_known(entry)]
        taken = [self._take(entry) for entry in unknown]
        await self._answer_for([f for f in taken if not await self._adopt(f, live)])

    def _is_known(self, entry: Entry) -> bool:
        call_id = entry.call.call_id
        return call_id in self.tracker.calls or self.tracker.remembered.get(call_id) is not None

    async def sweep(self) -> None:
        """Finds calls whose end was missed though the link was up; there should be none.

        Raises:
            AmiUnavailable: the link was lost meanwhile.
        """
        before = [f for f in self.tracker.calls.values() if f.sent and _was_up(f)]
        live = await self.link.channels()
        await asyncio.sleep(OTHER_HALF_S)
        for followed in before:
            call_id = followed.call.call_id
            if call_id not in live and self.tracker.calls.get(call_id) is followed:
                logger.warning("The end of a call was missed", extra={"call_id": call_id})
                await self._resolve(followed)

    async def ask(self, followed: Followed) -> None:
        """Finds out what became of an Originate on which no word came."""
        await self._answer_later([followed])

    async def _held(self) -> list[Followed]:
        """Every call that may be in Asterisk's hands: those followed here, and the ledger's.

        But calls whose Originate is yet to be sent. The ledger of a cell whose Redis is away is
        asked when that is back; the others need not wait, nor do the calls known here.
        """
        entries = await self._claimed()
        held = {i: f for i, f in self.tracker.calls.items() if f.sent}
        for followed in held.values():
            followed.missed = True
        for entry in entries:
            known = self.tracker.calls.get(entry.call.call_id)
            if known is None or known.sent:
                held[entry.call.call_id] = self._take(entry)
        return list(held.values())

    async def _claimed(self) -> list[Entry]:
        found: list[Entry] = []
        for ledger in self.tracker.ledgers.values():
            claimed = await ledger.steps.or_none_if_down(ledger.claimed(self.tracker.pbx))
            if claimed is not None:
                found += claimed
            else:
                self.tracker.writes.keep(asyncio.create_task(self.ledger_back(ledger)))
        return found

    async def _adopt(self, followed: Followed, live: dict[str, dict[str, str]]) -> bool:
        """Goes on following the call if its channel lives."""
        channel = live.get(followed.call.call_id)
        if channel is None:
            return False
        followed.channel = channel.get("Channel")
        if followed.call.state is State.ORIGINATING:
            self.tracker.accept(followed)
        if channel.get("ChannelState") == CHANNEL_UP and followed.call.state is State.ACCEPTED:
            note = await self._read(followed.call.call_id)
            self.tracker.answered(followed, note.answered_at if note else datetime.now(UTC))
        return True

    def _take(self, entry: Entry) -> Followed:
        followed = self.tracker.calls.get(entry.call.call_id) or self.tracker.follow(entry)
        followed.sent = followed.missed = True
        return followed

    async def _answer_for(self, gone: Sequence[Followed]) -> None:
        coming = [f for f in gone if self._may_still_come(f)]
        over = [f for f in gone if not self._may_still_come(f)]
        await asyncio.gather(*(self._resolve(followed) for followed in over))
        if coming:
            self.tracker.writes.keep(asyncio.create_task(self._answer_later(coming)))

    def _may_still_come(self, followed: Followed) -> bool:
        """True where Asterisk may have the Originate before it, and no channel of it yet."""
        never_seen = followed.channel is None and followed.call.state is not State.ANSWERED
        return never_seen and followed.boot == self.boot

    async def _answer_later(self, coming: Sequence[Followed]) -> None:
        session = self.link.session
        await asyncio.sleep(STILL_COMING_S)
        try:
            live = await self.link.channels()
            if self.link.session != session:
                return  # a new link: what the old one left behind has its time from there
            looks = (self._look_again(f, live.get(f.call.call_id)) for f in coming)
            await asyncio.gather(*looks)
        except AmiUnavailable as error:
            if self.link.ready:
                self.link.drop(f"Asterisk does not say which calls are up ({error})")
            return  # the reconciliation at the link's return begins anew

    async def _look_again(self, followed: Followed, channel: dict[str, str] | None) -> None:
        if self.tracker.calls.get(followed.call.call_id) is not followed:
            return
        came_and_went = followed.channel is not None or bool(followed.early)
        if channel is None and not came_and_went:
            await self._resolve(followed)
            return
        if followed.call.state is State.ORIGINATING:
            self.tracker.accept(followed)
        if channel is not None:
            followed.channel = channel.get("Channel")
            if channel.get("ChannelState") == CHANNEL_UP:
                self.tracker.answered(followed, datetime.now(UTC))

    async def settle(self, followed: Followed, at: datetime) -> None:
        """Ends a call that hung up at `at`; its record tells what of its course was missed."""
        call_id = followed.call.call_id
        try:
            note = await self._note(call_id)
        except AmiUnavailable:
            return  # the reconciliation at the link's return finds it gone
        if self.tracker.calls.get(call_id) is not followed:
            return
        if note is not None:
            followed.learn(amd=note.amd, agent=note.agent, wait_s=note.wait_s)
        if followed.call.state is State.ANSWERED:
            self.tracker.over(followed, at)
        elif note is not None:
            self.tracker.end(followed, followed.heard(note.ending(fallback_end=at)))
        elif followed.originate is None and followed.hangup_is_mute:
            self.tracker.end(followed, self._ending(followed, None, restarted=False))
        else:
            self.tracker.over(followed, at)

    async def _resolve(self, followed: Followed) -> None:
        """Says how a call ended that nobody saw end."""
        call_id = followed.call.call_id
        restarted = followed.boot not in ("", self.boot)
        note = await (self._read(call_id) if restarted else self._note(call_id))
        if self.tracker.calls.get(call_id) is followed:
            if note is not None:
                followed.learn(amd=note.amd, agent=note.agent, wait_s=note.wait_s)
            ending = self._ending(followed, note, restarted=restarted)
            self.tracker.end(followed, followed.heard(ending))

    async def _note(self, call_id: str) -> Note | None:
        note = await self._read(call_id)
        if note is not None and note.ended_at is None:
            await asyncio.sleep(RECORD_WITHIN_S)
            note = await self._read(call_id) or note
        return note

    async def _read(self, call_id: str) -> Note | None:
        text = await self.link.note(call_id)
        return read_note(text) if text else None

    def _ending(self, followed: Followed, note: Note | None, *, restarted: bool) -> Ending:
        now = datetime.now(UTC)
        if note is not None and note.ended_at is not None:
            return note.ending(fallback_end=now)
        if restarted:
            error = CallError(
                code="pbx_restarted", message="Asterisk restarted while the call was up"
            )
        else:
            error = CallError(
                code="end_not_seen",
                message="the call ended while its worker or its AMI link was down",
            )
        if note is not None:
            return Ending(
                result=Result.ANSWERED, ended_at=now, answered_at=note.answered_at, error=error
            )
        if self.has_include and not restarted and followed.call.state is not State.ANSWERED:
            # With the include in place an answered call has its record: this one was not answered.
            return Ending(result=Result.FAILED, ended_at=now, error=error)
        return Ending(result=Result.UNKNOWN, ended_at=now, error=error)


def _was_up(followed: Followed) -> bool:
    """True where the call had its channel a while ago, so that it must be listed or be over."""
    dialed_at = followed.call.dialed_at
    old = dialed_at is not None and datetime.now(UTC) - dialed_at > timedelta(seconds=LONG_AGO_S)
    return followed.channel is not None or old
