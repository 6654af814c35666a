"""`dialer why` with real processes: each limit is named soon after it begins and after it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from dialer.domain.limits import Limit
from dialer.domain.parameters import Subject
from dialer.monitor.why import NothingKnown, Why, why
from dialer.settings import load
from dialer.simulation.valkey import EmbeddedValkey
from dialer.steering import Made, Steering
from dialer.store.client import connect
from dialer.store.ledger.decisions import UNKEPT_AFTER_S
from dialer.store.registry import Registry
from dialer.store.steps import Steps
from tests.integration.stack import CELL, Stack
from tests.integration.test_live_parameters import change, steering
from tests.integration.test_worker_clock import wrong_clock as wrong_clock
from tests.integration.test_worker_consumer import control
from tests.waiting import PATIENCE_S, wait_until

TIM = Subject("cell", CELL)
PBX = Subject("pbx", "pbx01")

#: A limit is named within 2 s. This machine may be busy.
WITHIN_S = PATIENCE_S

LONG = (300.0, 300.0)


async def ask(stack: Stack, cell: str = CELL, at: datetime | None = None) -> Why:
    return await why(load(stack.config_path), cell, at)


async def names(stack: Stack, limit: Limit, cell: str = CELL) -> Why:
    """Wait until that limit is named; print how long that took."""
    began, last = monotonic(), ""

    async def says() -> Why | None:
        nonlocal last
        found = await ask(stack, cell)
        last = found.decision.sentence
        return found if found.decision.limit is limit else None

    try:
        found = await wait_until(says, limit, within_s=WITHIN_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says: {last}") from None
    assert found is not None
    print(f"{limit} was named after {monotonic() - began:.2f} s: {found.decision.sentence}")
    assert found.decision.cell == cell
    return found


@asynccontextmanager
async def pushing(stack: Stack, **fields: Any) -> AsyncIterator[None]:
    """Push a request every 0.1 s."""

    async def push() -> None:
        while True:
            await stack.push(1, **fields)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(push())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def registry(stack: Stack) -> AsyncIterator[Registry]:
    steps = Steps(connect(stack.valkey.url(0)), "Redis")
    try:
        yield Registry(steps)
    finally:
        await steps.close()


async def until_logged(stack: Stack, limit: Limit) -> None:
    """Wait until the decision log says what `why` says of the present."""

    async def is_logged() -> bool:
        return (await ask(stack, at=datetime.now(UTC))).decision.limit is limit

    await wait_until(is_logged, f"{limit} is logged", within_s=WITHIN_S)


async def long_enough() -> None:
    """Wait until the log has a gap."""
    until = monotonic() + UNKEPT_AFTER_S + 1
    await wait_until(lambda: monotonic() > until, "a while", within_s=60)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A cell on one PBX with long calls; its requests come when a test pushes them."""
    async with Stack(tmp_path, cell={"threads": 200}) as stack:
        stack.add_pbx(talk_time=LONG, table={"governor": False})  # this machine may be busy
        await stack.start()
        yield stack


async def in_force(stack: Stack, made: Made) -> None:
    """Wait until every program uses a change. Before that a bridge would take all that waits."""
    used = re.compile(rf"Live parameters are in force .*change={made.number}\b")

    def is_used() -> bool:
        return all(used.search(one.log) for one in stack.programs)

    await wait_until(is_used, "the change is in force", within_s=WITHIN_S)


async def limited(stack: Stack, ana: Steering) -> None:
    """Let 500 requests wait for a PBX that starts one call a second."""
    await in_force(stack, await change(ana, PBX, "cps=1"))
    await stack.push(500)
    await names(stack, Limit.CPS)


async def test_why_names_the_limit_that_an_operator_set(stack: Stack) -> None:
    await names(stack, Limit.NO_REQUESTS)
    async with steering(stack) as ana:
        await in_force(stack, await change(ana, TIM, "threads=2"))
        await stack.push(500)
        found = await names(stack, Limit.THREADS_FULL)
        numbers = found.decision.numbers
        assert numbers["waiting"] + numbers["calls"] == 500
        assert numbers["threads"] == 2
        assert found.decision.is_dialing
        # Each limit before the other ends: no moment is without one.
        await change(ana, PBX, "max_calls=5")
        await change(ana, TIM, "threads=")
        await names(stack, Limit.MAX_CALLS)
        await change(ana, PBX, "cps=1")
        await change(ana, PBX, "max_calls=")
        await names(stack, Limit.CPS)
        await ana.stop(TIM, why="fire alarm")
        found = await names(stack, Limit.PAUSED)
        assert "paused by ana@ops" in found.decision.sentence
        assert not found.decision.is_dialing
        await ana.resume(TIM)
        await names(stack, Limit.CPS)
        day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[datetime.now(UTC).weekday() - 4]
        await change(ana, TIM, f"calling_hours={day} 08:00-09:00")
        await names(stack, Limit.OUTSIDE_HOURS)
        await change(ana, TIM, "calling_hours=")
        await ana.stop(PBX, why="new trunk")
        found = await names(stack, Limit.DRAINED)
        assert "drained by ana@ops" in found.decision.sentence
        await ana.resume(PBX)
        await names(stack, Limit.CPS)


async def test_why_names_what_requests_are_refused_for(stack: Stack) -> None:
    async with registry(stack) as ours:
        await ours.dnc_add(["11912345678"])
    async with pushing(stack, Telefone="11912345678"):
        found = await names(stack, Limit.DO_NOT_CALL)
        assert found.decision.numbers["refused"] > 0
    await names(stack, Limit.NO_REQUESTS)
    async with pushing(stack, Tronco="nobody"):
        await names(stack, Limit.UNKNOWN_TRUNK)
    async with pushing(stack, Telefone="?"):
        await names(stack, Limit.REFUSED)
    async with pushing(stack):
        await names(stack, Limit.NONE)
    await names(stack, Limit.NO_REQUESTS)


async def test_why_names_a_worker_that_takes_no_calls(stack: Stack) -> None:
    worker, pbx = stack.workers["pbx01"], stack.pbxs["pbx01"]
    async with steering(stack) as ana:
        await limited(stack, ana)
    await control(stack, "cancel_consumer", "pbx01")
    await names(stack, Limit.NOT_CONSUMING)
    await control(stack, "add_consumer", "pbx01")
    await names(stack, Limit.CPS)
    pbx.refuse_connections(True)
    pbx.drop_links()
    await names(stack, Limit.AMI_DOWN)
    second = await stack.run_celery("-Q", "pbx01", name="second")
    found = await names(stack, Limit.TWO_WORKERS)
    assert f"pid {second.pid} on host" in found.decision.sentence
    assert await second.exit_code(WITHIN_S)
    pbx.refuse_connections(False)
    await names(stack, Limit.CPS)
    worker.freeze()
    await names(stack, Limit.NO_WORKER)
    worker.thaw()
    await names(stack, Limit.CPS)
    await worker.kill()
    await names(stack, Limit.NO_WORKER)
    await stack.start_worker()
    await names(stack, Limit.CPS)


async def test_the_log_says_what_was_while_programs_were_dead(stack: Stack) -> None:
    async with steering(stack) as ana:
        await limited(stack, ana)
    await until_logged(stack, Limit.CPS)
    (bridge,) = stack.bridges
    await bridge.kill()
    found = await names(stack, Limit.NO_BRIDGE)
    assert found.since is not None
    await long_enough()
    dead = datetime.now(UTC)
    assert (await ask(stack, at=dead)).decision.limit is Limit.NO_BRIDGE
    await stack.start_bridge()
    await names(stack, Limit.CPS)

    async def is_logged() -> bool:
        return (await ask(stack, at=dead)).until is not None

    await wait_until(is_logged, "the bridge logs its predecessor's death", within_s=WITHIN_S)
    then = await ask(stack, at=dead)
    assert then.decision.limit is Limit.NO_BRIDGE
    assert then.since is not None
    assert then.since < dead < datetime.now(UTC)
    assert (await ask(stack, at=found.since)).decision.limit is not Limit.NO_REQUESTS
    with pytest.raises(NothingKnown, match="nothing is known of 2020-01-01"):
        await ask(stack, at=datetime(2020, 1, 1, tzinfo=UTC))


@pytest.fixture
async def server(stack: Stack) -> Callable[[signal.Signals], None]:
    """Sends a signal to the Redis of a stack."""
    pid = int((await stack.redis.info("server"))["process_id"])
    return lambda number: os.kill(pid, number)


async def test_why_names_a_redis_that_refuses_or_hangs(
    stack: Stack, server: Callable[[signal.Signals], None]
) -> None:
    async with steering(stack) as ana:
        await limited(stack, ana)
    before = datetime.now(UTC)
    await stack.redis.config_set("maxmemory", 1)
    found = await names(stack, Limit.REDIS_REFUSES)
    assert "maxmemory" in found.decision.sentence
    await long_enough()
    await stack.redis.config_set("maxmemory", 0)
    await names(stack, Limit.CPS)

    async def is_logged() -> bool:
        found, at = set[Limit](), before
        while True:
            then = await ask(stack, at=at)
            found.add(then.decision.limit)
            if then.until is None:
                return Limit.REDIS_REFUSES in found
            at = then.until

    await wait_until(is_logged, "the log has it", within_s=WITHIN_S)
    server(signal.SIGSTOP)
    try:
        await names(stack, Limit.REDIS_AWAY)
    finally:
        server(signal.SIGCONT)
    await names(stack, Limit.CPS)


async def test_why_names_a_broker_that_hangs(tmp_path: Path) -> None:
    with EmbeddedValkey(appendonly=False) as broker:
        settings = {"broker": {"url": broker.url(1)}}
        async with Stack(tmp_path, settings=settings) as stack:
            stack.add_pbx(talk_time=LONG)
            await stack.start()
            async with connect(broker.url()) as redis:
                pid = int((await redis.info("server"))["process_id"])
            os.kill(pid, signal.SIGKILL)
            await stack.push(5)
            await names(stack, Limit.BROKER_AWAY)


async def test_why_names_what_a_cell_lacks_on_its_pbx(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx(talk_time=LONG)
        stack.add_cell("LOST", context="not-there", threads=10)
        await stack.start()
        await stack.push(1, cell="LOST")
        found = await names(stack, Limit.MISSING_TARGET, "LOST")
        assert "pbx01 has no context not-there" in found.decision.sentence
        await names(stack, Limit.NO_REQUESTS)


async def test_why_names_a_wrong_clock(
    tmp_path: Path, wrong_clock: Callable[[int], dict[str, str]]
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(workers=False)
        await names(stack, Limit.NO_WORKER)
        await stack.start_worker("pbx01", env=wrong_clock(600), wait=False)
        await names(stack, Limit.CLOCK_SKEW)


async def test_why_names_calls_that_nobody_claims(tmp_path: Path) -> None:
    """Its worker says that it is ready, and is this test."""
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(workers=False)
        async with registry(stack) as ours:

            async def beat() -> None:
                while True:
                    await ours.heartbeat("pbx01", instance="i", link="up", facts={})
                    await asyncio.sleep(0.5)

            beating = asyncio.create_task(beat())
            await stack.push(300)
            await names(stack, Limit.NOT_CLAIMING)
            beating.cancel()


async def test_a_cell_that_nobody_ever_served_says_so(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(bridges=0, workers=False)
        found = await names(stack, Limit.NO_BRIDGE)
        assert "none ever did" in found.decision.sentence
