"""The governor of a PBX: bounds, tolerance, recovery, on a PBX in virtual time."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dialer.domain.governor import (
    LEAST_LEASED,
    NORMAL_AT_MOST_S,
    UNREAD_BYTES,
    Governed,
    Governor,
    Signal,
    TrunkGovernor,
    TrunkLimit,
    Window,
    at_cps,
    govern,
    govern_trunk,
    is_window_over,
    p95,
    trunk_at_cps,
)
from tests.unit.governed_pbx import GovernedPbx, in_virtual_time

AMPLE = 1e6
#: Shrinking a failure would run for minutes: the example says enough.
few = settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
FINE = Window(length_s=0.5, sent=5, started=5, answers={"channel": 0.01})
SLOW = Window(length_s=0.5, sent=50, started=25, waiting=25, answers={"channel": 0.5})

rates = st.sampled_from([5.0, 10.0, 20.0, 50.0, 100.0, 300.0])
windows = st.builds(
    Window,
    length_s=st.floats(0.5, 3),
    sent=st.integers(0, 1000),
    started=st.integers(0, 1000),
    waiting=st.integers(0, 1000),
    silent=st.integers(0, 100),
    answers=st.dictionaries(
        st.sampled_from(["ping", "reply", "channel"]), st.floats(0, 100), max_size=3
    ),
    late_s=st.just(0.0) | st.floats(0, 100),
    unread=st.sampled_from([0, 10**6]),
)


def governed(cps: float, *windows: Window) -> Governor:
    governor = Governor(cps=cps)
    for window in windows:
        governor = govern(governor, window)
    return governor


def took(window: Window, answer_s: float, signal: Signal = "channel") -> Window:
    return replace(window, answers={signal: answer_s})


# --- for any signals -------------------------------------------------------------------


@given(st.floats(0.1, 1000), st.lists(windows, max_size=60))
def test_the_limit_is_within_floor_and_cps(cps: float, seen: list[Window]) -> None:
    for i in range(len(seen) + 1):
        governor = governed(cps, *seen[:i])
        assert 0 < governor.floor <= governor.allowed <= cps
        assert governor.floor >= min(cps, 0.5)
        assert governor.at_once >= 1


@given(st.floats(0.1, 1000), st.lists(windows, max_size=60), st.booleans())
def test_any_limit_is_gone_after_30_s_without_slowness(
    cps: float, seen: list[Window], has_traffic: bool
) -> None:
    governor = governed(cps, *seen)
    fine = FINE if has_traffic else Window(length_s=0.5)
    for _ in range(61):
        governor = govern(governor, fine)
    assert (governor.rate, governor.why) == (None, "")


# --- on a PBX --------------------------------------------------------------------------


@in_virtual_time
@few
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


@in_virtual_time
@pytest.mark.parametrize("share", [0.6, 0.8, 0.9, 0.97])
@pytest.mark.parametrize("cps", [3.0, 5.0, 7.0, 10.0, 20.0, 50.0])
def test_a_pbx_a_little_too_slow_gets_no_long_queue(cps: float, share: float) -> None:
    pbx = GovernedPbx(cps, lambda _: share * cps, cps)
    pbx.run(120)
    assert max(waiting for _, waiting in pbx.turns_waiting) <= max(5, 2 * cps)
    assert pbx.rate(30, 120) >= 0.9 * share * cps


@in_virtual_time
@pytest.mark.parametrize("lost", [0.01, 0.05])
@pytest.mark.parametrize("cps", [1.0, 5.0, 7.0, 20.0])
def test_lost_calls_hardly_slow_the_others(cps: float, lost: float) -> None:
    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, lost=lost)
    pbx.run(200)
    pauses = [b - a for a, b in itertools.pairwise(pbx.started_at)]
    assert max(pauses) <= 3 + 1 / cps
    assert pbx.rate(20, 200) >= 0.85 * cps


@in_virtual_time
@pytest.mark.parametrize("cps", [5.0, 7.0, 20.0])
def test_a_dead_pbx_that_answers_pings_stays_limited(cps: float) -> None:
    pbx = GovernedPbx(cps, lambda at: 0 if 60 < at < 180 else AMPLE, cps)
    pbx.run(240)
    assert all(limit < cps for at, limit in pbx.limits if 75 < at < 180)
    assert max(waiting for _, waiting in pbx.turns_waiting) <= max(5, 2 * cps)
    assert pbx.limits[-1][1] == cps


@in_virtual_time
@few
@given(rates, st.floats(0.03, 0.9))
def test_full_rate_is_back_30_s_after_slowness(cps: float, share: float) -> None:
    pbx = GovernedPbx(cps, lambda at: cps * share if 10 < at < 50 else AMPLE, cps)
    pbx.run(80)
    assert pbx.limits[-1][1] == cps


@in_virtual_time
@few
@given(rates, st.floats(0.2, 0.9))
def test_the_limit_swings_within_bounds(cps: float, share: float) -> None:
    capacity = max(1.5, cps * share)
    pbx = GovernedPbx(cps, lambda _: capacity, cps)
    pbx.run(100)
    settled = [limit for at, limit in pbx.limits if at > 30]
    two_at_once = 8  # calls a second: any lower limit means one call at a time
    assert max(settled) <= max(1.7 * capacity, two_at_once)
    assert min(settled) >= min(0.7 * capacity, capacity - 1)


@in_virtual_time
@few
@given(rates, st.integers(0, 1000))
def test_normal_variance_limits_nothing(cps: float, seed: int) -> None:
    def noise(draw: random.Random) -> float:
        """Mostly 5 ms, with a long tail; one in 200 takes half a second."""
        return 0.5 if draw.random() < 0.005 else draw.lognormvariate(-5.3, 0.8)

    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, noise, seed=seed)
    pbx.run(120)
    assert {limit for _, limit in pbx.limits} == {cps}


@in_virtual_time
def test_without_a_governor_calls_starve() -> None:
    pbx = GovernedPbx(100, lambda at: 50 if at > 10 else AMPLE, 100, has_governor=False)
    pbx.run(100)
    assert pbx.rate(25, 100) < 5
    assert pbx.starved(25) > 3000


@in_virtual_time
def test_a_pbx_slower_in_steps_is_followed_down_and_up() -> None:
    steps = [AMPLE, 60, 30, 15, 30, 60, AMPLE]
    pbx = GovernedPbx(100, lambda at: steps[min(6, int(at // 40))], 100)
    pbx.run(280)
    for i, capacity in enumerate(steps[:6]):
        assert pbx.rate(i * 40 + 20, i * 40 + 40) >= 0.9 * min(100, capacity), capacity
    assert pbx.limits[-1][1] == 100


# --- what counts as slow ---------------------------------------------------------------


def test_one_slow_window_limits_nothing() -> None:
    assert governed(100, FINE, SLOW, FINE, SLOW, FINE).rate is None


def test_two_slow_windows_in_a_row_limit() -> None:
    governor = governed(100, FINE, SLOW, SLOW)
    assert governor.why == "pbx_slow"
    assert (governor.slow, governor.answer_s) == ("channel", 0.5)
    assert governor.allowed < 50


def test_a_window_that_says_nothing_ends_no_slowness() -> None:
    assert governed(100, FINE, SLOW, Window(length_s=0.5), SLOW).why == "pbx_slow"


@pytest.mark.parametrize(
    ("usual_s", "highest_s"),
    [(0.01, 0.26), (0.8, 1.05), (1.6, 2.0)],
    ids=["near", "far", "very far"],
)
def test_a_latency_within_the_tolerance_is_not_slow(usual_s: float, highest_s: float) -> None:
    usual = took(FINE, usual_s)
    assert governed(100, usual, *[took(SLOW, highest_s)] * 9).rate is None
    assert governed(100, usual, *[took(SLOW, highest_s + 0.01)] * 9).rate is not None


def test_each_signal_has_a_normal_latency_of_its_own() -> None:
    far = replace(FINE, answers={"ping": 0.002, "reply": 0.003, "channel": 0.6})
    assert governed(100, *[far] * 9, *[replace(far, sent=50, started=50)] * 9).why == ""
    late = governed(100, far, *[replace(SLOW, answers={"reply": 0.3, "channel": 0.6})] * 2)
    assert (late.why, late.slow, late.answer_s, late.normal_s) == ("pbx_slow", "reply", 0.3, 0.003)


def test_slow_pings_beside_quick_calls_limit_nothing() -> None:
    busy = replace(SLOW, answers={"ping": 3.0, "reply": 0.01, "channel": 0.01})
    assert governed(100, FINE, *[busy] * 9).why == ""
    assert governed(100, FINE, *[took(SLOW, 3.0, "ping")] * 2).why == "pbx_slow"


def test_an_unmeasured_signal_counts_as_the_slowest_measured_one() -> None:
    pings = took(Window(length_s=2), 0.6, "ping")
    assert governed(100, pings, *[took(SLOW, 0.8)] * 9).why == ""


def test_waiting_calls_can_only_show_slowness() -> None:
    young = replace(FINE, answers={}, late_s=0.1)
    assert governed(100, young).normal == {}
    slow = replace(SLOW, answers={}, late_s=0.5)
    assert governed(100, FINE, slow, young, slow).why == "pbx_slow"
    assert governed(100, took(FINE, 0.4), *[slow] * 9).why == ""


def test_an_unknown_pbx_that_is_slow_is_measured_one_by_one() -> None:
    governor = governed(100, SLOW, SLOW)
    assert (governor.allowed, governor.at_once) == (governor.floor, 1)
    few = took(Window(length_s=2, sent=2, started=2, waiting=1), 0.5)
    assert govern(governor, few).normal_s == 0.5


def test_a_slow_pbx_gets_what_it_starts() -> None:
    slow = replace(SLOW, sent=30, started=25, waiting=25)
    governor = governed(100, FINE, *[slow] * 20)
    assert governor.allowed == pytest.approx(50, rel=0.01)
    assert governor.at_once in (12, 13), "50 x 0.26 s"


def test_a_limited_pbx_gets_at_least_what_it_starts() -> None:
    quick = replace(FINE, sent=20, started=20)
    governor = governed(100, FINE, *[replace(SLOW, started=0)] * 20)
    assert governor.allowed < 5
    for _ in range(9):
        governor = govern(governor, quick)
    assert governor.allowed >= 39


def test_a_pbx_slow_with_few_calls_is_lowered_by_a_fifth_to_a_half() -> None:
    few = replace(FINE, sent=10, started=10)
    for late_s, rate in ((0.27, 80), (5.0, 50)):
        late = took(few, late_s)
        assert governed(100, FINE, *[few] * 9, late, late).allowed == pytest.approx(rate, rel=0.01)


def test_slow_pings_of_an_idle_pbx_lower_only_the_limit() -> None:
    idle = took(Window(length_s=2), 0.003, "ping")
    late = took(idle, 0.7, "ping")
    assert governed(100, *[idle] * 9, late, late).allowed == 50


def test_a_pbx_that_does_not_read_gets_half_of_what_it_starts() -> None:
    unread = replace(SLOW, sent=30, started=25, unread=UNREAD_BYTES + 1)
    governor = governed(100, FINE, *[unread] * 2)
    assert governor.allowed == pytest.approx(governor.started / 2)


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
    loaded = took(replace(FINE, sent=40, started=40), 0.1)
    assert governed(100, FINE, *[loaded] * 100).normal_s == 0.01
    assert governed(100, *[loaded] * 100).normal == {}


def test_the_normal_latency_is_measured_again_at_low_rate() -> None:
    far = took(replace(FINE, sent=2, started=2), 0.6)
    governor = governed(100, FINE, *[far] * 200)
    assert governor.normal_s == pytest.approx(0.6, abs=0.01)
    assert governor.rate is None
    busy = replace(far, waiting=3)
    assert governed(100, FINE, *[busy] * 200).normal_s == 0.01
    dead = took(far, 60.0)
    assert governed(100, FINE, *[dead] * 200).normal_s == pytest.approx(NORMAL_AT_MOST_S, rel=0.01)


def test_a_lower_latency_is_the_normal_one_at_once() -> None:
    assert governed(100, FINE, took(SLOW, 0.002)).normal_s == 0.002


def test_a_pbx_that_starts_nothing_gets_the_least_rate() -> None:
    dead = [
        replace(SLOW, started=0, waiting=25 * i, answers={}, late_s=i / 2) for i in range(1, 40)
    ]
    governor = governed(100, FINE, *dead)
    assert (governor.allowed, governor.at_once) == (governor.floor, 1)
    assert governor.leased(waiting=0) == pytest.approx(0.5)
    assert 0 < governor.leased(waiting=50) <= governor.leased(waiting=1) < 0.5


# --- what the bridges lease --------------------------------------------------------------


@given(rates, st.floats(0, 400), st.integers(0, 1000))
def test_bridges_lease_more_if_few_calls_wait(cps: float, started: float, waiting: int) -> None:
    governor = Governor(cps=cps, rate=cps / 2, started=started)
    leased = governor.leased(waiting)
    assert 0 < leased <= cps
    if waiting > max(1.0, started):
        assert leased <= max(LEAST_LEASED, started)
    if waiting == 0:
        assert leased >= min(cps, 1.5 * started)
    assert governor.leased(waiting + 1) <= leased


def test_without_a_limit_bridges_lease_by_cps_unless_too_many_wait() -> None:
    assert Governor(cps=100, started=50).leased(waiting=75) == 0
    assert 0 < Governor(cps=100, started=50).leased(waiting=76) < 50
    assert Governor(cps=0.5).leased(waiting=0) == 0


@in_virtual_time
@few
@given(st.sampled_from([20.0, 50.0, 100.0, 300.0]), st.floats(0.1, 0.9))
def test_few_calls_wait_for_their_turn(cps: float, share: float) -> None:
    capacity = max(5, cps * share)
    pbx = GovernedPbx(cps, lambda _: capacity, cps)
    pbx.run(100)
    settled = [waiting for at, waiting in pbx.turns_waiting if at > 30]
    assert max(settled) <= 2 * capacity + 2
    assert sum(waiting == 0 for waiting in settled) <= 0.1 * len(settled)


# --- trunks ----------------------------------------------------------------------------


def trunk(*windows: tuple[int, int], usual: float | None = 0.0) -> TrunkGovernor:
    state = replace(TrunkGovernor.of(20), usual=usual)
    for calls, congested in windows:
        state = govern_trunk(state, calls=calls, congested=congested, length_s=2)
    return state


def test_a_congested_trunk_is_limited() -> None:
    state = trunk((40, 20))
    assert (state.why, state.share) == ("trunk_congested", 0.5)
    assert 10 <= state.limit.allowed < 20
    assert trunk((40, 40)).limit.allowed == 10


def test_a_trunk_keeps_a_lower_limit_when_cps_changes() -> None:
    state = trunk((40, 20))
    low = state.limit.allowed
    raised = trunk_at_cps(state, 40)
    assert (raised.limit.most, raised.limit.allowed, raised.why) == (40, low, "trunk_congested")
    assert raised.limit.ceiling == state.limit.ceiling
    lowered = trunk_at_cps(state, low + 1)
    assert (lowered.limit.allowed, lowered.limit.ceiling) == (low, low + 1)
    assert trunk_at_cps(state, low).limit == trunk_at_cps(trunk(), low).limit, "no limit"
    assert trunk_at_cps(trunk(), 7).limit.allowed == 7


def test_a_pbx_keeps_a_lower_limit_when_cps_changes() -> None:
    limited = replace(Governor(cps=20), rate=8.0)
    assert (at_cps(limited, 40).cps, at_cps(limited, 40).rate) == (40, 8.0)
    assert (at_cps(limited, 8).cps, at_cps(limited, 8).rate) == (8, None)
    assert at_cps(Governor(cps=20), 5).allowed == 5


def test_usual_refusals_limit_no_trunk() -> None:
    assert trunk(*[(40, 10)] * 9).why == ""
    assert trunk(*[(9, 9)] * 9).why == ""


def test_refusals_by_chance_limit_no_trunk() -> None:
    assert trunk(*[(10, 3)] * 9).why == ""
    assert trunk((10, 5)).why == "trunk_congested"


def test_an_unknown_trunk_is_measured_at_a_low_rate() -> None:
    state = trunk((40, 16), usual=None)
    assert (state.limit.allowed, state.usual) == (2, None)
    few = govern_trunk(state, calls=10, congested=4, length_s=5)
    assert few.usual == 0.4
    assert few.limit.allowed == pytest.approx(19.2, abs=0.1)
    assert trunk((40, 16), usual=0.4).why == ""


def test_refusals_that_fewer_calls_do_not_lower_are_usual() -> None:
    state = trunk((40, 16))
    for _ in range(99):
        n = round(10 * state.limit.allowed)
        state = govern_trunk(state, calls=n, congested=round(0.4 * n), length_s=10)
    assert state.why == ""
    assert state.usual == pytest.approx(0.3, abs=0.1)


def test_a_carrier_that_recovers_has_few_refusals_again() -> None:
    assert trunk(*[(40, 2)] * 99, usual=0.4).usual == pytest.approx(0.1, abs=0.05)
    assert trunk(*[(40, 14)] * 99, usual=0.4).usual == 0.4


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=40))
def test_a_trunk_limit_stays_in_bounds_and_ends(seen: list[tuple[int, int]]) -> None:
    state = trunk(*((max(calls, bad), bad) for calls, bad in seen), usual=None)
    assert state.limit.floor <= state.limit.allowed <= 20
    for _ in range(16):
        state = govern_trunk(state, calls=40, congested=2, length_s=2)
    assert state.limit.rate is None


# --- parts -----------------------------------------------------------------------------


def test_p95_ignores_the_slowest_of_many() -> None:
    assert p95([0.01] * 95 + [9.0] * 4) == 0.01
    assert p95([0.01] * 90 + [9.0] * 10) == 9.0


def test_p95_of_few_samples_is_the_third_greatest() -> None:
    assert p95([1.0, 2.0, 3.0, 4.0]) == 2.0
    assert p95([1.0, 2.0]) is None


def test_a_window_lasts_until_it_saw_enough_calls() -> None:
    assert not is_window_over(0.4, sent=100, started=100)
    assert is_window_over(0.5, sent=5, started=0)
    assert not is_window_over(1.9, sent=4, started=4)
    assert is_window_over(2.0, sent=0, started=0)


def test_a_window_of_few_calls_lasts_longer() -> None:
    assert is_window_over(2.0, sent=2, started=3)
    assert not is_window_over(9.9, sent=2, started=2)
    assert is_window_over(10.0, sent=2, started=2)


def test_a_limit_is_said_with_its_reason_and_cure() -> None:
    said = Governed(
        starts=37.04, answer_s=0.42, normal_s=0.012, trunks={"tim": TrunkLimit(rate=5, share=0.6)}
    ).in_words(100)
    assert said == [
        "pbx_slow: limited to 37 of 100 calls a second because Asterisk answers in 420 ms "
        "(normal: 12 ms); see the load of its host, or lower cps",
        "trunk_congested: trunk tim limited to 5 of 100 calls a second because its carrier refused "
        "60% of the calls for lack of capacity; ask the carrier, or spread the calls over other "
        "trunks",
    ]
    assert Governed().in_words(100) == []
