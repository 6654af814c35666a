"""A limit of a governor holds over all bridges of the PBX, and one of a trunk over its calls."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dialer.domain.governor import Governed, TrunkLimit
from tests.integration.cell_rig import CELL, Bridge, Site, element, governor, pbx
from tests.waiting import wait_until

TIM = {"tim": {"limit": 4, "share": 0.5}}
TWO: dict[str, Any] = {"trunks": frozenset({"tim", "vivo"}), "default_trunk": "tim"}


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


def ids(n: int, at: int = 0) -> list[str]:
    return [f"{CELL}:r-{i}" for i in range(at, at + n)]


async def later(site: Site, us: int) -> None:
    """Turn the times of the latest starts back, as if so much time had passed."""
    latest = int(await site.redis.get("dialer:pace:pbx01") or 0)
    await site.redis.set("dialer:pace:pbx01", latest - us)
    trunk: Any = await site.redis.hget("dialer:starts:pbx01", "trunk:tim")
    await site.redis.hset("dialer:starts:pbx01", "trunk:tim", int(trunk or 0) - us)


async def test_two_bridges_share_one_limit(site: Site) -> None:
    await site.beat(governor=governor(10))
    limits, granted = pbx(cps=1000), 0
    began = time.monotonic()
    async with Site(site.url) as other:
        for i in range(20):
            leases = await asyncio.gather(
                site.registry.lease(limits, ids(5, at=100 * i)),
                other.registry.lease(limits, ids(5, at=100 * i + 50)),
            )
            fresh = [call for lease in leases for call in lease.new]
            granted += len(fresh)
            await site.registry.release("pbx01", fresh)
            await later(site, 100_000)
    took_s = time.monotonic() - began
    assert 20 <= granted <= 3 + 10 * (2 + took_s) + 1  # a burst, then one each 0.1 s


async def test_a_limit_above_cps_changes_nothing(site: Site) -> None:
    await site.beat(governor=governor(5000))
    assert (await site.registry.lease(pbx(cps=20), ids(9))).granted == 2


async def test_a_bridge_pauses_until_the_limit_allows_a_start(site: Site) -> None:
    await site.beat(governor=governor(0.5))
    assert (await site.registry.lease(pbx(), ids(5))).granted == 2
    (state,) = (await site.registry.pbxs([pbx()])).values()
    assert (state.load.starts, state.load.start_in_s > 1) == (0, True)


@pytest.mark.parametrize("low", [governor(0.01), governor(trunks={"tim": {"limit": 0.01}})])
async def test_a_limit_that_rises_is_followed_at_once(site: Site, low: str) -> None:
    limits = pbx(**TWO)
    await site.beat(governor=low)
    assert (await site.registry.lease(limits, ids(5), ["tim"] * 5)).granted in (1, 2)
    assert (await site.registry.lease(limits, ids(5, at=9), ["tim"] * 5)).granted == 0
    await site.beat(governor=governor(100, {"tim": {"limit": 100}}))
    await later(site, 20_000)
    assert (await site.registry.lease(limits, ids(5, at=9), ["tim"] * 5)).granted > 0


async def test_a_clock_that_was_set_back_stops_no_leases(site: Site) -> None:
    await site.beat(governor=governor(trunks=TIM))
    hour_us = 3600 * 10**6
    ahead = int(time.time() * 1e6) + hour_us
    await site.redis.set("dialer:pace:pbx01", ahead)
    await site.redis.hset("dialer:starts:pbx01", mapping={"trunk:tim": ahead})
    limits = pbx(**TWO)
    state = (await site.registry.pbxs([limits]))["pbx01"]
    assert (state.load.starts, state.load.trunk_starts) == (1, {"tim": 1})
    assert (await site.registry.lease(limits, ids(9), ["tim"] * 9)).granted == 1
    await later(site, 300_000)
    assert (await site.registry.lease(limits, ids(9, at=9), ["tim"] * 9)).granted >= 1


async def test_the_limit_of_another_worker_is_void(site: Site) -> None:
    await site.beat(governor=governor(0.5), instance="an older release, that writes none")
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert state.governed == Governed()
    assert (await site.registry.lease(pbx(), ids(50))).granted == 50


async def test_a_heartbeat_tells_what_is_limited(site: Site) -> None:
    said = governor(37, TIM, answer_ms=420, normal_ms=12)
    await site.beat(governor=said)
    state = (await site.registry.pbxs([pbx(cps=100)]))["pbx01"]
    trunks = {"tim": TrunkLimit(rate=4, share=0.5)}
    assert state.governed == Governed(rate=37, answer_s=0.42, normal_s=0.012, trunks=trunks)
    assert state.cps == 100


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "{",
        "[]",
        "7",
        json.dumps({"limit": "37", "trunks": [], "instance": "i1"}),
        json.dumps({"limit": -1, "trunks": {"tim": 5}, "instance": "i1"}),
        json.dumps({"limit": True, "trunks": {"tim": {"limit": None}}, "instance": "i1"}),
        '{"limit": NaN, "trunks": {"tim": {"limit": 1e999}}, "instance": "i1"}',
        '{"limit": 0, "trunks": 7, "instance": "i1"}',
        '{"limit": 1' + "0" * 5000 + ', "instance": "i1"}',
        "[" * 10_000,
    ],
)
async def test_garbage_limits_nothing(site: Site, garbage: str) -> None:
    await site.beat(governor=garbage)
    limits = pbx(default_trunk="tim")
    assert (await site.registry.pbxs([limits]))["pbx01"].governed == Governed()
    assert (await site.registry.lease(limits, ids(9), [None] * 9)).granted == 9


async def test_a_limited_trunk_starts_no_more_than_its_limit(site: Site) -> None:
    await site.beat(governor=governor(trunks=TIM))
    limits = pbx(**TWO)
    assert (await site.registry.lease(limits, ids(3), ["tim"] * 3)).granted == 1
    assert (await site.registry.lease(limits, ids(3, at=3), [None] * 3)).granted == 0
    assert (await site.registry.lease(limits, ids(3, at=6), ["vivo"] * 3)).granted == 3
    await later(site, 250_000)
    assert (await site.registry.lease(limits, ids(3, at=9), [None, "vivo", None])).granted == 2


@pytest.mark.parametrize(("asked", "listed"), [({"Tronco": "tim"}, "tim"), ({}, "")])
async def test_requests_overtake_those_of_a_congested_trunk(
    site: Site, asked: dict[str, str], listed: str
) -> None:
    """It is the default trunk: requests that name no trunk wait for it too."""
    await site.beat(governor=governor(trunks={"tim": {"limit": 0.001, "share": 1}}))
    async with Bridge.of(site, pbxs=[pbx(**TWO)]).running() as bridge:
        await site.push_requests(*(element(f"tim-{i}", **asked) for i in range(29)))
        await site.push_requests(*(element(f"vivo-{i}", Tronco="vivo") for i in range(9)))
        nudges = bridge.nudges
        await wait_until(lambda: len(nudges.sent) >= 10, "all of vivo and one of tim")
        sent = [call_id.partition(":")[2] for call_id, _, _ in nudges.calls]
        assert sorted(i for i in sent if i.startswith("vivo")) == [f"vivo-{i}" for i in range(9)]
        assert [i for i in sent if i.startswith("tim")] == ["tim-0"]
        assert len(await site.listed(site.ledger.keys.parked(listed))) == 28
