"""How many calls may start: pace, PBX, cell and trunk, and what that means for parked requests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.room import CellRoom, Pace, PbxLimits, PbxLoad, Room, trunk_pace

NOW_US = 1_700_000_000_000_000


def load(name: str, *trunks: str, room: int = 5, ready: bool = True) -> PbxLoad:
    return PbxLoad(
        name=name, ready=ready, calls=0, max_calls=10, starts=room, trunks=frozenset(trunks)
    )


def room(*pbxs: PbxLoad, threads: int = 100, live: int = 0, in_hand: int = 0) -> Room:
    cell = CellRoom(threads=threads, live=live, in_hand=in_hand)
    return Room(cell=cell, pbxs=pbxs)


@pytest.mark.parametrize(
    ("cps", "gap_us", "burst"),
    [(0.1, 10_000_000, 1), (1, 1_000_000, 1), (20, 50_000, 2), (25, 40_000, 3), (500, 2000, 50)],
)
def test_pace_is_one_gap_and_a_tenth_of_a_second(cps: float, gap_us: int, burst: int) -> None:
    assert PbxLimits(name="a", max_calls=1, cps=cps).pace == Pace(gap_us=gap_us, burst=burst)


@pytest.mark.parametrize(
    ("limit", "gap_us", "burst"),
    [
        (0, 10_000, 10),  # no limit of the governor
        (100, 10_000, 10),  # one that limits nothing
        (24, 41_667, 6),  # a quarter of a second
        (90, 11_111, 10),  # never more than without it
        (2, 500_000, 2),  # never less than two, for one alone waits for each turn
    ],
)
def test_governed_pace_lets_a_quarter_second_start(limit: float, gap_us: int, burst: int) -> None:
    pbx = PbxLimits(name="a", max_calls=1, cps=100)

    assert pbx.pace_at(limit) == Pace(gap_us=gap_us, burst=burst)


@pytest.mark.parametrize(("limit", "gap_us", "burst"), [(5, 200_000, 1), (40, 25_000, 4)])
def test_governed_trunk_starts_a_tenth_of_a_second(limit: float, gap_us: int, burst: int) -> None:
    assert trunk_pace(limit) == Pace(gap_us=gap_us, burst=burst)


@given(st.integers(1, 10_000_000), st.integers(1, 100), st.integers(-(10**9), 10**9))
def test_starts_are_never_more_than_the_burst(gap_us: int, burst: int, ahead_us: int) -> None:
    pace = Pace(gap_us=gap_us, burst=burst)
    starts = pace.starts(NOW_US + ahead_us, NOW_US)
    assert 0 <= starts <= burst
    assert (starts == 0) == (-gap_us < ahead_us <= gap_us)
    assert pace.next_start_us(NOW_US + ahead_us, NOW_US) <= NOW_US + gap_us


def test_requests_in_hand_count_against_fetching_only() -> None:
    found = room(load("a", room=9), threads=10, live=4, in_hand=5)
    assert (found.to_fetch, found.to_admit) == (1, 6)
    over = room(load("a", room=9), threads=3, live=4, in_hand=5)
    assert (over.to_fetch, over.to_admit) == (0, 0)


def test_trunk_is_blocked_only_while_others_have_room() -> None:
    found = room(load("a", "tim"), load("b", "vivo", room=0), load("c", "oi", ready=False))
    assert [found.is_blocked(t) for t in ("tim", "vivo", "oi", None)] == [False, True, True, False]
    full = room(load("a", "tim", room=0), load("b", "vivo", room=0))
    assert not full.is_blocked("tim")


def test_parked_requests_are_taken_as_their_trunk_has_room() -> None:
    found = room(load("a", "tim", room=3), load("b", "vivo", room=0), threads=8, live=1)
    parked = {"gone": 2, "tim": 9, "vivo": 9}
    assert found.from_parked(parked, at_most=100) == {"gone": 2, "tim": 3}
    assert found.from_parked(parked, at_most=4) == {"gone": 2, "tim": 2}


def test_starts_use_up_the_room_they_had() -> None:
    before = room(load("a", room=3), load("b"), threads=9, live=2, in_hand=4)
    after = before.after({"a": 2}, left=3)
    assert after.cell == CellRoom(threads=9, live=4, in_hand=1)
    first, second = after.pbxs
    assert (first.calls, first.starts, first.recent_starts) == (2, 1, 2.0)
    assert second is before.pbxs[1]
    assert before.after({"a": 4}, left=5).pbxs[0].starts == 0
    assert before.after({}, left=5).cell.in_hand == 0


def test_a_trial_call_uses_up_the_trial() -> None:
    held = replace(load("a"), is_held=True, is_trial_due=True)
    assert (held.room, held.after(1).room) == (1, 0)


@pytest.mark.parametrize(
    ("found", "is_ample"),
    [
        (room(load("a"), load("b")), True),
        (room(load("a"), load("away", ready=False)), True),
        (room(load("a"), load("b", room=0)), False),
        (room(load("a"), replace(load("b"), is_held=True, is_trial_due=True)), False),
        (room(load("a"), replace(load("b"), trunk_starts={"tim": 3})), False),
        (room(load("a"), threads=3, live=2, in_hand=1), False),
        (room(load("a", ready=False)), False),
        (room(), False),
    ],
)
def test_room_is_ample_if_any_call_can_go_anywhere(found: Room, is_ample: bool) -> None:
    assert found.is_ample is is_ample
