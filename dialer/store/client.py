"""Connections to Redis, without automatic retries. No other module creates one.

redis-py retries commands by default, so a lost reply would repeat an RPUSH. Clients created here
never retry; `Steps` repeats its scripts, which are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
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
from dialer.store.redis_url import (
    REPLY_TIMEOUT_S,
    SENTINEL_WITHIN_S,
    RedisAddress,
    Scheme,
    redacted,
)

#: A task that has not ended this long after its cancellation is cancelled again. In seconds.
CANCEL_AGAIN_AFTER_S: Final = 0.2

#: First words of server errors that pass by themselves or that an operator can cure. redis-py
#: removes some of them from the text, so they are searched in `status_code` too.
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


def connect(url: str, *, reply_timeout_s: float = REPLY_TIMEOUT_S, waits_s: float = 0.0) -> Redis:
    """Return a client for `url`, which may name a Sentinel service. It connects on first use.

    `timeout` in the URL replaces `reply_timeout_s`. Commands may wait for `waits_s` besides, in the
    server.
    """
    address = RedisAddress.parse(url)
    options = _options(address, (address.timeout_s or reply_timeout_s) + waits_s)
    match address.scheme:
        case Scheme.SENTINEL:
            return _master(address, options)
        case Scheme.UNIX:
            kind: type[AbstractConnection] = _UnixConnection
            options["path"] = address.path
        case _:
            kind = _TlsConnection if address.tls else _TcpConnection
            options["host"], options["port"] = address.hosts[0]
    client: Redis = Redis.from_pool(ConnectionPool(connection_class=kind, **options))
    return client


def _options(address: RedisAddress, reply_timeout_s: float) -> dict[str, Any]:
    """Return the options of one connection to Redis, for redis-py."""
    options: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": reply_timeout_s,
    }
    passed = ("client_name", "health_check_interval", "protocol")
    options |= {name: value for name, value in address.options.items() if name in passed}
    if address.scheme is not Scheme.UNIX:
        options["socket_connect_timeout"] = address.connect_timeout_s or REPLY_TIMEOUT_S
        options["socket_keepalive"] = address.options.get("socket_keepalive", True)
    return options | (address.tls_options if address.tls else {})


def _master(address: RedisAddress, options: dict[str, Any]) -> Redis:
    sentinel = _Sentinels(
        address.hosts,
        sentinel_kwargs={
            "socket_timeout": SENTINEL_WITHIN_S,
            "retry": Retry(NoBackoff(), 0),
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            "ssl": address.sentinel_tls,
            **(address.tls_options if address.sentinel_tls else {}),
        },
        ssl=address.tls,
        connection_class=_TlsMasterConnection if address.tls else _MasterConnection,
        **options,
    )
    master: Redis = sentinel.master_for(address.service or "", redis_class=_Master)
    return master


class _LostIsLost(AbstractConnection):
    """A connection that the network reset is lost, in any event loop.

    uvloop raises RuntimeError for a write to it; redis-py expects an OSError, as asyncio's.
    """

    # The signature is that of redis-py.
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise RedisConnectionError(f"the connection was lost: {error}") from error


class _TcpConnection(_LostIsLost, Connection):
    pass


class _TlsConnection(_LostIsLost, SSLConnection):
    pass


class _UnixConnection(_LostIsLost, UnixDomainSocketConnection):
    pass


class _MasterConnection(_LostIsLost, SentinelManagedConnection):
    pass


class _TlsMasterConnection(_LostIsLost, SentinelManagedSSLConnection):
    pass


class _Sentinels(Sentinel):
    """Sentinels that only one task queries at a time.

    redis-py 8.1 moves the sentinel that answered to the front of its list. If two tasks query
    at once, this swap loses other sentinels, until only one is known.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._asking = asyncio.Lock()

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        async with self._asking:
            try:
                host, port = await super().discover_master(service_name)
            except RuntimeError as error:  # as in `_LostIsLost`; the next try connects again
                raise RedisConnectionError(f"a sentinel was lost: {error}") from error
        return str(host), int(port)


class _Master(Redis):
    """The master named by the sentinels. Closes the connections to them; redis-py does not."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def has_replicas(url: str) -> bool:
    """True if a replica may replace the server without its last writes."""
    return RedisAddress.parse(url).scheme is Scheme.SENTINEL


def is_passing(error: BaseException) -> bool:
    """True if the same command may succeed later."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
        return True
    if not isinstance(error, ResponseError):
        return False
    return (error.status_code or str(error).partition(" ")[0]) in PASSING


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks that use a client, and wait until they have ended.

    redis-py 8.1 sometimes swallows a cancellation that arrives together with a reply. So the
    cancellation is repeated; otherwise a program could continue after SIGTERM. A caller that is
    cancelled in the meantime waits too: a task that it left behind would never be cancelled again.
    """
    all_tasks = list(tasks)
    pending = set(all_tasks)
    is_cancelled = False
    while pending:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_AFTER_S)
        except asyncio.CancelledError:
            is_cancelled = True
        pending = {task for task in pending if not task.done()}
    for task in all_tasks:
        if not task.cancelled():
            task.exception()  # their errors are not needed
    if is_cancelled:
        raise asyncio.CancelledError


async def wait_and_move(
    redis: Redis, source: str, hand: str, *, head: str, within_s: float, reply_within_s: float
) -> bytes | None:
    """Wait for an element of one of Multcall's lists (BLMOVE) and move it to a bridge's hand.

    Returns None after `within_s`. The wait occupies `redis`, so no other task may use it. The
    connection counts as lost if the reply is `reply_within_s` late.

    Raises:
        StoreUnavailable: the connection was lost; an element may have been moved before.
        RedisError: the server refused for a reason that waiting does not cure.
    """
    try:
        async with asyncio.timeout(within_s + reply_within_s):
            raw = await redis.blmove(source, hand, within_s, head, "RIGHT")  # type: ignore[arg-type]
    except (RedisError, OSError) as error:  # of which TimeoutError is one
        if not is_passing(error):
            raise
        why = "no reply in time" if type(error) is TimeoutError else error
        raise StoreUnavailable(
            f"the connection was lost while waiting for {source}: {why}"
        ) from error
    return raw if isinstance(raw, bytes) else None


async def require(redis: Redis, url: str, what: str) -> None:
    """Check that `redis` answers now.

    Raises:
        StoreUnavailable: it does not; the text contains `what` and the cure.
    """
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        if trouble := connection_trouble(error, RedisAddress.parse(url)):
            raise StoreUnavailable(f"{what} at {redacted(url)} {trouble}") from error
        raise StoreUnavailable(
            f"{what} at {redacted(url)} cannot be reached ({error}): "
            "start that server, or correct its redis_url in dialer.toml"
        ) from error


#: Words of errors about a file that an `ssl_` option names.
_UNREADABLE: Final = ("No such file", "Permission denied", "PEM lib", "no certificate or crl found")


def connection_trouble(error: BaseException, address: RedisAddress) -> str | None:
    """Return why a connection never succeeds as it is set, with the cure; None if it may."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        host = address.hosts[0][0] if address.hosts else "the server"
        return (
            f"has a certificate that is not trusted ({reason or 'unknown CA'}); name the "
            f"certificate of its CA with ssl_ca_certs= in the URL, and use a certificate for {host}"
        )
    if address.tls and any(words in text for words in _UNREADABLE):
        return "cannot be used: a file that its ssl_ options name cannot be read; correct its path"
    if isinstance(error, AuthenticationError):
        return f"refuses the login ({text}); correct user and password in its URL"
    if address.tls and "SSL" in text:
        return (
            "does not speak TLS at that port; use its TLS port, or redis:// in place of rediss://"
        )
    return None if is_passing(error) else f"refuses ({text})"


async def durability_warning(redis: Redis) -> str | None:
    """Return a warning if this server would lose calls in a crash; None if not, or unknown."""
    try:
        persistence = await redis.info("persistence")
        if not int(persistence.get("aof_enabled", 0)):
            return (
                "this Redis has no append-only file: calls admitted shortly before it crashes are "
                "lost; set 'appendonly yes' and 'appendfsync always' in redis.conf"
            )
        fsync = (await redis.config_get("appendfsync")).get("appendfsync", "always")
    except (RedisError, OSError):  # it is down, or an ACL forbids CONFIG GET
        return None
    if fsync == "always":
        return None
    return (
        f"this Redis has 'appendfsync {fsync}': up to 2 s of calls are lost if it is killed while "
        "its disk is slow, or loses power; set 'appendfsync always' in redis.conf"
    )
