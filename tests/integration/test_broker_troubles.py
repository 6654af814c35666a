"""A broker that hangs, is full or refuses the login: calls go on, it is said, and it heals.

Calls need no broker: their worker looks into the ledger. It takes none only if it has lost its
connection, because a bridge then has other PBXs to choose from.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from dialer.monitor.snapshot import take_snapshot
from dialer.settings import load
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect
from dialer.store.ledger import Survey
from dialer.store.registry import Registry
from dialer.store.steps import Steps
from tests.integration.stack import CELL, Stack
from tests.waiting import PATIENCE_S, wait_until


async def troubles(stack: Stack) -> list[str]:
    """What the monitor says now; for a minute it also says that messages came too late."""
    steps = Steps(connect(stack.valkey.url(0)), "Redis")
    try:
        pbxs = load(stack.config_path).pbxs
        cells = {CELL: tuple(stack.pbxs)}
        found = await take_snapshot(Registry(steps), pbxs, [(Survey(steps), cells)])
        return [one for one in found.troubles() if "no message announced" not in one]
    finally:
        await steps.close()


async def until(stack: Stack, what: str, holds: Callable[[list[str]], bool]) -> None:
    async def it_holds() -> bool:
        return holds(await troubles(stack))

    await wait_until(it_holds, what, within_s=PATIENCE_S)


def says(words: str, troubles: list[str]) -> bool:
    return any(words in one for one in troubles)


async def answered(stack: Stack, calls: int) -> None:
    before = len(stack.multcall.responses)
    await stack.push(calls)
    responses = await stack.responses(before + calls, within_s=PATIENCE_S)
    assert {r["Resultado"] for r in responses[before:]} == {"ANSWERED"}
    assert max(stack.rings.values()) == 1


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[tuple[Stack, EmbeddedValkey]]:
    """A PBX whose broker is a server of its own; one call was answered."""
    with EmbeddedValkey(appendonly=False) as broker:
        settings = {"broker": {"url": broker.url(1)}}
        async with Stack(tmp_path, settings=settings) as stack:
            stack.add_pbx("pbx01")
            await stack.start()
            await answered(stack, 1)
            yield stack, broker


@asynccontextmanager
async def frozen(broker: EmbeddedValkey) -> AsyncIterator[None]:
    async with Redis.from_url(broker.url()) as redis:
        pid = int((await redis.info("server"))["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def full(broker: EmbeddedValkey) -> AsyncIterator[None]:
    async with Redis.from_url(broker.url()) as redis:
        await redis.config_set("maxmemory", 1)
        yield
        await redis.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("breaks", "cure"), [(frozen, "server of [broker] url"), (full, "memory is full")]
)
async def test_calls_go_on_without_a_broker(
    stack: tuple[Stack, EmbeddedValkey], breaks: Any, cure: str
) -> None:
    site, broker = stack
    async with breaks(broker):
        await answered(site, 12)
        await until(site, "it is said", partial(says, cure))
        for _ in range(3):
            await answered(site, 4)
            (sentence,) = await troubles(site)
            assert cure in sentence
        assert "Broker available again" not in site.bridges[0].log
    await until(site, "all is well again", lambda said: said == [])
    await answered(site, 12)
    assert site.bridges[0].log.count("Broker available again") == 1


async def test_a_changed_password_is_named_and_heals(stack: tuple[Stack, EmbeddedValkey]) -> None:
    site, broker = stack
    async with Redis.from_url(broker.url(), password="new") as redis:
        async with Redis.from_url(broker.url()) as before:
            await before.config_set("requirepass", "new")
        command: Any = redis.execute_command
        await command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await command("CLIENT", "KILL", "TYPE", "pubsub")
        await site.push(3)
        for said in ("refuses the login", "user and password are right"):
            await until(site, said, partial(says, said))
        await redis.config_set("requirepass", "")
    await until(site, "all is well again", lambda said: said == [])
    await site.responses(4, within_s=PATIENCE_S)
    await answered(site, 3)
