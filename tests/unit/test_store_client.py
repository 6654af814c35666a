"""What a failed Redis command means, and what the start says about a server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dialer.errors import StoreUnavailable
from dialer.store import client as client_module
from dialer.store.client import (
    cancel,
    connect,
    connection_trouble,
    durability_warning,
    has_replicas,
    is_passing,
    require,
    wait_and_move,
)
from dialer.store.redis_url import RedisAddress
from tests.waiting import wait_until

LOST = RedisConnectionError("the connection was lost")
REFUSED = ResponseError("WRONGTYPE a key of another type")


class Server:
    """A client whose commands return or raise what the test says."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def command(*args: Any) -> Any:
            self.asked.append((name, *args))
            reply = self.replies.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply

        return command


def client(*replies: Any) -> Redis:
    return cast(Redis, Server(*replies))


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        RedisTimeoutError("no reply"),
        OSError("no route"),
        BusyLoadingError("Redis is loading the dataset in memory"),
        ReadOnlyError("READONLY You can't write against a read only replica."),
        OutOfMemoryError("OOM command not allowed"),
        *(
            ResponseError(f"{word} some reason")
            for word in (
                "OOM", "READONLY", "MISCONF", "LOADING", "MASTERDOWN", "NOREPLICAS",
                "CLUSTERDOWN", "BUSY", "TRYAGAIN", "UNBLOCKED",
            )
        ),
    ],
)  # fmt: skip
def test_an_error_that_passes_is_waited_for(error: Exception) -> None:
    assert is_passing(error)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("WRONGPASS"),
        AuthorizationError("no"),
        NoPermissionError("NOPERM this user has no permissions"),
        REFUSED,
        ResponseError("a BUSY word that is not the first"),
        RedisError("BUSY of the client itself"),
        ValueError("BUSY"),
    ],
)
def test_an_error_that_stays_is_not_waited_for(error: Exception) -> None:
    assert not is_passing(error)


def test_the_status_code_of_an_error_counts_before_its_text() -> None:
    error = ResponseError("the server saves its file")
    error.status_code = "MISCONF"
    assert is_passing(error)


@pytest.mark.parametrize(
    ("url", "replicated"),
    [("redis://host:6379/0", False), ("sentinel://h1,h2/main", True)],
)
def test_only_sentinels_put_a_replica_in_a_servers_place(url: str, replicated: bool) -> None:
    assert has_replicas(url) is replicated


@pytest.mark.parametrize(
    "url",
    [
        "rediss://u:hidden@host?ssl_password=hidden",
        "sentinel://u:hidden@host,h2/main?sentinel_password=hidden",
    ],
)
def test_an_address_hides_its_secrets(url: str) -> None:
    shown = repr(RedisAddress.parse(url))
    assert "host" in shown
    assert "hidden" not in shown


OPTIONS = "?client_name=c&health_check_interval=7&protocol=3"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (
            "redis://u:p@host:6380/3" + OPTIONS,
            {
                "host": "host",
                "port": 6380,
                "db": 3,
                "username": "u",
                "password": "p",
                "client_name": "c",
                "health_check_interval": 7,
                "protocol": 3,
                "socket_keepalive": True,
            },
        ),
        ("redis://host?socket_keepalive=false", {"socket_keepalive": False}),
        ("redis://host?timeout=9", {"socket_timeout": 9, "socket_connect_timeout": 9}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
    ],
)
async def test_a_client_has_the_options_of_its_url(url: str, options: dict[str, Any]) -> None:
    redis = connect(url)
    known = redis.connection_pool.connection_kwargs
    assert {name: known.get(name) for name in options} == options
    await redis.aclose()


@pytest.mark.parametrize(("url", "timeout_s"), [("redis://host", 9), ("redis://host?timeout=1", 5)])
async def test_a_wait_in_redis_is_no_late_reply(url: str, timeout_s: float) -> None:
    redis = connect(url, waits_s=4)
    assert redis.connection_pool.connection_kwargs["socket_timeout"] == timeout_s
    await redis.aclose()


async def move(redis: Redis) -> bytes | None:
    return await wait_and_move(redis, "list", "hand", head="LEFT", within_s=0.5, reply_within_s=5.0)


async def test_a_move_returns_the_element_or_none() -> None:
    redis = client(b"element", None)
    assert await move(redis) == b"element"
    assert await move(redis) is None
    assert cast(Server, redis).asked[0] == ("blmove", "list", "hand", 0.5, "LEFT", "RIGHT")


@pytest.mark.parametrize("lost", [LOST, OSError("no route")])
async def test_a_lost_connection_during_a_move_says_so(lost: Exception) -> None:
    with pytest.raises(StoreUnavailable, match="lost while waiting for list") as raised:
        await move(client(lost))
    assert raised.value.__cause__ is lost


async def test_a_move_without_a_reply_in_time_is_a_lost_connection() -> None:
    async def blmove(*_: Any) -> None:
        await asyncio.Event().wait()

    silent: Any = SimpleNamespace(blmove=blmove)
    with pytest.raises(StoreUnavailable, match="waiting for list: no reply in time"):
        await wait_and_move(silent, "list", "hand", head="LEFT", within_s=0.01, reply_within_s=0.01)


async def test_a_refused_move_is_raised_as_it_is() -> None:
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await move(client(REFUSED))


@pytest.mark.parametrize("error", [LOST, OSError("no route")])
async def test_an_absent_server_is_named_without_its_password(error: Exception) -> None:
    with pytest.raises(StoreUnavailable, match=r"the broker at redis://.*start that") as raised:
        await require(client(error), "redis://:secret@host:6379/0", "the broker")
    assert "secret" not in str(raised.value)


TLS, PLAIN = "rediss://host:6380/0", "redis://host:6379/0"
UNTRUSTED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:1)"


@pytest.mark.parametrize(
    ("error", "url", "said"),
    [
        (RedisConnectionError(UNTRUSTED), TLS, "is not trusted (self-signed); name the"),
        (RedisConnectionError(UNTRUSTED), TLS, "and use a certificate for host"),
        (RedisConnectionError("CERTIFICATE_VERIFY_FAILED"), TLS, "not trusted (unknown CA)"),
        (
            RedisConnectionError("No such file or directory"),
            TLS,
            "ssl_ options name cannot be read",
        ),
        (RedisConnectionError("[SSL] PEM lib"), TLS, "ssl_ options name cannot be read"),
        (AuthenticationError("WRONGPASS"), TLS, "refuses the login (WRONGPASS)"),
        (AuthenticationError("WRONGPASS"), PLAIN, "refuses the login (WRONGPASS)"),
        (RedisConnectionError("[SSL: WRONG_VERSION_NUMBER]"), TLS, "does not speak TLS"),
        (REFUSED, PLAIN, "refuses (WRONGTYPE a key of another type)"),
    ],
)
def test_a_connection_that_never_succeeds_says_why(error: Exception, url: str, said: str) -> None:
    assert said in (connection_trouble(error, RedisAddress.parse(url)) or "")


@pytest.mark.parametrize(
    ("error", "url"),
    [
        (LOST, PLAIN),
        (LOST, TLS),
        (OSError("No such file or directory"), "unix:///run/redis.sock"),
        (RedisConnectionError("No such file or directory"), PLAIN),
        (RedisConnectionError("[SSL: WRONG_VERSION_NUMBER]"), PLAIN),
    ],
)
def test_a_connection_that_may_succeed_later_is_no_trouble(error: Exception, url: str) -> None:
    assert connection_trouble(error, RedisAddress.parse(url)) is None


async def test_a_server_that_answers_is_enough() -> None:
    await require(client(True), "redis://host:6379/0", "the broker")


@pytest.mark.parametrize(
    ("replies", "warning"),
    [
        (({"aof_enabled": 0},), "no append-only file"),
        (({},), "no append-only file"),
        (({"aof_enabled": 1}, {"appendfsync": "everysec"}), "'appendfsync everysec'"),
    ],
)
async def test_a_server_that_may_lose_calls_is_warned_of(
    replies: tuple[Any, ...], warning: str
) -> None:
    assert warning in (await durability_warning(client(*replies)) or "")


@pytest.mark.parametrize(
    "replies",
    [
        ({"aof_enabled": 1}, {"appendfsync": "always"}),
        ({"aof_enabled": 1}, {}),
        (LOST,),
        (OSError("no route"),),
        ({"aof_enabled": 1}, NoPermissionError("NOPERM")),
    ],
)
async def test_a_safe_or_silent_server_is_not_warned_of(replies: tuple[Any, ...]) -> None:
    assert await durability_warning(client(*replies)) is None


async def test_tasks_have_ended_when_they_are_cancelled() -> None:
    ended: list[str] = []

    async def works(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)
            raise ValueError("its error is not needed")

    tasks = [asyncio.create_task(works(name)) for name in ("a", "b")]
    await asyncio.sleep(0)
    await cancel(tasks)
    assert sorted(ended) == ["a", "b"]
    await cancel([])


async def test_a_cancelled_cancel_waits_for_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once: the demo's game, which cancels its readers, and the demo at Ctrl-C."""
    monkeypatch.setattr(client_module, "CANCEL_AGAIN_AFTER_S", 0.001)
    may_end, swallowed = asyncio.Event(), 0

    async def swallows() -> None:
        nonlocal swallowed
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                swallowed += 1

    task = asyncio.create_task(swallows())
    await asyncio.sleep(0)
    outer = asyncio.create_task(cancel([task]))
    await wait_until(lambda: swallowed, "the first cancellation")
    outer.cancel()
    before = swallowed
    await wait_until(lambda: swallowed > before + 1, "more of them")
    assert not outer.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert task.done()
