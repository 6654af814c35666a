"""A PBX that slows down by steps gets what it can start: nothing starves, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dialer.domain.governor import Governed
from dialer.domain.limits import Limit
from dialer.monitor.why import why
from dialer.multcall.keys import CellKeys
from dialer.settings import load
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.store.client import cancel, connect
from dialer.store.registry import Registry
from dialer.store.steps import Steps
from tests.integration.stack import CELL, Stack
from tests.waiting import wait_until

CPS = 20

#: What the PBX can start a second, step by step.
STEPS = (10, 5)

#: Each step: what is lost in the first seconds does not count, then a measurement, in seconds.
SETTLES_S = 5.0
MEASURED_S = 8.0

#: So many measurements at most.
MEASUREMENTS = 4

#: The full rate is back this long after the PBX is as fast as before, in seconds.
BACK_WITHIN_S = 30.0

#: Requests that always wait, so that the PBX alone decides the rate.
WAITING = 2 * CPS


@dataclass(slots=True)
class Demand:
    """Multcall, that always has more requests than the PBX takes."""

    stack: Stack
    pushed: int = 0

    async def run(self) -> None:
        """Push requests until cancelled."""
        key = CellKeys(CELL).request
        while True:
            missing = WAITING - await self.stack.redis.llen(key)
            if missing > WAITING // 4:
                self.pushed += len(await self.stack.push(missing))
            await asyncio.sleep(0.1)


async def governed(stack: Stack, name: str = "pbx01") -> Governed:
    pbx = load(stack.config_path).pbx(name)
    steps = Steps(connect(stack.valkey.url(0)), "Redis")
    try:
        return (await Registry(steps).pbxs([pbx.limits]))[name].governed
    finally:
        await steps.close()


async def rate_of(pbx: SimulatedPbx, seconds: float) -> float:
    """Calls a second that the PBX starts well."""

    def well() -> int:
        floor = pbx.exchange.floor
        return floor.started - floor.starved

    before = well()
    await asyncio.sleep(seconds)
    return (well() - before) / seconds


def patience() -> int:
    """More on a host that is slow itself: its slowness does not end with that of the PBX."""
    return 1 if os.getloadavg()[0] < 2 * (os.cpu_count() or 1) else 4


async def measured(pbx: SimulatedPbx, least: float) -> list[float]:
    """Measure until the rate is reached: on a busy host one measurement says little."""
    rates = [await rate_of(pbx, MEASURED_S)]
    while rates[-1] < least and len(rates) < MEASUREMENTS:
        rates.append(await rate_of(pbx, MEASURED_S))
    return rates


def assert_each_answered_once(stack: Stack, demand: Demand) -> None:
    responses = stack.multcall.responses
    results = Counter(r["Resultado"] for r in responses)
    assert len({r["IdRequisicao"] for r in responses}) == len(responses) == demand.pushed
    assert max(stack.rings.values()) == 1
    assert results["ANSWERED"] + stack.pbxs["pbx01"].exchange.floor.starved >= demand.pushed
    assert set(results) <= {"ANSWERED", "NO_ANSWER"}


@pytest.mark.timeout(300)
async def test_a_pbx_slower_by_steps_starves_no_calls(tmp_path: Path) -> None:
    async with Stack(tmp_path, cell={"ring_timeout": 3, "threads": 400}) as stack:
        pbx = stack.add_pbx(table={"max_calls": 400, "cps": CPS})
        await stack.start()
        demand = Demand(stack)

        async def is_named() -> bool:
            found = await why(load(stack.config_path), CELL)
            return found.decision.limit is Limit.GOVERNED

        pushing = asyncio.create_task(demand.run())
        try:
            floor = pbx.exchange.floor
            await wait_until(lambda: floor.started > 2 * CPS, "calls are placed")
            assert (await governed(stack)).rate == 0

            for capacity in STEPS:
                pbx.slow_down(capacity)
                await asyncio.sleep(SETTLES_S)
                starved = floor.starved
                rates = await measured(pbx, 0.9 * capacity)
                limited = await governed(stack)
                assert max(rates) >= 0.9 * capacity, (capacity, rates, limited)
                assert floor.starved == starved, (capacity, limited)
                assert 0 < limited.rate < CPS
                await wait_until(is_named, "why names the governor")
            assert "Asterisk is slow" in stack.workers["pbx01"].log
            pbx.slow_down(None)

            async def is_back() -> bool:
                return (await governed(stack)).rate == 0

            await wait_until(is_back, "no limit any longer", within_s=BACK_WITHIN_S * patience())
            least = 0.9 * CPS / patience()
            assert max(await measured(pbx, least)) >= least
        finally:
            await cancel([pushing])
        await stack.responses(demand.pushed, within_s=60)
        await stack.at_rest()
        assert_each_answered_once(stack, demand)
        assert stack.workers["pbx01"].log.count("Asterisk is slow") == 1
        assert stack.workers["pbx01"].log.count("Asterisk is as fast as usual") <= 1, "30 s later"


async def test_a_governor_that_is_off_limits_nothing(tmp_path: Path) -> None:
    async with Stack(tmp_path, cell={"ring_timeout": 1}) as stack:
        pbx = stack.add_pbx(table={"cps": CPS, "governor": False})
        pbx.slow_down(3)
        await stack.start()
        await stack.push(60)
        floor = pbx.exchange.floor
        await wait_until(lambda: floor.originates >= 60, "all were sent", within_s=60)
        fact: Any = await stack.redis.hget("dialer:pbx:pbx01", "governor")
        assert json.loads(fact)["limit"] == 0
        await stack.responses(60, within_s=60)
