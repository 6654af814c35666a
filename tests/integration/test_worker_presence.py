"""Two workers of one PBX whose settings name different registries: the second one refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dialer.errors import PbxHeld
from dialer.settings import Settings
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.store.registry import Holder
from tests.integration.cell_rig import CELL, Site
from tests.waiting import wait_until
from workers.pbx import presence
from workers.pbx.lease import Pulse
from workers.pbx.presence import Presence
from workers.worker import PbxWorker

KEY = f"dialer:worker:{CELL}:pbx01"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


def worker_of(name: str, place: str = "here") -> Presence:
    me = Holder(name=f"pbx01-{name}", host=f"host-{name}", pid="7", place=place)
    return Presence("pbx01", me, Pulse(place))


async def test_a_worker_that_lives_here_is_named_at_once(site: Site) -> None:
    first, second = worker_of("a"), worker_of("b")
    first.pulse.start(first.me.name)
    await first.show(site.steps, [CELL])
    with pytest.raises(PbxHeld, match="pid 7 on host host-a, which uses another registry"):
        await second.require_alone(site.steps, CELL)
    await first.require_alone(site.steps, CELL)
    first.pulse.stop()
    await second.require_alone(site.steps, CELL)


async def test_a_worker_elsewhere_that_goes_on_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PRESENT_S", 1)
    first, second = worker_of("a", "there"), worker_of("b")
    await first.show(site.steps, [CELL])
    alone = asyncio.create_task(second.require_alone(site.steps, CELL))
    while not alone.done():
        await first.show(site.steps, [CELL])
        await asyncio.wait({alone}, timeout=0.1)
    with pytest.raises(PbxHeld, match="host-a"):
        await alone
    async with asyncio.timeout(5):
        await second.require_alone(site.steps, CELL)  # it is silent now


@pytest.mark.parametrize("garbage", [b"\xff", b"[1]", b"{}", b"7", b"[" * 100_000])
async def test_a_worker_that_ended_or_garbage_is_nobody(site: Site, garbage: bytes) -> None:
    first, second = worker_of("a", "there"), worker_of("b")
    await first.show(site.steps, [CELL])
    await second.show(site.steps, [CELL], ended=True)
    assert await site.redis.exists(KEY), "that of another worker stays"
    await first.show(site.steps, [CELL], ended=True)
    assert not await site.redis.exists(KEY)
    await site.redis.set(KEY, garbage)
    await second.require_alone(site.steps, CELL)


async def test_a_second_worker_with_another_registry_touches_no_call(site: Site) -> None:
    def worker(registry: str, pbx: SimulatedPbx) -> PbxWorker:
        table = {"name": "pbx01", "port": pbx.port, "secret": "s", "max_calls": 10, "cps": 100}
        tables: dict[str, Any] = {
            "multcall": {"redis_url": site.url},
            "registry": {"redis_url": registry},
            "broker": {"url": site.url},
            "pbxs": [{**table, "trunks": {"tim": "PJSIP/{number}@tim"}}],
            "cells": [{"nome": CELL, "threads": 10, "pbxs": ["pbx01"]}],
        }
        settings = Settings.model_validate(tables)
        return PbxWorker(settings, settings.pbx("pbx01"), lambda *_: None)

    async with (
        SimulatedPbx(secret="s", ring_time=(3600, 3600)) as pbx,
        SimulatedPbx(secret="s") as other,
    ):
        first = worker(site.url, pbx)
        await first.start()
        await first.until_ready()
        await site.admitted()
        first.take(f"{CELL}:r-1", 1)
        await wait_until(site.acks, "the call is accepted")
        await wait_until(lambda: site.redis.exists(KEY), "it shows itself")
        second = worker(f"{site.url.rpartition('/')[0]}/7", other)
        with pytest.raises(PbxHeld, match="another registry"):
            await second.start()
        await second.close()
        assert await site.responses() == []
        assert not first.failure.done()
        await first.stop()
        assert not await site.redis.exists(KEY)
