"""A running program checks that its Redis servers may still be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from dialer.errors import StepsStopped
from dialer.store.client import cancel
from dialer.store.servers import Servers
from tests.unit.stand_ins import a
from tests.waiting import wait_until

UNFIT = "Redis must not be used as it is; calls may be lost or dialed again"
FIT = "Redis may be used again"


class Server:
    """A Redis whose INFO tells one policy after the other; the last one from then on."""

    def __init__(self, *policies: str | Exception) -> None:
        self.policies = list(policies)
        self.asked = 0

    def pipeline(self, **_: Any) -> Any:
        return a(info=lambda: None, time=lambda: None, execute=self._execute)

    async def _execute(self) -> Any:
        await asyncio.sleep(0)
        self.asked += 1
        policy = self.policies.pop(0) if len(self.policies) > 1 else self.policies[0]
        if isinstance(policy, Exception):
            raise policy
        return {"redis_version": "7.4.2", "maxmemory_policy": policy}, (0, 0)


@asynccontextmanager
async def checked(
    *servers: Server, down: int | None = None, every_s: float = 0
) -> AsyncIterator[None]:
    steps: Any = {
        f"redis://{n}": a(redis=server, where=f"Redis {n}", is_down=n == down)
        for n, server in enumerate(servers)
    }
    watching = asyncio.create_task(Servers(every_s, steps).watch())
    try:
        yield
    finally:
        await cancel([watching])


async def test_what_makes_a_server_unfit_is_logged_until_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    silent = [RedisConnectionError("lost"), OSError("no route")]
    server = Server(
        "noeviction", "allkeys-lru", *silent, "allkeys-lru", "volatile-lru", "noeviction",
    )  # fmt: skip
    async with checked(server):
        await wait_until(lambda: server.asked > 8, "all was read")
    logged = [(r.getMessage(), vars(r)["redis"], vars(r).get("reason", "")) for r in caplog.records]
    assert [one[:2] for one in logged] == [
        (UNFIT, "Redis 0"),
        (UNFIT, "Redis 0"),
        (FIT, "Redis 0"),
    ]
    assert "allkeys-lru" in logged[0][2]
    assert "volatile-lru" in logged[1][2]


async def test_only_a_server_that_is_up_is_checked() -> None:
    down, up = Server("noeviction"), Server("noeviction")
    async with checked(down, up, down=0):
        await wait_until(lambda: up.asked > 3, "the other is checked")
    assert down.asked == 0


async def test_the_checks_pause_and_end_with_their_program() -> None:
    server = Server("noeviction")
    async with checked(server, every_s=3600):
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.asked == 0
    assert "check of Redis" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_steps_that_stop_end_the_watch_and_its_checks() -> None:
    servers = Servers()
    servers._stopped.put_nowait(StepsStopped("an unexpected error"))
    with pytest.raises(StepsStopped, match="an unexpected error"):
        await servers.watch()
    assert "check of Redis" not in {task.get_name() for task in asyncio.all_tasks()}
