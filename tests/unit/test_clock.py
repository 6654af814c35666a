"""The worker's clock: Redis decides, whatever the host says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workers.pbx.clock import RedisClock

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Host:
    """A host with a wrong clock."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead = timedelta(seconds=ahead_s)
        self.ticks = 100.0

    def clock(self) -> RedisClock:
        return RedisClock(host=lambda: NOON + self.ahead, monotonic=lambda: self.ticks)

    def heard(self, clock: RedisClock, took_s: float = 0.0) -> RedisClock:
        sent_at = self.ticks
        self.ticks += took_s
        clock.hear(round(NOON.timestamp() * 1000), sent_at)
        return clock


@pytest.mark.parametrize("ahead_s", [600, -600, 0])
def test_the_time_is_that_of_redis(ahead_s: float) -> None:
    host = Host(ahead_s)
    clock = host.heard(host.clock())
    assert clock.now() == NOON
    assert clock.skew_ms == ahead_s * 1000
    assert clock.of_host(NOON + host.ahead) == NOON


def test_half_of_the_round_trip_is_the_way_back() -> None:
    host = Host(0)
    clock = host.heard(host.clock(), took_s=0.2)
    assert clock.skew_ms == -100


def test_a_reply_of_one_second_is_quick_enough() -> None:
    host = Host(600)
    assert host.heard(host.clock(), took_s=1.0).skew_ms == 599_500


def test_a_slow_reply_says_nothing_about_the_time() -> None:
    host = Host(600)
    clock = host.heard(host.clock(), took_s=1.1)
    assert clock.skew_ms == 0


@pytest.mark.parametrize(
    ("ahead_s", "said"), [(30, ""), (-30, ""), (31, "31 s ahead of"), (-600, "600 s behind")]
)
def test_a_wrong_clock_is_a_trouble(ahead_s: float, said: str) -> None:
    host = Host(ahead_s)
    trouble = host.heard(host.clock()).trouble
    assert said in trouble
    assert bool(trouble) is bool(said)


def test_a_clock_that_differs_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(3)
    clock = host.clock()
    for ahead_s in (3, 3, 0, 3):
        host.ahead = timedelta(seconds=ahead_s)
        host.heard(clock)
    said = "The clock of this host differs from Redis; synchronize it (NTP, chrony)"
    assert caplog.messages == [said, said]


def test_a_difference_of_two_seconds_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(2)
    host.heard(host.clock())
    assert caplog.messages == []
