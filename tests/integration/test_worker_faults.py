"""A worker with a fault inside, or with one cell at fault: what ends, and what goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from dialer.domain.call import Call, Ending
from dialer.errors import StepsStopped
from dialer.settings import Settings
from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.slow_proxy import SlowProxy
from tests.integration.stack import CELL, SECRET, Stack
from tests.waiting import SOON_S, wait_until
from workers.worker import PbxWorker

ENDS = "A part of the worker ended unexpectedly; the worker ends"


# --- real processes -----------------------------------------------------------------------


async def test_a_part_that_fails_ends_the_process(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(bridges=0, workers=False)
        faulty = {"DIALER_FAILPOINTS": "heartbeat.before:raise@3"}
        worker = await stack.start_worker(env=faulty, wait=False)
        assert await worker.exit_code(40) == 1
        assert worker.log.count(ENDS) == 1
        assert "part=heartbeat" in worker.log
        assert "a test's failure point" in worker.log


async def test_a_slow_redis_of_one_cell_delays_no_other(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start_valkey()
        async with SlowProxy(stack.valkey.port, delay_s=1.0) as slow:
            stack.add_cell(CELL, redis_url=f"redis://127.0.0.1:{slow.port}/0")
            stack.add_cell("OTHER", threads=100, pbxs=["pbx01"])
            await stack.start(workers=False)
            stack.workers["pbx01"] = await stack.run_celery("-Q", "pbx01", "-c", "2")
            await stack.until_link("pbx01", "up")
            await stack.push(60)

            async def claiming() -> bool:
                return bool(await stack.redis.scard(f"dialer:claimed:{CELL}:pbx01"))

            await wait_until(claiming, "the worker claims the slow cell's calls")
            began = time.monotonic()
            await stack.push(20, cell="OTHER")
            answered = stack.multcalls["OTHER"].responses
            await wait_until(lambda: len(answered) == 20, "the other cell's calls are over")
            assert time.monotonic() - began < SOON_S  # with a thread for each claim: 30 s


# --- one worker in this process -------------------------------------------------------------


@asynccontextmanager
async def working(
    redis_url: str, pbx: SimulatedPbx, cells: Mapping[str, str] | None = None
) -> AsyncIterator[PbxWorker]:
    """A worker that runs here; `cells` gives each cell's Redis."""
    table = {
        "name": "pbx01",
        "port": pbx.port,
        "secret": SECRET,
        "max_calls": 10,
        "cps": 100,
        "trunks": {"tim": "PJSIP/{number}@tim"},
    }
    settings = Settings.model_validate(
        {
            "multcall": {"redis_url": redis_url},
            "broker": {"url": redis_url},
            "pbxs": [table],
            "cells": [
                {"nome": name, "threads": 10, "pbxs": ["pbx01"], "redis_url": url}
                for name, url in (cells or {CELL: redis_url}).items()
            ],
        }
    )

    def on_done(call: Call, ending: Ending) -> None: ...

    worker = PbxWorker(settings, settings.pbx("pbx01"), on_done)
    await worker.start()
    try:
        async with asyncio.timeout(15):
            await worker.until_ready()
        yield worker
    finally:
        await worker.stop()


@pytest.fixture
async def pbx() -> AsyncIterator[SimulatedPbx]:
    async with SimulatedPbx(secret=SECRET) as simulated:
        yield simulated


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def heartbeat(redis: Redis, **wanted: str) -> dict[str, str]:
    """The PBX's heartbeat, once it says this."""

    async def said() -> dict[str, str] | None:
        raw: Any = await redis.hgetall("dialer:pbx:pbx01")
        found: dict[str, str] = raw
        return found if wanted.items() <= found.items() else None

    return await wait_until(said, f"the heartbeat says {wanted}") or {}


async def test_steps_that_stop_end_the_worker(
    redis_url: str, pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(redis_url, pbx) as worker:
        worker._servers._stopped.put_nowait(StepsStopped("a fault"))
        async with asyncio.timeout(5):
            await worker.failure
    assert caplog.messages.count(ENDS) == 1


async def test_a_stopping_worker_never_reports_up_again(
    redis_url: str, pbx: SimulatedPbx, redis: Redis
) -> None:
    async with working(redis_url, pbx) as worker:
        await heartbeat(redis, link="up")
        await worker.begin_stop()
        await heartbeat(redis, link="stopping")
        await worker._beat_once()
        assert (await heartbeat(redis))["link"] == "stopping"
        worker.take(f"{CELL}:1", 1)
        assert not worker._dialing


async def test_a_new_link_is_a_new_instance(
    redis_url: str, pbx: SimulatedPbx, redis: Redis
) -> None:
    async with working(redis_url, pbx) as worker:
        before = (await heartbeat(redis, link="up"))["instance"]
        session = worker.link.session
        pbx.drop_links()
        await wait_until(lambda: worker.link.session > session and worker.link.ready, "a new link")

        async def is_new() -> bool:
            found = await heartbeat(redis, link="up")
            return found["instance"] != before

        await wait_until(is_new, "what was queued here is sent again")


async def test_a_redis_that_refuses_one_cell_leaves_the_pbx_ready(
    redis_url: str, pbx: SimulatedPbx, redis: Redis
) -> None:
    await redis.set(f"dialer:claimed:{CELL}:pbx01", "no set")
    async with working(redis_url, pbx) as worker:
        assert worker.link.ready
