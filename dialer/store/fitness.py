"""What a Redis server must be for the programs: its version, no cluster, nothing deleted.

Facts come from one INFO. `unfit` decides; it is pure. `check` is for the start of a program, and
`Servers` repeats it while the program runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from dialer.errors import StoreUnfit
from dialer.store.client import connect, connection_trouble
from dialer.store.redis_url import RedisAddress, redacted

OLDEST_REDIS: Final = 7

#: A broker that does not answer in this time counts as down; the start goes on. In seconds.
BROKER_WITHIN_S: Final = 1.0
NO_EVICTION: Final = "noeviction"

CLUSTER_CURE: Final = (
    "use one Redis or Valkey 7 or newer without cluster mode, or sentinels "
    "(sentinel://HOST:PORT,HOST:PORT/SERVICE)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """Facts of one server. A field is None, or empty, if the server does not tell it.

    `clock_ahead_s`: how far the server's clock is ahead of ours. `memory_limit` is `maxmemory`, 0
    without a limit. Sizes in bytes.
    """

    version: str = ""
    is_valkey: bool = False
    is_cluster: bool = False
    is_replica: bool = False
    policy: str = ""
    memory_used: int = 0
    memory_limit: int = 0
    memory_of_machine: int = 0
    has_append_only_file: bool | None = None
    is_disk_failing: bool = False
    clock_ahead_s: float = 0.0

    @classmethod
    def of(cls, info: Mapping[str, Any], *, clock_ahead_s: float = 0.0) -> Self:
        """Return the facts in the reply to INFO."""
        valkey = info.get("valkey_version") or info.get("server_name") == "valkey"
        failing = ("aof_last_write_status", "aof_last_bgrewrite_status")
        return cls(
            version=str(info.get("valkey_version") or info.get("redis_version") or ""),
            is_valkey=bool(valkey),
            is_cluster=str(info.get("cluster_enabled", 0)) == "1"
            or info.get("redis_mode") == "cluster",
            is_replica=info.get("role") == "slave",
            policy=str(info.get("maxmemory_policy", "")),
            memory_used=int(info.get("used_memory", 0)),
            memory_limit=int(info.get("maxmemory", 0)),
            memory_of_machine=int(info.get("total_system_memory", 0)),
            has_append_only_file=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
            is_disk_failing=any(info.get(name, "ok") != "ok" for name in failing),
            clock_ahead_s=clock_ahead_s,
        )


async def read_facts(redis: Redis) -> ServerFacts | None:
    """Return the server's facts; None if the user may not read them.

    Raises:
        RedisError, OSError: there is no usable reply.
    """
    before = time.time()
    try:
        pipe = redis.pipeline(transaction=False)
        pipe.info()
        pipe.time()
        info, (seconds, micros) = await pipe.execute()
    except NoPermissionError:
        return None
    middle = (before + time.time()) / 2
    return ServerFacts.of(info, clock_ahead_s=seconds + micros / 1e6 - middle)


def version_trouble(facts: ServerFacts) -> str | None:
    """Return why the version is too old, with the cure; None if it is not."""
    if facts.is_valkey or not facts.version:
        return None
    major = facts.version.partition(".")[0]
    if not major.isdigit() or int(major) >= OLDEST_REDIS:
        return None
    return f"is Redis {facts.version}; install Redis {OLDEST_REDIS} or newer, or Valkey"


def cluster_trouble(facts: ServerFacts) -> str | None:
    """Return why a cluster cannot be used, with the cure; None if it is no cluster."""
    return f"is a Redis Cluster, which cannot be used; {CLUSTER_CURE}" if facts.is_cluster else None


def eviction_trouble(facts: ServerFacts) -> str | None:
    """Return why the eviction policy loses calls, with the cure; None if it does not."""
    if facts.policy in ("", NO_EVICTION):
        return None
    return (
        f"has the maxmemory-policy {facts.policy}, which deletes calls when memory runs out, so "
        "that people are called again; set 'maxmemory-policy noeviction' in its configuration"
    )


def unfit(facts: ServerFacts | None) -> str | None:
    """Return why calls must not be kept in this server, with the cure; None if they may."""
    if facts is None:
        return None
    return version_trouble(facts) or cluster_trouble(facts) or eviction_trouble(facts)


async def check(redis: Redis, url: str, what: str) -> None:
    """Check a server that calls are kept in. One that is down or silent passes.

    Raises:
        StoreUnfit: calls must not be kept in it; the sentence has the cure.
    """
    try:
        trouble = unfit(await read_facts(redis))
    except (RedisError, OSError):
        return
    if trouble:
        raise StoreUnfit(f"{what} at {redacted(url)} {trouble}")


async def require_usable(redis: Redis, url: str, what: str) -> None:
    """Check that a server that answers can be read, whatever its eviction policy is.

    Raises:
        StoreUnfit: it is too old, or a cluster.
    """
    try:
        facts = await read_facts(redis)
    except (RedisError, OSError):
        return
    if facts and (trouble := version_trouble(facts) or cluster_trouble(facts)):
        raise StoreUnfit(f"{what} at {redacted(url)} {trouble}")


async def check_broker(url: str) -> None:
    """Check the Redis that carries Celery's messages. One that is down or hangs passes.

    Raises:
        StoreUnfit: Celery cannot use it; the sentence has the cure.
    """
    async with connect(url) as redis:
        try:
            async with asyncio.timeout(BROKER_WITHIN_S):
                facts = await read_facts(redis)
        except (RedisError, OSError) as error:
            trouble = connection_trouble(error, RedisAddress.parse(url))
        else:
            trouble = (version_trouble(facts) or cluster_trouble(facts)) if facts else None
    if trouble:
        raise StoreUnfit(f"the broker at {redacted(url)} {trouble}")
