"""Cells whose operators Multcall tells: how many calls a bridge gives them, and what is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dialer.bridge.operators import Operators, Watched
from dialer.domain.agents import Team
from dialer.domain.limits import Limit
from dialer.domain.roles import Role
from dialer.monitor.why import why
from dialer.multcall.keys import CellKeys
from tests.integration.cell_rig import BRIDGE, CELL, Bridge, Site, cell, element
from tests.integration.web_site import settings_at, web_site
from tests.waiting import wait_until

KEY = CellKeys(CELL).agents


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.ledger.take_over(BRIDGE)  # its heartbeat
        yield site


async def tell(site: Site, **states: str) -> None:
    """Multcall tells what its operators do since now."""
    since = datetime.now(UTC).isoformat()
    for name, state in states.items():
        await site.redis.hset(KEY, name, json.dumps({"Estado": state, "Desde": since}))


async def _live(site: Site, n: int) -> bool:
    return len(await site.ledger.live()) == n


async def test_a_cell_gets_a_call_for_each_operator_of_multcall(site: Site) -> None:
    bridge = Bridge.of(site, cell_table=cell(agents="multcall", mode="progressive"))
    operators = Operators(site.steps, [Watched(bridge.cell)])
    await site.push_requests(*(element(f"r-{i}") for i in range(9)))
    assert bridge.cell.threads == 0, "nothing is known yet"
    await tell(site, ana="LIVRE", bia="FALANDO", caio="PAUSA")
    await operators.look()
    assert bridge.cell.threads == 2
    async with bridge.running():
        await wait_until(lambda: _live(site, 2), "2 calls")
        for _ in range(5):
            await bridge.intake.fetch()
        assert await _live(site, 2)
        await tell(site, caio="LIVRE")
        await operators.look()
        await wait_until(lambda: _live(site, 3), "3 calls")


async def test_old_news_of_operators_allow_no_call(site: Site) -> None:
    bridge = Bridge.of(site, cell_table=cell(agents="multcall", mode="progressive"))
    now = asyncio.get_running_loop().time()
    bridge.cell.operators = Team(available=5), now
    assert bridge.cell.threads == 5
    bridge.cell.operators = Team(available=5), now - 11
    assert bridge.cell.threads == 0


async def test_threads_limit_calls_for_operators_too(site: Site) -> None:
    bridge = Bridge.of(site, cell_table=cell(agents="multcall", mode="progressive", threads=2))
    bridge.cell.operators = Team(available=5), asyncio.get_running_loop().time()
    assert bridge.cell.threads == 2


async def test_a_wrong_entry_is_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge.of(site, cell_table=cell(agents="multcall", mode="progressive"))
    operators = Operators(site.steps, [Watched(bridge.cell)])
    await tell(site, ana="FREE")
    for _ in range(3):
        await operators.look()
    assert caplog.text.count("Multcall's operators of a cell cannot be read") == 1
    await tell(site, ana="LIVRE")
    await operators.look()
    assert bridge.cell.threads == 1


async def test_a_key_of_another_type_does_not_end_the_bridge(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge.of(site, cell_table=cell(agents="multcall", mode="progressive"))
    other = Bridge.of(site, cell_table=cell(agents="multcall", mode="progressive", nome="OTHER"))
    operators = Operators(site.steps, [Watched(bridge.cell), Watched(other.cell)])
    await site.redis.set(KEY, "no hash")
    task = asyncio.create_task(operators.run())
    said = "Multcall's operators of a cell cannot be read"
    await wait_until(lambda: said in caplog.text, "it is logged")
    await wait_until(lambda: other.cell.operators[1] > 0, "the other one is read all the same")
    await site.redis.delete(KEY)
    await tell(site, ana="LIVRE")
    await wait_until(lambda: bridge.cell.threads == 1, "it is read again")
    task.cancel()


async def test_other_cells_are_not_read(site: Site) -> None:
    bridge = Bridge.of(site, cell_table=cell())
    await Operators(site.steps, [Watched(bridge.cell)]).look()
    assert bridge.cell.threads == 50


async def test_operators_of_multcall_are_shown_and_named(site: Site, tmp_path: Path) -> None:
    fields = {"threads": 50, "agents": "multcall", "mode": "progressive"}
    settings = settings_at(site.url, tmp_path, cells={CELL: fields})
    await tell(site, ana="FALANDO", bia="PAUSA", caio="nowhere")
    async with web_site(settings) as web:
        await web.sign_in(Role.VIEW)
        html = await web.shown(f"/cells/{CELL}")
        assert html.index(">ana<") < html.index(">bia<")
        overview = await web.shown("/")
        assert "1 of Multcall&#39;s operators cannot be read: operator" in overview
        assert f'data-part="cell-operators-{CELL}">0 / 1 / 1<' in overview


async def test_why_names_what_multcalls_operators_do(site: Site, tmp_path: Path) -> None:
    fields = {"threads": 50, "agents": "multcall", "mode": "progressive", "pbxs": ["pbx01"]}
    settings = settings_at(site.url, tmp_path, cells={CELL: fields})
    await site.push_requests(element("r-1"))
    await tell(site, bia="PAUSA")
    found = (await why(settings, CELL)).decision
    assert found.limit is Limit.NO_AGENTS
    assert found.sentence.endswith("nobody is free, as Multcall tells it: 1 is paused")
    await tell(site, ana="LIVRE")
    assert (await why(settings, CELL)).decision.limit is Limit.NONE
