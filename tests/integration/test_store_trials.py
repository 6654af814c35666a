"""Every trial of a Redis command, on a real server: with all rights, none is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from dialer.store.client import connect
from dialer.store.rights import missing_rights, trials, wire_trials


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as redis:
        yield redis


async def test_every_trial_is_a_command_that_works(redis: Redis) -> None:
    refused = {}
    for command in [*trials("p"), *wire_trials("ASR", "absent")]:
        pipe = redis.pipeline(transaction=False)
        pipe.execute_command(*command)
        (reply,) = await pipe.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            refused[command] = str(reply)
    assert refused == {}


async def test_a_trial_leaves_nothing_behind(redis: Redis) -> None:
    assert await missing_rights(redis, ["ASR"]) == []
    assert await redis.keys() == []
