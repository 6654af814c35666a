"""Connections to Redis: one way to make them, with nothing repeated behind our back.

redis-py repeats commands by default; one lost reply then makes an RPUSH land twice.
So clients here never retry: `Steps` repeats idempotent scripts, on purpose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dialer.errors import StoreUnavailable
from dialer.store.redis_url import SENTINEL_WITHIN_S, RedisAddress, Scheme, redacted

#: A reply that takes longer means: this connection is dead (a stopped server, a cut cable).
REPLY_TIMEOUT_S: Final = 5.0

#: A task that has not ended this long after it was cancelled is cancelled again, in seconds.
CANCEL_AGAIN_AFTER_S: Final = 0.2

#: First words of a server's refusal that pass with time (or by an operator's hand). redis-py
#: cuts some of them off the text, so they are looked for in `status_code`.
PASSING: Final = frozenset(
    {
        "OOM",
        "READONLY",
        "MISCONF",
        "LOADING",
        "MASTERDOWN",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "BUSY",
        "TRYAGAIN",
        "UNBLOCKED",
    }
)


def connect(url: str, *, reply_timeout_s: float = REPLY_TIMEOUT_S) -> Redis:
    """A client for `url`, which may name a Sentinel service; connects on first use."""
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": reply_timeout_s,
        "socket_connect_timeout": REPLY_TIMEOUT_S,
        "socket_keepalive": True,
    }
    address = RedisAddress.parse(url)
    if address.scheme is not Scheme.SENTINEL:
        client: Redis = Redis.from_url(url, **options)
        return client
    sentinel = _Sentinels(
        address.hosts,
        sentinel_kwargs={
            "socket_timeout": SENTINEL_WITHIN_S,
            "retry": Retry(NoBackoff(), 0),
            "username": address.sentinel_username,
            "password": address.sentinel_password,
        },
        db=address.db,
        username=address.username,
        password=address.password,
        ssl=address.tls,
        **options,
    )
    master: Redis = sentinel.master_for(address.service or "", redis_class=_Master)
    return master


class _Sentinels(Sentinel):
    """Asked by one at a time.

    The one that answered comes first in redis-py's list (8.1), by an exchange that loses others
    of the list where two ask at once; in the end a single sentinel would be known.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._asking = asyncio.Lock()

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        async with self._asking:
            host, port = await super().discover_master(service_name)
        return str(host), int(port)


class _Master(Redis):
    """The master that the sentinels name. redis-py leaves the links to the sentinels open."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def has_replicas(url: str) -> bool:
    """True where another server may take this one's place and lack its last writes."""
    return RedisAddress.parse(url).scheme is Scheme.SENTINEL


def is_passing(error: BaseException) -> bool:
    """True for a refusal or a failure that the same command may survive a little later."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
        return True
    if not isinstance(error, ResponseError):
        return False
    return (error.status_code or str(error).partition(" ")[0]) in PASSING


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks that use a client and waits for their end.

    redis-py now and then swallows a cancellation that meets a reply (seen with 8.1): then it is
    given again, or a program that was told to stop would run for ever.
    """
    every = list(tasks)
    pending = set(every)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_AFTER_S)
    await asyncio.gather(*every, return_exceptions=True)  # what one raised is not asked for


async def wait_and_move(
    redis: Redis, source: str, hand: str, *, head: str, within_s: float
) -> bytes | None:
    """Waits for an element of one of Multcall's lists and moves it to a bridge's hand.

    `redis` is a client of its own, for the wait occupies it. None where none came in time.

    Raises:
        StoreUnavailable: the link broke; an element may have been moved before it did.
        RedisError: the server refused for good.
    """
    try:
        raw = await redis.blmove(source, hand, within_s, head, "RIGHT")  # type: ignore[arg-type]
    except (RedisError, OSError) as error:
        if not is_passing(error):
            raise
        raise StoreUnavailable(f"the wait for {source} was broken off: {error}") from error
    return raw if isinstance(raw, bytes) else None


async def require(redis: Redis, url: str, what: str) -> None:
    """Makes sure that `redis` answers now.

    Raises:
        StoreUnavailable: it does not; the sentence names `what` and the cure.
    """
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        raise StoreUnavailable(
            f"{what} at {redacted(url)} cannot be reached ({error}): "
            "start that server, or correct its redis_url in dialer.toml"
        ) from error


async def durability_warning(redis: Redis) -> str | None:
    """A sentence if this server would lose calls on a crash, None if not or if it does not say."""
    try:
        persistence = await redis.info("persistence")
        if not int(persistence.get("aof_enabled", 0)):
            return (
                "this Redis has no append-only file: calls admitted shortly before it crashes are "
                "lost; set 'appendonly yes' and 'appendfsync always' in redis.conf"
            )
        fsync = (await redis.config_get("appendfsync")).get("appendfsync", "always")
    except (RedisError, OSError):  # it is away, or an ACL forbids to ask
        return None
    if fsync == "always":
        return None
    return (
        f"this Redis has 'appendfsync {fsync}': up to 2 s of calls are lost if it is killed while "
        "its disk is slow, or loses power; set 'appendfsync always' in redis.conf"
    )
