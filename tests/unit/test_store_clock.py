"""The clock of a Redis server, on a host whose clock is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from dialer.store.clock import RedisClock
from dialer.store.steps import Steps


@dataclass(slots=True)
class Server:
    """A server whose time is 1,000,000.5 s; a reply takes `took_s` of the host's time."""

    host_s: float
    took_s: float = 0.0

    def now(self) -> float:
        return self.host_s

    async def read(self, command: str) -> tuple[bytes, bytes]:
        assert command == "TIME"
        self.host_s += self.took_s
        return b"1000000", b"500000"

    async def measured(self, clock: RedisClock) -> RedisClock:
        await clock.measure(cast(Steps, self))
        return clock


async def test_the_skew_is_taken_off() -> None:
    server = Server(1_000_600.5)
    clock = await server.measured(RedisClock(server.now))
    assert (clock.skew_s, clock.is_measured) == (600.0, True)
    assert clock.now() == datetime.fromtimestamp(1_000_000.5, UTC)


async def test_half_of_the_reply_is_the_way_back() -> None:
    server = Server(1_000_600.0, took_s=0.25)
    assert (await server.measured(RedisClock(server.now))).skew_s == 599.625


async def test_a_skew_within_the_reply_counts_as_none() -> None:
    for host_s in (1_000_000.5, 1_000_000.375, 1_000_000.25):
        server = Server(host_s, took_s=0.25)
        assert (await server.measured(RedisClock(server.now))).skew_s == 0.0


async def test_before_the_first_reply_there_is_no_skew() -> None:
    clock = RedisClock(lambda: 5.0)
    assert (clock.skew_s, clock.is_measured) == (0.0, False)
    assert clock.now() == datetime.fromtimestamp(5, UTC)


async def test_a_slow_reply_counts_only_if_it_is_the_first() -> None:
    slow = Server(1_000_600.5, took_s=0.75)
    clock = await slow.measured(RedisClock(slow.now))
    assert clock.skew_s == 600.375
    slow.host_s = 1_000_100.5
    assert (await slow.measured(clock)).skew_s == 600.375
    slow.host_s, slow.took_s = 1_000_100.5, 0.5
    assert (await slow.measured(clock)).skew_s == 100.25
