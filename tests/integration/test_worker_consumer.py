"""What `celery control`, lost messages and foreign variables do to a worker's calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from dialer.simulation.valkey import EmbeddedValkey
from tests.integration.stack import BIN, CELL, ROOT, Program, Stack
from tests.waiting import PATIENCE_S, wait_until


async def control(stack: Stack, *args: str, action: str = "control") -> Program:
    """`celery -A dialer control …`, once it has ended."""
    command = [str(BIN / "celery"), "-A", "dialer", action, *args]
    program = await stack.run(action, command)
    await program.exit_code(40)
    return program


async def trouble(stack: Stack, pbx: str) -> str:
    raw: Any = await stack.redis.hget(f"dialer:pbx:{pbx}", "trouble")
    return "?" if raw is None else bytes(raw).decode()


async def until_trouble(stack: Stack, pbx: str, words: str, within_s: float = PATIENCE_S) -> None:
    async def said() -> bool:
        found = await trouble(stack, pbx)
        return words in found if words else found == ""

    await wait_until(said, f"the trouble of {pbx} is {words!r}", within_s=within_s)


async def queue(stack: Stack, name: str, pbx: str = "pbx01") -> None:
    """A call that is queued to a PBX, and no message says so; `bridges=0` is needed."""
    request = {"IdRequisicao": name, "Telefone": stack.number()}
    call, now = f"{CELL}:{name}", int((await stack.redis.time())[0] * 1000)
    entry: dict[Any, Any] = {
        "state": "queued",
        "epoch": 1,
        "pbx": pbx,
        "request": json.dumps(request),
        "admitted_ms": now,
        "expires_ms": "",
        "code_state": "none",
    }
    await stack.redis.hset(f"dialer:call:{call}", mapping=entry)
    await stack.redis.zadd(f"dialer:live:{CELL}", {call: now})
    await stack.redis.zadd(f"dialer:queued:{CELL}", {call: now})


# --- the consumer of the own queue --------------------------------------------------------


async def test_a_cancelled_consumer_is_seen_and_heals(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0)
        await until_trouble(stack, "pbx01", "")
        await control(stack, "cancel_consumer", "pbx01")
        await until_trouble(stack, "pbx01", "'celery -A dialer control add_consumer pbx01'")
        await queue(stack, "q-1")
        worker = stack.workers["pbx01"]
        said = "its consumer was cancelled"
        await wait_until(lambda: worker.log.count(said) == 1, "it is logged once")
        assert not stack.rings, "a PBX that is not ready dialed"
        await control(stack, "add_consumer", "pbx01")
        await until_trouble(stack, "pbx01", "")
        await stack.until_dialed(1)
        await wait_until(lambda: "PBX takes calls again" in worker.log, "that is logged too")


async def test_a_worker_consumes_no_queue_of_another_pbx(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        stack.add_pbx("pbx02")
        await stack.start()
        await until_trouble(stack, "pbx01", "")
        await until_trouble(stack, "pbx02", "")
        replies = await control(stack, "add_consumer", "pbx02")
        assert "this is the worker of pbx01, and it consumes no other queue" in replies.log
        said = "Refused to consume the queue of another PBX"
        assert stack.workers["pbx01"].log.count(said) == 1
        assert said not in stack.workers["pbx02"].log
        queues = await control(stack, "active_queues", "-j", action="inspect")
        names = {
            node.partition("@")[0]: [one["name"] for one in found]
            for node, found in json.loads(queues.log.splitlines()[-1]).items()
        }
        assert names == {"pbx01": ["pbx01"], "pbx02": ["pbx02"]}


async def test_a_call_that_no_message_announced_is_dialed(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0)
        await until_trouble(stack, "pbx01", "")
        for n in range(150):
            await queue(stack, f"q-{n}")
        await queue(stack, "foreign", pbx="pbx02")
        await stack.until_dialed(150)
        await stack.until_live(0)
        assert max(stack.rings.values()) == 1
        assert stack.rings.total() == 150
        assert await stack.redis.zscore(f"dialer:queued:{CELL}", f"{CELL}:foreign")


async def test_calls_without_a_message_are_counted(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0, workers=False)
        for n in range(20):
            await queue(stack, f"w-{n}")
        await stack.start_worker("pbx01")
        await stack.until_dialed(20)

        async def beat() -> dict[str, int]:
            """Return the results in a heartbeat that is newer than this question."""
            key = "dialer:pbx:pbx01"
            before = await stack.redis.hget(key, "seen_ms")

            async def is_newer() -> bool:
                return bool(await stack.redis.hget(key, "seen_ms") != before)

            await wait_until(is_newer, "a heartbeat")
            return dict(json.loads(await stack.redis.hget(key, "results") or b"{}"))

        found = await beat()
        assert (found["claimed"], found["unannounced"]) == (20, 0), "they waited for a worker"
        numbers = count()

        async def is_counted() -> bool:
            await queue(stack, f"q-{next(numbers)}")
            return (await beat())["unannounced"] >= 3

        await wait_until(is_counted, "those without a message are counted")


async def test_lost_messages_cost_a_second(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start()
        await until_trouble(stack, "pbx01", "")
        stop = asyncio.Event()

        async def steal() -> None:
            async with Redis.from_url(stack.broker_url) as broker:
                while not stop.is_set():
                    await broker.blpop(["pbx01"], 1)

        thieves = [asyncio.create_task(steal()) for _ in range(3)]
        await stack.push(60)
        responses = await stack.responses(60)
        stop.set()
        await asyncio.gather(*thieves)
        assert len(responses) == 60
        assert max(stack.rings.values()) == 1


async def test_a_broker_that_is_down_is_a_trouble(tmp_path: Path) -> None:
    with EmbeddedValkey(appendonly=False) as broker:
        async with Stack(tmp_path, settings={"broker": {"url": broker.url(1)}}) as stack:
            stack.add_pbx("pbx01")
            await stack.start(bridges=0)
            await until_trouble(stack, "pbx01", "")
            broker.kill()
            await until_trouble(stack, "pbx01", "is not connected to the broker")
            await asyncio.to_thread(broker.start)
            await until_trouble(stack, "pbx01", "")


async def test_a_missing_channel_right_is_named_and_heals(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start_valkey()
        user = ("ACL", "SETUSER", "celery", "on", ">word", "~*", "+@all", "resetchannels")
        redis: Any = stack.redis
        await redis.execute_command(*user)
        url = stack.broker_url.replace("redis://", "redis://celery:word@")
        stack.settings["broker"] = {"url": url}
        await stack.start(bridges=0)
        await until_trouble(stack, "pbx01", "may not use pub/sub channels: give it '&*'")
        worker = stack.workers["pbx01"]
        assert worker.log.count("Broker refuses the worker") == 1
        assert "Connection to broker lost" not in worker.log
        await redis.execute_command("ACL", "SETUSER", "celery", "&*")
        await until_trouble(stack, "pbx01", "")


# --- variables and options ----------------------------------------------------------------


FOREIGN_BROKERS: Final = (
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
    "CELERY_RESULT_BACKEND",
)


@pytest.mark.parametrize(
    ("variables", "named"),
    [(FOREIGN_BROKERS, FOREIGN_BROKERS), (("BROKER_URL",), ("CELERY_BROKER_URL",))],
    ids=["CELERY", "BROKER_URL"],
)
async def test_a_foreign_broker_is_ignored(
    tmp_path: Path, variables: Sequence[str], named: Sequence[str]
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0, workers=False)
        env = dict.fromkeys(variables, stack.valkey.url(5))
        worker = await stack.start_worker("pbx01", env=env)
        bridge = await stack.start_bridge(env=env)
        await stack.push(5)
        await stack.responses(5)
        async with Redis.from_url(stack.valkey.url(5)) as foreign:
            keys: Any = await foreign.keys()
        assert keys == []
        said = "Celery's variables and -b are ignored; dialer.toml has the broker"
        assert worker.log.count(said) == 1
        assert [name for name in named if name not in worker.log] == []
        assert bridge.log.count(said) == ("BROKER_URL" not in variables)


async def test_foreign_loader_and_settings_are_ignored(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(workers=False)
        env = {
            "CELERY_LOADER": "nothing.here:Loader",
            "CELERY_CONFIG_MODULE": "nothing_here",
            "CELERY_TASK_ALWAYS_EAGER": "1",
        }
        worker = await stack.start_worker("pbx01", env=env)
        await stack.push(3)
        await stack.responses(3)
        for name in env:
            assert name in worker.log


async def test_every_command_asks_the_broker_of_the_settings(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0)
        command = [str(BIN / "celery"), "-A", "dialer", "-b", stack.valkey.url(5)]
        ping = await stack.run("ping", [*command, "inspect", "ping"])
        await ping.exit_code(40)
        assert "pong" in ping.log
        assert "dialer: warning: CELERY_BROKER_URL (or -b) is ignored" in ping.log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-P", "processes"], "which a pool of prefork would disturb: remove -P"),
        (["-Pgevent"], "which a pool of gevent would disturb: remove -P"),
        (["--autoscale=64,4"], "a worker has no pool that could grow: remove --autoscale"),
        (["-B"], "there is nothing to schedule: remove -B"),
        (["--", "worker.prefetch_multiplier=3"], "remove worker.prefetch_multiplier=3"),
        (["-X", "pbx01"], "a worker serves exactly one PBX"),
    ],
)
async def test_an_option_that_cannot_work_is_refused(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0, workers=False)
        worker = await stack.run_celery("-Q", "pbx01", *arguments)
        assert await worker.exit_code(40) == 2
        lines = [line for line in worker.log.splitlines() if line.startswith("dialer: ")]
        assert len(lines) == 1, worker.log
        assert said in lines[0]
        assert "Traceback" not in worker.log


@pytest.mark.parametrize("pool", ["gevent", "eventlet", "processes", "my.pool"])
async def test_a_pool_of_the_environment_is_refused(tmp_path: Path, pool: str) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0, workers=False)
        env = {"CELERY_WORKER_POOL": pool}
        worker = await stack.run_celery("-Q", "pbx01", env=env)
        assert await worker.exit_code(40) == 2
        assert "Traceback" not in worker.log
        assert "CELERY_WORKER_POOL" in worker.log or "Invalid value for '-P'" in worker.log


@pytest.mark.parametrize(
    "arguments",
    [
        ["-P", "prefork", "--max-tasks-per-child=1", "--time-limit=1", "--soft-time-limit=1"],
        ["-P", "threads", "-c", "32", "-X", "pbx02"],
        ["-P", "solo", "--purge", "-O", "fair", "--without-heartbeat"],
    ],
)
async def test_other_options_work(tmp_path: Path, arguments: list[str]) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(workers=False)
        stack.workers["pbx01"] = await stack.run_celery("-Q", "pbx01", *arguments)
        await stack.until_link("pbx01", "up")
        await stack.push(20)
        await stack.responses(20)


async def test_the_rights_of_the_manual_are_enough(tmp_path: Path) -> None:
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    line = next(one for one in manual.splitlines() if one.startswith("ACL SETUSER"))
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start_valkey()
        redis: Any = stack.redis
        await redis.execute_command(*line.replace("PASSWORD", "word").split())
        login = "redis://dialer:word@"
        stack.settings["broker"] = {"url": stack.broker_url.replace("redis://", login)}
        stack.settings["multcall"] = {"redis_url": stack.valkey.url(0).replace("redis://", login)}
        await stack.start()
        await until_trouble(stack, "pbx01", "")
        await stack.push(10)
        await stack.responses(10)
        pong = await control(stack, "ping", action="inspect")
        assert "pong" in pong.log
        log = stack.logs()
        assert "NOPERM" not in log
        assert "no permissions" not in log
