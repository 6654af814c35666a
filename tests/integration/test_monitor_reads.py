"""What `dialer monitor` reads of calls that wait, and of the bridges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf

import pytest

from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.own_state import OwnState
from dialer.celery import app
from dialer.monitor.snapshot import take_snapshot
from dialer.store.clock import RedisClock
from dialer.store.ledger import Late, Survey
from dialer.store.registry import Holder
from tests.integration.cell_rig import BRIDGE, CELL, Site, pbx_table
from workers.pbx.lease import Pulse
from workers.pbx.presence import Presence

CELLS = {CELL: ("pbx01", "pbx02")}
TABLES = (pbx_table("pbx01"), pbx_table("pbx02"))


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02")
        await site.ledger.take_over(BRIDGE)
        yield site


async def troubles(site: Site) -> list[str]:
    return (await take_snapshot(site.registry, TABLES, [(Survey(site.steps), CELLS)])).troubles()


async def test_all_is_well_while_every_pbx_claims_its_calls(site: Site) -> None:
    await site.admitted("new")
    await site.accepted("up")
    assert await troubles(site) == []


async def test_calls_left_unclaimed_are_counted_by_pbx(site: Site) -> None:
    for name, age_s in (("a", 50), ("b", 5)):
        await site.admitted(name)
        await site.redis.zincrby(site.ledger.keys.queued, -age_s * 1_000, f"{CELL}:{name}")
    await site.admitted("c", pbx="pbx02")
    found = (await site.surveyed()).late
    assert found == {"pbx01": Late(calls=2, oldest_s=found["pbx01"].oldest_s)}
    assert 50 <= found["pbx01"].oldest_s < 60
    (sentence,) = await troubles(site)
    assert sentence.startswith("pbx01 has not claimed 2 calls of ASR_TIM, queued to it for up to 5")


async def test_a_late_call_without_a_pbx_counts_for_none(site: Site) -> None:
    for name in ("a", "b"):
        await site.admitted(name)
        await site.redis.zincrby(site.ledger.keys.queued, -5_000, f"{CELL}:{name}")
    await site.redis.hdel(site.ledger.keys.call(f"{CELL}:a"), "pbx")
    found = (await site.surveyed()).late
    assert {name: late.calls for name, late in found.items()} == {"pbx01": 1}


async def test_claimed_calls_that_asterisk_does_not_accept_are_counted(site: Site) -> None:
    now_s, _ = await site.redis.time()
    for name, age_s in (("r-1", 50), ("r-2", 9), ("new", 0)):
        await site.admitted(name)
        await site.claimed(name)
        call = site.ledger.keys.call(f"{CELL}:{name}")
        await site.redis.hset(call, "dialed_ms", (now_s - age_s) * 1_000)
    await site.accepted("up")
    found = (await site.surveyed("pbx01", "pbx02")).unanswered
    assert set(found) == {"pbx01"}
    late = found["pbx01"]
    assert late.calls == 2
    assert 50 <= late.oldest_s < 60
    (sentence,) = await troubles(site)
    assert sentence.startswith("pbx01: Asterisk has not answered the Originate of 2 calls")


async def test_every_bridge_of_a_cell_is_shown(site: Site) -> None:
    await site.redis.zincrby(site.ledger.keys.bridges, -50_000, BRIDGE)
    await site.ledger.take_over("bridge-2")
    ages = (await site.surveyed()).bridges
    assert ages.keys() == (await site.ledger.served_by()).keys()
    assert 50 <= ages[BRIDGE] < 60
    assert 0 <= ages["bridge-2"] < 10


async def test_a_worker_of_another_registry_is_found_in_its_cell(site: Site) -> None:
    await site.redis.delete("dialer:pbx:pbx01")
    me = Holder(name="w", host="two", pid="7", place="")
    for raw in (None, b"\xff", b"[1]", b"[" * 5_000, b"7", b"{}"):
        if raw is not None:
            await site.redis.set(site.ledger.keys.worker("pbx01"), raw)
        sentence, *_ = await troubles(site)
        assert sentence.startswith("pbx01: no worker yet; start")
    await Presence("pbx01", me, Pulse()).show(site.steps, [CELL])
    sentence, *_ = await troubles(site)
    assert sentence.startswith("pbx01: its worker, pid 7 on host two, uses another registry")


async def test_cell_whose_bridges_are_silent_is_named(site: Site) -> None:
    await site.redis.zincrby(site.ledger.keys.bridges, -5_000, BRIDGE)
    (sentence,) = await troubles(site)
    assert sentence.startswith("ASR_TIM: no bridge serves it for 5 s")


async def test_bridge_says_its_skew_and_its_broker(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    ahead = 0.0
    clock = RedisClock()
    real = clock.host_time
    clock.host_time = lambda: real() + ahead
    own = OwnState(BRIDGE, site.registry, Dispatcher(app, problem="refused", _failed_at=inf), clock)
    ahead = 90.0
    await own.write()
    await own.write()
    (state,) = (await site.registry.bridges([BRIDGE, "unknown"])).values()
    assert (round(state.skew_s), state.broker) == (90, "refused")
    said = "Clock of this host differs from Redis; the time of Redis is used"
    assert caplog.messages.count(said) == 1
    found = await troubles(site)
    assert found[0] == f"bridge {BRIDGE}: the broker takes no tasks: refused"
    assert found[1].startswith(f"bridge {BRIDGE}: WRONG CLOCK: the clock of its host is 90 s ahead")
    ahead = 0.0
    await own.write()
    assert "Clock of this host agrees with Redis again" in caplog.messages


async def test_time_of_redis_decides_not_that_of_the_host(site: Site) -> None:
    clock = RedisClock(host_time=lambda: 1_000_000.0)
    await clock.measure(site.steps)
    seconds, _ = await site.redis.time()
    assert abs(clock.now().timestamp() - seconds) < 5


async def test_slow_reply_does_not_change_the_measured_clock(site: Site) -> None:
    times = iter([100.0, 100.0, 200.0, 260.0])
    clock = RedisClock(host_time=lambda: next(times))
    await clock.measure(site.steps)
    before = clock.skew_s
    await clock.measure(site.steps)
    assert clock.skew_s == before


async def test_host_whose_clock_is_right_has_no_skew_at_all(site: Site) -> None:
    clock = RedisClock()
    for _ in range(20):
        await clock.measure(site.steps)
        assert clock.skew_s == 0
