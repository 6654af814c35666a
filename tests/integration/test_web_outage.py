"""The Redis of a cell goes away between the look and what a page reads: each page says so."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from dialer.domain.roles import Role
from dialer.simulation.valkey import EmbeddedValkey
from dialer.web.site import WITHIN_S
from tests.integration.cell_rig import CELL, Site
from tests.integration.web_site import settings_at, web_site


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
            assert time.monotonic() - began < WITHIN_S + 4
    assert calls.status_code == 200
    assert "The calls cannot be read:" in calls.text
    assert sought.status_code == 200
    assert '<a href="/calls/OTHER/r-1">' in sought.text
    assert f"the Redis of {CELL} does not answer" in sought.text
    for page in (story, dead, sent, number):
        assert page.status_code == 503
        assert "Redis does not answer" in page.text
