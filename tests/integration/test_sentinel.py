"""A site on Redis Sentinel whose master dies while calls are up."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from dialer.store import steps
from dialer.store.client import connect
from dialer.store.steps import REPLICA_WITHIN_MS, Steps
from tests.integration.cell_rig import CELL, Site, element
from tests.integration.sentinel import SentinelStack, Watched
from tests.integration.stack import ROOT, Program, Stack
from tests.waiting import wait_until

HEALTHCHECK = ROOT / "deploy" / "docker" / "healthcheck.py"
UNCONFIRMED = "Redis replica does not confirm writes"
CONFIRMED = "Redis replica confirms writes again"


@asynccontextmanager
async def cut_off(pair: Watched) -> AsyncIterator[None]:
    """Cut the replica off from the master, for as long as the block runs."""
    pid = pair.replica.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        async with Redis.from_url(pair.master.url()) as master:
            # Otherwise the writes of this block would reach the replica from the socket buffers.
            await master.client_kill_filter(_type="replica")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def said(program: Program) -> Counter[str]:
    """Count the messages of our own code at WARNING or above."""
    lines = (line.split(" ", 3) for line in program.log.splitlines() if line[:2] == "20")
    ours = [
        parts[3]
        for parts in lines
        if parts[1] in ("WARNING", "ERROR")
        and parts[2].startswith(("dialer.", "workers."))
        and " call_id=" not in parts[3]  # said of one call: of each that the failover forgot
    ]
    return Counter(text.partition("=")[0].rpartition(" ")[0] for text in ours)


async def queued(stack: Stack) -> bool:
    return len(await stack.redis.zrange(f"dialer:queued:{CELL}", 0, -1)) == 20


async def each_rang_once(stack: Stack, requests: list[dict[str, Any]]) -> None:
    """Wait for the Response of every request; none was dialed twice, nothing is left."""
    wanted = {request["IdRequisicao"] for request in requests}
    got = stack.multcall.responses
    await wait_until(lambda: {r["IdRequisicao"] for r in got} >= wanted, "every Response")
    await stack.at_rest()
    assert set(stack.rings.values()) == {1}
    assert stack.rings.total() == len(requests)


# --- a failover -----------------------------------------------------------------------


async def test_failover_loses_no_call_and_dials_none_twice(
    tmp_path: Path,
) -> None:
    async with SentinelStack(tmp_path, cell={"timeout_command_ack": 3}) as stack:
        stack.add_pbx("pbx01", talk_time=(3.0, 6.0))
        await stack.start()
        requests = await stack.push(60)
        await stack.until_live(60)
        requests += await stack.push(40)  # some are in every step when the master dies
        await stack.until_dialed(65)
        await stack.watched.kill_master()
        await stack.watched.until_promoted(stack.redis)
        requests += await stack.push(20)
        await each_rang_once(stack, requests)

        responses = stack.multcall.responses
        assert Counter(r["IdRequisicao"] for r in responses) == Counter(
            request["IdRequisicao"] for request in requests
        )
        assert {r["Resultado"] for r in responses} == {"ANSWERED"}
        for program in (stack.bridges[0], stack.workers["pbx01"]):
            assert set(said(program).values()) == {1}, said(program)
        for watched in (("bridge",), ("pbx", "pbx01"), ("redis",)):
            check = await stack.run("health", [sys.executable, str(HEALTHCHECK), *watched])
            assert await check.exit_code() == 0, f"{watched} is healthy, by the sentinels"
        stopped = await stack.run("health", [sys.executable, str(HEALTHCHECK), "pbx", "pbx09"])
        assert await stopped.exit_code() == 1


async def test_call_is_not_redialed_if_its_claim_died_with_the_master(
    tmp_path: Path,
) -> None:
    async with SentinelStack(tmp_path, cell={"timeout_command_ack": 3}) as stack:
        stack.add_pbx("pbx01", talk_time=(300.0, 300.0))
        await stack.start()
        worker = stack.workers["pbx01"]
        worker.freeze()
        up = await stack.push(10)
        over = await stack.push(10, last_two=70)  # busy
        await wait_until(lambda: queued(stack), "all are queued")
        async with cut_off(stack.watched):
            worker.thaw()
            await stack.until_live(10)
            await wait_until(lambda: len(stack.multcall.responses) == 10, "the busy ones are over")
            await stack.watched.kill_master()
        await stack.watched.until_promoted(stack.redis)
        stack.end_calls()
        await each_rang_once(stack, [*up, *over])

        by_id: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for response in stack.multcall.responses:
            by_id[response["IdRequisicao"]].append(response | {"CodLigacao": None})
        assert all(len(by_id[request["IdRequisicao"]]) == 1 for request in up)
        # Multcall took these from the old master; the new one cannot know that.
        assert all(r == answers[0] for answers in by_id.values() for r in answers)


# --- a replica has what is acted upon -------------------------------------------------


@pytest.fixture
async def pair() -> AsyncIterator[Watched]:
    watched = await asyncio.to_thread(Watched.prepared)
    await watched.until_followed()
    yield watched
    await asyncio.to_thread(watched.close)


@pytest.fixture
async def site(pair: Watched) -> AsyncIterator[Site]:
    async with Site(pair.master.url()) as site:
        site.steps.replicated = True
        yield site


async def test_claim_is_granted_only_when_the_replica_has_it(
    pair: Watched, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "REPLICA_WITHIN_MS", 4_000)
    await site.admitted()
    key = site.ledger.keys.call(f"{CELL}:r-1")
    async with cut_off(pair):
        claiming = asyncio.create_task(site.claimed())
        await wait_until(lambda: _is_originating(site.redis, key), "the claim is written")
        assert not claiming.done()
    assert await claiming
    async with Redis.from_url(pair.replica.url()) as replica:
        assert await _is_originating(replica, key)


async def _is_originating(redis: Redis, key: str) -> bool:
    return await redis.hget(key, "state") == b"originating"


async def test_calls_go_on_without_a_replica_and_it_is_logged_once(
    pair: Watched, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for i in range(12):
        await site.admitted(f"r-{i}")
    loop = asyncio.get_running_loop()
    async with cut_off(pair):
        began = loop.time()
        for i in range(10):
            await site.claimed(f"r-{i}")
        assert loop.time() - began < 2 * REPLICA_WITHIN_MS / 1000 + 1
    await pair.until_followed()
    await wait_until(lambda: _confirms(site.steps, caplog), "the replica confirms again")
    texts = [record.getMessage() for record in caplog.records]
    assert sum(text.startswith(UNCONFIRMED) for text in texts) == 1
    assert texts.count(CONFIRMED) == 1


async def _confirms(server: Steps, caplog: pytest.LogCaptureFixture) -> bool:
    await server.run(
        "unclaim", ["dialer:call:x", "dialer:queued:x", "dialer:claimed:x:y"], ["x"] * 3
    )
    return CONFIRMED in [record.getMessage() for record in caplog.records]


async def test_calls_wait_for_a_replica_with_min_replicas(pair: Watched, site: Site) -> None:
    await site.redis.config_set("min-replicas-max-lag", 1)
    await site.redis.config_set("min-replicas-to-write", 1)
    async with cut_off(pair):
        await wait_until(lambda: _refuses(site), "the master refuses to write")
        claiming = asyncio.create_task(site.steps.run("restore_slots", ["dialer:slots:x"], ["c-1"]))
        await wait_until(lambda: site.steps.is_down, "the refusal is noticed")
        assert not claiming.done()
    assert await claiming == 1


async def _refuses(site: Site) -> bool:
    try:
        await site.push_requests(element())
    except ResponseError as error:
        return str(error).startswith("NOREPLICAS")
    return False


# --- the sentinels themselves ---------------------------------------------------------


async def test_concurrent_questions_lose_no_sentinel(tmp_path: Path) -> None:
    async with SentinelStack(tmp_path) as stack:
        await stack.start(bridges=0, workers=False)
        client = connect(stack.watched.url(0))
        pool: Any = client.connection_pool
        manager = pool.sentinel_manager
        await stack.watched.sentinels[0].kill()
        for _ in range(5):
            await asyncio.gather(*(client.ping() for _ in range(20)))
            await pool.disconnect()
        assert len({id(sentinel) for sentinel in manager.sentinels}) == 3
        await client.aclose()
