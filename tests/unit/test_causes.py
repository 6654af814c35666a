"""Each of Asterisk's words for an ending, and which of them counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import Result
from dialer.domain.causes import BY_CAUSE, BY_DIAL_STATUS, BY_REASON, UNCLEAR_CAUSES, result_of

causes = st.none() | st.integers(0, 127)
reasons = st.none() | st.integers(0, 10)
statuses = st.none() | st.sampled_from([*BY_DIAL_STATUS, "ANSWER", "TORTURE", ""])


@given(causes, reasons, statuses)
def test_an_answered_call_is_answered_whatever_else_is_said(
    cause: int | None, reason: int | None, dial_status: str | None
) -> None:
    result = result_of(answered=True, cause=cause, reason=reason, dial_status=dial_status)
    assert result is Result.ANSWERED


@pytest.mark.parametrize(
    ("causes", "result"),
    [
        ((17,), Result.BUSY),
        ((21,), Result.REJECTED),
        ((1, 2, 3, 22, 28), Result.INVALID_NUMBER),
        ((34, 38, 41, 42, 43, 44), Result.CONGESTION),
        ((18, 19, 20), Result.NO_ANSWER),
    ],
)
def test_a_telling_cause_decides_against_reason_and_dial_status(
    causes: tuple[int, ...], result: Result
) -> None:
    for cause in causes:
        for reason, status in ((None, None), (5, "BUSY"), (3, "NOANSWER"), (8, "CONGESTION")):
            given = result_of(answered=False, cause=cause, reason=reason, dial_status=status)
            assert given is result


@given(st.integers(0, 127), reasons, statuses)
def test_an_unknown_cause_that_is_not_unclear_is_a_failure(
    cause: int, reason: int | None, dial_status: str | None
) -> None:
    result = result_of(answered=False, cause=cause, reason=reason, dial_status=dial_status)
    if cause not in BY_CAUSE and cause not in UNCLEAR_CAUSES:
        assert result is Result.FAILED


@pytest.mark.parametrize("cause", [None, 0, 16, 127])
@pytest.mark.parametrize(
    ("reason", "result"), [(3, Result.NO_ANSWER), (5, Result.BUSY), (8, Result.CONGESTION)]
)
def test_the_reason_counts_before_the_dial_status(
    cause: int | None, reason: int, result: Result
) -> None:
    for status in (None, "CANCEL", "BUSY"):
        given = result_of(answered=False, cause=cause, reason=reason, dial_status=status)
        assert given is result


@pytest.mark.parametrize("reason", [None, 0, 1, 4])
@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("BUSY", Result.BUSY),
        ("NOANSWER", Result.NO_ANSWER),
        ("CONGESTION", Result.CONGESTION),
        ("CHANUNAVAIL", Result.CONGESTION),
        ("CANCEL", Result.CANCELLED),
        ("ANSWER", Result.FAILED),
        (None, Result.FAILED),
    ],
)
def test_the_dial_status_counts_if_cause_and_reason_are_unclear(
    reason: int | None, status: str | None, result: Result
) -> None:
    assert reason not in BY_REASON
    given = result_of(answered=False, cause=16, reason=reason, dial_status=status)
    assert given is result


@pytest.mark.parametrize(
    ("carrier", "reason", "status", "cause_22", "cause_16", "result"),
    [
        ("486 busy", 0, "BUSY", 17, 17, Result.BUSY),
        ("603 rejected", 0, "NOANSWER", 21, 21, Result.REJECTED),
        ("404 no such number", 0, "NOANSWER", 1, 1, Result.INVALID_NUMBER),
        ("503 congestion", 0, "CONGESTION", 34, 34, Result.CONGESTION),
        ("rings past the timeout", 3, None, 19, 0, Result.NO_ANSWER),
        ("busy behind a Local channel", 5, None, 0, 0, Result.BUSY),
    ],
)
def test_both_asterisks_give_the_same_result_for_each_carrier(
    carrier: str, reason: int, status: str | None, cause_22: int, cause_16: int, result: Result
) -> None:
    for cause in (cause_22, cause_16):
        given = result_of(answered=False, cause=cause, reason=reason, dial_status=status)
        assert given is result, carrier
