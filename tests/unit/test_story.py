"""The story of a call, by the fields of its entry."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dialer.domain.call import State
from dialer.domain.story import story_of

START = 1_772_000_000_000


def at(seconds: float) -> str:
    return str(int(START + seconds * 1000))


def told(**fields: str) -> list[tuple[str, float, str, str]]:
    steps = story_of("TIM:r1", fields).steps
    start = datetime.fromtimestamp(START / 1000, UTC)
    return [(s.state, (s.at - start).total_seconds(), s.by, s.detail) for s in steps]


def test_an_answered_call_has_all_its_states() -> None:
    found = told(
        state="done",
        result="ANSWERED",
        pbx="pbx01",
        epoch="1",
        admitted_ms=at(0),
        dialed_ms=at(0.5),
        accepted_ms=at(0.6),
        answered_ms=at(4),
        ended_ms=at(60),
        code_state="came",
    )
    assert found == [
        ("queued", 0.0, "bridge", "to pbx01"),
        ("originating", 0.5, "worker of pbx01", "claimed and sent"),
        ("accepted", 0.6, "Asterisk", "ACK sent, the code came"),
        ("answered", 4.0, "the customer", ""),
        ("ended", 60.0, "worker of pbx01", "ANSWERED"),
    ]


def test_a_call_that_moved_says_how_often() -> None:
    found = told(state="queued", pbx="pbx02", epoch="3", admitted_ms=at(0))
    assert found == [("queued", 0.0, "bridge", "to pbx02, queued 3 times")]


def test_a_call_that_was_not_dialed_is_ended_by_a_bridge() -> None:
    late = {"admitted_ms": at(0), "ended_ms": at(9)}
    found = told(state="done", result="EXPIRED", error="expired", pbx="pbx01", **late)
    assert found[-1] == ("ended", 9.0, "bridge", "EXPIRED, expired")
    lost = told(state="done", result="UNKNOWN", error="pbx_lost", dialed_ms=at(1), **late)
    assert lost[-1] == ("ended", 9.0, "bridge", "UNKNOWN, pbx_lost")


def test_a_done_call_has_its_story_in_one_text() -> None:
    story = f"pbx01 2 timed_out {START} 500 600 -"
    found = told(state="done", result="BUSY", ended_ms=at(4), story=story)
    assert found == [
        ("queued", 0.0, "bridge", "to pbx01, queued 2 times"),
        ("originating", 0.5, "worker of pbx01", "claimed and sent"),
        ("accepted", 0.6, "Asterisk", "ACK sent, no code came in time"),
        ("ended", 4.0, "worker of pbx01", "BUSY"),
    ]
    early = told(state="done", ended_ms=at(4), story=f"pbx01 1 none {START} -3 - -")
    assert early[1] == ("originating", -0.003, "worker of pbx01", "claimed and sent")
    for strange in ("", "pbx01", f"pbx01 1 none {START}", "pbx01 1 none x - - -", "\x00" * 9):
        assert told(state="done", ended_ms=at(4), story=strange) == [("ended", 4.0, "bridge", "")]


def test_a_destroyed_entry_tells_what_is_left() -> None:
    strange = {"admitted_ms": "x", "ended_ms": "", "code_state": "?", "dialed_ms": "9" * 30}
    assert told(state="moon", accepted_ms=at(1), **strange) == [("accepted", 1.0, "Asterisk", "")]
    story = story_of("TIM:r1", {})
    assert (story.state, story.pbx, story.result, story.steps) == ("", "", "", [])


@pytest.mark.parametrize("state", list(State))
def test_a_story_says_whether_its_pbx_has_the_call(state: State) -> None:
    has_it = {State.ORIGINATING, State.ACCEPTED, State.ANSWERED}
    assert story_of("ASR_TIM:r-1", {"state": state.value}).is_dialed is (state in has_it)
