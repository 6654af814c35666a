"""Live parameters in force: real bridge and worker processes, while they dial."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from dialer.domain.parameters import Edit, Subject
from dialer.settings import load
from dialer.settings.typed import wanted
from dialer.steering import Made, Steering
from dialer.store.client import connect
from dialer.store.parameters import ParameterStore
from dialer.store.steps import Steps
from tests.integration.stack import CELL, Stack
from tests.integration.test_bridge_reread import load as requests
from tests.integration.test_worker_process import each_once
from tests.waiting import wait_until

TIM = Subject("cell", CELL)

#: A change is in force everywhere within this time, in seconds.
IN_FORCE_WITHIN_S = 1.0

#: A long call, in seconds.
LONG = (30.0, 30.0)


@asynccontextmanager
async def steering(stack: Stack) -> AsyncIterator[Steering]:
    settings = load(stack.config_path)
    steps = Steps(connect(settings.registry_redis_url), "the registry's Redis")
    try:
        yield Steering(store=ParameterStore(steps), file=settings, by="ana@ops")
    finally:
        await steps.close()


async def change(ana: Steering, subject: Subject, *pairs: str) -> Made:
    return await ana.set(subject, wanted(subject.kind, pairs))


async def stays(stack: Stack, dialed: int, *, for_s: float) -> bool:
    """True if nothing more is dialed for that time."""
    until = monotonic() + for_s
    while monotonic() < until:
        if stack.rings.total() != dialed:
            return False
        await asyncio.sleep(0.05)
    return True


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path, cell={"threads": 200}) as stack:
        yield stack


async def test_a_paused_cell_dials_nothing_until_it_is_resumed(stack: Stack) -> None:
    stack.add_pbx(talk_time=(1.0, 2.0))
    await stack.start()
    async with steering(stack) as ana, requests(stack, per_second=30) as pushed:
        await stack.until_dialed(20)
        await ana.stop(TIM, why="fire alarm")
        await asyncio.sleep(IN_FORCE_WITHIN_S)
        dialed = stack.rings.total()
        assert await stays(stack, dialed, for_s=2.0)
        await stack.start_bridge()  # a paused cell is paused for a new bridge too
        assert await stays(stack, dialed, for_s=1.5)
        began = monotonic()
        await ana.resume(TIM)
        await stack.until_dialed(dialed + 1)
        assert monotonic() - began < 10 * IN_FORCE_WITHIN_S
        await stack.until_dialed(dialed + 60)
    responses = await each_once(stack, pushed)
    assert {r["Resultado"] for r in responses.values()} == {"ANSWERED"}
    assert all("Live parameters are in force" in one.log for one in stack.programs)
    assert all(program.running for program in stack.programs)


async def test_threads_are_changed_while_a_cell_dials(stack: Stack) -> None:
    pbx = stack.add_pbx(talk_time=LONG)
    await stack.start()
    async with steering(stack) as ana:
        await change(ana, TIM, "threads=3")
        await asyncio.sleep(IN_FORCE_WITHIN_S)
        await stack.push(12)
        await stack.until_dialed(3)
        assert await stays(stack, 3, for_s=1.5), "at most three at once"
        await change(ana, TIM, "threads=5")
        await stack.until_dialed(5)
        assert await stays(stack, 5, for_s=1.0)
        await ana.undo(2)
        assert pbx.live == 5, "no call is cut off"


async def test_a_drained_pbx_gets_no_calls_and_keeps_those_it_has(stack: Stack) -> None:
    for name in ("pbx01", "pbx02"):
        stack.add_pbx(name, talk_time=LONG)
    await stack.start()
    async with steering(stack) as ana:
        await stack.push(10)
        await stack.until_dialed(10)
        await ana.stop(Subject("pbx", "pbx01"))
        await asyncio.sleep(IN_FORCE_WITHIN_S)
        first, second = (stack.pbxs[name].rings.total() for name in ("pbx01", "pbx02"))
        assert first
        await stack.push(10)
        await stack.until_dialed(20)
        rings = [stack.pbxs[name].rings.total() for name in ("pbx01", "pbx02")]
        assert rings == [first, second + 10]
        assert stack.pbxs["pbx01"].live == first, "its calls are up"
        await ana.resume(Subject("pbx", "pbx01"))
        await asyncio.sleep(IN_FORCE_WITHIN_S)
        await stack.push(10)
        await stack.until_dialed(30)
        assert stack.pbxs["pbx01"].rings.total() > first


async def test_the_worker_dials_by_new_values(stack: Stack) -> None:
    stack.add_pbx()
    await stack.start()
    async with steering(stack) as ana:
        await change(ana, TIM, "ring_timeout=1")
        await asyncio.sleep(IN_FORCE_WITHIN_S)
        await stack.push(1, last_two=81)  # nobody answers
        (response,) = await stack.responses(1, within_s=15)  # and not after the 30 s of the file
        assert response["Resultado"] == "NO_ANSWER"


async def test_what_is_not_valid_here_is_said_and_not_in_force(stack: Stack) -> None:
    stack.add_pbx()
    await stack.start()
    (bridge,) = stack.bridges
    async with steering(stack) as ana:
        edit = Edit(name="pbxs", old=["pbx01"], new=["gone"], was_live=False, is_live=True)
        await ana.store.change(TIM, [edit], version=0, by="another host")
        said = "A live parameter is not valid here; the value of dialer.toml is in force"
        await wait_until(lambda: said in bridge.log, said)
        await wait_until(lambda: said in stack.workers["pbx01"].log, said)
        await stack.push(1)
        await stack.responses(1)


async def test_a_reload_keeps_the_live_values(stack: Stack) -> None:
    stack.add_pbx(talk_time=LONG)
    await stack.start()
    (bridge,) = stack.bridges
    async with steering(stack) as ana:
        await change(ana, TIM, "threads=2")
        stack.add_cell(CELL, threads=7, retries=1)
        await stack.reread(bridge)
        await stack.push(5)
        await stack.until_dialed(2)
        assert await stays(stack, 2, for_s=1.0)
        await change(ana, TIM, "threads=")
        await stack.until_dialed(5)


async def test_live_values_outlive_a_redis_that_lost_everything(stack: Stack) -> None:
    stack.add_pbx(talk_time=LONG)
    await stack.start()
    async with steering(stack) as ana:
        await change(ana, TIM, "threads=2")
        await asyncio.sleep(IN_FORCE_WITHIN_S)
    stack.valkey.kill()
    await stack.start_valkey()  # empty: it keeps nothing
    said = "Redis had lost live parameters; they are restored"
    await wait_until(lambda: any(said in one.log for one in stack.programs), said)
    await stack.push(5)
    await stack.until_dialed(2)
    assert await stays(stack, 2, for_s=1.0)
    assert all(program.running for program in stack.programs)
