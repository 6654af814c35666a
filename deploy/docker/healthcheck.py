"""Container health: `healthcheck.py bridge`, `healthcheck.py pbx NAME` or `healthcheck.py redis`.

Healthy is who has said in Redis within the last seconds that it lives: this container's
bridge, or the worker of that PBX; who only uses Redis is, while that answers. Whether the
PBX's AMI link is up does not count: a new container would not cure it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.settings import Cell, Settings, load
from dialer.store import keys
from dialer.store.client import connect

FRESH_MS = 15_000
WITHIN_S = 5.0


async def bridge_is_fresh(settings: Settings) -> bool:
    """True where this container's bridge serves any cell (`--cell` may choose some)."""
    prefix = f"{socket.gethostname()}-".encode()

    async def serves(cell: Cell) -> bool:
        try:
            async with (
                asyncio.timeout(WITHIN_S),
                _client(settings.cell_redis_url(cell)) as client,
            ):
                now_ms = await _now_ms(client)
                bridges = keys.LedgerKeys(cell.name).bridges
                beats: list[Any] = await client.zrange(bridges, 0, -1, withscores=True)
        except (RedisError, OSError):
            return False  # the others are served all the same
        return any(now_ms - seen < FRESH_MS for name, seen in beats if name.startswith(prefix))

    return any(await asyncio.gather(*map(serves, settings.cells)))


async def worker_is_fresh(settings: Settings, pbx: str) -> bool:
    """True where the worker of that PBX has said so."""
    async with _client(settings.registry_redis_url) as client:
        seen: Any = await client.hget(keys.pbx(pbx), "seen_ms")
        return seen is not None and await _now_ms(client) - int(seen) < FRESH_MS


async def redis_answers(settings: Settings) -> bool:
    """True where the registry's Redis answers."""
    async with _client(settings.registry_redis_url) as client:
        return bool(await client.ping())


@contextlib.asynccontextmanager
async def _client(url: str) -> AsyncIterator[Redis]:
    """As the programs connect, for `url` may name a Sentinel service."""
    client = connect(url, reply_timeout_s=WITHIN_S)
    try:
        yield client
    finally:
        await client.aclose()


async def _now_ms(client: Redis) -> float:
    """The server's clock, which the heartbeats are written by."""
    seconds, microseconds = await client.time()
    return seconds * 1000 + microseconds / 1000


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    checks = {
        "bridge": bridge_is_fresh,
        "pbx": lambda settings: worker_is_fresh(settings, rest[0]),
        "redis": redis_answers,
    }
    sys.exit(0 if asyncio.run(checks[what](load())) else 1)
