"""The broker goes down and comes back: nothing of the old connection is used again."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from celery import Celery
from redis.asyncio import Redis

from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.nudges import Nudge
from dialer.simulation.valkey import EmbeddedValkey
from tests.processes import ROOT
from tests.waiting import wait_until

NUDGE = Nudge(call_id="ASR_TIM:r-1", pbx="pbx01", epoch=1)

PRINT_RETRIES = "import celeryconfig as c; print(c.broker_connection_max_retries)"


async def test_broker_connection_is_new_after_an_outage(
    redis_url: str, valkey_server: EmbeddedValkey
) -> None:
    app = Celery("test", broker=valkey_server.url(1))
    dispatcher = Dispatcher(app)
    try:
        await dispatcher.publish([NUDGE])
        await dispatcher.flush()
        before = dispatcher._producer
        assert before is not None
        valkey_server.kill()
        await dispatcher.publish([NUDGE])  # waits for nothing: its worker finds the call
        await dispatcher.flush()
        assert dispatcher.is_down
        assert dispatcher.problem
        assert dispatcher._producer is not before
        valkey_server.start()

        async def is_back() -> bool:
            await dispatcher.publish([NUDGE])
            await dispatcher.flush()
            return not dispatcher.is_down

        await wait_until(is_back, "it uses the broker again")
        assert dispatcher._producer is not before
    finally:
        dispatcher.close()
        valkey_server.start()
    async with Redis.from_url(valkey_server.url(1)) as redis:
        assert await redis.llen("pbx01") >= 2
    assert redis_url


async def test_hanging_broker_holds_nothing_up(redis_url: str) -> None:
    """A broker that accepts connections and answers nothing."""
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    dispatcher = Dispatcher(Celery("test", broker=f"redis://127.0.0.1:{port}/0"))
    try:
        async with asyncio.timeout(5):
            for _ in range(50):
                await dispatcher.publish([NUDGE])
                await dispatcher.flush()
        assert dispatcher.problem.startswith("no answer in time; ")
    finally:
        dispatcher.close()
        silent.close()
    assert redis_url


async def test_cells_that_publish_at_once_lose_no_task(
    redis_url: str, valkey_server: EmbeddedValkey
) -> None:
    dispatcher = Dispatcher(Celery("test", broker=valkey_server.url(1)))
    await asyncio.gather(*(dispatcher.publish([NUDGE]) for _ in range(20)))
    await dispatcher.flush()
    dispatcher.close()
    async with Redis.from_url(valkey_server.url(1)) as redis:
        assert await redis.llen("pbx01") == 20
    assert redis_url


def test_workers_wait_for_the_broker_without_a_limit() -> None:
    """Celery's default ends a worker after 100 tries, which is a broker outage of some minutes."""
    environment = {**os.environ, "DIALER_CONFIG": str(ROOT / "deploy" / "dialer.toml")}
    printed = subprocess.run(
        [sys.executable, "-c", PRINT_RETRIES],
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed.strip() == "None"
