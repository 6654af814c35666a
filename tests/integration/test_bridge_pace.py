"""Requests that are never dialed use up no starts of a PBX that other cells share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dialer.settings import Cell
from tests.integration.cell_rig import Bridge, Site, cell, element, pbx
from tests.waiting import wait_until

PACE = "dialer:pace:pbx01"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        yield site


def limited() -> Cell:
    return cell(limits={"max_attempts_per_number": 2, "attempts_window_hours": 1})


def bridge_of(site: Site, table: Cell | None = None) -> Bridge:
    return Bridge.of(site, cell_table=table, pbxs=[pbx(cps=1, max_calls=50)])


async def handled(site: Site, n: int) -> bool:
    return len(await site.dead()) + len(await site.responses()) >= n


async def test_repeated_requests_use_up_no_starts(site: Site) -> None:
    await site.admitted("r-1")
    async with bridge_of(site).running():
        await site.push_requests(*[element("r-1")] * 5)
        await wait_until(lambda: handled(site, 5), "they are on the dead list")
    assert {d["reason"] for d in await site.dead()} == {"duplicate_request"}
    assert await site.redis.get(PACE) is None


async def test_number_limited_requests_use_up_no_starts(site: Site) -> None:
    for i in range(2):
        raw = element(f"called-{i}")
        await site.in_hand(raw)
        bridge = bridge_of(site, limited())
        await site.redis.delete(PACE)
        await bridge.intake.handle(*await bridge.intake.fetch())
    await site.redis.delete(PACE)
    async with bridge_of(site, limited()).running():
        await site.push_requests(*(element(f"r-{i}") for i in range(5)))
        await wait_until(lambda: handled(site, 5), "they are answered")
    assert {r["Erro"]["Codigo"] for r in await site.responses()} == {"number_limit"}
    assert await site.redis.get(PACE) is None


async def test_repeats_in_one_batch_use_up_one_start(site: Site) -> None:
    await site.beat("pbx02")
    bridge = Bridge.of(site, pbxs=[pbx(cps=1), pbx("pbx02", cps=1)])
    await site.push_requests(element("r-1"), element("r-1"))
    while await bridge.intake.handle(*await bridge.intake.fetch()):
        pass
    assert await site.redis.exists(PACE, "dialer:pace:pbx02") == 1
    assert await site.slots("pbx01") | await site.slots("pbx02") == {"r-1"}
    async with bridge.running():
        await wait_until(lambda: handled(site, 1), "the repeat is on the dead list")


async def test_calls_of_one_number_in_one_batch_keep_its_limit(site: Site) -> None:
    bridge = Bridge.of(site, cell_table=limited(), pbxs=[pbx(cps=100, max_calls=50)])
    await site.push_requests(*(element(f"r-{i}") for i in range(5)))
    while await bridge.intake.handle(*await bridge.intake.fetch()):
        pass
    assert len(await site.ledger.live()) == 2
    assert len(await site.responses()) == 3
    assert await site.slots() == {"r-0", "r-1"}
