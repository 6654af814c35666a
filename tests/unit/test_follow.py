"""What each event does to a followed call: recorded Asterisks, and every case in between."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dialer.domain.call import CallError, Result, State
from dialer.domain.channel import (
    AgentJoined,
    AmdReported,
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    HungUp,
    OriginateEnded,
    QueueJoined,
    QueueLeft,
    Record,
    uniqueid_of,
)
from dialer.domain.follow import CHECK_AFTER
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
    FollowEvent,
    GapFound,
    GivenUp,
    LedgerRead,
    LogEndMissed,
    NoteAmd,
    OriginateAccepted,
    OriginateNotSent,
    OriginateSent,
    OriginateUnclear,
    PairingTimedOut,
    RecordDue,
    RecordRead,
    RecordUnavailable,
    StartTimer,
    WriteAck,
    WriteAnswered,
)
from dialer.domain.followed import Followed, changed
from tests.unit.captured import UNIQUEID, VERSIONS, Version
from tests.unit.lives import RESULTS, T0, Life, claimed, expected_cause, lived, told
from tests.unit.test_translate import ANSWERED, NO_CHANNEL

CREATED = ChannelCreated(uniqueid=UNIQUEID, channel="PJSIP/carrier-1")
UP = ChannelUp(uniqueid=UNIQUEID)
LISTED = ChannelListed(channel="PJSIP/carrier-1", is_up=False)
LISTED_UP = ChannelListed(channel="PJSIP/carrier-1", is_up=True)
NOT_LISTED = ChannelNotListed(boot="b")
FAILED = OriginateEnded(action_id=f"{UNIQUEID}#1", answered=False, reason=0)
SUCCEEDED = OriginateEnded(action_id=f"{UNIQUEID}#1", answered=True, reason=4)


def hung_up(cause: int | None = 16) -> HungUp:
    return HungUp(uniqueid=UNIQUEID, cause=cause, cause_text=None)


def record(*, ended: bool = True, **fields: Any) -> Record:
    """A record whose call was answered 20 s ago."""
    answered_at = T0 - timedelta(seconds=20)
    known: dict[str, Any] = {"cause": 16, "amd": None, "agent": None, "wait_s": None}
    ended_at = T0 - timedelta(seconds=1) if ended else None
    return Record(answered_at=answered_at, ended_at=ended_at, **known | fields)


def dialed(ago_s: float) -> Followed:
    """A call that was dialed so many seconds ago."""
    made = claimed()
    return replace(made, call=replace(made.call, dialed_at=T0 - timedelta(seconds=ago_s)))


def orders(events: list[AmiEvent]) -> Iterator[list[AmiEvent]]:
    """The channel's events in their order, each OriginateResponse at every place among them."""
    own = [e for e in events if not isinstance(e, OriginateEnded)]
    verdicts = [e for e in events if isinstance(e, OriginateEnded)]
    for places in itertools.product(range(len(own) + 1), repeat=len(verdicts)):
        mixed: list[AmiEvent] = []
        for i in range(len(own) + 1):
            mixed += [v for v, place in zip(verdicts, places, strict=True) if place == i]
            mixed += own[i : i + 1]
        yield mixed


def ours(events: list[AmiEvent]) -> list[AmiEvent]:
    """Without the events of other channels, which no call of ours is fed with."""
    return [e for e in events if isinstance(e, OriginateEnded) or e.uniqueid == UNIQUEID]


# --- what real Asterisks said -----------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", RESULTS)
def test_a_recorded_call_ends_with_its_result(version: Version, scenario: str) -> None:
    life = lived(ours(told(version, scenario)))
    ending = life.ending
    assert (ending.result, ending.cause) == (RESULTS[scenario], expected_cause(version, scenario))
    writes = [name for name in life.names if name.startswith("Write")]
    answered = ["WriteAnswered"] if scenario in ANSWERED else []
    assert writes == ["WriteAck", *answered, "WriteEnd"]
    code = "no_channel" if scenario in NO_CHANNEL else None
    assert (ending.error.code if ending.error else None) == code


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", RESULTS)
def test_a_recorded_call_ends_alike_in_every_order(version: Version, scenario: str) -> None:
    for events in orders(ours(told(version, scenario))):
        ending = lived(events).ending
        found = (ending.result, ending.cause)
        assert found == (RESULTS[scenario], expected_cause(version, scenario)), events


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", RESULTS)
def test_events_before_the_ack_count_after_it(version: Version, scenario: str) -> None:
    life = Life().feed(OriginateSent(attempt=1), *ours(told(version, scenario)))
    assert life.effects == []
    life.feed(OriginateAccepted())
    assert life.ending.result is RESULTS[scenario]
    assert life.names[0] == "WriteAck"


@pytest.mark.parametrize("version", VERSIONS)
def test_amd_and_agent_are_in_the_ending(version: Version) -> None:
    ending = lived(ours(told(version, "amd_userevent"))).ending
    assert (ending.amd, ending.agent) == ("MACHINE", "João Silva")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wait_is_in_the_ending_to_the_millisecond(version: Version) -> None:
    life = Life().dial()
    for event in ours(told(version, "queue_operator_takes_the_call")):
        life.feed(event, after_s=1.1234 if isinstance(event, QueueLeft | AgentJoined) else 0)
    assert (life.ending.agent, life.ending.wait_s) == ("Maria José", 2.247)


# --- hangup and OriginateResponse, in any order -------------------------------------------


def test_a_telling_cause_ends_the_call_at_once() -> None:
    assert lived([CREATED, hung_up(17)]).endings[0].result is Result.BUSY


def test_the_ending_has_the_text_of_the_cause() -> None:
    busy = HungUp(uniqueid=UNIQUEID, cause=17, cause_text="User busy")
    assert lived([CREATED, busy]).ending.cause_text == "User busy"


def test_a_mute_cause_waits_for_originate_response() -> None:
    life = lived([CREATED, hung_up(0)])
    assert life.effects_of(StartTimer) == [StartTimer(timer=PairingTimedOut())]
    life.feed(OriginateEnded(action_id=f"{UNIQUEID}#1", answered=False, reason=3))
    assert life.ending.result is Result.NO_ANSWER
    assert not life.effects_of(AskRecord)


def test_an_unpaired_hangup_asks_the_record() -> None:
    life = lived([CREATED, hung_up(16)]).run_timers()
    assert len(life.effects_of(AskRecord)) == 1
    assert life.ending.result is Result.FAILED
    assert life.ending.error == CallError(
        code="result_not_seen",
        message="Asterisk ended the call with cause 16; its OriginateResponse was not seen",
    )


def test_a_late_channel_is_waited_for() -> None:
    life = lived([FAILED, CREATED]).run_timers()
    assert life.endings == []
    assert life.feed(hung_up(17)).ending.result is Result.BUSY


def test_a_failed_originate_has_the_cause_of_asterisk() -> None:
    ending = lived([CREATED, FAILED, hung_up(0)]).ending
    assert ending.error is not None
    assert (ending.result, ending.error.code) == (Result.FAILED, "call_failed")


def test_an_answer_that_the_hangup_overtook_counts() -> None:
    for answer in (UP, SUCCEEDED):
        life = lived([CREATED, hung_up(16), answer])
        assert life.endings[0].result is Result.ANSWERED


def test_a_doubled_event_changes_nothing() -> None:
    life = lived([CREATED, UP, UP, SUCCEEDED, SUCCEEDED, hung_up(16), hung_up(17)])
    assert life.ending.cause == 16
    assert len(life.effects_of(WriteAnswered)) == 1
    assert lived([CREATED, FAILED, FAILED, hung_up(0), hung_up(0)]).ending.cause == 0


def test_a_second_mute_or_telling_hangup_is_ignored() -> None:
    assert not lived([CREATED, hung_up(0), hung_up(17)]).endings


def test_the_record_is_asked_for_once_at_a_time() -> None:
    life = Life(answers=False).dial().feed(CREATED, hung_up(0), PairingTimedOut())
    life.feed(PairingTimedOut(), GapFound(), NOT_LISTED, PairingTimedOut())
    assert len(life.effects_of(AskRecord)) == 1


def test_the_refusal_of_a_second_attempt_is_ignored() -> None:
    second = OriginateEnded(action_id=f"{UNIQUEID}#2", answered=False, reason=0)
    life = lived([second, CREATED, second])
    assert life.followed.originate is None
    assert not life.endings
    assert life.feed(*ours(told("22", "rings_out"))).ending.result is Result.NO_ANSWER


def test_an_ended_call_takes_no_event() -> None:
    life = lived([CREATED, hung_up(17)])
    before = life.followed
    life.feed(UP, FAILED, GapFound(), OriginateAccepted(), PairingTimedOut())
    assert life.followed == before
    assert len(life.endings) == 1


# --- queues and answering machine detection ------------------------------------------------


def test_an_abandoned_wait_is_counted_from_the_first_queue() -> None:
    life = lived([CREATED, UP])
    for step in (QueueJoined, QueueLeft, QueueJoined, QueueLeft):
        life.feed(step(uniqueid=UNIQUEID), after_s=3)
    ending = life.feed(hung_up()).ending
    assert (ending.agent, ending.wait_s) == (None, 9.0)


def test_a_wait_nobody_saw_begin_is_asterisks() -> None:
    joined = AgentJoined(uniqueid=UNIQUEID, agent="Ana", wait_s=7.0)
    assert lived([UP, joined, hung_up()]).ending.wait_s == 7.0
    assert lived([UP, QueueLeft(uniqueid=UNIQUEID), hung_up()]).ending.wait_s is None


def test_a_hangup_during_detection_asks_the_record() -> None:
    life = Life(claimed(wants_amd=True), record(amd="MACHINE")).dial().feed(UP, hung_up())
    assert life.ending.amd == "MACHINE"
    assert len(life.effects_of(AskRecord)) == 1


def test_a_verdict_that_came_needs_no_record() -> None:
    for status in ("HUMAN", None):
        life = Life(claimed(wants_amd=True)).dial()
        life.feed(UP, AmdReported(uniqueid=UNIQUEID, status=status), hung_up())
        assert life.ending.amd == status
        assert life.effects_of(NoteAmd) == [NoteAmd(works=status is not None)]
        assert not life.effects_of(AskRecord)


def test_amd_that_nobody_wanted_is_not_noted() -> None:
    life = lived([UP, AmdReported(uniqueid=UNIQUEID, status=None), hung_up()])
    assert not life.effects_of(NoteAmd)
    assert life.ending.amd is None


# --- the Originate -----------------------------------------------------------------------


def test_the_ack_has_the_attempt_that_was_accepted() -> None:
    sent: list[FollowEvent] = [
        OriginateSent(attempt=1),
        OriginateNotSent(),
        OriginateSent(attempt=2),
    ]
    life = Life().feed(*sent, OriginateAccepted(), OriginateAccepted())
    assert life.followed.call.attempts == 2
    assert life.effects == [WriteAck()]


def test_a_call_that_was_not_sent_after_all_is_no_business_of_a_gap() -> None:
    life = Life().feed(OriginateSent(attempt=1), OriginateNotSent(), GapFound(), NOT_LISTED)
    assert life.effects == []


def test_an_adopted_call_was_dialed_at_least_once() -> None:
    never = replace(claimed().call, attempts=0)
    life = Life(replace(claimed(sent=True), call=never)).feed(GapFound(), LISTED)
    assert life.followed.call.attempts == 1


def test_an_adopted_call_without_attempts_hears_its_first() -> None:
    never = replace(claimed().call, attempts=0)
    life = Life(replace(claimed(sent=True), call=never)).feed(FAILED)
    assert life.followed.early


def test_a_call_that_was_not_dialed_has_no_attempts() -> None:
    error = CallError(code="no_trunk", message="…")
    life = Life().feed(GivenUp(result=Result.FAILED, error=error, tried=False))
    assert life.ending.error == error
    assert (life.followed.call.attempts, life.followed.call.dialed_at) == (0, None)
    tried = Life().feed(GivenUp(result=Result.FAILED, error=error, tried=True))
    assert (tried.followed.call.attempts, tried.followed.call.dialed_at) == (1, T0)


def test_an_accepted_call_is_not_sent_again() -> None:
    life = Life().dial()
    accepted = life.followed
    late: list[FollowEvent] = [
        OriginateSent(attempt=2),
        OriginateNotSent(),
        OriginateUnclear(),
        OriginateAccepted(),
    ]
    life.feed(*late)
    assert life.followed == accepted
    assert life.effects == [WriteAck()]


def test_an_accepted_call_cannot_be_given_up() -> None:
    error = CallError(code="no_trunk", message="…")
    life = Life().dial().feed(GivenUp(result=Result.FAILED, error=error, tried=False))
    assert life.endings == []


def test_an_originate_without_reply_gets_its_time() -> None:
    life = Life().feed(OriginateSent(attempt=1), OriginateUnclear(within_s=20))
    assert life.effects == [StartTimer(timer=ChannelWaitTimedOut(gap=0))]
    ending = life.ending
    assert len(life.effects_of(AskList)) == 1
    assert ending.result is Result.FAILED
    assert ending.error == CallError(
        code="no_word",
        message="Asterisk gave no reply to the Originate within 20 s and has no channel of it: see "
        "in its log why, and look at its load",
    )


def test_an_originate_without_reply_may_be_listed() -> None:
    life = Life(answers=False).feed(OriginateSent(attempt=1), OriginateUnclear()).run_timers()
    life.feed(LISTED)
    assert life.followed.call.state is State.ACCEPTED


def test_an_originate_without_reply_may_have_ended_already() -> None:
    life = Life().feed(OriginateSent(attempt=1), OriginateUnclear(), CREATED, hung_up(17))
    assert life.ending.result is Result.BUSY
    assert life.names.index("WriteAck") < life.names.index("WriteEnd")


def test_events_after_an_early_end_change_nothing() -> None:
    life = Life().feed(OriginateSent(attempt=1), CREATED, hung_up(17), FAILED, OriginateAccepted())
    assert life.names == ["WriteAck", "WriteEnd"]


def test_unclear_originate_that_was_accepted_is_not_looked_for() -> None:
    life = Life().feed(OriginateSent(attempt=1), OriginateUnclear(), CREATED)
    life.feed(OriginateAccepted()).run_timers()
    assert not life.effects_of(AskList)


# --- after a gap -------------------------------------------------------------------------


def test_a_hangup_after_a_gap_asks_the_record() -> None:
    life = Life(dialed(30), record=record()).dial().feed(CREATED, GapFound(), hung_up(16))
    assert life.ending.result is Result.ANSWERED
    assert len(life.effects_of(AskRecord)) == 1
    assert life.followed.call.answered_at == record().answered_at


def test_a_call_that_rings_out_after_a_gap_was_not_answered() -> None:
    """Its OriginateResponse says so, some milliseconds after the Hangup."""
    life = Life().dial().feed(CREATED, GapFound(), LISTED, hung_up(16))
    life.feed(OriginateEnded(action_id=f"{UNIQUEID}#1", answered=False, reason=3), after_s=0.006)
    assert life.ending.result is Result.NO_ANSWER


def test_a_call_that_hung_up_is_not_gone_before_its_pair() -> None:
    """Its OriginateResponse may be on the way while the channels are listed."""
    life = Life().dial().feed(CREATED, hung_up(0), GapFound(), NOT_LISTED)
    assert not life.effects_of(AskRecord)
    life.feed(OriginateEnded(action_id=f"{UNIQUEID}#1", answered=False, reason=3))
    assert life.ending.result is Result.NO_ANSWER


def test_a_listed_call_is_followed_on() -> None:
    life = Life().feed(OriginateSent(attempt=1), GapFound(), LISTED)
    assert life.followed.call.state is State.ACCEPTED
    assert life.feed(hung_up(17)).ending.result is Result.BUSY


def test_a_listed_answered_call_has_its_records_answer() -> None:
    life = Life(dialed(30), record=record(ended=False)).dial().feed(GapFound(), LISTED_UP)
    assert life.effects_of(WriteAnswered) == [WriteAnswered(at=record().answered_at)]
    life.feed(LISTED_UP)
    assert len(life.effects_of(AskRecord)) == 1


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("shift_s", [-45, 45])
def test_a_wrong_clock_answers_no_call_before_it_was_dialed(ended: bool, shift_s: float) -> None:
    """The PBX's clock was set, or is another one than its worker's."""
    wrong = record(ended=ended)
    by = timedelta(seconds=shift_s)
    ended_at = wrong.ended_at + by if wrong.ended_at else None
    wrong = replace(wrong, answered_at=wrong.answered_at + by, ended_at=ended_at)
    last = hung_up(16) if ended else LISTED_UP
    life = Life(dialed(5), record=wrong).dial().feed(CREATED, GapFound(), last).run_timers()
    answered_at = life.followed.call.answered_at
    assert answered_at is not None
    assert T0 - timedelta(seconds=5) <= answered_at <= life.now
    assert all(answered_at <= ending.ended_at <= life.now for ending in life.endings)


def test_an_answer_listed_twice_counts_from_the_first_list() -> None:
    life = Life(answers=False).dial().feed(GapFound(), LISTED_UP).feed(LISTED_UP, after_s=5)
    life.feed(RecordRead(record=None, has_include=True))
    assert life.effects_of(WriteAnswered) == [WriteAnswered(at=T0)]


def test_a_listed_call_is_not_gone_by_another_list() -> None:
    life = Life().dial().feed(GapFound(), NOT_LISTED, LISTED, NOT_LISTED).run_timers()
    assert life.endings == []
    assert not life.effects_of(AskList)


def test_a_listed_answer_without_record_is_now() -> None:
    life = Life().dial().feed(GapFound(), LISTED_UP)
    assert life.effects_of(WriteAnswered) == [WriteAnswered(at=T0)]


def test_a_hangup_while_the_answer_is_asked_for_ends_the_call() -> None:
    life = Life(answers=False).dial().feed(GapFound(), LISTED_UP, hung_up(16))
    life.feed(RecordRead(record=record(), has_include=True))
    assert life.endings[0].result is Result.ANSWERED


@pytest.mark.parametrize("events", [[hung_up(31), LISTED_UP], [LISTED_UP, hung_up(31)]])
def test_a_call_listed_up_that_hung_up_was_answered(events: list[FollowEvent]) -> None:
    """Without the include there is no record, so the list alone says that it was answered."""
    life = Life(answers=False).dial().feed(GapFound(), *events)
    life.feed(RecordRead(record=None, has_include=False))
    assert life.endings[0].result is Result.ANSWERED
    assert life.names[-2:] == ["WriteAnswered", "WriteEnd"]


def test_a_call_listed_up_and_then_gone_may_have_talked() -> None:
    life = Life(answers=False).dial().feed(GapFound(), LISTED_UP, GapFound(), NOT_LISTED)
    life.feed(RecordRead(record=None, has_include=True))
    assert life.endings[0].result is Result.UNKNOWN


def test_a_channel_that_came_after_the_list_is_followed() -> None:
    life = Life().feed(OriginateSent(attempt=1), GapFound(), CREATED, NOT_LISTED)
    assert life.followed.call.state is State.ACCEPTED
    assert life.run_timers().endings == []
    accepted = Life().dial().feed(GapFound(), CREATED, NOT_LISTED).run_timers()
    assert accepted.endings == []


def test_a_channel_that_is_gone_is_answered_for_at_once() -> None:
    life = Life().dial().feed(CREATED, GapFound(), NOT_LISTED)
    assert life.endings[0].error is not None
    assert life.endings[0].error.code == "end_not_seen"


def test_an_early_channel_that_is_gone_was_accepted() -> None:
    life = Life().feed(OriginateSent(attempt=1), CREATED, GapFound(), NOT_LISTED)
    assert life.names == ["WriteAck", "AskRecord", "WriteEnd"]


def test_a_call_without_channel_gets_its_time_after_the_gap() -> None:
    life = Life().dial().feed(GapFound(), NOT_LISTED)
    assert life.endings == []
    assert life.effects_of(StartTimer) == [StartTimer(timer=ChannelWaitTimedOut(gap=1))]
    assert life.ending.result is Result.FAILED


def test_a_call_without_reply_or_channel_is_not_accepted() -> None:
    life = Life(answers=False).feed(OriginateSent(attempt=1), GapFound(), NOT_LISTED)
    assert life.followed.call.state is State.ORIGINATING
    assert not life.effects_of(WriteAck)


def test_another_gap_starts_the_wait_again() -> None:
    life = Life(answers=False).dial().feed(GapFound(), NOT_LISTED, GapFound())
    life.run_timers()
    assert not life.effects_of(AskList), "its Originate can still come"
    life.feed(NOT_LISTED).run_timers()
    assert len(life.effects_of(AskList)) == 1


def test_a_failed_originate_is_paired_after_a_gap_too() -> None:
    life = Life().dial().feed(FAILED, GapFound(), NOT_LISTED)
    assert life.endings == []
    assert life.ending.error is not None
    assert life.ending.error.code == "end_not_seen", "its channel's events may come later"
    assert life.ending.result is Result.FAILED


@pytest.mark.parametrize(
    ("known", "result"),
    [
        (None, Result.UNKNOWN),
        (record(), Result.ANSWERED),
        (record(ended=False), Result.ANSWERED),
    ],
)
def test_a_restart_of_asterisk_ends_its_calls(known: Record | None, result: Result) -> None:
    life = Life(record=known).dial().feed(CREATED, GapFound(), ChannelNotListed(boot="c"))
    (ending,) = life.endings
    assert ending.result is result
    code = None if known is not None and known.ended_at else "pbx_restarted"
    assert (ending.error.code if ending.error else None) == code
    if ending.error is not None:
        assert ending.error.message.endswith("or another Asterisk serves the PBX now")


def test_a_call_of_an_unknown_boot_did_not_end_by_a_restart() -> None:
    life = Life(replace(claimed(), boot="")).dial().feed(CREATED, GapFound(), NOT_LISTED)
    (ending,) = life.endings
    assert ending.error is not None
    assert ending.error.code == "end_not_seen"


def test_an_answered_call_without_record_ended_unknown() -> None:
    life = Life().dial().feed(CREATED, UP, GapFound(), NOT_LISTED)
    assert life.ending.result is Result.UNKNOWN
    lacking = Life(has_include=False).dial().feed(CREATED, GapFound(), NOT_LISTED)
    assert lacking.ending.result is Result.UNKNOWN


def test_a_record_without_end_is_read_twice() -> None:
    life = Life(record=record(ended=False)).dial().feed(CREATED, GapFound(), NOT_LISTED)
    assert life.endings == []
    assert life.effects_of(StartTimer) == [StartTimer(timer=RecordDue())]
    ending = life.ending
    assert len(life.effects_of(AskRecord)) == 2
    assert ending.error is not None
    assert (ending.result, ending.error.code) == (Result.ANSWERED, "end_not_seen")


def test_a_record_that_cannot_be_read_is_read_again() -> None:
    life = Life(answers=False).dial().feed(CREATED, GapFound(), NOT_LISTED)
    life.run_timers(at_most=3)
    assert len(life.effects_of(AskRecord)) == 4
    life.answers = True
    assert life.ending.result is Result.FAILED


def test_a_record_nobody_asked_for_changes_nothing() -> None:
    life = Life().dial()
    before = life.followed
    known = record(amd="HUMAN", agent="Maria")
    life.feed(RecordRead(record=known, has_include=True), RecordUnavailable(), RecordDue())
    assert life.followed == before
    assert life.timers == []
    assert life.effects_of(AskRecord) == []


def test_a_record_of_a_call_that_came_back_ends_nothing() -> None:
    life = Life(answers=False).dial().feed(CREATED, GapFound(), NOT_LISTED, GapFound())
    life.feed(RecordRead(record=None, has_include=True))
    assert life.endings == []
    assert not life.followed.asking


def test_a_record_tells_agent_and_amd_of_an_adopted_call() -> None:
    known = record(amd="HUMAN", agent="Maria", wait_s=4.0)
    life = Life(record=known).dial().feed(GapFound(), LISTED_UP, hung_up())
    assert (life.ending.amd, life.ending.agent, life.ending.wait_s) == ("HUMAN", "Maria", 4.0)


def test_a_heard_agent_counts_before_the_record() -> None:
    life = Life(record=record(agent="Maria", wait_s=4.0)).dial()
    life.feed(UP, AgentJoined(uniqueid=UNIQUEID, agent="Ana", wait_s=4.25), GapFound(), hung_up())
    assert (life.ending.agent, life.ending.wait_s) == ("Ana", 4.25)


def test_a_heard_wait_stays_without_an_agent() -> None:
    life = Life(record=record()).dial().feed(UP, QueueJoined(uniqueid=UNIQUEID))
    life.feed(QueueLeft(uniqueid=UNIQUEID), after_s=12.5).feed(GapFound(), hung_up())
    assert (life.ending.agent, life.ending.wait_s) == (None, 12.5)


def test_a_late_adopted_answer_ends_no_earlier_than_it_began() -> None:
    life = Life(answers=False).dial().feed(GapFound(), hung_up(17))
    late = replace(life.followed.call, state=State.ANSWERED, answered_at=T0 + timedelta(seconds=9))
    life.followed = replace(life.followed, call=late)
    life.feed(RecordRead(record=None, has_include=True))
    assert life.endings[0].ended_at == T0 + timedelta(seconds=9)


def test_a_call_yet_to_be_sent_is_no_business_of_a_gap() -> None:
    life = Life()
    life.feed(
        GapFound(), NOT_LISTED, LISTED, CheckDue(), ChannelMissing(), ChannelWaitTimedOut(gap=0)
    )
    assert life.followed == claimed()
    assert life.effects == []


# --- the check of long calls -------------------------------------------------------------


def test_only_a_long_call_is_checked() -> None:
    life = lived([CREATED, CheckDue()])
    assert not life.effects_of(AskChannel)
    life.feed(CheckDue(), after_s=CHECK_AFTER.total_seconds())
    assert not life.effects_of(AskChannel)
    life.feed(CheckDue(), after_s=1)
    assert life.effects_of(AskChannel) == [AskChannel()]


def test_a_missing_channel_ends_the_call_by_its_record() -> None:
    life = Life(record=record()).dial().feed(CREATED, UP, ChannelMissing(), ChannelMissing())
    assert life.endings == []
    assert life.ending.result is Result.ANSWERED
    assert len(life.effects_of(LogEndMissed)) == 1


def test_a_hangup_on_the_way_is_not_missing() -> None:
    life = lived([CREATED, UP, ChannelMissing(), hung_up(16)])
    assert life.ending.cause == 16
    assert not life.effects_of(AskRecord)
    over = Life(answers=False).dial().feed(CREATED, hung_up(0), ChannelMissing())
    assert not over.effects_of(LogEndMissed)


# --- a Redis that came back ---------------------------------------------------------------


def ledger(state: State, token: str | None = None) -> LedgerRead:
    return LedgerRead(state=state, epoch=7, token=token)


def test_a_ledger_that_lost_writes_of_a_call_gets_them_again() -> None:
    up = lived([CREATED, UP])
    up.effects.clear()
    up.feed(ledger(State.ORIGINATING, "new"))
    assert up.effects == [WriteAck(), WriteAnswered(at=T0)]
    assert (up.followed.token, up.followed.call.epoch) == ("new", 7)
    ringing = lived([CREATED])
    ringing.effects.clear()
    ringing.feed(ledger(State.ORIGINATING))
    assert ringing.effects == [WriteAck()]


def test_a_ledger_without_a_new_claim_keeps_the_token() -> None:
    life = Life(claimed(token="t")).dial().feed(ledger(State.ORIGINATING))
    assert life.followed.token == "t"


def test_a_complete_ledger_gets_nothing_again() -> None:
    for life in (lived([CREATED, UP]), Life()):
        life.effects.clear()
        life.feed(ledger(life.followed.call.state))
        assert life.effects == []
    answered = lived([CREATED, UP])
    answered.effects.clear()
    answered.feed(ledger(State.ACCEPTED))
    assert answered.effects == [WriteAnswered(at=T0)]
    adopted: list[FollowEvent] = [ledger(State.ANSWERED)]
    assert lived([CREATED]).feed(*adopted).names == ["WriteAck"]


# --- what is said of calls that were not seen to the end ------------------------------------


def words(life: Life) -> tuple[str, str]:
    """The code and the sentence of the ending."""
    error = life.ending.error
    assert error is not None
    return error.code, error.message


def test_only_what_was_missed_is_blamed_on_worker_or_link() -> None:
    blamed = "its worker was down, or had no AMI link or no ledger then"
    for life in (
        Life().dial().feed(CREATED, GapFound(), NOT_LISTED),
        Life().feed(OriginateSent(attempt=1), GapFound(), NOT_LISTED),
        Life(has_include=False).dial().feed(CREATED, UP, GapFound(), NOT_LISTED),
    ):
        code, sentence = words(life)
        assert (code, blamed in sentence) == ("end_not_seen", True)
    for life in (
        Life().feed(OriginateSent(attempt=1), OriginateUnclear(within_s=5)),
        lived([CREATED, UP, ChannelMissing()]),
        lived([ChannelMissing()]),
        lived([CREATED, hung_up(0)]),
    ):
        assert blamed not in words(life)[1]


def test_a_vanished_channel_is_not_blamed_on_an_old_gap() -> None:
    code, sentence = words(Life().dial().feed(CREATED, GapFound(), LISTED, ChannelMissing()))
    assert code == "end_not_seen"
    assert sentence.endswith("although the AMI link was up: raise writetimeout in manager.conf")


def test_an_accepted_call_without_any_event_is_told_as_such() -> None:
    assert words(lived([ChannelMissing()])) == (
        "no_word",
        "Asterisk accepted the Originate, sent no event of the call and has no channel of it: see "
        "in its log why, and look at its load",
    )


def test_a_hangup_without_a_cause_is_told_as_such() -> None:
    assert words(lived([CREATED, hung_up(None)]))[1].startswith("Asterisk ended the call without a")
    failed = words(lived([CREATED, hung_up(99)]))
    assert failed == ("call_failed", "Asterisk ended the call with cause 99")


# --- a ChannelId in use ---------------------------------------------------------------------


def test_a_refused_originate_asks_for_the_channel() -> None:
    life = lived([FAILED])
    assert words(life)[0] == "no_channel"
    assert life.effects_of(AskChannel) == [AskChannel()]


def test_a_channel_with_the_calls_id_is_followed() -> None:
    """An Originate of this call that a ledger or worker has forgotten: the telephone rings."""
    life = Life(in_use=True).dial().feed(FAILED).run_timers()
    assert life.endings == []
    assert life.effects_of(AskList) == [AskList()]
    life.feed(LISTED_UP, hung_up(16))
    assert life.ending.result is Result.ANSWERED


def test_a_channel_that_is_there_changes_nothing_else() -> None:
    for life in (lived([CREATED, UP]), Life(followed=claimed())):
        before = life.followed
        assert life.feed(ChannelThere(), ChannelUnavailable()).followed == before
        assert life.endings == []


def test_a_lost_link_asks_for_the_channel_again() -> None:
    life = Life(answers=False).dial().feed(FAILED)
    life.run_timers(at_most=3)
    assert (len(life.effects_of(AskChannel)), life.endings) == (3, [])
    life.answers = True
    assert words(life)[0] == "no_channel"


# --- ids ----------------------------------------------------------------------------------


def test_an_event_names_its_channel() -> None:
    assert uniqueid_of(CREATED) == uniqueid_of(FAILED) == UNIQUEID
    assert uniqueid_of(OriginateEnded(action_id="x/1/1", answered=False, reason=5)) == ""


def test_changed_is_replace() -> None:
    before = claimed(amd="HUMAN", early=((UP, T0),))
    after = changed(before, sent=True, amd=None)
    assert after == replace(before, sent=True, amd=None)
    assert (before.sent, before.amd) == (False, "HUMAN")
