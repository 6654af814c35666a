"""A running worker and a simulated Asterisk: answered calls that do not reach their target."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.ami.middle import Forwarding, Middle, dropping
from tests.integration.cell_rig import CELL, Site, code_element, element
from tests.integration.test_worker_parts import SECRET, working
from tests.waiting import wait_until
from workers.worker import PbxWorker

ANSWERS, TALKS_ON = "5511987654310", "5511987654390"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@asynccontextmanager
async def simulated(**habits: Any) -> AsyncIterator[SimulatedPbx]:
    quick = {"ring_time": (0.1, 0.2), "talk_time": (0.2, 0.4), **habits}
    async with SimulatedPbx(secret=SECRET, **quick) as pbx:
        yield pbx


async def dialed(site: Site, worker: PbxWorker, *numbers: str) -> None:
    """Dial r-1, r-2, … with these numbers, and give each its call code."""
    for n, number in enumerate(numbers, 1):
        await site.admitted(f"r-{n}", raw=element(f"r-{n}", number))
        worker.take(f"{CELL}:r-{n}", 1)


async def told(site: Site, *request_ids: str) -> list[dict[str, Any]]:
    """The endings of these calls, as the Responses have them."""
    for one in request_ids:
        await wait_until(partial(_is_over, site, one), f"{one} is over")
        await site.code(code_element(one), put=True)
    return [dict(response) for response in await site.responses()]


async def _is_over(site: Site, request_id: str) -> bool:
    return await site.state(request_id) in ("ended", "done")


async def test_calls_beyond_maxcalls_say_that_they_were_cut_off(site: Site) -> None:
    async with simulated(maxcalls=2) as pbx, working(site, pbx) as worker:
        await dialed(site, worker, *[TALKS_ON] * 5)
        await wait_until(lambda: pbx.exchange.floor.ended == 3, "three are cut off")
        await wait_until(lambda: len(worker._calls) == 2, "their ends are seen")
        cut = [f"r-{n}" for n in range(1, 6) if f"{CELL}:r-{n}" not in worker._calls]
        responses = await told(site, *cut)
        assert [r["Resultado"] for r in responses] == ["ANSWERED"] * 3
        assert {r["Erro"]["Codigo"] for r in responses} == {"not_handed_over"}
        assert "maxcalls" in responses[0]["Erro"]["Mensagem"]
        assert worker.state.results.last_minute()["not_handed_over"] == 3
        assert "did not hand over the last answered calls" in worker.state.lacking[CELL]
        await wait_until(lambda: worker.state.cap == 2, "maxcalls is known")


@pytest.mark.parametrize("cause", [23, 127])
async def test_a_forwarded_call_is_followed_to_its_end(site: Site, cause: int) -> None:
    async with (
        simulated(ring_time=(1.5, 1.5)) as pbx,
        Middle(pbx.port, Forwarding(cause)) as middle,
        working(site, middle) as worker,
    ):
        await dialed(site, worker, ANSWERS)
        (response,) = await told(site, "r-1")
        assert pbx.exchange.floor.answered == 1, "it ended before anybody answered"
        assert (response["Resultado"], response["Erro"]["Codigo"]) == (
            "ANSWERED",
            "not_handed_over",
        )
        assert "the carrier forwarded the call" in response["Erro"]["Mensagem"]


async def test_a_forwarded_call_that_nobody_takes_is_not_unseen(site: Site) -> None:
    async with (
        simulated() as pbx,
        Middle(pbx.port, Forwarding(23)) as middle,
        working(site, middle, ring_timeout=1) as worker,
    ):
        await dialed(site, worker, "5511987654381")
        (response,) = await told(site, "r-1")
        assert (response["Resultado"], response["Erro"]["Codigo"]) == ("FAILED", "forwarded")


async def test_lost_events_of_the_hand_over_are_in_the_record(site: Site) -> None:
    async with (
        simulated() as pbx,
        Middle(pbx.port, dropping("UserEvent")) as middle,
        working(site, middle) as worker,
    ):
        await dialed(site, worker, *["5511987654360"] * 4)
        responses = await told(site, "r-1", "r-2", "r-3", "r-4")
        assert [(r["Resultado"], r["Erro"]) for r in responses] == [("ANSWERED", None)] * 4
        assert worker.state.lacking == {}
