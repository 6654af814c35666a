"""The Redis of one cell is away: its pages say so, and the other cells are shown as they are."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from dialer.domain.roles import Role
from dialer.errors import StepsStopped, StoreUnavailable
from dialer.monitor.collector import CELLS_WITHIN_S, Collector
from dialer.multcall.keys import CellKeys
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.redis_url import place_of
from tests.integration.cell_rig import CELL, Site
from tests.integration.web_site import Web, settings_at, web_site
from tests.waiting import SOON_S, wait_until


async def test_no_page_waits_for_a_lost_redis(redis_url: str, tmp_path: Path) -> None:
    with EmbeddedValkey() as server:
        cells: dict[str, dict[str, object]] = {"OTHER": {}, CELL: {"redis_url": server.url()}}
        async with web_site(settings_at(redis_url, tmp_path, cells=cells)) as web:
            await web.sign_in(Role.OPERATE, "ana")
            async with Site(redis_url, "OTHER") as other:
                await other.admitted("r-1")
            await web.shown("/calls")
            web.site.hub.every_s = 3600.0  # the look stays as it was
            server.kill()
            began = time.monotonic()
            calls, sought, story, dead, sent, number = await asyncio.gather(
                web.get("/calls"),
                web.get("/calls?id=r-1"),
                web.get(f"/calls/{CELL}/r-1"),
                web.get(f"/dead?cell={CELL}"),
                web.post("/dead/send", {"entry.0123456789": "on"}, cell=CELL),
                web.post("/calls/number", cell=CELL, id="r-1"),
            )
            assert time.monotonic() - began < SOON_S
    assert calls.status_code == 200
    assert "The calls cannot be read:" in calls.text
    assert sought.status_code == 200
    assert '<a href="/calls/OTHER/r-1">' in sought.text
    assert f"the Redis of {CELL} does not answer" in sought.text
    assert dead.status_code == 200
    assert "The list cannot be read:" in dead.text
    for page in (story, sent, number):
        assert page.status_code == 503, page.url
        assert "Redis does not answer" in page.text


# --- one Redis away, the others shown --------------------------------------------------------


async def part(web: Web, name: str) -> str:
    """Return a part of the overview without its tags; the page must come soon, and be fresh."""
    began = time.monotonic()
    html = await web.shown("/")
    assert time.monotonic() - began < SOON_S
    assert "these figures are old" not in html
    found = re.search(rf'data-part="{name}"[^>]*>(.*?)</td>', html, re.DOTALL)
    assert found is not None, html
    return re.sub("<[^>]*>", "", found[1]).strip()


async def is_read(web: Web) -> bool:
    return await part(web, f"cell-waiting-{CELL}") == "0"


async def test_a_redis_down_from_the_beginning_hides_no_other(
    redis_url: str, tmp_path: Path
) -> None:
    with EmbeddedValkey() as server:
        server.kill()
        cells: dict[str, dict[str, object]] = {"OTHER": {}, CELL: {"redis_url": server.url()}}
        settings = settings_at(redis_url, tmp_path, cells=cells)
        async with web_site(settings) as web, Redis.from_url(redis_url) as redis:
            await web.sign_in(Role.OPERATE, "ana")
            for n in (1, 2):
                await redis.rpush(CellKeys("OTHER").request, "x")
                assert await part(web, "cell-waiting-OTHER") == str(n)
                assert await part(web, f"cell-state-{CELL}") == "Redis away"
                assert await part(web, f"cell-waiting-{CELL}") == "\N{EN DASH}"
            html = await web.shown("/")
            assert html.count(f"Redis at {place_of(server.url())} does not answer") == 1
            server.start()
            await wait_until(lambda: is_read(web), "the cell is read again")
            assert await part(web, f"cell-state-{CELL}") != "Redis away"
            os.kill(server.pid or 0, signal.SIGSTOP)  # it takes connections and does not answer
            try:
                assert await part(web, f"cell-state-{CELL}") == "Redis away"
                assert await part(web, "cell-waiting-OTHER") == "2"
            finally:
                os.kill(server.pid or 0, signal.SIGCONT)
            await wait_until(lambda: is_read(web), "the cell is read once more")


async def test_monitor_and_metrics_need_every_redis(redis_url: str, tmp_path: Path) -> None:
    with EmbeddedValkey() as server:
        cells: dict[str, dict[str, object]] = {"OTHER": {}, CELL: {"redis_url": server.url()}}
        settings = settings_at(redis_url, tmp_path, cells=cells)
        async with Collector(settings) as collector:
            await collector.look()
            server.kill()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(CELLS_WITHIN_S + 1.0):
                    await collector.look()
        with pytest.raises(StoreUnavailable, match=re.escape(place_of(server.url()))):
            async with Collector(settings):
                pass


async def test_the_page_needs_its_registry(redis_url: str, tmp_path: Path) -> None:
    with EmbeddedValkey() as server:
        server.kill()
        settings = settings_at(server.url(), tmp_path, cells={CELL: {"redis_url": redis_url}})
        with pytest.raises(StoreUnavailable):
            async with Collector(settings, needs_every_redis=False):
                pass


async def test_collector_says_that_its_steps_stopped(redis_url: str, tmp_path: Path) -> None:
    stopped: list[StepsStopped] = []
    settings = settings_at(redis_url, tmp_path)
    async with Collector(settings, on_stopped=stopped.append) as collector:
        with pytest.raises(StepsStopped):
            await asyncio.wait_for(collector.registry.run("no such step", []), 5)
        assert len(stopped) == 1
