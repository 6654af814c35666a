"""The governor of a PBX: bounds, tolerance, recovery, on a PBX in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dialer.domain.governor import (
    SLACK_S,
    UNREAD_BYTES,
    Governed,
    Governor,
    TrunkGovernor,
    TrunkLimit,
    Window,
    govern,
    govern_trunk,
    is_window_over,
    p95,
)
from tests.unit.governed_pbx import GovernedPbx

AMPLE = 1e6
#: Shrinking a failure would run for minutes: the example says enough.
on_a_pbx = settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
FINE = Window(length_s=0.5, sent=5, started=5, answer_s=0.01)
SLOW = Window(length_s=0.5, sent=50, started=25, waiting=25, answer_s=0.5)

rates = st.sampled_from([5.0, 10.0, 20.0, 50.0, 100.0, 300.0])
windows = st.builds(
    Window,
    length_s=st.floats(0.5, 3),
    sent=st.integers(0, 1000),
    started=st.integers(0, 1000),
    waiting=st.integers(0, 1000),
    silent=st.integers(0, 100),
    answer_s=st.none() | st.floats(0, 100),
    unread=st.sampled_from([0, 10**6]),
)


def governed(cps: float, *windows: Window, every_s: float = 0.5) -> Governor:
    governor = Governor.of(cps)
    for i, window in enumerate(windows):
        governor = govern(governor, window, i * every_s)
    return governor


# --- for any signals -------------------------------------------------------------------


@given(st.floats(0.1, 1000), st.lists(windows, max_size=60))
def test_the_limit_is_within_floor_and_cps(cps: float, seen: list[Window]) -> None:
    for i in range(len(seen) + 1):
        limit = governed(cps, *seen[:i]).limit
        assert 0 < limit.floor <= limit.now <= cps
        assert limit.floor >= min(cps, 0.5)


@given(st.floats(0.1, 1000), st.lists(windows, max_size=60), st.booleans())
def test_any_limit_is_gone_after_30_s_without_slowness(
    cps: float, seen: list[Window], has_traffic: bool
) -> None:
    governor = governed(cps, *seen)
    fine = FINE if has_traffic else Window(length_s=0.5)
    at = len(seen) * 0.5
    for i in range(61):
        governor = govern(governor, fine, at + i * 0.5)
    assert (governor.limit.rate, governor.why) == (None, "")


# --- on a PBX --------------------------------------------------------------------------


@on_a_pbx
@given(st.sampled_from([10.0, 20.0, 50.0, 100.0]), st.floats(0.3, 0.9), st.floats(1.2, 3))
def test_a_slow_pbx_gets_nine_tenths_of_what_it_can(
    cps: float, share: float, overload: float
) -> None:
    capacity = cps * share
    pbx = GovernedPbx(cps, lambda at: capacity if at > 10 else AMPLE, max(cps, capacity * overload))
    pbx.run(100)
    least = 0.9 if capacity >= 10 else 0.85  # of few calls a second each one counts
    assert pbx.rate(25, 100) >= least * min(capacity, cps)
    assert pbx.starved(25) == 0


@on_a_pbx
@given(rates, st.floats(0.03, 0.9))
def test_full_rate_is_back_30_s_after_slowness(cps: float, share: float) -> None:
    pbx = GovernedPbx(cps, lambda at: cps * share if 10 < at < 50 else AMPLE, cps)
    pbx.run(80)
    assert pbx.limits[-1][1] == cps


@on_a_pbx
@given(rates, st.floats(0.2, 0.9))
def test_the_limit_swings_within_bounds(cps: float, share: float) -> None:
    capacity = max(1.5, cps * share)
    pbx = GovernedPbx(cps, lambda _: capacity, cps)
    pbx.run(100)
    settled = [limit for at, limit in pbx.limits if at > 30]
    assert max(settled) <= max(1.5 * capacity, capacity + 1)
    assert min(settled) >= min(0.4 * capacity, capacity - 1)


@on_a_pbx
@given(rates, st.integers(0, 1000))
def test_normal_variance_limits_nothing(cps: float, seed: int) -> None:
    def noise(draw: random.Random) -> float:
        """Mostly 5 ms, with a long tail; one in 200 takes half a second."""
        return 0.5 if draw.random() < 0.005 else draw.lognormvariate(-5.3, 0.8)

    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, noise, seed=seed)
    pbx.run(120)
    assert {limit for _, limit in pbx.limits} == {cps}


def test_without_a_governor_calls_starve() -> None:
    pbx = GovernedPbx(100, lambda at: 50 if at > 10 else AMPLE, 100, has_governor=False)
    pbx.run(100)
    assert pbx.rate(25, 100) < 5
    assert pbx.starved(25) > 3000


def test_a_pbx_slower_in_steps_is_followed_down_and_up() -> None:
    steps = [AMPLE, 60, 30, 15, 30, 60, AMPLE]
    pbx = GovernedPbx(100, lambda at: steps[min(6, int(at // 40))], 100)
    pbx.run(280)
    for i, capacity in enumerate(steps[:6]):
        assert pbx.rate(i * 40 + 20, i * 40 + 40) >= 0.9 * min(100, capacity), capacity
    assert pbx.limits[-1][1] == 100


# --- what counts as slow ---------------------------------------------------------------


def test_one_slow_window_limits_nothing() -> None:
    assert governed(100, FINE, SLOW, FINE, SLOW, FINE).limit.rate is None


def test_two_slow_windows_in_a_row_limit() -> None:
    governor = governed(100, FINE, SLOW, SLOW)
    assert governor.why == "pbx_slow"
    assert governor.answer_s == 0.5
    assert governor.limit.now < 50


def test_a_window_that_says_nothing_ends_no_slowness() -> None:
    assert governed(100, FINE, SLOW, Window(length_s=0.5), SLOW).why == "pbx_slow"


def test_a_latency_within_the_tolerance_is_not_slow() -> None:
    usual = replace(FINE, answer_s=0.8)
    limit = governed(100, usual, *[replace(SLOW, answer_s=1.0)] * 9).limit
    assert limit.rate is None
    assert governed(100, usual, *[replace(SLOW, answer_s=1.06)] * 9).limit.rate is not None


def test_a_slack_above_the_normal_latency_is_not_slow() -> None:
    late = replace(SLOW, answer_s=FINE.answer_s + SLACK_S - 0.001)  # type: ignore[operator]
    assert governed(100, FINE, *[late] * 9).limit.rate is None


@pytest.mark.parametrize(
    "window",
    [
        replace(FINE, unread=UNREAD_BYTES + 1),
        replace(FINE, silent=3),
        Window(length_s=2, silent=3),
    ],
    ids=["unread bytes", "silent calls", "only silent calls"],
)
def test_other_signals_limit_too(window: Window) -> None:
    assert governed(100, window, window).why == "pbx_slow"


def test_a_few_silent_calls_of_many_limit_nothing() -> None:
    assert governed(100, *[replace(FINE, sent=100, started=96, silent=4)] * 9).why == ""


def test_the_normal_latency_is_not_measured_under_load() -> None:
    loaded = replace(FINE, sent=40, started=40, answer_s=0.1)
    assert governed(100, FINE, *[loaded] * 100).usual_s == 0.01
    assert governed(100, *[loaded] * 100).normal_s is None


def test_the_normal_latency_is_measured_again_at_low_rate() -> None:
    far = replace(FINE, sent=2, started=2, answer_s=0.6)
    governor = governed(100, FINE, *[far] * 200)
    assert governor.usual_s == pytest.approx(0.6, abs=0.01)
    assert governor.limit.rate is None
    busy = replace(far, waiting=3)
    assert governed(100, FINE, *[busy] * 200).usual_s == 0.01


def test_a_host_slow_for_other_reasons_is_not_kept_down() -> None:
    governor = governed(100, FINE)
    limits = []
    for i in range(200):
        rate = governor.limit.now / 2
        late = Window(length_s=0.5, sent=round(rate), started=round(rate), waiting=2, answer_s=0.7)
        governor = govern(governor, late, i * 0.5)
        limits.append(governor.limit.now)
    assert min(limits) < 20
    assert limits[-1] == 100


def test_a_lower_latency_is_the_normal_one_at_once() -> None:
    assert governed(100, FINE, replace(SLOW, answer_s=0.002)).usual_s == 0.002


def test_a_pbx_that_starts_nothing_gets_the_least_rate() -> None:
    dead = [replace(SLOW, started=0, waiting=25 * i, answer_s=i / 2) for i in range(40)]
    limit = governed(100, *dead).limit
    assert limit.now == limit.floor


# --- trunks ----------------------------------------------------------------------------


def trunk(*windows: tuple[int, int]) -> TrunkGovernor:
    state = TrunkGovernor.of(20)
    for i, (ended, congested) in enumerate(windows):
        state = govern_trunk(state, ended=ended, congested=congested, length_s=2, now=2 * i)
    return state


def test_a_congested_trunk_is_limited() -> None:
    state = trunk((40, 20))
    assert (state.why, state.share) == ("trunk_congested", 0.5)
    assert 10 <= state.limit.now < 20
    assert trunk((40, 40)).limit.now == 10


def test_usual_refusals_limit_no_trunk() -> None:
    assert trunk(*[(40, 10)] * 9).why == ""
    assert trunk(*[(9, 9)] * 9).why == ""


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=40))
def test_a_trunk_limit_stays_in_bounds_and_ends(seen: list[tuple[int, int]]) -> None:
    state = trunk(*((max(ended, bad), bad) for ended, bad in seen))
    assert state.limit.floor <= state.limit.now <= 20
    for i in range(16):
        now = 2 * (len(seen) + i)
        state = govern_trunk(state, ended=40, congested=2, length_s=2, now=now)
    assert state.limit.rate is None


# --- parts -----------------------------------------------------------------------------


def test_p95_ignores_the_slowest_of_many() -> None:
    assert p95([0.01] * 95 + [9.0] * 4) == 0.01
    assert p95([0.01] * 90 + [9.0] * 10) == 9.0


def test_p95_of_few_samples_is_the_third_greatest() -> None:
    assert p95([1.0, 2.0, 3.0, 4.0]) == 2.0
    assert p95([1.0, 2.0]) is None


def test_a_window_lasts_until_it_saw_enough_calls() -> None:
    assert not is_window_over(0.4, 100)
    assert is_window_over(0.5, 5)
    assert not is_window_over(1.9, 4)
    assert is_window_over(2.0, 0)


def test_a_limit_is_said_with_its_reason_and_cure() -> None:
    said = Governed(
        rate=37.04, answer_s=0.42, normal_s=0.012, trunks={"tim": TrunkLimit(rate=5, share=0.6)}
    ).in_words(100)
    assert said == [
        "pbx_slow: limited to 37 of 100 calls a second because Asterisk answers in 420 ms "
        "(normal: 12 ms); see the load of its host, or lower cps",
        "trunk_congested: trunk tim limited to 5 of 100 calls a second because its carrier refused "
        "60% of the calls for lack of capacity; ask the carrier, or spread the calls over other "
        "trunks",
    ]
    assert Governed().in_words(100) == []
