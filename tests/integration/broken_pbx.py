"""Ways in which one of two PBXs says it is up and takes no calls. See `test_one_pbx_broken`.

Each way is an async context manager: it breaks pbx02 of a running stack, and mends it at its end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import tomlkit
from redis.asyncio import Redis

from dialer.simulation.pbx.outcomes import Ending
from dialer.store.client import cancel
from tests.chaos.proxy import Proxy
from tests.integration.stack import BIN, ROOT, Stack

BROKEN = "pbx02"

#: Put before everything else into a process whose host has a wrong clock.
WRONG_CLOCK = """
import datetime, os, time
ahead_s = float(os.environ["WRONG_CLOCK_AHEAD_S"])
real_time, real = time.time, datetime.datetime
class Wrong(real):
    @classmethod
    def now(cls, tz=None):
        return real.fromtimestamp(real_time() + ahead_s, tz)
time.time = lambda: real_time() + ahead_s
datetime.datetime = Wrong
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakage:
    """One way. `says` are words of which the monitor's sentence has some; none: nothing is broken.

    `before` prepares the worker's start: it returns its environment. `is_in_ci`: it is tried in
    each run; the others only with `DIALER_BROKEN_S`.
    """

    name: str
    says: tuple[str, ...]
    breaks: Callable[[Stack], AbstractAsyncContextManager[None]]
    before: Callable[[Stack], Any] | None = None
    is_in_ci: bool = False


def other_settings(stack: Stack, change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    """Write another dialer.toml for one worker; return the environment that names it."""
    tables: dict[str, Any] = tomlkit.parse(stack.config_path.read_text()).unwrap()
    change(tables)
    path = stack.folder / "other" / "dialer.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(tomlkit.dumps(tables))
    return {"DIALER_CONFIG": str(path)}


def port_of(stack: Stack) -> int:
    return int(stack.valkey.url().rpartition(":")[2].partition("/")[0])


# --- the consumer and the broker ----------------------------------------------------------


@asynccontextmanager
async def consumer_cancelled(stack: Stack) -> AsyncIterator[None]:
    async def control(what: str) -> None:
        command = [str(BIN / "celery"), "-A", "dialer", "control", what, BROKEN]
        program = await stack.run(what, command)
        await program.exit_code(60)

    await control("cancel_consumer")
    yield
    await control("add_consumer")


PROXIES: dict[str, Proxy] = {}


async def proxied(stack: Stack, table: str, key: str, db: int) -> dict[str, str]:
    """A worker that reaches one of its servers through a proxy."""
    proxy = PROXIES[stack.folder.name] = Proxy(port_of(stack))
    await proxy.start()

    def change(tables: dict[str, Any]) -> None:
        tables.setdefault(table, {})[key] = f"redis://127.0.0.1:{proxy.port}/{db}"

    return other_settings(stack, change)


async def broker_by_proxy(stack: Stack) -> dict[str, str]:
    return await proxied(stack, "broker", "url", 1)


async def registry_by_proxy(stack: Stack) -> dict[str, str]:
    return await proxied(stack, "registry", "redis_url", 0)


async def other_broker(stack: Stack) -> dict[str, str]:
    """A worker whose settings name another broker than those of the bridge."""

    def change(tables: dict[str, Any]) -> None:
        tables["broker"]["url"] = stack.valkey.url(5)

    return other_settings(stack, change)


@asynccontextmanager
async def cut_off(stack: Stack) -> AsyncIterator[None]:
    proxy = PROXIES.pop(stack.folder.name)
    await proxy.stop()
    yield
    await proxy.start()
    PROXIES[stack.folder.name] = proxy


@asynccontextmanager
async def nudges_lost(stack: Stack) -> AsyncIterator[None]:
    """Another program empties the queue of the PBX all the time."""
    broker = Redis.from_url(stack.broker_url)

    async def steal() -> None:
        while True:
            await broker.delete(BROKEN)
            await asyncio.sleep(0.005)

    stealing = asyncio.create_task(steal())
    try:
        yield
    finally:
        await cancel([stealing])
        await broker.aclose()


# --- the worker and its host --------------------------------------------------------------


@asynccontextmanager
async def frozen(stack: Stack) -> AsyncIterator[None]:
    stack.workers[BROKEN].freeze()
    try:
        yield
    finally:
        stack.workers[BROKEN].thaw()


async def clock_ahead(stack: Stack) -> dict[str, str]:
    """A host whose clock is ten minutes fast."""
    folder = stack.folder / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WRONG_CLOCK)
    return {"PYTHONPATH": f"{folder}:{ROOT}", "WRONG_CLOCK_AHEAD_S": "600"}


@asynccontextmanager
async def nothing_more(_: Stack) -> AsyncIterator[None]:
    yield


async def acl(stack: Stack, *rules: str) -> None:
    redis: Any = stack.redis
    await redis.execute_command("ACL", "SETUSER", "two", *rules)


async def other_user(stack: Stack) -> dict[str, str]:
    """A worker with a Redis user of its own, which has all rights."""
    await acl(stack, "on", ">two", "~*", "&*", "+@all")

    def change(tables: dict[str, Any]) -> None:
        url = f"redis://two:two@127.0.0.1:{port_of(stack)}"
        tables["multcall"]["redis_url"] = f"{url}/0"
        tables["broker"]["url"] = f"{url}/1"

    return other_settings(stack, change)


@asynccontextmanager
async def rights_lost(stack: Stack) -> AsyncIterator[None]:
    await acl(stack, "resetkeys")
    yield
    await acl(stack, "~*")


# --- its Asterisk -------------------------------------------------------------------------


@asynccontextmanager
async def asterisk_hangs(stack: Stack) -> AsyncIterator[None]:
    stack.pbxs[BROKEN].hang()
    yield
    stack.pbxs[BROKEN].unhang()


@asynccontextmanager
async def originates_silent(stack: Stack) -> AsyncIterator[None]:
    """40 % of the Originates get no word from Asterisk."""
    floor: Any = stack.pbxs[BROKEN].exchange.floor
    ending_of, rng = type(floor).ending_of, random.Random(1)

    def sometimes(self: Any, order: Any) -> Ending:
        is_silent = self is floor and rng.random() < 0.4
        return Ending.UNANSWERED_ACTION if is_silent else ending_of(self, order)

    with patch.object(type(floor), "ending_of", sometimes):
        yield


#: What the monitor says of Originates without a word.
SILENT = ("has not answered the Originate", "got no word from Asterisk")

BREAKAGES = (
    Breakage(
        name="consumer cancelled",
        says=("consumer was cancelled",),
        breaks=consumer_cancelled,
        is_in_ci=True,
    ),
    Breakage(name="frozen worker", says=("no heartbeat",), breaks=frozen, is_in_ci=True),
    Breakage(name="silent Originates", says=SILENT, breaks=originates_silent, is_in_ci=True),
    Breakage(name="clock 10 min fast", says=("clock",), breaks=nothing_more, before=clock_ahead),
    Breakage(
        name="broker cut off", says=("not connected to the broker",), breaks=cut_off,
        before=broker_by_proxy,
    ),
    Breakage(
        name="registry cut off", says=("no heartbeat",), breaks=cut_off, before=registry_by_proxy
    ),
    Breakage(
        name="Asterisk hangs",
        says=(*SILENT, "no AMI link", "does not answer"),
        breaks=asterisk_hangs,
    ),
    Breakage(name="nudges lost", says=(), breaks=nudges_lost, is_in_ci=True),
    Breakage(name="other broker", says=(), breaks=nothing_more, before=other_broker),
    Breakage(name="rights lost", says=("no heartbeat",), breaks=rights_lost, before=other_user),
)  # fmt: skip
