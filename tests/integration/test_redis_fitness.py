"""A Redis that must not be used: refused at the start in one sentence, named while running."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from rich.console import Console

from dialer.domain.parameters import Subject
from dialer.errors import ConfigError, StepsStopped, StoreUnavailable, StoreUnfit
from dialer.monitor.terminal import View, watch
from dialer.settings import Limits, Settings
from dialer.settings.typed import wanted
from dialer.simulation.valkey import EmbeddedValkey
from dialer.steering import Steering
from dialer.store import fitness
from dialer.store.client import cancel, connect
from dialer.store.fitness import ServerFacts
from dialer.store.parameters import ParameterStore
from dialer.store.redis_url import place_of
from dialer.store.servers import Servers
from dialer.store.steps import Steps
from tests.listener import Listener
from tests.processes import PbxPlace, site_toml
from tests.tls import OPENSSL_MISSING, certificate, tls_in_front_of
from tests.waiting import SOON_S, wait_until

START_WITHIN_S = 60.0


@contextmanager
def server(**config: str) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(config={k.replace("_", "-"): v for k, v in config.items()}) as running:
        yield running


@asynccontextmanager
async def old_redis(target: int) -> AsyncIterator[int]:
    """A proxy that makes a Valkey say that it is Redis 6.0.16, as that of Debian 11."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", target)
        listener.also(outer)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            for new, old in (
                (b"redis_version:7.2.4", b"redis_version:6.0.1"),
                (b"server_name:valkey", b"server_name:reddis"),
                (b"valkey_version", b"unknow_version"),
            ):
                data = data.replace(new, old)
            writer.write(data)
        writer.close()

    async with Listener(serve) as listener:
        yield listener.port


def started(folder: Path, command: list[str], redis_url: str, broker_url: str) -> tuple[int, str]:
    """Exit code and standard error of a program with these settings."""
    config = folder / "dialer.toml"
    pbx = PbxPlace(name="pbx01", port=9, secret="x")
    cells: Mapping[str, Mapping[str, object]] = {"ASR_TIM": {}}
    config.write_text(site_toml(redis_url, broker_url, [pbx], cells=cells))
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "DIALER_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=START_WITHIN_S,
        check=False,
    )
    return done.returncode, done.stderr


BRIDGE = ["dialer.cli", "bridge"]
WORKER = ["celery", "-A", "dialer", "worker", "-Q", "pbx01"]
PROGRAMS = pytest.mark.parametrize("command", [BRIDGE, WORKER], ids=["bridge", "worker"])


def says(program: tuple[int, str], *parts: str) -> None:
    """It ended with exit code 2 and one sentence."""
    code, said = program
    lines = [line for line in said.splitlines() if line.startswith("dialer: ")]
    assert (code, len(lines)) == (2, 1), said
    assert "Traceback" not in said
    for part in parts:
        assert part in lines[0]


@PROGRAMS
def test_evicting_redis_is_refused_at_start(tmp_path: Path, command: list[str]) -> None:
    with server(maxmemory_policy="volatile-lru") as running:
        program = started(tmp_path, command, running.url(), running.url(1))
    says(program, "maxmemory-policy volatile-lru", "set 'maxmemory-policy noeviction'")


@PROGRAMS
def test_redis_cluster_is_refused_at_start(tmp_path: Path, command: list[str]) -> None:
    with server(cluster_enabled="yes") as running:
        program = started(tmp_path, command, running.url(), running.url())
    says(program, "is a Redis Cluster, which cannot be used; use one Redis")


@pytest.mark.parametrize("command", [["monitor"], ["dnc", "add", "5511900000010"]])
def test_commands_refuse_a_cluster_too(tmp_path: Path, command: list[str]) -> None:
    with server(cluster_enabled="yes") as running:
        program = started(tmp_path, ["dialer.cli", *command], running.url(), running.url())
    says(program, "is a Redis Cluster, which cannot be used; use one Redis")


async def test_command_without_rights_says_one_sentence(tmp_path: Path, redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as admin:
        await admin.acl_setuser("poor", enabled=True, passwords=["+p"], commands=["+ping"])
        url = redis_url.replace("://", "://poor:p@")
        program = await asyncio.to_thread(started, tmp_path, ["dialer.cli", "monitor"], url, url)
        await admin.acl_deluser("poor")
    says(program, "Redis refuses: ", "`dialer doctor` says what is wrong")


@PROGRAMS
def test_broker_in_a_cluster_is_refused_at_start(
    tmp_path: Path, redis_url: str, command: list[str]
) -> None:
    with server(cluster_enabled="yes") as running:
        says(started(tmp_path, command, redis_url, running.url()), "the broker", "Redis Cluster")


@PROGRAMS
async def test_redis_6_is_refused_at_start(
    tmp_path: Path, valkey_server: EmbeddedValkey, redis_url: str, command: list[str]
) -> None:
    async with old_redis(valkey_server.port) as port:
        url = f"redis://127.0.0.1:{port}/0"
        program = await asyncio.to_thread(started, tmp_path, command, url, redis_url)
    says(program, "is Redis 6.0.1; install Redis 7 or newer, or Valkey")


@PROGRAMS
@pytest.mark.skipif(OPENSSL_MISSING is not None, reason="openssl is not installed")
async def test_untrusted_broker_is_refused_at_start(
    tmp_path: Path, valkey_server: EmbeddedValkey, redis_url: str, command: list[str]
) -> None:
    async with tls_in_front_of(valkey_server.port, *await certificate(tmp_path)) as port:
        url = f"rediss://127.0.0.1:{port}/1"
        program = await asyncio.to_thread(started, tmp_path, command, redis_url, url)
    says(program, "the broker at", "not trusted (self", "ssl_ca_certs=")


@PROGRAMS
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("?decode_responses=true", "multcall.redis_url: has the option decode_responses"),
        ("?abortConnect=false", "multcall.redis_url: has the option abortConnect"),
        ("?ssl_cert_reqs=none", "needs TLS; write rediss://"),
    ],
)
def test_unusable_option_is_refused_at_start(
    tmp_path: Path, redis_url: str, command: list[str], option: str, said: str
) -> None:
    code, error = started(tmp_path, command, f"{redis_url}{option}", redis_url)
    assert said in error
    if command is BRIDGE:  # a worker's settings are read by Celery's own command line
        says((code, error), said)


async def test_valkey_of_any_version_is_fit(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        facts = await fitness.read_facts(client)
    assert facts is not None
    assert facts.is_valkey
    assert fitness.unfit(facts) is None


async def test_policy_is_known_without_config_get(redis_url: str) -> None:
    """Managed Redis forbids CONFIG; the policy is in INFO too."""
    async with redis.asyncio.Redis.from_url(redis_url) as admin:
        await admin.acl_setuser(
            "managed", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-config"]
        )
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        servers = Servers()
        try:
            with pytest.raises(StoreUnfit, match=r"the Redis of cell A at .* allkeys-lru"):
                await servers.at(redis_url.replace("://", "://managed:p@"), "the Redis of cell A")
        finally:
            await admin.config_set("maxmemory-policy", "noeviction")
            await admin.acl_deluser("managed")
            await servers.close()


async def test_policy_changed_while_running_is_logged(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers(check_every_s=0.05)
    await servers.at(redis_url, "the registry's Redis")
    watching = asyncio.create_task(servers.watch())
    caplog.set_level(logging.WARNING)

    def logged(text: str) -> list[logging.LogRecord]:
        return [r for r in caplog.records if r.getMessage().startswith(text)]

    async with redis.asyncio.Redis.from_url(redis_url) as admin:
        try:
            await admin.config_set("maxmemory-policy", "volatile-lru")
            (record,) = await wait_until(lambda: logged("Redis must not be used"), "it is logged")
            assert "volatile-lru" in vars(record)["reason"]
        finally:
            await admin.config_set("maxmemory-policy", "noeviction")
        await wait_until(lambda: logged("Redis may be used again"), "the end is logged")
    assert len(logged("Redis must not be used")) == 1
    await cancel([watching])
    await servers.close()


def a_site(redis_url: str) -> Settings:
    pbx = {"name": "pbx01", "max_calls": 1, "cps": 1, "trunks": {"tim": "PJSIP/{number}@tim"}}
    return Settings.model_validate(
        {
            "multcall": {"redis_url": redis_url},
            "broker": {"url": redis_url},
            "pbxs": [pbx],
            "cells": [{"nome": "ASR_TIM", "threads": 1, "pbxs": ["pbx01"]}],
        }
    )


async def test_monitor_shows_who_paused_and_drained(redis_url: str) -> None:
    printed, settings = io.StringIO(), a_site(redis_url)
    steps = Steps(connect(redis_url), "the registry's Redis")
    ana = Steering(store=ParameterStore(steps), file=settings, by="ana@ops")
    await ana.stop(Subject("cell", "ASR_TIM"), why="fire alarm")
    await ana.stop(Subject("pbx", "pbx01"))
    await ana.set(Subject("pbx", "pbx01"), wanted("pbx", ["max_calls=7"]))
    await steps.close()
    await served(redis_url)
    await watch(settings, Console(file=printed, width=300))
    shown = printed.getvalue()
    assert re.search(r"pbx01 +\S+ drained +\S+ 0 +\S+ 7 ", shown), shown
    assert re.search(r"ASR_TIM +\S+ paused +\S+ 0 +\S+ 0 +\S+ 1 ", shown), shown
    assert "ASR_TIM is paused by ana@ops since" in shown
    assert "(fire alarm); `dialer cells resume ASR_TIM` ends that" in shown
    assert "pbx01 is drained by ana@ops since" in shown


async def test_monitor_writes_json(redis_url: str) -> None:
    printed, settings = io.StringIO(), a_site(redis_url)
    steps = Steps(connect(redis_url), "the registry's Redis")
    ana = Steering(store=ParameterStore(steps), file=settings, by="ana@ops")
    await ana.stop(Subject("cell", "ASR_TIM"))
    await steps.close()
    seconds, _ = await steps_time(redis_url)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.hset(f"dialer:minute:ASR_TIM:{seconds // 60}", "pbx01 BUSY", "3")
        await client.rpush("ZancURA2.0-Request-ASR_TIM", "{}")
    await served(redis_url)
    view = View(is_once=True, is_json=True, server=place_of(redis_url))
    await watch(settings, Console(file=printed), view)
    found = json.loads(printed.getvalue())
    (cell,), (pbx,) = found["cells"], found["pbxs"]
    assert (cell["cell"], cell["limit"], cell["dialing"]) == ("ASR_TIM", "paused", False)
    assert cell["sentence"].startswith("ASR_TIM is paused by ana@ops")
    assert cell["threads"] == 1
    assert (cell["waiting"], cell["lists"]["Request"]) == (1, 1)
    assert (cell["outcomes"], cell["outcomes_of_s"]) == ({"BUSY": 3}, 3600)
    assert (pbx["pbx"], pbx["ready"], pbx["heartbeat_age_s"]) == ("pbx01", False, None)
    assert any("ASR_TIM is paused by ana@ops" in sentence for sentence in found["troubles"])


async def served(redis_url: str) -> None:
    """A bridge has sent its heartbeat."""
    seconds, _ = await steps_time(redis_url)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.zadd("dialer:bridges:ASR_TIM", {"bridge": (seconds + 60) * 1000})


async def steps_time(redis_url: str) -> tuple[int, int]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        seconds, micros = await client.time()
        return int(seconds), int(micros)


async def test_monitor_looks_again_until_it_is_stopped(redis_url: str) -> None:
    for console in (io.StringIO(), None):
        printed = console or io.StringIO()
        terminal = Console(file=printed, width=200, force_terminal=console is None)
        view = View(every_s=0.01, is_json=console is not None)
        task = asyncio.create_task(watch(a_site(redis_url), terminal, view))
        words = '"cells"' if console is not None else "ASR_TIM"
        await wait_until(lambda: printed.getvalue().count(words) > 2, "three looks")  # noqa: B023
        await cancel([task])


async def test_monitor_names_the_servers_of_cells(redis_url: str) -> None:
    with pytest.raises(ConfigError, match=r"no cell is on the Redis 10\.0\.0\.1; there are: 127"):
        await watch(a_site(redis_url), Console(), View(server="10.0.0.1"))


async def test_monitor_shows_a_cell_outside_its_hours(redis_url: str) -> None:
    printed, settings = io.StringIO(), a_site(redis_url)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%a").lower()
    hours = {"days": [yesterday], "from": "08:00", "to": "08:01"}
    limits = Limits.model_validate({"calling_hours": [hours], "time_zone": "UTC"})
    cells = tuple(cell.model_copy(update={"limits": limits}) for cell in settings.cells)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.rpush("ZancURA2.0-Request-ASR_TIM", "{}", "{}")
    await served(redis_url)
    await watch(settings.model_copy(update={"cells": cells}), Console(file=printed, width=300))
    shown = printed.getvalue()
    assert re.search(r"ASR_TIM +\S+ outside hours ", shown), shown
    assert "ASR_TIM is outside its calling hours (time zone UTC), and 2 requests wait" in shown
    assert "no PBX takes calls" not in shown
    assert re.search(r"ZancURA2\.0-Request-ASR_TIM +\S+ ASR_TIM +\S+ Request +\S+ 2 ", shown)


async def test_monitor_names_an_evicting_redis(redis_url: str) -> None:
    printed = io.StringIO()
    async with redis.asyncio.Redis.from_url(redis_url) as admin:
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        try:
            await watch(a_site(redis_url), Console(file=printed, width=300))
        finally:
            await admin.config_set("maxmemory-policy", "noeviction")
    assert "has the maxmemory-policy allkeys-lru" in printed.getvalue()
    assert "All is well." not in printed.getvalue()


async def test_missing_rights_are_logged_together_at_start(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers()
    async with redis.asyncio.Redis.from_url(redis_url) as admin:
        await admin.acl_setuser(
            "poor",
            enabled=True,
            passwords=["+p"],
            keys=["dialer:*"],
            commands=["+@all", "-blmove", "-evalsha"],
        )
        await servers.at(redis_url.replace("://", "://poor:p@"), "the registry's Redis")
        await servers.close()
        await admin.acl_deluser("poor")
    (record,) = [r for r in caplog.records if r.getMessage().startswith("Redis user lacks rights")]
    assert vars(record)["add"] == "+blmove +evalsha"


async def test_redis_that_is_down_at_start_is_as_before(redis_url: str) -> None:
    servers = Servers()
    gone = "redis://127.0.0.1:9/0"
    steps = await servers.of_cells({"A": redis_url, "B": gone})
    assert (steps["A"].is_down, steps["B"].is_down) == (False, True)
    await servers.close()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await Servers().at(gone, "the Redis")


async def test_cells_without_any_redis_cannot_be_served(redis_url: str) -> None:
    gone = "redis://127.0.0.1:9/0"
    with pytest.raises(StoreUnavailable, match=r"the Redis of cell A at .* cannot be reached"):
        await Servers().of_cells({"A": gone, "B": gone})
    assert await Servers().of_cells({}) == {}


async def test_cells_of_one_redis_share_its_steps(redis_url: str) -> None:
    servers = Servers()
    other = redis_url.removesuffix("0") + "1"
    steps = await servers.of_cells({"A": redis_url, "B": redis_url, "C": other})
    assert steps["A"] is steps["B"]
    assert steps["A"] is not steps["C"]
    assert steps["A"].where == "the Redis of cell A"
    assert await servers.at(redis_url, "the registry's Redis") is steps["A"]
    assert servers.known == {redis_url: steps["A"], other: steps["C"]}
    await servers.close()
    with pytest.raises(StepsStopped):
        await steps["C"].run("release", [])


async def test_a_redis_that_may_be_down_is_retried_later() -> None:
    servers = Servers()
    steps = await servers.at("redis://127.0.0.1:9/0", "the Redis", must_answer=False)
    assert steps.is_down
    await servers.close()


async def test_only_a_redis_that_may_lose_calls_is_warned_of(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    warned: list[str] = []
    async with redis.asyncio.Redis.from_url(redis_url) as admin:
        before = (await admin.config_get("appendfsync"))["appendfsync"]
        for fsync in ("always", "everysec"):
            await admin.config_set("appendfsync", fsync)
            caplog.clear()
            servers = Servers()
            await servers.at(redis_url, "the Redis")
            await servers.close()
            warned += [vars(r)["cure"] for r in caplog.records]
            assert all(message == "Redis is not durable" for message in caplog.messages)
        await admin.config_set("appendfsync", str(before))
    (cure,) = warned
    assert "'appendfsync everysec'" in cure


@pytest.mark.parametrize("error", [RedisConnectionError("lost"), OSError("no route")])
async def test_rights_that_cannot_be_tried_stop_no_start(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: object, **__: object) -> list[str]:
        raise error

    monkeypatch.setattr("dialer.store.servers.missing_rights", fail)
    servers = Servers()
    assert not (await servers.at(redis_url, "the Redis")).is_down
    await servers.close()


async def test_wrong_password_is_told_with_its_cure(redis_url: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"refuses the login .* correct user and password"):
        await Servers().at(redis_url.replace("://", "://nobody:wrong@"), "the Redis")


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "6.2.7"}, "is Redis 6.2.7"),
        ({"redis_version": "7.0.0"}, None),
        ({"redis_version": "8.2.0"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "6.9"}, None),
        ({"redis_version": "custom"}, None),
        ({"redis_mode": "cluster"}, "is a Redis Cluster"),
        ({"maxmemory_policy": "allkeys-lfu"}, "allkeys-lfu"),
        ({}, None),
    ],
)
def test_facts_decide(info: dict[str, str], said: str | None) -> None:
    trouble = fitness.unfit(ServerFacts.of(info))
    assert (said is None and trouble is None) or (said is not None and said in str(trouble))


async def test_broker_that_hangs_delays_the_start_by_a_second() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with Listener(mute) as server:
        began = time.monotonic()
        await fitness.check_broker(f"redis://127.0.0.1:{server.port}/1?timeout=60")
        assert time.monotonic() - began < SOON_S  # its connection alone would wait for a minute
