"""The worker's clock: the time of Redis, whatever the host's clock does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from workers.pbx.clock import RedisClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Host:
    """A host whose clock may jump."""

    ahead_s: float = 0.0
    up_s: float = 100.0

    def clock(self) -> RedisClock:
        return RedisClock(host=self.now, monotonic=lambda: self.up_s)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.up_s - 100.0 + self.ahead_s)


def hear(clock: RedisClock, host: Host) -> None:
    """A heartbeat's reply with the right time, in no time."""
    right = NOON + timedelta(seconds=host.up_s - 100.0)
    clock.hear(round(right.timestamp() * 1000), host.up_s)


def test_jump_of_the_hosts_clock_changes_no_time() -> None:
    host = Host()
    clock = host.clock()
    hear(clock, host)
    host.ahead_s = 600.0
    host.up_s += 0.5
    assert clock.now() == NOON + timedelta(seconds=0.5)


def test_skew_is_measured_with_the_next_heartbeat() -> None:
    host = Host()
    clock = host.clock()
    hear(clock, host)
    host.ahead_s = -45.0
    host.up_s += 1.0
    hear(clock, host)
    assert clock.skew_ms == -45_000
    assert "45 s behind" in clock.trouble
    assert clock.now() == NOON + timedelta(seconds=1.0)
    assert clock.of_host(host.now()) == NOON + timedelta(seconds=1.0)


def test_host_gives_the_time_before_the_first_heartbeat() -> None:
    assert Host(ahead_s=3.0).clock().now() == NOON + timedelta(seconds=3.0)


def test_slow_reply_does_not_replace_a_better_one() -> None:
    host = Host()
    clock = host.clock()
    hear(clock, host)
    sent_at, answered = host.up_s, NOON
    host.up_s += 0.8  # Redis answered at once, and the busy host read it late
    clock.hear(round(answered.timestamp() * 1000), sent_at)
    assert clock.now() == NOON + timedelta(seconds=0.8)
    assert clock.skew_ms == 0


def test_better_reply_replaces_a_slow_one() -> None:
    host = Host()
    clock = host.clock()
    host.up_s += 0.8
    clock.hear(round(NOON.timestamp() * 1000), 100.0)
    assert clock.skew_ms == 400
    hear(clock, host)
    assert clock.skew_ms == 0
