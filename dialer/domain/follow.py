"""State machine of a call that a worker follows: events, timers, reconnects.

`follow` decides alone: `(followed call, event, now) -> (followed call, effects)`. The caller
(`workers.calls.tracker`) carries out the effects and feeds their results back as events. An event
that is not legal in the call's state changes nothing.

AMI events that arrive before Asterisk's reply to the Originate are buffered in `early`, because
the ACK must be written first. Does not know Redis, AMI, timers or the clock.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from dialer.domain.call import Accepted, Answered, Ended, Ending, State, advance
from dialer.domain.causes import UNCLEAR_CAUSES
from dialer.domain.channel import (
    AgentJoined,
    AmdReported,
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    DialEnded,
    FarEndCleared,
    HandOverReported,
    HungUp,
    OriginateEnded,
    QueueJoined,
    QueueLeft,
    Record,
    action_id,
)
from dialer.domain.endings import after_hang_up, ending_by_events, ending_unseen
from dialer.domain.follow_events import (
    AskChannel,
    AskList,
    AskRecord,
    ChannelListed,
    ChannelMissing,
    ChannelNotListed,
    ChannelThere,
    ChannelUnavailable,
    ChannelWaitTimedOut,
    CheckDue,
    FollowEffect,
    FollowEvent,
    ForwardTimedOut,
    GapFound,
    GivenUp,
    HandOverTimedOut,
    HangUp,
    HangUpAsked,
    HangUpRefused,
    LedgerRead,
    LogEndMissed,
    NoteAmd,
    NoteHandOver,
    OriginateAccepted,
    OriginateNotSent,
    OriginateSent,
    OriginateUnclear,
    PairingTimedOut,
    RecordDue,
    RecordRead,
    RecordUnavailable,
    StartTimer,
    Timer,
    WriteAck,
    WriteAnswered,
    WriteEnd,
)
from dialer.domain.follow_hand_over import (
    awaits_originate,
    hand_over_timer,
    judge_hand_over,
    may_be_forwarded,
    note_hand_over,
)
from dialer.domain.followed import Followed, changed
from dialer.domain.hand_over import FORWARDED, YES

#: Calls older than this are checked periodically, because their Hangup may have been missed.
CHECK_AFTER: Final = timedelta(minutes=3)

#: Asterisk dials a forwarded call for its ring timeout; wait this much longer, in seconds.
FORWARD_MARGIN_S: Final = 5.0

Step = tuple[Followed, tuple[FollowEffect, ...]]


def follow(followed: Followed, event: FollowEvent, now: datetime) -> Step:
    """Apply `event`, which arrived at `now`; return the call and the effects."""
    if not followed.is_up:
        return followed, ()
    followed, effects = _follow(followed, event, now)
    return _hang_up(followed, effects) if followed.hang_up else (followed, effects)


def _hang_up(f: Followed, effects: tuple[FollowEffect, ...]) -> Step:
    """Send an operator's hang-up as soon as the call's channel is seen.

    That such a call is not handed over says nothing about the PBX.
    """
    effects = tuple(one for one in effects if not isinstance(one, NoteHandOver))
    is_there = f.appeared and f.hangup is None and not f.is_gone and f.is_up
    if f.hang_up != "asked" or not is_there:
        return f, effects
    return changed(f, hang_up="sent"), (*effects, HangUp(uniqueids=f.uniqueids))


def _follow(followed: Followed, event: FollowEvent, now: datetime) -> Step:
    match event:
        case (
            OriginateSent()
            | OriginateNotSent()
            | OriginateAccepted()
            | OriginateUnclear()
            | GivenUp()
        ):
            return _on_originate(followed, event, now)
        case PairingTimedOut() | ChannelWaitTimedOut() | RecordDue():
            return _on_timer(followed, event)
        case GapFound() | ChannelListed() | ChannelNotListed() | CheckDue():
            return _on_lookup(followed, event, now)
        case ChannelMissing() | ChannelThere() | ChannelUnavailable():
            return _on_channel(followed, event)
        case RecordRead():
            return _on_record(followed, event, now)
        case RecordUnavailable():
            return followed, _timer(RecordDue()) if followed.asking else ()
        case LedgerRead():
            return _on_ledger(followed, event)
        case HangUpAsked() | HangUpRefused():
            asked = isinstance(event, HangUpAsked)
            return changed(followed, hang_up="asked" if asked else ""), ()
        case HandOverTimedOut() | ForwardTimedOut():
            return _on_hand_over_timer(followed, event)
        case _:
            return _on_ami(followed, event, now)


# --- the Originate -------------------------------------------------------------------


def _on_originate(
    f: Followed,
    event: OriginateSent | OriginateNotSent | OriginateAccepted | OriginateUnclear | GivenUp,
    now: datetime,
) -> Step:
    if f.is_accepted:
        return f, ()
    match event:
        case OriginateSent(attempt=attempt):
            return changed(f, sent=True, call=replace(f.call, attempts=attempt)), ()
        case OriginateNotSent():
            return changed(f, sent=False), ()
        case GivenUp():
            return _give_up(f, event, now)
        case OriginateAccepted():
            return _accept(f, now)
        case OriginateUnclear(within_s=within_s):
            return changed(f, unanswered_s=within_s), _timer(ChannelWaitTimedOut(gap=f.gaps))
        case _:
            assert_never(event)


def _accept(f: Followed, now: datetime) -> Step:
    """Write the ACK, then apply the events that arrived before it."""
    if f.is_accepted:
        return f, ()
    accepted = Accepted(at=now, uniqueid=f.uniqueids[0], attempts=max(1, f.call.attempts))
    call, _ = advance(f.call, accepted)
    early = f.early
    f = changed(f, call=call, sent=True, early=())
    done: tuple[FollowEffect, ...] = (WriteAck(),)
    for event, at in early:
        f, more = _apply(f, event, at)
        done += more
    return f, done


def _give_up(f: Followed, event: GivenUp, now: datetime) -> Step:
    if not event.tried:
        f = changed(f, call=replace(f.call, dialed_at=None, attempts=0))
    return _end(f, Ending(result=event.result, ended_at=now, error=event.error))


# --- Asterisk's events ---------------------------------------------------------------


def _on_ami(f: Followed, event: AmiEvent, at: datetime) -> Step:
    if isinstance(event, OriginateEnded) and _is_of_another_attempt(f, event):
        return f, ()
    if isinstance(event, ChannelCreated):
        uniqueid = f.uniqueid or event.uniqueid
        f = changed(f, channel=event.channel, appeared=True, uniqueid=uniqueid)
    if not f.is_accepted:
        return changed(f, early=(*f.early, (event, at))), ()
    return _apply(f, event, at)


def _apply(f: Followed, event: AmiEvent, at: datetime) -> Step:
    """Apply an event of an accepted call; do nothing if the call has ended in the meantime."""
    if not f.is_up:
        return f, ()
    match event:
        case ChannelCreated():
            return f, ()
        case ChannelUp():
            return _answer_or_end(f, at)
        case HungUp():
            return _hung_up(f, event, at)
        case OriginateEnded():
            return _originate_ended(f, event, at)
        case AmdReported(status=status):
            reported = changed(f, amd=status, has_amd_event=True)
            noted = (NoteAmd(works=status is not None),) if f.wants_amd else ()
            return reported, (*noted, *hand_over_timer(reported))
        case HandOverReported() | QueueJoined() | DialEnded() | FarEndCleared():
            return _on_hand_over(f, event, at)
        case _:
            return _on_queue(f, event, at), ()


def _is_of_another_attempt(f: Followed, event: OriginateEnded) -> bool:
    """True if the OriginateResponse belongs to another attempt than the call's latest.

    If the ChannelId is in use, Asterisk refuses a second Originate with the live call's Uniqueid.
    """
    attempt = max(1, f.call.attempts)
    return event.action_id not in [action_id(one, attempt) for one in f.uniqueids]


def _on_queue(f: Followed, event: QueueLeft | AgentJoined, at: datetime) -> Followed:
    match event:
        case QueueLeft():
            return changed(f, wait_s=_waited_s(f, at))
        case AgentJoined(agent=agent, wait_s=wait_s):
            return changed(f, agent=agent, wait_s=_waited_s(f, at) or wait_s)
        case _:
            assert_never(event)


def _waited_s(f: Followed, until: datetime) -> float | None:
    """Return the seconds since joining the first queue; None if the event was not seen."""
    if f.waiting_since is None:
        return None
    return round((until - f.waiting_since).total_seconds(), 3)


def _hung_up(f: Followed, event: HungUp, at: datetime) -> Step:
    if f.hangup is not None:
        return f, ()
    return _end_if_over(changed(f, hangup=event, over_at=at))


def _originate_ended(f: Followed, event: OriginateEnded, at: datetime) -> Step:
    if f.originate is not None:
        return f, ()
    f = changed(f, originate=event)
    if event.answered:
        return _answer_or_end(f, at)
    return _end_if_over(changed(f, over_at=f.over_at or at))


def _answer_or_end(f: Followed, at: datetime) -> Step:
    """Record the answer at `at`; end the call if its Hangup arrived before."""
    f, answered = _answer(f, at)
    f, ended = _end_if_over(f)
    return f, answered + ended


def _answer(f: Followed, at: datetime) -> Step:
    if f.is_answered:
        return f, ()
    was_over = f.hangup is not None
    call, _ = advance(f.call, Answered(at=at))
    f = changed(f, call=call)
    if f.forward or (was_over and may_be_forwarded(f)):
        f, noted = note_hand_over(f, FORWARDED)
    else:
        noted = hand_over_timer(f)
    return f, (WriteAnswered(at=at), *noted)


def _end_if_over(f: Followed) -> Step:
    """End the call if no further information will arrive; else start a timer or ask."""
    if f.hangup is None:
        waits = f.has_failed_without_channel and not f.is_answered
        # OriginateResponse may arrive even before Newchannel, so wait for a channel.
        return f, _timer(PairingTimedOut()) if waits else ()
    if awaits_originate(f) and (_is_unclear(f.hangup) or f.is_forwarded):
        return f, _timer(PairingTimedOut())
    if f.missed or f.needs_amd_from_record or (f.awaits_hand_over and not f.cleared):
        return _ask_record(f)
    return _end_by_events(f, f.hangup)


def _is_unclear(hangup: HungUp) -> bool:
    """True if the hangup cause alone is not sufficient to know the result."""
    return hangup.cause is None or hangup.cause in UNCLEAR_CAUSES


# --- hand-over -----------------------------------------------------------------------


def _on_hand_over(
    f: Followed, event: HandOverReported | QueueJoined | DialEnded | FarEndCleared, at: datetime
) -> Step:
    match event:
        case HandOverReported(handed=handed):
            return note_hand_over(f, handed)
        case QueueJoined():
            return note_hand_over(changed(f, waiting_since=f.waiting_since or at), YES)
        case DialEnded(status=status, forward=forward):
            f = changed(f, dial_status=status, forward=forward or f.forward)
            return note_hand_over(f, FORWARDED) if f.forward and f.is_answered else (f, ())
        case FarEndCleared():
            return changed(f, cleared=True), ()
        case _:
            assert_never(event)


def _on_hand_over_timer(f: Followed, event: HandOverTimedOut | ForwardTimedOut) -> Step:
    match event:
        case HandOverTimedOut():
            is_due = f.awaits_hand_over and f.hangup is None
        case ForwardTimedOut():
            is_due = f.hangup is not None
        case _:
            assert_never(event)
    return _ask_record(f) if is_due else (f, ())


# --- timers --------------------------------------------------------------------------


def _timer(timer: Timer) -> tuple[FollowEffect, ...]:
    return (StartTimer(timer=timer),)


def _on_timer(f: Followed, event: PairingTimedOut | ChannelWaitTimedOut | RecordDue) -> Step:
    match event:
        case PairingTimedOut():
            if awaits_originate(f) and may_be_forwarded(f) and not f.missed:
                return f, _timer(ForwardTimedOut(after_s=f.ring_timeout_s + FORWARD_MARGIN_S))
            if f.hangup is not None or f.is_gone:
                return _ask_record(f)
            # Asterisk also creates no channel if one with this ChannelId is up.
            return f, (AskChannel(),) if f.has_failed_without_channel else ()
        case ChannelWaitTimedOut(gap=gap):
            # After a new gap, the wait begins again with the timer of that gap.
            if gap != f.gaps or not f.sent or (f.is_accepted and f.appeared):
                return f, ()
            return changed(f, waited=True), (AskList(),)
        case RecordDue():
            return f, (AskRecord(),) if f.asking else ()
        case _:
            assert_never(event)


# --- after a gap ---------------------------------------------------------------------


def _on_lookup(
    f: Followed,
    event: GapFound | ChannelListed | ChannelNotListed | CheckDue,
    now: datetime,
) -> Step:
    if not f.sent:  # its Originate was not sent (yet)
        return f, ()
    match event:
        case GapFound():
            gap = changed(f, missed=True, gaps=f.gaps + 1, appeared=False)
            return changed(gap, waited=False, is_gone=False), ()
        case ChannelListed():
            return _listed(f, event, now)
        case ChannelNotListed(boot=boot):
            return _not_listed(f, boot, now)
        case CheckDue():
            dialed_at = f.call.dialed_at
            is_old = dialed_at is not None and now - dialed_at > CHECK_AFTER
            is_due = is_old and f.hangup is None and not f.is_gone
            return f, (AskChannel(),) if is_due else ()
        case _:
            assert_never(event)


def _on_channel(f: Followed, event: ChannelMissing | ChannelThere | ChannelUnavailable) -> Step:
    if f.hangup is not None or f.is_gone or not f.sent:
        return f, ()
    has_failed = f.has_failed_without_channel
    match event:
        case ChannelMissing() if has_failed:
            return _end_by_events(f, None)
        case ChannelMissing():  # its Hangup may still arrive
            gone = changed(f, is_gone=True, vanished=True)
            return gone, (LogEndMissed(), *_timer(PairingTimedOut()))
        case ChannelThere() if has_failed:  # an earlier Originate of this call made it: follow that
            return changed(f, originate=None, over_at=None, missed=True), (AskList(),)
        case ChannelUnavailable() if has_failed:
            return f, _timer(PairingTimedOut())
        case _:
            return f, ()


def _listed(f: Followed, event: ChannelListed, now: datetime) -> Step:
    uniqueid = f.uniqueid or event.uniqueid
    f, effects = _accept(changed(f, channel=event.channel, appeared=True, uniqueid=uniqueid), now)
    if not event.is_up or not f.is_up or f.is_answered:
        return f, effects
    f, asks = _ask_record(changed(f, seen_up_at=f.seen_up_at or f.over_at or now))
    return f, effects + asks


def _not_listed(f: Followed, boot: str, now: datetime) -> Step:
    effects: tuple[FollowEffect, ...] = ()
    if f.early:  # its events arrived, so Asterisk accepted it
        f, effects = _accept(f, now)
    if not f.is_up or f.hangup is not None or f.appeared or f.has_failed_without_channel:
        return f, effects  # its events or the pairing timer end it
    if _can_still_appear(f, boot):
        return f, effects + _timer(ChannelWaitTimedOut(gap=f.gaps))
    f = changed(f, is_gone=True, restarted=f.boot not in ("", boot))
    f, asks = _ask_record(f)
    return f, effects + asks


def _can_still_appear(f: Followed, boot: str) -> bool:
    """True if Asterisk may have received the Originate and not created its channel yet."""
    return f.channel is None and not f.is_answered and not f.waited and f.boot == boot


def _on_ledger(f: Followed, event: LedgerRead) -> Step:
    """Write again what the ledger lost."""
    f = changed(f, token=event.token or f.token, call=replace(f.call, epoch=event.epoch))
    if not f.is_accepted or event.state is f.call.state:
        return f, ()
    effects: tuple[FollowEffect, ...] = ()
    if event.state is State.ORIGINATING:
        effects += (WriteAck(),)
    if f.call.answered_at is not None:
        effects += (WriteAnswered(at=f.call.answered_at),)
    return f, effects


# --- the record ----------------------------------------------------------------------


def _ask_record(f: Followed) -> Step:
    if f.asking:
        return f, ()
    return changed(f, asking=True), (AskRecord(),)


def _on_record(f: Followed, event: RecordRead, now: datetime) -> Step:
    if not f.asking:
        return f, ()
    record = event.record
    if record is not None and f.call.dialed_at is not None:
        record = record.within(f.call.dialed_at, now)
        event = replace(event, record=record)
    is_over = f.hangup is not None or f.is_gone
    lacks_end = record is not None and record.ended_at is None and not f.restarted
    if is_over and lacks_end and not f.asked_again:
        return changed(f, asked_again=True), _timer(RecordDue())
    f, noted = judge_hand_over(changed(_merge_record(f, record), asking=False), record)
    answered: tuple[FollowEffect, ...] = ()
    if f.is_accepted and f.seen_up_at is not None and not (is_over and record):
        f, answered = _answer(f, record.answered_at if record else f.seen_up_at)
    ended: tuple[FollowEffect, ...] = ()
    if f.hangup is not None:
        f, ended = _end_by_record_or_events(f, f.hangup, event)
    elif f.is_gone:
        f, ended = _end(f, ending_unseen(f, record, has_include=event.has_include, now=now))
    return f, noted + answered + ended


def _merge_record(f: Followed, record: Record | None) -> Followed:
    """Add the record's values; those from events have precedence."""
    if record is None:
        return f
    f = changed(f, amd=f.amd or record.amd)
    if f.agent is not None:
        return f
    wait_s = record.wait_s if f.wait_s is None else f.wait_s
    return changed(f, agent=record.agent, wait_s=wait_s)


def _end_by_record_or_events(f: Followed, hangup: HungUp, event: RecordRead) -> Step:
    """End a call that hung up, by its record if its events were incomplete."""
    if f.is_answered:
        return _end_by_events(f, hangup)
    assert f.over_at is not None, "set at the Hangup"
    if event.record is not None:
        return _end(f, event.record.ending(fallback_end=f.over_at))
    if f.originate is None and _is_unclear(hangup) and not f.is_forwarded:
        return _end(f, ending_unseen(f, None, has_include=event.has_include, now=f.over_at))
    return _end_by_events(f, hangup)


# --- the end -------------------------------------------------------------------------


def _end_by_events(f: Followed, hangup: HungUp | None) -> Step:
    assert f.over_at is not None, "set at the Hangup or the failed Originate"
    return _end(f, ending_by_events(f, hangup, f.over_at))


def _end(f: Followed, ending: Ending) -> Step:
    """End the call with the AMD result, agent and waiting time that are known."""
    ending = replace(ending, amd=f.amd, agent=f.agent, wait_s=f.wait_s)
    if f.hang_up == "sent":
        ending = after_hang_up(ending)
    call = f.call
    if ending.answered_at is not None:  # more exact than the time of a late adoption
        call = replace(call, answered_at=ending.answered_at)
    call, _ = advance(call, Ended(ending=ending))
    return changed(f, call=call), (WriteEnd(ending=ending),)
