"""Which servers are warned of: those that may lose what they have answered."""

from __future__ import annotations

import pytest

from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect, durability_warning


@pytest.mark.parametrize(
    ("appendonly", "fsync", "cure"),
    [
        (True, "always", None),
        (True, "everysec", "set 'appendfsync always'"),
        (True, "no", "set 'appendfsync always'"),
        (False, "always", "set 'appendonly yes' and 'appendfsync always'"),
    ],
)
async def test_a_redis_that_may_lose_calls_is_warned_of(
    appendonly: bool, fsync: str, cure: str | None
) -> None:
    with EmbeddedValkey(appendonly=appendonly, config={"appendfsync": fsync}) as server:
        async with connect(server.url()) as redis:
            warning = await durability_warning(redis)
    assert warning is None if cure is None else cure in (warning or "")


async def test_a_redis_that_may_not_be_asked_is_not_warned_of() -> None:
    with EmbeddedValkey(appendonly=True) as server:
        async with connect(server.url()) as redis:
            await redis.acl_setuser("default", commands=["-config"])
            assert await durability_warning(redis) is None
