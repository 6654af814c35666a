"""Health check of a container: `healthcheck.py bridge`, `healthcheck.py pbx NAME` or `redis`.

A bridge or the worker of a PBX is healthy if its last heartbeat in Redis is less than 15 s old.
`redis`, for programs that only use Redis, is healthy if the registry's Redis answers. Otherwise
it prints the reason, which `docker inspect` shows, and exits with code 1. The AMI link does not
count: a new container would not repair it. Docker does not restart an unhealthy container; the
watchdog in the program does (dialer/watchdog.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.errors import DialerError
from dialer.settings import Cell, Settings, load
from dialer.store import keys
from dialer.store.client import connect

FRESH_MS = 15_000
WITHIN_S = 5.0

Check = Callable[[Settings], Awaitable[str]]


async def bridge(settings: Settings) -> str:
    """Return why this container's bridge is unhealthy, "" if it serves at least one cell.

    One cell is enough: the Redis of another may be down, or `--cell` chose some cells.
    """
    prefix = f"{socket.gethostname()}-".encode()

    async def is_served(cell: Cell) -> bool:
        try:
            async with (
                asyncio.timeout(WITHIN_S),
                _client(settings.cell_redis_url(cell)) as client,
            ):
                now_ms = await _now_ms(client)
                bridges = keys.LedgerKeys(cell.name).bridges
                beats: list[Any] = await client.zrange(bridges, 0, -1, withscores=True)
        except (RedisError, OSError):
            return False
        return any(now_ms - seen < FRESH_MS for name, seen in beats if name.startswith(prefix))

    if any(await asyncio.gather(*map(is_served, settings.cells))):
        return ""
    return "this bridge has written no heartbeat for 15 s, or no Redis of its cells answers"


def worker_of(pbx: str) -> Check:
    """Return the check of the worker of one PBX."""

    async def worker(settings: Settings) -> str:
        async with _client(settings.registry_redis_url) as client:
            seen: Any = await client.hget(keys.pbx(pbx), "seen_ms")
            if seen is not None and await _now_ms(client) - int(seen) < FRESH_MS:
                return ""
        return f"the worker of {pbx} has written no heartbeat for 15 s"

    return worker


async def redis(settings: Settings) -> str:
    """Return "" if the registry's Redis answers; raise RedisError or OSError if not."""
    async with _client(settings.registry_redis_url) as client:
        await client.ping()
    return ""


@contextlib.asynccontextmanager
async def _client(url: str) -> AsyncIterator[Redis]:
    """Connect as the programs do: `url` may name a Sentinel service."""
    client = connect(url, reply_timeout_s=WITHIN_S)
    try:
        yield client
    finally:
        await client.aclose()


async def _now_ms(client: Redis) -> float:
    """Return the server's clock in ms; heartbeats are written with it."""
    seconds, microseconds = await client.time()
    return seconds * 1000 + microseconds / 1000


def main(what: str, pbx: str = "") -> str:
    """Run one check; return why the container is unhealthy, "" if it is healthy."""
    checks: dict[str, Check] = {"bridge": bridge, "pbx": worker_of(pbx), "redis": redis}

    async def check() -> str:
        return await checks[what](load())

    try:
        return asyncio.run(check())
    except DialerError as error:
        return str(error)
    except (RedisError, OSError) as error:
        return f"Redis cannot be used: {str(error) or 'it does not answer'}"


if __name__ == "__main__":
    reason = main(*sys.argv[1:])
    print(reason or "healthy")
    sys.exit(1 if reason else 0)
