"""Answered calls that reach their target or not, and calls that the carrier forwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dialer.domain.call import Result
from dialer.domain.channel import (
    AmdReported,
    DialEnded,
    FarEndCleared,
    HandOverReported,
    OriginateEnded,
    QueueJoined,
)
from dialer.domain.follow import FORWARD_MARGIN_S
from dialer.domain.follow_events import (
    AskRecord,
    GapFound,
    NoteHandOver,
    RecordDue,
    RecordUnavailable,
    WriteAnswered,
)
from dialer.domain.hand_over import CUT_OFF, ENDED, FORWARDED, LATE, YES, not_handed_over
from tests.unit.captured import UNIQUEID, VERSIONS, Version
from tests.unit.lives import Life, claimed, told
from tests.unit.test_follow import (
    CREATED,
    FAILED,
    LISTED_UP,
    SUCCEEDED,
    UP,
    hung_up,
    orders,
    ours,
    record,
)
from tests.unit.test_translate import ANSWERED

CLEARED = FarEndCleared(uniqueid=UNIQUEID)
JOINED = QueueJoined(uniqueid=UNIQUEID)
FORWARD = DialEnded(uniqueid=UNIQUEID, status="CANCEL", forward="0551190000")

#: What became of a recorded call: its result, the error's code and what the error is about.
SEEN: dict[str, tuple[Result, str, str]] = {
    "extension_missing": (Result.ANSWERED, "not_handed_over", "context, extension and priority"),
    "queue_without_operator": (Result.ANSWERED, "not_handed_over", "(JOINEMPTY)"),
    "queue_missing": (Result.ANSWERED, "not_handed_over", "does not exist any longer"),
    "cut_off_by_maxcalls": (Result.ANSWERED, "not_handed_over", "maxcalls"),
    "forwarded_before_ringing": (Result.FAILED, "forwarded", "SIP 302"),
    "forwarded_after_ringing": (Result.FAILED, "forwarded", "SIP 302"),
    "forwarded_and_dialed_on": (Result.ANSWERED, "not_handed_over", "redirect_method = user"),
}


def handed(value: str) -> HandOverReported:
    return HandOverReported(uniqueid=UNIQUEID, handed=value)


def life(record: Any = None, **fields: Any) -> Life:
    """A dialed call of a PBX whose include reports the hand-over."""
    return Life(claimed(confirms=True, **fields), record).dial().feed(CREATED)


def code(one: Life) -> str | None:
    error = one.ending.error
    return error.code if error else None


def notes(one: Life) -> list[str]:
    return [note.handed for note in one.effects_of(NoteHandOver)]


# --- what real Asterisks said -----------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SEEN)
def test_a_recorded_call_says_what_became_of_it(version: Version, scenario: str) -> None:
    result, error_code, about = SEEN[scenario]
    for events in orders(ours(told(version, scenario))):
        ending = Life(claimed(confirms=True)).dial().feed(*events).ending
        assert ending.result is result, events
        assert ending.error is not None, events
        assert ending.error.code == error_code, events
        assert about in ending.error.message, events


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", ANSWERED)
def test_a_recorded_call_that_was_handed_over_has_no_error(version: Version, scenario: str) -> None:
    one = Life(claimed(confirms=True)).dial().feed(*ours(told(version, scenario)))
    assert (one.ending.error, notes(one)) == (None, [YES])
    assert not one.effects_of(AskRecord)


# --- who ended it ------------------------------------------------------------------------


def test_a_customer_who_hangs_up_at_once_is_not_our_fault() -> None:
    one = life().feed(UP, CLEARED, hung_up(16))
    assert (code(one), notes(one)) == (None, [])
    assert not one.effects_of(AskRecord)


def test_a_call_that_asterisk_ends_in_the_include_is_ours() -> None:
    one = life(record()).feed(UP, hung_up(0))
    assert (code(one), notes(one)) == ("not_handed_over", [ENDED])


def test_a_call_that_never_enters_the_dialplan_is_cut_off() -> None:
    one = life().feed(UP, hung_up(0))
    assert (code(one), notes(one)) == ("not_handed_over", [CUT_OFF])


def test_a_report_that_got_lost_is_in_the_record() -> None:
    one = life(record(handed=YES)).feed(UP, hung_up(16))
    assert (code(one), notes(one)) == (None, [YES])
    refused = life(record(handed="FULL")).feed(UP, hung_up(16))
    assert (code(refused), notes(refused)) == ("not_handed_over", ["FULL"])


def test_nothing_is_concluded_without_the_include() -> None:
    one = Life(claimed()).dial().feed(CREATED, UP).run_timers().feed(hung_up(0))
    assert (code(one), notes(one)) == (None, [])
    assert not one.effects_of(AskRecord)


# --- silent calls ------------------------------------------------------------------------


def test_a_call_that_nothing_takes_in_two_seconds_is_late() -> None:
    one = life(record(ended=False)).feed(UP).run_timers()
    assert one.now - one.effects_of(WriteAnswered)[0].at == timedelta(seconds=2)
    assert notes(one) == [LATE]
    assert code(one.feed(CLEARED, hung_up(16))) == "not_handed_over"


def test_a_late_hand_over_still_counts() -> None:
    one = life(record(ended=False)).feed(UP).run_timers().feed(JOINED, hung_up(16))
    assert (code(one), notes(one)) == (None, [LATE, YES])


def test_a_reported_hand_over_is_not_waited_for() -> None:
    one = life().feed(UP, handed(YES)).run_timers()
    assert (notes(one), one.effects_of(AskRecord)) == ([YES], [])
    early = life().feed(handed(YES), UP)
    assert (notes(early), early.timers) == ([YES], [])


def test_detection_takes_its_time_and_then_two_seconds() -> None:
    one = life(record(ended=False), wants_amd=True).feed(UP).run_timers()
    assert notes(one) == []
    one.feed(AmdReported(uniqueid=UNIQUEID, status="HUMAN"), after_s=3).run_timers()
    assert notes(one) == [LATE]


def test_a_call_with_detection_must_enter_the_include() -> None:
    assert notes(life(wants_amd=True).feed(UP).run_timers()) == [LATE]


def test_a_hangup_during_the_question_ends_it_once() -> None:
    one = Life(claimed(confirms=True), record(), answers=False).dial().feed(CREATED, UP)
    one.run_timers(at_most=1).feed(CLEARED, hung_up(16))
    one.feed(RecordUnavailable(), RecordDue())
    assert len(one.endings) == 1
    assert notes(one) == []


# --- after a gap -------------------------------------------------------------------------


def test_a_gap_hides_the_report_so_the_record_alone_counts() -> None:
    unknown = life(record()).feed(UP, GapFound(), LISTED_UP, hung_up(0))
    assert (code(unknown), notes(unknown)) == (None, [])
    refused = life(record(handed="JOINEMPTY")).feed(GapFound(), LISTED_UP, hung_up(0))
    assert code(refused) == "not_handed_over"


# --- forwarding --------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [23, 127])
def test_a_forwarded_call_is_followed_until_the_originate_ends(cause: int) -> None:
    one = life().feed(hung_up(cause)).run_timers(at_most=1)  # the second of the pairing
    assert one.endings == []
    one.feed(SUCCEEDED, after_s=8)
    assert (one.ending.result, code(one)) == (Result.ANSWERED, "not_handed_over")
    assert notes(one) == [FORWARDED]


def test_a_forwarded_call_that_nobody_answers_has_failed() -> None:
    one = life().feed(FORWARD, hung_up(0)).run_timers(at_most=1)
    one.feed(FAILED, after_s=8)
    assert (one.ending.result, code(one)) == (Result.FAILED, "forwarded")


@pytest.mark.parametrize(("forward", "said"), [([FORWARD], "forwarded"), ([], "end_not_seen")])
def test_a_forwarded_call_ends_after_its_ring_time(forward: list[DialEnded], said: str) -> None:
    one = life(ring_timeout_s=20.0).feed(*forward, hung_up(127))
    began = one.now
    assert code(one) == said
    assert one.now - began == timedelta(seconds=1 + 20 + FORWARD_MARGIN_S)


def test_a_forward_after_the_answer_was_heard_counts() -> None:
    answered = OriginateEnded(action_id=f"{UNIQUEID}#1", answered=True, reason=4)
    one = life().feed(answered, FORWARD, hung_up(0))
    assert (code(one), notes(one)) == ("not_handed_over", [FORWARDED])


# --- words -------------------------------------------------------------------------------


def test_every_reason_has_a_sentence_with_a_cure() -> None:
    assert not_handed_over("") is None
    assert not_handed_over(YES) is None
    unknown = not_handed_over("SOMETHING")
    assert unknown is not None
    assert "(SOMETHING)" in unknown.message
