"""When a PBX that says it is ready is judged not to take calls, and when a trial succeeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import State
from dialer.domain.taking import Results, Trial, Verdict, is_unusual, unclaimed_reason

PBX = "pbx01"
counts = st.integers(0, 200)


@pytest.mark.parametrize(
    ("claimed", "no_word", "expected"),
    [(0, 0, False), (2, 2, False), (3, 3, True), (4, 3, False), (9, 8, False), (9, 9, True),
     (10, 2, False), (10, 3, True), (100, 29, False), (100, 30, True)],
)  # fmt: skip
def test_three_of_three_or_three_in_ten_is_unusual(
    claimed: int, no_word: int, expected: bool
) -> None:
    assert is_unusual(Results(claimed=claimed, no_word=no_word)) is expected


@given(counts, counts, counts, counts)
def test_kinds_of_calls_that_end_at_once_count_alike(a: int, b: int, c: int, claimed: int) -> None:
    mixed = Results(claimed=claimed, no_word=a, not_handed_over=b, expired=c)
    assert is_unusual(mixed) is is_unusual(Results(claimed=claimed, expired=a + b + c))


def test_pbx_that_places_all_its_calls_is_never_unusual() -> None:
    assert not is_unusual(Results(claimed=500, accepted=500))


def test_calls_before_a_lifted_verdict_are_not_judged_again() -> None:
    before = Results(claimed=20, accepted=12, no_word=8)
    assert not is_unusual(before.since(before))
    now = Results(claimed=24, accepted=12, no_word=11, not_handed_over=1, expired=0)
    assert now.since(before) == Results(claimed=4, no_word=3, not_handed_over=1)
    assert is_unusual(now.since(before))
    assert before.since(now) == Results()  # a minute later all of them are forgotten


def test_reason_names_each_kind_with_its_number() -> None:
    found = Results(claimed=40, no_word=16, expired=2).in_words()
    assert found == (
        "of its 40 calls of the last minute 16 got no word from Asterisk, "
        "2 had expired by the clock of its worker"
    )
    assert Results(claimed=40).in_words() == ""
    assert "3 calls that waited for 10 s" in unclaimed_reason(3)
    assert "1 call that" in unclaimed_reason(1)


@pytest.mark.parametrize(
    ("trial", "age_s", "due"),
    [("", 1.9, False), ("", 2.0, True), ("C:1", 29.0, False), ("C:1", 30.0, True)],
)
def test_trial_is_due_after_a_pause(trial: str, age_s: float, due: bool) -> None:
    verdict = Verdict(reason="r", instance="i", age_s=60, trial=trial, trial_age_s=age_s)
    assert verdict.is_trial_due is due


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (Trial(state=None), None),
        (Trial(state=None, waited_s=3), False),
        (Trial(state=State.QUEUED, pbx=PBX, waited_s=2.9), None),
        (Trial(state=State.QUEUED, pbx=PBX, waited_s=3), False),
        (Trial(state=State.QUEUED, pbx="pbx02"), False),
        (Trial(state=State.ADMITTED), False),
        (Trial(state=State.ORIGINATING, pbx=PBX, waited_s=9), None),
        (Trial(state=State.ACCEPTED, pbx=PBX, up_s=0.9), None),
        (Trial(state=State.ACCEPTED, pbx=PBX, up_s=1), True),
        (Trial(state=State.ANSWERED, pbx=PBX, up_s=1), True),
        (Trial(state=State.ENDED, pbx=PBX, result="BUSY"), True),
        (Trial(state=State.DONE, result="NO_ANSWER"), True),
        (Trial(state=State.DONE, result="FAILED", error="call_failed"), True),
        (Trial(state=State.DONE, result="FAILED", error="no_word"), False),
        (Trial(state=State.DONE, result="ANSWERED", error="not_handed_over"), False),
        (Trial(state=State.DONE, result="EXPIRED", error="expired"), False),
        (Trial(state=State.DONE, result="UNKNOWN", error="pbx_lost"), False),
    ],
)
def test_trial_succeeds_if_asterisk_placed_it(trial: Trial, expected: bool | None) -> None:
    assert trial.is_success(PBX) is expected


@pytest.mark.parametrize(
    ("claimed", "unannounced", "said"),
    [(9, 9, False), (10, 10, True), (20, 10, True), (30, 14, False), (30, 15, True), (3, 10, True)],
)
def test_most_calls_without_a_message_are_a_trouble(
    claimed: int, unannounced: int, *, said: bool
) -> None:
    assert Results(claimed=claimed, unannounced=unannounced).is_unannounced is said


def test_calls_without_a_message_do_not_end_at_once() -> None:
    found = Results(claimed=20, unannounced=20)
    assert (found.at_once, found.in_words(), is_unusual(found)) == (0, "", False)
    assert found.since(Results(unannounced=15)).unannounced == 5


@pytest.mark.parametrize(
    ("claimed", "congested", "said"),
    [(9, 9, False), (10, 10, True), (100, 90, True), (100, 89, False)],
)
def test_a_trunk_without_room_is_a_trouble(claimed: int, congested: int, *, said: bool) -> None:
    found = Results(claimed=claimed, congested=congested)
    assert found.is_congested is said
    assert (found.at_once, is_unusual(found)) == (0, False)
    assert found.since(Results(congested=4)).congested == congested - 4
