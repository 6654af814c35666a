"""An operator hangs a call up: when that is sent to Asterisk, and how the call ends then."""

from __future__ import annotations

from typing import Any

import pytest

from dialer.domain.call import Result
from dialer.domain.channel import ChannelCreated, ChannelUp, HungUp, OriginateEnded, Record
from dialer.domain.endings import HUNG_UP
from dialer.domain.follow_events import (
    ChannelListed,
    FollowEvent,
    GapFound,
    HangUp,
    HangUpAsked,
    HangUpRefused,
    NoteHandOver,
    OriginateAccepted,
    OriginateSent,
)
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.lives import T0, Life, claimed

CHANNEL = "PJSIP/carrier-1"
CREATED = ChannelCreated(uniqueid=UNIQUEID, channel=CHANNEL)
UP = ChannelUp(uniqueid=UNIQUEID)
FAILED = OriginateEnded(action_id=f"{UNIQUEID}#1", answered=False, reason=0)
SUCCEEDED = OriginateEnded(action_id=f"{UNIQUEID}#1", answered=True, reason=4)


def over(cause: int = 16) -> HungUp:
    return HungUp(uniqueid=UNIQUEID, cause=cause, cause_text=None)


def sent(life: Life) -> int:
    """How often a hang-up was sent, always for the call's own Uniqueid."""
    found = life.effects_of(HangUp)
    assert {uniqueid for effect in found for uniqueid in effect.uniqueids} <= {UNIQUEID, CALL_ID}
    return len(found)


def outcome(life: Life) -> tuple[Result, str]:
    ending = life.run_timers().ending
    return ending.result, ending.error.code if ending.error is not None else ""


def test_a_ringing_call_is_hung_up_once() -> None:
    life = Life().dial().feed(CREATED, HangUpAsked(), HangUpAsked())
    assert sent(life) == 2, "people press the key twice"
    assert outcome(life.feed(over(), FAILED)) == (Result.CANCELLED, HUNG_UP)


@pytest.mark.parametrize(
    "before",
    [
        (),
        (OriginateSent(attempt=1),),
        (OriginateSent(attempt=1), OriginateAccepted()),
    ],
)
def test_a_call_without_a_channel_is_hung_up_later(before: tuple[FollowEvent, ...]) -> None:
    life = Life().feed(*before, HangUpAsked())
    assert sent(life) == 0
    rest = (OriginateSent(attempt=1), OriginateAccepted())[len(before) :]
    life.feed(*rest, CREATED)
    assert sent(life) == 1
    assert outcome(life.feed(FAILED, over())) == (Result.CANCELLED, HUNG_UP)


def test_a_channel_that_a_gap_hid_is_hung_up_when_it_is_listed() -> None:
    life = Life(answers=False).dial().feed(GapFound(), HangUpAsked())
    life.feed(ChannelListed(channel=CHANNEL, is_up=False))
    assert sent(life) == 1


def test_an_answered_call_stays_answered() -> None:
    life = Life().dial().feed(CREATED, UP, SUCCEEDED, HangUpAsked(), over())
    assert outcome(life) == (Result.ANSWERED, HUNG_UP)


def test_a_customer_who_was_not_put_through_yet_was_hung_up() -> None:
    """Not Asterisk's doing: `not_handed_over` would blame it."""
    life = Life(followed=claimed(confirms=True)).dial().feed(CREATED, UP, SUCCEEDED)
    assert outcome(life.feed(HangUpAsked(), over())) == (Result.ANSWERED, HUNG_UP)


@pytest.mark.parametrize(
    ("cause", "result"),
    [
        (17, Result.BUSY),
        (1, Result.INVALID_NUMBER),
        (21, Result.REJECTED),
        (34, Result.CONGESTION),
        (19, Result.NO_ANSWER),
    ],
)
def test_a_call_that_ended_by_itself_keeps_its_result(cause: int, result: Result) -> None:
    life = Life().dial().feed(CREATED, HangUpAsked(), over(cause), FAILED)
    assert outcome(life)[0] is result


def test_a_refused_hang_up_changes_nothing() -> None:
    life = Life().dial().feed(CREATED, HangUpAsked(), HangUpRefused(), UP, SUCCEEDED, over())
    assert outcome(life) == (Result.ANSWERED, "")


def test_a_call_that_is_over_is_not_hung_up() -> None:
    life = Life().dial().feed(CREATED, over(17), FAILED, HangUpAsked())
    assert sent(life) == 0
    assert outcome(life) == (Result.BUSY, "")


@pytest.mark.parametrize("before", [(over(),), (GapFound(),)])
def test_a_channel_that_may_be_gone_is_not_hung_up(before: tuple[FollowEvent, ...]) -> None:
    """After a restart of Asterisk another call may have its name."""
    life = Life(answers=False).dial().feed(CREATED, *before, HangUpAsked())
    assert sent(life) == 0


def test_a_hang_up_says_nothing_of_the_hand_over() -> None:
    life = Life(followed=claimed(confirms=True)).dial().feed(CREATED, UP, SUCCEEDED)
    life.feed(HangUpAsked(), over()).run_timers()
    assert not life.effects_of(NoteHandOver)


def test_a_record_of_the_answer_keeps_its_times() -> None:
    fields: dict[str, Any] = {"cause": 16, "amd": None, "agent": None, "wait_s": None}
    found = Record(answered_at=T0, ended_at=T0, **fields)
    life = Life(record=found).dial().feed(CREATED, GapFound())
    life.feed(ChannelListed(channel=CHANNEL, is_up=False), HangUpAsked(), over())
    ending = life.run_timers().ending
    assert (ending.result, ending.answered_at) == (Result.ANSWERED, T0)
    assert ending.error is not None
    assert ending.error.code == HUNG_UP
