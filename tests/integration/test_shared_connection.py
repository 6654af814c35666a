"""Steps share one connection: what is written when, and what a lost connection changes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import cancel, connect
from dialer.store.steps import BATCH, Steps
from tests.conftest import RequireService
from tests.integration.cell_rig import BUSY, Site
from tests.integration.forwarder import Forwarder
from tests.tls import OPENSSL_MISSING, certificate, tls_in_front_of
from tests.waiting import wait_until

DOWN = "Redis unavailable; retrying, nothing is lost"
UP = "Redis available again"
SLOTS = "dialer:slots:pbx01"


@dataclass(slots=True)
class Gate(Forwarder):
    """Passes on what the program writes; the replies wait while it is shut."""

    is_open: asyncio.Event = field(default_factory=asyncio.Event, kw_only=True)
    writes: list[bytes] = field(default_factory=list, kw_only=True)
    links: int = field(default=0, kw_only=True)

    async def _up(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self.links += 1
        while data := await source.read(1_000_000):
            self.writes.append(data)
            sink.write(data)
        sink.close()

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            await self.is_open.wait()
            sink.write(data)
        sink.close()


@dataclass(slots=True)
class Cutter(Forwarder):
    """Cuts the link after so many bytes in one direction, once, when it is armed."""

    direction: Literal["up", "down"]
    after: int
    is_armed: bool = field(default=False, kw_only=True)

    async def _up(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await self._pass(source, sink, "up")

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await self._pass(source, sink, "down")

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: str
    ) -> None:
        left = self.after
        while data := await source.read(65_536):
            if self.is_armed and direction == self.direction:
                sink.write(data[:left])
                left -= len(data)
                if left <= 0:
                    await sink.drain()
                    self.is_armed = False
                    break
            else:
                sink.write(data)
        for writer in self.writers:
            writer.close()


@asynccontextmanager
async def steps_at(url: str, **options: Any) -> AsyncIterator[Steps]:
    steps = Steps(connect(url), "the test's Redis", **options)
    try:
        yield steps
    finally:
        await steps.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as redis:
        yield redis


@pytest.fixture
async def gate(redis_url: str, valkey_server: EmbeddedValkey) -> AsyncIterator[Gate]:
    async with Gate(valkey_server.port) as gate:
        gate.is_open.set()
        yield gate


@pytest.fixture
async def gated(gate: Gate) -> AsyncIterator[Steps]:
    """Steps behind the gate, connected."""
    async with steps_at(url(gate)) as steps:
        await slot(steps, "first")
        yield steps


def url(forwarder: Forwarder, options: str = "") -> str:
    return f"redis://127.0.0.1:{forwarder.port}/0{options}"


async def slot(steps: Steps, name: object) -> int:
    """Take one slot; 1 if this run of the step took it."""
    return int(await steps.run("restore_slots", [SLOTS], [f"c-{name}"]))


def slots(steps: Steps, n: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(slot(steps, i)) for i in range(n)]


async def held(redis: Redis, n: int) -> bool:
    return await redis.zcard(SLOTS) == n


def said(caplog: pytest.LogCaptureFixture, message: str) -> int:
    return sum(record.getMessage() == message for record in caplog.records)


# --- what is written when -------------------------------------------------------------


async def test_steps_of_one_loop_turn_are_one_write(gate: Gate, gated: Steps) -> None:
    gate.writes.clear()
    assert await asyncio.gather(*slots(gated, 50), gated.read("ZCARD", SLOTS)) == [1] * 50 + [51]
    assert len(gate.writes) == 1
    assert gate.writes[0].count(b"EVALSHA") == 50


async def test_step_does_not_wait_for_replies_to_others(
    gate: Gate, gated: Steps, redis: Redis
) -> None:
    gate.is_open.clear()
    first = asyncio.create_task(slot(gated, "a"))
    await wait_until(lambda: held(redis, 2), "Redis ran the first")
    second = asyncio.create_task(slot(gated, "b"))
    await wait_until(lambda: held(redis, 3), "Redis ran the second")
    assert not first.done()
    gate.is_open.set()
    assert (await first, await second) == (1, 1)


async def test_step_waits_for_the_one_before_of_its_call(redis_url: str, gate: Gate) -> None:
    async with Site(url(gate)) as site, connect(redis_url) as redis:
        await site.admitted()
        await site.claimed()
        entry = await site.entry()
        key = site.ledger.keys.call(entry.call.call_id)
        gate.is_open.clear()
        accepting = asyncio.create_task(site.accept(entry))
        answering = asyncio.create_task(site.ledger.answer(entry.call.call_id, at=BUSY.ended_at))

        async def accepted() -> bool:
            return await redis.hget(key, "state") == b"accepted"

        await wait_until(accepted, "Redis ran the first")
        written = len(gate.writes)
        await redis.ping()
        assert len(gate.writes) == written
        assert await redis.hget(key, "answered_ms") is None
        gate.is_open.set()
        assert await accepting
        assert await answering
        assert await redis.hget(key, "answered_ms") is not None


async def test_no_more_than_a_batch_is_under_way(gate: Gate, gated: Steps, redis: Redis) -> None:
    gate.is_open.clear()
    waiting = slots(gated, 2 * BATCH + 1)
    await wait_until(lambda: held(redis, BATCH + 1), "Redis ran a batch")
    for _ in range(20):
        await redis.ping()
    assert await held(redis, BATCH + 1)
    gate.is_open.set()
    assert await asyncio.gather(*waiting) == [1] * (2 * BATCH + 1)


async def test_large_read_lets_steps_pass(gate: Gate, gated: Steps) -> None:
    gate.is_open.clear()
    reading = asyncio.create_task(gated.read_many([("GET", f"k-{i}") for i in range(5 * BATCH)]))
    await wait_until(lambda: b"k-0" in gate.writes[-1], "the read has begun")
    step = asyncio.create_task(slot(gated, "a"))
    gate.is_open.set()
    await step
    assert not reading.done()
    assert await reading == [None] * 5 * BATCH


# --- replies --------------------------------------------------------------------------


async def test_cancelled_caller_does_not_shift_replies(gate: Gate, gated: Steps) -> None:
    await gated.redis.mset({"a": "1", "b": "2", "c": "3"})
    gate.is_open.clear()
    reads = [asyncio.create_task(gated.read("GET", key)) for key in "abc"]
    await wait_until(lambda: b"GET" in gate.writes[-1], "they were written")
    await cancel([reads[1]])
    gate.is_open.set()
    assert (await reads[0], await reads[2]) == (b"1", b"3")


async def test_error_reply_reaches_its_own_command_only(gated: Steps) -> None:
    before, after = slots(gated, 2)
    wrong = asyncio.create_task(gated.read("GET", SLOTS))
    behind = asyncio.create_task(slot(gated, "b"))
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await wrong
    assert [await before, await after, await behind] == [1, 1, 1]
    assert not gated.is_down


async def test_huge_reply_arrives_whole(gated: Steps, redis: Redis) -> None:
    huge = os.urandom(1_000_000) * 20
    await redis.set("huge", huge)
    read, taken = await asyncio.gather(gated.read("GET", "huge"), slot(gated, "a"))
    assert read == huge
    assert taken == 1


@pytest.mark.parametrize("protocol", [2, 3])
async def test_reads_give_what_redis_py_gives(redis_url: str, redis: Redis, protocol: int) -> None:
    await redis.hset("h", mapping={"a": "1", "b": "2"})
    await redis.sadd("s", "x", "y")
    await redis.zadd("z", {"m": 1.5, "n": 2})
    commands: list[tuple[str | int, ...]] = [
        ("HGETALL", "h"),
        ("HGETALL", "none"),
        ("HMGET", "h", "a", "c"),
        ("SMEMBERS", "s"),
        ("SMISMEMBER", "s", "x", "q"),
        ("ZRANGE", "z", 0, -1, "WITHSCORES"),
        ("ZRANGEBYSCORE", "z", 1, 2, "WITHSCORES", "LIMIT", 0, 5),
        ("SRANDMEMBER", "s", 5),
        ("GET", "none"),
        ("LRANGE", "none", 0, -1),
    ]
    async with steps_at(f"{redis_url}?protocol={protocol}") as steps:
        pipe = steps.redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        assert await steps.read_many(commands) == await pipe.execute()
        assert [type(part) for part in await steps.read("TIME")] == [int, int]


async def test_reply_that_nobody_asked_for_ends_the_connection(
    gate: Gate, gated: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    links = gate.links
    for writer in gate.writers[::2]:
        writer.write(b"+surprise\r\n")
    await wait_until(lambda: gated._connection and not gated._connection.is_open, "it is closed")
    assert await slot(gated, "a") == 1
    assert gate.links > links
    assert not said(caplog, DOWN)


async def test_steps_run_again_if_their_reply_cannot_be_read(
    gate: Gate, gated: Steps, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    gate.is_open.clear()
    taken = asyncio.ensure_future(slot(gated, "a"))
    await wait_until(lambda: held(redis, 2), "the step has run")
    gate.writers[-2].write(b"?no reply of Redis\r\n")
    gate.is_open.set()
    assert await taken == 0, "a step that has run is repeated, and not refused"
    assert (said(caplog, DOWN), said(caplog, UP)) == (1, 1)


# --- lost connections -----------------------------------------------------------------


@pytest.mark.parametrize(("direction", "after"), [("up", 700), ("down", 37)])
async def test_steps_run_once_if_the_connection_breaks_midway(
    redis_url: str,
    valkey_server: EmbeddedValkey,
    redis: Redis,
    direction: Literal["up", "down"],
    after: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        Cutter(valkey_server.port, direction, after) as cutter,
        steps_at(url(cutter)) as steps,
    ):
        await slot(steps, "first")
        cutter.is_armed = True
        taken = await asyncio.gather(*slots(steps, 60))
        assert not cutter.is_armed
    assert await held(redis, 61)
    assert set(taken) <= {0, 1}  # 0: its reply was lost
    assert (said(caplog, DOWN), said(caplog, UP)) == (1, 1)


async def test_idle_connection_is_replaced_in_silence(
    gated: Steps, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.client_kill_filter(_type="normal", skipme=True)
    await wait_until(lambda: gated._connection and not gated._connection.is_open, "it is closed")
    assert await slot(gated, "a") == 1
    assert not said(caplog, DOWN)


async def test_killed_client_retries_what_was_under_way(
    gate: Gate, gated: Steps, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate.is_open.clear()
    waiting = slots(gated, 20)
    await wait_until(lambda: held(redis, 21), "Redis ran them")
    for writer in gate.writers:
        writer.transport.abort()
    gate.is_open.set()
    assert await asyncio.gather(*waiting) == [0] * 20
    assert (said(caplog, DOWN), said(caplog, UP)) == (1, 1)


async def test_frozen_server_is_noticed_within_the_timeout(
    redis_url: str, valkey_server: EmbeddedValkey, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert valkey_server.pid is not None
    loop = asyncio.get_running_loop()
    async with steps_at(f"{redis_url}?timeout=1") as steps:
        await asyncio.gather(*slots(steps, 10))
        os.kill(valkey_server.pid, signal.SIGSTOP)
        try:
            began = loop.time()
            waiting = [asyncio.create_task(slot(steps, f"x{i}")) for i in range(10)]
            await wait_until(lambda: steps.is_down, "the silence is noticed")
            assert loop.time() - began > 0.9
        finally:
            os.kill(valkey_server.pid, signal.SIGCONT)
        await asyncio.gather(*waiting)
    assert await held(redis, 20)
    texts = [r.__dict__["error"] for r in caplog.records if r.getMessage() == DOWN]
    assert texts == ["no reply within 1 s"]


async def test_silent_connection_is_tried_while_idle(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async with steps_at(url(gate, "?timeout=1&health_check_interval=1")) as steps:
        await slot(steps, "a")
        await wait_until(lambda: b"PING" in gate.writes[-1], "a PING")
        gate.is_open.clear()
        links = gate.links
        await wait_until(
            lambda: steps._connection and not steps._connection.is_open, "it counts as lost"
        )
        gate.is_open.set()
        assert await slot(steps, "b") == 1
        assert gate.links == links + 1
    assert not said(caplog, DOWN)


async def test_steps_reach_the_new_master_after_a_demotion(redis_url: str) -> None:
    with EmbeddedValkey() as old, EmbeddedValkey() as new:
        masters = [old]
        client = connect("sentinel://127.0.0.1:1/main")
        pool: Any = client.connection_pool

        async def discover(_: str) -> tuple[str, int]:
            return "127.0.0.1", masters[-1].port

        pool.sentinel_manager.discover_master = discover
        steps = Steps(client, "the test's Redis")
        assert await slot(steps, "a") == 1
        masters.append(new)
        async with connect(old.url()) as redis:
            await redis.replicaof("127.0.0.1", new.port)
        assert await asyncio.wait_for(slot(steps, "b"), 15) == 1
        async with connect(new.url()) as redis:
            assert await redis.zrange(SLOTS, 0, -1) == [b"c-b"]
        await steps.close()


# --- how redis-py connects ------------------------------------------------------------


async def test_shared_connection_speaks_tls(
    redis_url: str,
    valkey_server: EmbeddedValkey,
    redis: Redis,
    tmp_path: Path,
    require_service: RequireService,
) -> None:
    require_service("openssl", OPENSSL_MISSING)
    cert, key = await certificate(tmp_path)
    async with (
        tls_in_front_of(valkey_server.port, cert, key) as port,
        steps_at(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}") as steps,
    ):
        assert await asyncio.gather(*slots(steps, 50)) == [1] * 50
        await redis.set("huge", b"x" * 3_000_000)
        assert len(await steps.read("GET", "huge")) == 3_000_000
        await redis.client_kill_filter(_type="normal", skipme=True)
        assert await asyncio.gather(*slots(steps, 50)) == [0] * 50


@asynccontextmanager
async def user(redis: Redis, *rules: str) -> AsyncIterator[str]:
    """A Redis user with these rights; yields the login for a URL."""
    client: Any = redis
    await client.execute_command("ACL", "SETUSER", "me", "on", ">pw", "~*", *rules)
    try:
        yield "redis://me:pw@"
    finally:
        await client.execute_command("ACL", "DELUSER", "me")


async def test_shared_connection_logs_in_and_obeys_options(
    redis: Redis, valkey_server: EmbeddedValkey
) -> None:
    async with (
        user(redis, "+@all") as login,
        steps_at(f"{login}127.0.0.1:{valkey_server.port}/3?client_name=steps") as steps,
    ):
        assert await slot(steps, "a") == 1
        clients: Any = await redis.client_list()
        (mine,) = [one for one in clients if one["name"] == "steps"]
        assert (mine["user"], mine["db"]) == ("me", "3")


async def test_user_who_may_not_load_scripts_is_told(
    redis: Redis, valkey_server: EmbeddedValkey
) -> None:
    async with (
        user(redis, "+@all", "-script") as login,
        steps_at(f"{login}127.0.0.1:{valkey_server.port}/0") as steps,
    ):
        with pytest.raises(NoPermissionError, match="script"):
            await asyncio.wait_for(slot(steps, "a"), 10)
        assert await steps.read("ZCARD", SLOTS) == 0


async def test_redis_py_gets_its_connection_back(redis_url: str) -> None:
    async with steps_at(redis_url) as steps:
        pool: Any = steps.redis.connection_pool
        for _ in range(3):
            await slot(steps, "a")
            assert steps._connection is not None
            steps._connection.lose(RedisConnectionError("the test"))
        await slot(steps, "a")
        await steps.redis.ping()
        assert len(pool._available_connections) + len(pool._in_use_connections) <= 2


async def test_redis_py_can_close_the_shared_connection(redis_url: str) -> None:
    """It waits until the transport says that it is closed, which we pass on."""
    async with steps_at(redis_url) as steps:
        await slot(steps, "a")
        pool: Any = steps.redis.connection_pool
        await asyncio.wait_for(pool.disconnect(), 3)
        assert await slot(steps, "b") == 1


# --- outages --------------------------------------------------------------------------


async def test_abandoned_steps_do_not_pile_up_in_an_outage(
    redis_url: str, valkey_server: EmbeddedValkey
) -> None:
    async with steps_at(redis_url) as steps:
        await slot(steps, "a")
        valkey_server.kill()
        waiting = asyncio.create_task(slot(steps, "b"))
        await wait_until(lambda: steps.is_down, "the outage is noticed")
        for i in range(500):
            assert await steps.or_none_if_down(slot(steps, i)) is None
            assert await steps.or_none_if_down(steps.read("GET", "k")) is None
        queue = steps._queue
        await wait_until(lambda: len(queue.first(1000)) <= 3, "they are forgotten")
        await asyncio.to_thread(valkey_server.start)
        assert await waiting == 1
        assert (queue.retries, steps.is_down) == (0, False)


async def test_server_is_up_only_when_it_takes_refused_steps(
    gate: Gate, gated: Steps, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await redis.config_set("maxmemory", 1)
    try:
        gate.is_open.clear()
        refused = asyncio.create_task(slot(gated, "b"))
        await wait_until(lambda: b"c-b" in gate.writes[-1], "it was written")
        reading = asyncio.create_task(gated.read("ZCARD", SLOTS))
        await wait_until(lambda: b"ZCARD" in gate.writes[-1], "the read was written")
        gate.is_open.set()
        assert await reading == 1
        assert gated.is_down
        await cancel([refused])
        for _ in range(3):
            assert await gated.read("ZCARD", SLOTS) == 1
        assert gated.is_down
    finally:
        await redis.config_set("maxmemory", 0)
    await wait_until(lambda: not gated.is_down, "it is up")
    assert await held(redis, 2)
    assert (said(caplog, DOWN), said(caplog, UP)) == (1, 1)
