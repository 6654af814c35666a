"""The registry: slots and pace of the PBXs, their heartbeats, the do-not-call set."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from dialer.domain.room import PbxLimits
from dialer.store.registry import Lease
from tests.integration.cell_rig import Site, pbx


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


def ids(n: int, at: int = 0) -> list[str]:
    return [f"ASR_TIM:r-{i}" for i in range(at, at + n)]


async def starts(site: Site, at: PbxLimits) -> int:
    return (await site.registry.pbxs([at]))[at.name].load.starts


async def pace_us(site: Site, name: str = "pbx01") -> int:
    """Return the time until the next start, µs; negative: a call may start now."""
    seconds, micros = await site.redis.time()
    return int(await site.redis.get(f"dialer:pace:{name}") or 0) - seconds * 1_000_000 - micros


async def test_lease_never_exceeds_max_calls(site: Site) -> None:
    small = pbx(max_calls=3, cps=1000)
    assert await site.registry.lease(small, ids(5)) == Lease(granted=3, new=frozenset(ids(3)))
    assert await site.registry.lease(small, ids(1, at=9)) == Lease(granted=0, new=frozenset())
    await site.registry.release("pbx01", ids(1))
    assert (await site.registry.lease(small, ids(1, at=9))).granted == 1
    assert len(await site.slots()) == 3


async def test_concurrent_leases_never_grant_a_slot_twice(site: Site) -> None:
    small = pbx(max_calls=7, cps=1000)
    leases = await asyncio.gather(
        *(site.registry.lease(small, ids(4, at=4 * i)) for i in range(10))
    )
    assert sum(lease.granted for lease in leases) == 7
    assert sum(len(lease.new) for lease in leases) == len(await site.slots()) == 7


async def test_leasing_again_keeps_the_slot_and_uses_no_start(site: Site) -> None:
    small = pbx(max_calls=2, cps=0.1)  # its pace is kept for 11 s, however slow the test is
    assert (await site.registry.lease(small, ids(1))).new == frozenset(ids(1))
    before = await site.snapshot()
    for _ in range(3):
        assert await site.registry.lease(small, ids(1)) == Lease(granted=1, new=frozenset())
    assert (await site.snapshot())[b"dialer:slots:pbx01"] == before[b"dialer:slots:pbx01"]
    assert (await site.snapshot())[b"dialer:pace:pbx01"] == before[b"dialer:pace:pbx01"]


async def test_call_named_twice_in_one_lease_takes_one_slot(site: Site) -> None:
    lease = await site.registry.lease(pbx(), [*ids(1), *ids(1)])
    assert lease == Lease(granted=2, new=frozenset(ids(1)))
    assert await site.slots() == {"r-0"}


@pytest.mark.parametrize(
    ("cps", "gap_us", "burst"),
    [(0.1, 10_000_000, 1), (1, 1_000_000, 1), (20, 50_000, 2), (25, 40_000, 3), (500, 2000, 50)],
)
async def test_pace_allows_a_burst_of_100_ms_then_one_start_per_gap(
    site: Site, cps: float, gap_us: int, burst: int
) -> None:
    paced = pbx(cps=cps, max_calls=1000)
    assert (paced.pace.gap_us, paced.pace.burst) == (gap_us, burst)
    assert await starts(site, paced) == burst
    asked = ids(2000)
    before = await site.redis.time()
    lease = await site.registry.lease(paced, asked)
    after = await site.redis.time()
    passed_us = (after[0] - before[0]) * 1_000_000 + after[1] - before[1]
    assert burst <= lease.granted <= burst + passed_us // gap_us + 1
    ahead = await pace_us(site)
    assert ahead <= gap_us
    # Each grant moves the pace on by one gap.
    assert ahead > gap_us * (lease.granted - burst + 1) - gap_us - passed_us - 1_000_000


async def test_starts_shown_are_the_starts_granted(site: Site) -> None:
    slow = pbx(cps=0.5, max_calls=10)
    assert await starts(site, slow) == 1
    assert (await site.registry.lease(slow, ids(5))).granted == 1
    assert await starts(site, slow) == 0
    assert (await site.registry.lease(slow, ids(5, at=5))).granted == 0
    due = int(await site.redis.get("dialer:pace:pbx01") or 0)
    await site.redis.set("dialer:pace:pbx01", due - 2_000_000)  # two seconds later
    assert await starts(site, slow) == 1
    assert (await site.registry.lease(slow, ids(5, at=5))).granted == 1
    assert await site.redis.pttl("dialer:pace:pbx01") <= 3_000


async def test_pause_gives_no_more_starts_than_the_burst(site: Site) -> None:
    paced = pbx(cps=20, max_calls=1000)
    await site.redis.set("dialer:pace:pbx01", 1)
    assert await starts(site, paced) == 2
    assert (await site.registry.lease(paced, ids(50))).granted <= 3


async def test_clock_set_back_delays_no_start(site: Site) -> None:
    paced = pbx(cps=1000)
    seconds, _ = await site.redis.time()
    await site.redis.set("dialer:pace:pbx01", (seconds + 3600) * 1_000_000)
    assert await starts(site, paced) == 1
    assert (await site.registry.lease(paced, ids(9))).granted == 1
    assert await pace_us(site) <= 1000


async def test_only_held_slots_are_released_and_only_once(site: Site) -> None:
    await site.registry.lease(pbx(), ids(2))
    await site.registry.release("pbx01", ids(5))
    await site.registry.release("pbx01", [])
    assert await site.slots() == set()
    assert not await site.redis.exists("dialer:slots:pbx01")


async def test_lost_slot_is_restored_even_if_the_pbx_is_full(
    site: Site,
) -> None:
    await site.redis.zadd("dialer:slots:pbx01", {"ASR_TIM:r-0": 5})
    assert await site.registry.restore_slots("pbx01", ids(3)) == 2
    assert await site.registry.restore_slots("pbx01", ids(3)) == 0
    assert await site.registry.restore_slots("pbx01", []) == 0
    assert await site.redis.zscore("dialer:slots:pbx01", "ASR_TIM:r-0") == 5


async def test_old_slots_are_the_cells_own_held_for_that_long(site: Site) -> None:
    both = ["pbx01", "pbx02"]
    registry = site.registry
    await registry.lease(pbx(), [*ids(2), "ASR_TIM2:r-1"])
    await registry.lease(pbx("pbx02"), ids(1, at=7))
    assert await registry.slots(both, "ASR_TIM", older_than_s=10) == {"pbx01": [], "pbx02": []}
    for call_id in ("ASR_TIM:r-1", "ASR_TIM2:r-1"):
        await site.redis.zincrby("dialer:slots:pbx01", -11_000, call_id)
    old = await registry.slots(both, "ASR_TIM", older_than_s=10)
    assert old == {"pbx01": ["ASR_TIM:r-1"], "pbx02": []}
    every = await registry.slots(both, "ASR_TIM", older_than_s=0)
    assert every == {"pbx01": ["ASR_TIM:r-1", "ASR_TIM:r-0"], "pbx02": ["ASR_TIM:r-7"]}


# --- heartbeats ---------------------------------------------------------------------


async def test_pbx_without_a_heartbeat_is_not_ready(site: Site) -> None:
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert (state.load.ready, state.is_alive, state.silent_s) == (False, False, math.inf)
    assert await site.registry.unready_s("pbx01") == math.inf


async def test_pbx_is_ready_with_a_fresh_heartbeat_and_its_link_up(site: Site) -> None:
    await site.beat("pbx01", "up", instance="i1")
    await site.beat("pbx02", "down", instance="i2")
    states = await site.registry.pbxs([pbx(), pbx("pbx02"), pbx("pbx03")])
    assert [s.load.ready for s in states.values()] == [True, False, False]
    assert [s.is_alive for s in states.values()] == [True, True, False]
    assert [s.instance for s in states.values()] == ["i1", "i2", ""]
    await site.silence("pbx01", seconds=11)
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert (state.load.ready, state.is_alive) == (False, False)
    assert 11 <= state.silent_s < 20
    assert 11 <= await site.registry.unready_s("pbx01") < 20


async def test_unready_time_counts_from_the_last_heartbeat_up(site: Site) -> None:
    await site.beat("pbx01", "up")
    await site.silence("pbx01", seconds=60)
    await site.beat("pbx01", "down")
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert state.silent_s < 5
    assert state.unready_s >= 60
    await site.beat("pbx01", "up")
    assert (await site.registry.pbxs([pbx()]))["pbx01"].unready_s < 5


async def test_a_stopping_worker_is_neither_ready_nor_alive(site: Site) -> None:
    await site.beat("pbx01", "up")
    assert (await site.registry.pbxs([pbx()]))["pbx01"].load.ready
    await site.beat("pbx01", "stopping")
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert (state.link, state.load.ready, state.is_alive) == ("stopping", False, False)


async def test_heartbeat_stores_its_facts(site: Site) -> None:
    await site.registry.heartbeat("pbx01", instance="i", link="up", facts={"calls": 3, "host": "a"})
    assert await site.redis.hmget("dialer:pbx:pbx01", ["calls", "host"]) == [b"3", b"a"]


async def test_each_pbx_has_its_own_load(site: Site) -> None:
    await site.registry.lease(pbx(), ids(3))
    await site.registry.lease(pbx("pbx02", max_calls=9), ids(2))
    states = await site.registry.pbxs([pbx(), pbx("pbx02", max_calls=9)])
    assert [s.load.calls for s in states.values()] == [3, 2]
    assert [s.load.max_calls for s in states.values()] == [50, 9]
    assert states["pbx01"].load.trunks == {"tim"}


async def test_numbers_on_the_do_not_call_set_are_found(site: Site) -> None:
    registry = site.registry
    assert await registry.dnc_contains([]) == []
    assert await registry.dnc_add(["1", "2"]) == 2
    assert await registry.dnc_add(["2", "3"]) == 1
    assert await registry.dnc_contains(["1", "9", "3"]) == [True, False, True]
    assert await registry.dnc_remove(["1", "9"]) == 1
    assert await registry.dnc_contains(["1"]) == [False]
