"""What the reaper says of its repairs, and calls that move while it looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dialer.store.registry import Registry
from tests.integration.cell_rig import CELL, Bridge, Site, pbx

TWO = (pbx("pbx01"), pbx("pbx02"))
R1 = f"{CELL}:r-1"
RELEASED = "Released slots that no call used any longer"
RESTORED = "Restored the lost slots of calls"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02")
        yield site


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    return lambda: [(r.message, vars(r)["pbx"], vars(r)["slots"]) for r in caplog.records]


async def test_released_slots_are_logged_once(site: Site, said: Any) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    await site.redis.zadd("dialer:slots:pbx01", {f"{CELL}:gone-1": 1, f"{CELL}:gone-2": 1})
    for _ in range(2):
        await bridge.reaper.reap()
    assert said() == [(RELEASED, "pbx01", 2)]


async def test_restored_slots_are_logged_once(site: Site, said: Any) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    await site.redis.delete("dialer:slots:pbx01")
    for _ in range(2):
        await bridge.reaper.reap()
    assert said() == [(RESTORED, "pbx01", 1)]


async def test_a_reaper_that_is_not_alone_releases_nothing(site: Site, said: Any) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.redis.zadd("dialer:slots:pbx01", {f"{CELL}:of-another-redis": 1})
    bridge.reaper.is_alone = lambda: False
    await bridge.reaper.reap()
    assert await site.slots() == {"of-another-redis"}
    assert said() == []


@pytest.mark.parametrize("how", ["moves", "ends"])
async def test_a_call_that_leaves_meanwhile_gets_no_slot_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    await site.redis.delete("dialer:slots:pbx01")
    slots = Registry.slots

    async def leaves(registry: Registry, *args: Any, older_than_s: float) -> Any:
        found = await slots(registry, *args, older_than_s=older_than_s)
        if older_than_s == 0 and how == "moves":
            await site.ledger.assign(await site.waiting(), "pbx02")
        elif older_than_s == 0:
            await site.end()
        return found

    monkeypatch.setattr(Registry, "slots", leaves)
    await bridge.reaper.reap()
    assert await site.slots() == set()


async def test_a_call_of_a_former_pbx_waits_for_room(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=[pbx("pbx01", max_calls=1)], former=["pbx09"])
    await site.admitted("here")
    await site.admitted(pbx="pbx09")
    await bridge.reaper.reap()
    assert (await site.waiting()).pbx == "pbx09"
    assert bridge.nudges.calls == []
