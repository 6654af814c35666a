"""Container health: `healthcheck.py bridge`, `healthcheck.py pbx NAME` or `healthcheck.py redis`.

Healthy is who has said in Redis within the last seconds that it lives: this container's
bridge, or the worker of that PBX; who only uses Redis is, while that answers. Whether the
PBX's AMI link is up does not count: a new container would not cure it.
"""

from __future__ import annotations

import socket
import sys

import redis

from dialer.settings import Settings, load
from dialer.store import keys

FRESH_MS = 15_000


def bridge_is_fresh(settings: Settings) -> bool:
    """True where this container's bridge serves any cell (`--cell` may choose some)."""
    prefix = f"{socket.gethostname()}-".encode()
    ages: list[float] = []
    for cell in settings.cells:
        try:
            with redis.Redis.from_url(settings.cell_redis_url(cell), socket_timeout=2) as client:
                now_ms = _now_ms(client)
                beats = client.zrange(keys.LedgerKeys(cell.name).bridges, 0, -1, withscores=True)
        except redis.RedisError:
            continue  # the others are served all the same
        mine = [now_ms - seen for name, seen in beats if name.startswith(prefix)]
        ages.append(min(mine, default=FRESH_MS))
    return any(age < FRESH_MS for age in ages)


def worker_is_fresh(settings: Settings, pbx: str) -> bool:
    """True where the worker of that PBX has said so."""
    with redis.Redis.from_url(settings.registry_redis_url, socket_timeout=5) as client:
        seen = client.hget(keys.pbx(pbx), "seen_ms")
        return seen is not None and _now_ms(client) - int(seen) < FRESH_MS


def redis_answers(settings: Settings) -> bool:
    """True where the registry's Redis answers."""
    with redis.Redis.from_url(settings.registry_redis_url, socket_timeout=5) as client:
        return bool(client.ping())


def _now_ms(client: redis.Redis) -> float:
    """The server's clock, which the heartbeats are written by."""
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds / 1000


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    checks = {
        "bridge": bridge_is_fresh,
        "pbx": lambda settings: worker_is_fresh(settings, rest[0]),
        "redis": redis_answers,
    }
    sys.exit(0 if checks[what](load()) else 1)
