"""Follows the calls of one PBX: from the claim, through Asterisk's events, to the ledger.

Holds what the ledger has not heard yet of each call that is up. An event changes the call in
memory at once and is written in the order in which it came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from dialer.domain.call import (
    Accepted,
    Answered,
    Call,
    CallError,
    Ending,
    Result,
    State,
    advance,
)
from dialer.domain.causes import MUTE_CAUSES, result_of
from dialer.domain.request import CallRequest
from dialer.settings import Cell
from dialer.store.entry import Entry
from dialer.store.ledger import WorkerLedger
from dialer.store.registry import Registry
from workers.ami.events import (
    AgentJoined,
    AmdHeard,
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    DialEnded,
    HungUp,
    OriginateEnded,
    QueueJoined,
    QueueLeft,
)
from workers.calls.journal import Writes
from workers.calls.remembered import Remembered

logger = logging.getLogger(__name__)

#: Hangup and OriginateResponse come in any order, and either may be the only one: the first waits
#: this long for the other, in seconds. Under load up to 6 ms were seen.
OTHER_HALF_S: Final = 1.0

#: A call that is over keeps its slot this long where its cell's Redis does not answer, in seconds.
SLOT_WITHIN_S: Final = 1.0


@dataclass(slots=True, kw_only=True)
class Followed:
    """A call in memory. `sent` is true from the moment its Originate may be on the wire.

    `token` is that of its claim. `waiting_since` is when the customer joined a queue, `wait_s`
    how long an agent was waited for, in seconds. `missed` says that events of it may have been
    missed, its answer among them: a worker or a link was down.
    """

    call: Call
    request: CallRequest
    boot: str
    token: str = ""
    sent: bool = False
    missed: bool = False
    attempts: int = 0
    channel: str | None = None
    hangup: HungUp | None = None
    originate: OriginateEnded | None = None
    dial_status: str | None = None
    amd: str | None = None
    agent: str | None = None
    waiting_since: datetime | None = None
    wait_s: float | None = None
    early: list[tuple[AmiEvent, datetime]] = field(default_factory=list)

    @property
    def hangup_is_mute(self) -> bool:
        """True where the hangup cause alone does not tell how the call ended."""
        return self.hangup is None or self.hangup.cause is None or self.hangup.cause in MUTE_CAUSES

    def waited_s(self, until: datetime) -> float | None:
        """Seconds from joining the first queue, to the millisecond; None where it was not seen."""
        if self.waiting_since is None:
            return None
        return round((until - self.waiting_since).total_seconds(), 3)

    def learn(self, *, amd: str | None, agent: str | None, wait_s: float | None) -> None:
        """What the call's record tells; what was heard of it counts before."""
        self.amd = self.amd or amd
        if self.agent is None:
            self.agent = agent
            self.wait_s = wait_s if self.wait_s is None else self.wait_s

    def heard(self, ending: Ending) -> Ending:
        """An ending that nobody heard, with what was heard or learnt before it."""
        return replace(ending, amd=self.amd, agent=self.agent, wait_s=self.wait_s)

    @property
    def accepted(self) -> bool:
        """True once Asterisk's word on the Originate is in the ledger's queue."""
        return self.call.state in (State.ACCEPTED, State.ANSWERED)


@dataclass(slots=True)
class Tracker:
    """All calls of one PBX. Belongs to the worker's event loop.

    `on_done` hears of every call that ended here, for Celery's events. `forget` deletes the
    call's AstDB record. `settle` ends a call that hung up and whose course was not seen whole.
    While `buffer` is a list, events are kept there for later.
    """

    pbx: str
    cells: dict[str, Cell]
    ledgers: dict[str, WorkerLedger]
    registry: Registry
    on_done: Callable[[Call, Ending], None]
    forget: Callable[[str], Coroutine[Any, Any, None]]
    settle: Callable[[Followed, datetime], Coroutine[Any, Any, None]]
    calls: dict[str, Followed] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=Remembered)
    buffer: list[tuple[AmiEvent, datetime]] | None = None
    writes: Writes = field(init=False)
    _no_amd: bool = False

    def __post_init__(self) -> None:
        self.writes = Writes(self.pbx)

    # --- what becomes of a call ----------------------------------------------------

    def follow(self, entry: Entry) -> Followed:
        """Takes a claimed call into memory."""
        followed = Followed(
            call=entry.call,
            request=entry.request,
            boot=entry.boot,
            attempts=entry.call.attempts,
        )
        self.calls[entry.call.call_id] = followed
        return followed

    def accept(self, followed: Followed) -> asyncio.Task[bool]:
        """Asterisk took the Originate: ACK, then whatever happened meanwhile.

        Returns the writing of it, which may be awaited.
        """
        event = Accepted(
            at=datetime.now(UTC),
            uniqueid=followed.call.call_id,
            attempts=max(1, followed.attempts),
        )
        followed.call, _ = advance(followed.call, event)
        writing = self.write_accepted(followed)
        early, followed.early = followed.early, []
        for late, at in early:
            self._apply(followed, late, at)
        return writing

    def end(self, followed: Followed, ending: Ending) -> asyncio.Task[None]:
        """The call is over: Response (now or with its code), slot back, out of memory."""
        self.calls.pop(followed.call.call_id, None)
        if ending.answered_at is not None:  # its record knows better than who adopted it late
            followed.call = replace(followed.call, answered_at=ending.answered_at)
        self.remembered.note(followed.call, ending)
        return self.write_ended(followed.call, followed.request, ending)

    # --- writing -------------------------------------------------------------------

    def write_accepted(self, followed: Followed) -> asyncio.Task[bool]:
        """The ACK."""
        call, cell = followed.call, self.cells[followed.request.cell]
        return self.writes.write(
            cell.name,
            "accept",
            lambda: self.ledgers[cell.name].accept(
                followed.request,
                pbx=self.pbx,
                uniqueid=call.uniqueid or call.call_id,
                attempts=call.attempts,
                at=call.accepted_at or datetime.now(UTC),
                code_wait_s=cell.timeout_command_ack,
            ),
        )

    def write_answered(self, followed: Followed, at: datetime) -> asyncio.Task[bool]:
        """The answer."""
        cell = followed.request.cell
        answer = self.ledgers[cell].answer
        return self.writes.write(cell, "answer", lambda: answer(followed.call.call_id, at=at))

    def write_ended(self, call: Call, request: CallRequest, ending: Ending) -> asyncio.Task[None]:
        """The end: Response (now or with its code), then the slot."""
        return self.writes.keep(asyncio.create_task(self._end(call, request, ending)))

    async def _end(self, call: Call, request: CallRequest, ending: Ending) -> None:
        cell, ledger = request.cell, self.ledgers[request.cell]
        ended = self.writes.write(cell, "end", lambda: ledger.end(call, request, ending))

        def release() -> asyncio.Task[None]:
            ids = [call.call_id]
            return self.writes.write(cell, "release", lambda: self.registry.release(self.pbx, ids))

        done, _ = await asyncio.wait({ended}, timeout=SLOT_WITHIN_S)
        if not done:  # other cells, whose Redis answers, have use for the room
            release()
        reply = await ended
        release()
        if reply != "void":
            self.on_done(replace(call, ending=ending), ending)
        if call.answered_at or ending.answered_at:
            await self.forget(call.call_id)

    # --- Asterisk's events ---------------------------------------------------------

    def on_event(self, event: AmiEvent) -> None:
        """An event of the PBX; those of calls that are not ours are ignored."""
        now = datetime.now(UTC)
        if self.buffer is not None:
            self.buffer.append((event, now))
        self.apply(event, now)

    def apply(self, event: AmiEvent, at: datetime) -> None:
        """Applies an event that came at `at` to its call, if that is followed."""
        followed = self.calls.get(_call_id(event))
        if followed is None or _is_of_another_attempt(event, followed):
            return
        if isinstance(event, ChannelCreated):
            followed.channel = event.channel
        if followed.accepted:
            self._apply(followed, event, at)
        else:
            followed.early.append((event, at))

    def _apply(self, followed: Followed, event: AmiEvent, at: datetime) -> None:
        match event:
            case ChannelUp():
                self.answered(followed, at)
            case DialEnded(status=status):
                followed.dial_status = status
            case AmdHeard(status=status):
                self._heard_of_amd(followed, status)
            case QueueJoined():
                followed.waiting_since = followed.waiting_since or at
            case QueueLeft():
                followed.wait_s = followed.waited_s(at)
            case AgentJoined(agent=agent, wait_s=wait_s):
                followed.agent = agent
                followed.wait_s = followed.waited_s(at) or wait_s
            case OriginateEnded(answered=answered):
                followed.originate = event
                if answered:
                    self.answered(followed, at)
                else:
                    self._maybe_over(followed, at)
            case HungUp():
                followed.hangup = event
                self._maybe_over(followed, at)

    def _heard_of_amd(self, followed: Followed, status: str | None) -> None:
        """A verdict, or that there is none to be had; said once, until there is one again."""
        followed.amd = status
        if not self._wants_amd(followed) or (status is None) == self._no_amd:
            return
        self._no_amd = status is None
        extra = {"pbx": self.pbx, "cell": followed.request.cell}
        if self._no_amd:
            logger.error(
                "Asterisk does not tell machines from people, everybody is taken for a person: put "
                "deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so",
                extra=extra,
            )
        else:
            logger.warning("Machines are told from people again", extra=extra)

    def answered(self, followed: Followed, at: datetime) -> None:
        """The customer answered at `at`, as far as that is known."""
        if followed.call.state is not State.ACCEPTED:
            return
        followed.call, _ = advance(followed.call, Answered(at=at))
        self.write_answered(followed, at)

    def _maybe_over(self, followed: Followed, at: datetime) -> None:
        """Ends the call when all is known that will be known."""
        hangup, originate = followed.hangup, followed.originate
        answered = followed.call.state is State.ANSWERED
        telling = not followed.hangup_is_mute
        no_channel = originate is not None and followed.channel is None
        if answered and hangup is None:
            return
        if hangup is not None and (followed.missed or self._lacks_verdict(followed)):
            self.writes.keep(asyncio.create_task(self.settle(followed, at)))
        elif answered or telling or (hangup and originate):
            self.over(followed, at)
        elif hangup is not None or no_channel:
            # OriginateResponse may overtake even Newchannel: no channel is no proof yet.
            asyncio.get_running_loop().call_later(OTHER_HALF_S, self._over_at_last, followed, at)

    def _lacks_verdict(self, followed: Followed) -> bool:
        """True where its record may have AMD's verdict: who hangs up meanwhile is not told of."""
        answered = followed.call.state is State.ANSWERED
        unheard = followed.amd is None and not self._no_amd
        return answered and unheard and self._wants_amd(followed)

    def _wants_amd(self, followed: Followed) -> bool:
        return self.cells[followed.request.cell].amd != "off"

    def _over_at_last(self, followed: Followed, at: datetime) -> None:
        """Ends a call whose other half did not come, unless it has a channel after all."""
        if followed.hangup is not None:
            self.writes.keep(asyncio.create_task(self.settle(followed, at)))
        elif followed.channel is None:
            self.over(followed, at)

    def over(self, followed: Followed, at: datetime) -> None:
        """Ends a call that was over at `at` by what its events said."""
        if self.calls.get(followed.call.call_id) is not followed:
            return  # it is over already
        hangup, originate = followed.hangup, followed.originate
        result = result_of(
            answered=followed.call.state is State.ANSWERED,
            cause=hangup.cause if hangup else None,
            reason=originate.reason if originate else None,
            dial_status=followed.dial_status,
        )
        self.end(
            followed,
            Ending(
                result=result,
                # The answer of an adopted call may be known only roughly, and too late.
                ended_at=max(at, followed.call.answered_at or at),
                cause=hangup.cause if hangup else None,
                cause_text=hangup.cause_text if hangup else None,
                amd=followed.amd,
                agent=followed.agent,
                wait_s=followed.wait_s,
                error=_failure(followed) if result is Result.FAILED else None,
            ),
        )


def _failure(followed: Followed) -> CallError:
    if followed.channel is None:
        return CallError(
            code="no_channel",
            message="Asterisk could not make a channel for the trunk; see that the trunk exists",
        )
    cause = followed.hangup.cause if followed.hangup else None
    return CallError(code="call_failed", message=f"Asterisk gave up the call (cause {cause})")


def _is_of_another_attempt(event: AmiEvent, followed: Followed) -> bool:
    """True for the word on an Originate that is not the one this call lives by.

    Asterisk refuses a second one whose ChannelId is in use, under the live call's Uniqueid.
    """
    if not isinstance(event, OriginateEnded) or not followed.attempts:
        return False
    return event.action_id.rpartition("#")[2] != str(followed.attempts)


def _call_id(event: AmiEvent) -> str:
    if isinstance(event, OriginateEnded):
        return event.action_id.rpartition("#")[0]
    return event.uniqueid
