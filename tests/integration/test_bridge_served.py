"""Cells that leave while calls are up: what they hold of the PBXs, alone and beside their heir."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from dialer.bridge import served_cell
from dialer.bridge.cells import Served
from dialer.bridge.plans import CellPlan
from dialer.bridge.served_cell import ServedCell
from dialer.errors import StepsStopped
from dialer.simulation.valkey import EmbeddedValkey
from tests.integration.cell_rig import BRIDGE, CELL, Nudges, Site, cell, element, pbx_table
from tests.waiting import wait_until


def plan(redis_url: str, *, draining: bool) -> CellPlan:
    """A cell of pbx01, where the settings have pbx02 too."""
    return CellPlan(
        cell=cell("pbx01"),
        pbxs=(pbx_table("pbx01"),),
        all_pbxs=("pbx01", "pbx02"),
        redis_url=redis_url,
        push="right",
        pbx_lost_after_s=120,
        draining=draining,
    )


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    """The cell's ledger, and the registry beside it."""
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        yield site


@asynccontextmanager
async def serving_of(site: Site, *plans: CellPlan) -> AsyncIterator[Served]:
    served = await Served.connect(
        plans, site.url, bridge=BRIDGE, dispatcher=cast(Any, Nudges()), known={site.url}
    )
    try:
        yield served
        assert not served.failure.done()
        await served.stop()
    finally:
        await served.close()


async def until_over(cell: ServedCell) -> None:
    await wait_until(lambda: cell.is_over, "the draining cell is over")


async def end(site: Site, request_id: str) -> None:
    """Its worker ended the call, and died before it gave the slot back."""
    assert await site.end(request_id) == "ended"
    assert await site.code() == "done"


async def test_bridge_fails_when_redis_steps_stop(site: Site) -> None:
    served = await Served.connect(
        [plan(site.url, draining=False)], site.url, bridge=BRIDGE, dispatcher=cast(Any, Nudges())
    )
    try:
        await served.start(print)
        steps = await served._servers.at(f"{site.url}?protocol=2", "a Redis that no part uses now")
        with pytest.raises(StepsStopped):
            await steps.run("no_such_step", [])
        with pytest.raises(StepsStopped):
            await asyncio.wait_for(served.failure, 5)
    finally:
        await served.close()


async def test_a_redis_that_refuses_everything_ends_no_bridge(
    site: Site, valkey_server: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    await site.redis.acl_setuser(
        "poor", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-time"]
    )
    url = valkey_server.url(1).replace("//", "//poor:p@")
    refused = replace(plan(url, draining=False), cell=cell(nome="REFUSED"))
    sound = plan(site.url, draining=False)
    nudges = cast(Any, Nudges())
    served = await Served.connect([refused, sound], site.url, bridge=BRIDGE, dispatcher=nudges)
    bridges = site.ledger.keys.bridges

    def is_said() -> bool:
        said = {(getattr(r, "cell", ""), getattr(r, "part", "")) for r in caplog.records}
        return ("REFUSED", "heartbeat") in said

    async def goes_on() -> bool:
        return await site.redis.zscore(bridges, BRIDGE) != seen

    try:
        await served.start(print)
        await wait_until(is_said, "it says so")
        seen = await site.redis.zscore(bridges, BRIDGE)
        await wait_until(goes_on, "the other cell has its heartbeat")
        assert not served.failure.done()
    finally:
        await served.close()
        await site.redis.acl_deluser("poor")


async def test_stop_returns_the_hands_of_other_cells_if_steps_stopped(
    site: Site, valkey_server: EmbeddedValkey
) -> None:
    """The steps of one cell's Redis stop just before; the other cell's hand goes back."""
    broken = replace(plan(valkey_server.url(1), draining=False), cell=cell(nome="BROKEN"))
    sound = plan(site.url, draining=False)
    served = await Served.connect(
        [broken, sound], site.url, bridge=BRIDGE, dispatcher=cast(Any, Nudges())
    )
    try:
        with pytest.raises(StepsStopped):
            await served.cells[0].cell.ledger.steps.run("no_such_step", [])
        await site.in_hand(element())
        await served.stop()
        assert await site.listed(site.ledger.wire.request) == [element()]
    finally:
        await served.close()


async def test_drained_cell_releases_every_slot(site: Site) -> None:
    await site.accepted()
    await site.registry.restore_slots("pbx01", [f"{CELL}:fresh", "OTHER:call"])
    await site.registry.restore_slots("pbx02", [f"{CELL}:former"])
    async with serving_of(site, plan(site.url, draining=True)) as served:
        await served.start(print)
        await end(site, "r-1")
        await until_over(served.cells[0])
    assert await site.slots("pbx01") == {"call"}
    assert await site.slots("pbx02") == set()


async def test_draining_cell_returns_the_hand_of_a_dead_bridge(
    site: Site,
) -> None:
    raw = element(Tronco="of-a-pbx-that-left-too")
    await site.push_requests(raw)
    await site.ledger.fetch("dead", at_most=1, threads=1)
    await site.redis.zadd(f"dialer:bridges:{CELL}", {"dead": 1})
    async with serving_of(site, plan(site.url, draining=True)) as served:
        await served.start(print)
        await until_over(served.cells[0])
    assert await site.listed(site.ledger.wire.request) == [raw]
    assert await site.responses() == []


async def test_draining_cell_leaves_parked_requests_to_a_living_bridge(site: Site) -> None:
    """Else it would return them twice a second, and the other would have to park them again."""
    raw = element(Tronco="tim")
    await site.accepted()
    await site.in_hand(raw, bridge="other")
    await site.ledger.park(site.ledger.keys.hand("other"), [("tim", raw)])
    await site.ledger.take_over("other")
    async with serving_of(site, plan(site.url, draining=True)) as served:
        await served.start(print)
        assert not await site.ledger.has_requests(BRIDGE)
        await site.redis.zadd(f"dialer:bridges:{CELL}", {"other": 1})  # it died
        await wait_until(lambda: site.listed(site.ledger.wire.request), "they are returned")
    assert await site.listed(site.ledger.keys.parked("tim")) == []


async def test_refused_release_while_draining_ends_no_bridge(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served_cell, "REFUSED_PAUSE_S", 0.05)
    await site.redis.acl_setuser("default", enabled=True, commands=["-zrangebyscore"])
    try:
        async with serving_of(site, plan(site.url, draining=True)) as served:
            await served.start(print)
            await wait_until(
                lambda: "last calls" in {getattr(r, "part", None) for r in caplog.records},
                "it says so",
            )
            assert not served.cells[0].is_over
            await site.redis.acl_setuser("default", enabled=True, commands=["+zrangebyscore"])
            await until_over(served.cells[0])
    finally:
        await site.redis.acl_setuser("default", enabled=True, commands=["+zrangebyscore"])


async def test_cell_on_a_new_redis_keeps_the_slots_of_the_old_one(
    site: Site, valkey_server: EmbeddedValkey
) -> None:
    async with Site(valkey_server.url(1)) as there:
        await site.accepted("r-1")
        await there.accepted("new")
        await site.redis.zadd("dialer:slots:pbx01", {f"{CELL}:new": 1, f"{CELL}:leaked": 1})
        plans = plan(there.url, draining=False), plan(site.url, draining=True)
        async with serving_of(site, *plans) as served:
            new, old = served.cells
            for _ in range(2):
                for each in (new, old):
                    await each.reaper.reap()
                    assert await site.slots() == {"r-1", "new", "leaked"}
            await old.start()
            await end(site, "r-1")
            await until_over(old)
            assert "new" in await site.slots()
            await new.reaper.reap()
            assert await site.slots() == {"new"}
