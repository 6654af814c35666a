"""A cell whose answered calls do not reach their target is held back, and tried one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from dialer.domain.hand_over import CUT_OFF, LATE, YES
from workers.ami import AmiLink
from workers.pbx.hand_overs import MOST_FAILED, HandOvers
from workers.pbx.state import PbxState


@dataclass(slots=True)
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hand_overs(clock: Clock) -> HandOvers:
    state = PbxState("pbx01", cast(AmiLink, None))
    return HandOvers(state, try_every_s=30.0, monotonic=clock)


def fail(hand_overs: HandOvers, times: int = MOST_FAILED, *, cell: str = "C") -> None:
    for n in range(times):
        hand_overs.note(cell, f"{cell}:{n}", CUT_OFF)


def test_three_failures_in_a_row_hold_the_cell_back(hand_overs: HandOvers) -> None:
    fail(hand_overs, MOST_FAILED - 1)
    hand_overs.note("C", "C:9", YES)
    fail(hand_overs, MOST_FAILED - 1)
    assert hand_overs.why_held("C") is None
    fail(hand_overs, 1)
    why = hand_overs.why_held("C")
    assert why is not None
    assert why.startswith("pbx01 did not hand over the last answered calls of cell C")
    assert "maxcalls" in why
    assert hand_overs.state.lacking == {"C": why}
    assert hand_overs.state.results.last_minute()["not_handed_over"] == 5


def test_a_late_hand_over_takes_back_what_was_logged(
    hand_overs: HandOvers, caplog: pytest.LogCaptureFixture
) -> None:
    hand_overs.note("C", "C:1", LATE)
    hand_overs.note("C", "C:2", YES)
    hand_overs.note("C", "C:1", YES)
    said = [(record.message, vars(record)["call_id"]) for record in caplog.records]
    assert said == [
        ("An answered call did not reach its target", "C:1"),
        ("An answered call reached its target late", "C:1"),
    ]


def test_a_failure_is_logged_with_its_call(
    hand_overs: HandOvers, caplog: pytest.LogCaptureFixture
) -> None:
    fail(hand_overs, 1)
    said = vars(caplog.records[0])
    assert (said["pbx"], said["cell"], said["call_id"]) == ("pbx01", "C", "C:0")
    assert "maxcalls" in said["reason"]


def test_the_hold_is_logged_without_a_call(
    hand_overs: HandOvers, caplog: pytest.LogCaptureFixture
) -> None:
    fail(hand_overs)
    *_, said = caplog.records
    assert said.getMessage() == "Calls of a cell did not reach their target; it is held back"
    assert not hasattr(said, "call_id")
    assert vars(said)["cell"] == "C"


def test_another_cell_is_not_held_back(hand_overs: HandOvers) -> None:
    fail(hand_overs)
    fail(hand_overs, MOST_FAILED - 1, cell="D")
    assert hand_overs.why_held("D") is None


def test_one_call_at_a_time_is_tried(hand_overs: HandOvers, clock: Clock) -> None:
    fail(hand_overs)
    clock.now += 29.9
    assert hand_overs.why_held("C")
    clock.now += 0.1
    assert hand_overs.why_held("C") is None
    hand_overs.state.lacking.clear()  # as the check of targets does
    hand_overs.dialed("C", "C:7")
    assert hand_overs.why_held("C")
    assert "C" in hand_overs.state.lacking
    hand_overs.ended("C", "C:8")
    assert hand_overs.why_held("C")


def test_a_tried_call_that_nobody_answers_lets_the_next_one_go(
    hand_overs: HandOvers, clock: Clock
) -> None:
    fail(hand_overs)
    clock.now += 30
    hand_overs.dialed("C", "C:7")
    hand_overs.ended("C", "C:7")
    assert hand_overs.why_held("C") is None


def test_a_tried_call_that_fails_begins_the_pause_again(
    hand_overs: HandOvers, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fail(hand_overs)
    clock.now += 30
    hand_overs.dialed("C", "C:7")
    hand_overs.note("C", "C:7", CUT_OFF)
    hand_overs.ended("C", "C:7")
    assert hand_overs.why_held("C")
    clock.now += 30
    assert hand_overs.why_held("C") is None
    said = [record.getMessage() for record in caplog.records]
    assert said.count("Calls of a cell did not reach their target; it is held back") == 1
    assert said.count("An answered call did not reach its target") == MOST_FAILED + 1


def test_a_tried_call_that_succeeds_ends_the_hold(
    hand_overs: HandOvers, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fail(hand_overs)
    before = hand_overs.state.instance
    clock.now += 30
    hand_overs.dialed("C", "C:7")
    hand_overs.note("C", "C:7", YES)
    assert (hand_overs.why_held("C"), hand_overs.state.lacking) == (None, {})
    assert hand_overs.state.instance != before  # the bridge publishes queued calls again
    assert caplog.records[-1].getMessage() == "Calls of a cell reach their target again"


def test_what_else_a_cell_lacks_stays(hand_overs: HandOvers) -> None:
    hand_overs.state.lacking["C"] = "pbx01 has no queue Q"
    fail(hand_overs)
    assert hand_overs.state.lacking["C"] == "pbx01 has no queue Q"
    hand_overs.note("C", "C:7", YES)
    assert hand_overs.state.lacking["C"] == "pbx01 has no queue Q"


def test_a_late_hand_over_counts_as_none(hand_overs: HandOvers) -> None:
    for n in range(2):
        hand_overs.note("C", f"C:{n}", LATE)
        hand_overs.note("C", f"C:{n}", YES)
        hand_overs.note("C", f"C:{n}", YES)  # the record says it again
    fail(hand_overs, 1)
    assert hand_overs.state.results.last_minute()["not_handed_over"] == 1
    assert hand_overs.why_held("C") is None


def test_a_new_start_of_asterisk_ends_a_hold(
    hand_overs: HandOvers, caplog: pytest.LogCaptureFixture
) -> None:
    state = hand_overs.state
    state.boot = "one"
    fail(hand_overs)
    fail(hand_overs, MOST_FAILED - 1, cell="D")
    assert (hand_overs.why_held("C"), [*state.lacking]) != (None, [])
    state.boot, instance = "two", state.instance
    assert hand_overs.why_held("C") is None
    assert state.lacking == {}
    assert state.instance != instance
    hand_overs.note("D", "D:9", CUT_OFF)  # its first since that start
    assert hand_overs.why_held("D") is None
    again = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert again == ["Asterisk was started again; a cell that was held back is dialed again"]
