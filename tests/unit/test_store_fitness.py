"""What INFO says of a Redis server, and if calls may be kept in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from dialer.errors import StoreUnfit
from dialer.store import fitness
from dialer.store.fitness import ServerFacts, unfit

GOOD: dict[str, Any] = {
    "redis_version": "7.4.2",
    "redis_mode": "standalone",
    "cluster_enabled": 0,
    "role": "master",
    "maxmemory_policy": "noeviction",
    "used_memory": 10,
    "maxmemory": 20,
    "total_system_memory": 30,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
}


def facts(**info: Any) -> ServerFacts:
    return ServerFacts.of({**GOOD, **info})


def test_every_fact_of_a_good_server_is_read() -> None:
    assert ServerFacts.of(GOOD, clock_ahead_s=1.5) == ServerFacts(
        version="7.4.2",
        policy="noeviction",
        memory_used=10,
        memory_limit=20,
        memory_of_machine=30,
        has_append_only_file=True,
        clock_ahead_s=1.5,
    )
    assert unfit(facts()) is None


def test_a_server_that_tells_nothing_is_fit() -> None:
    assert ServerFacts.of({}) == ServerFacts()
    assert (unfit(ServerFacts()), unfit(None)) == (None, None)
    nothing = ServerFacts()
    assert (nothing.memory_used, nothing.memory_limit, nothing.memory_of_machine) == (0, 0, 0)
    assert (nothing.is_valkey, nothing.is_cluster, nothing.is_replica) == (False, False, False)
    assert (nothing.has_append_only_file, nothing.is_disk_failing) == (None, False)
    assert nothing.clock_ahead_s == 0


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ({"role": "slave"}, "is_replica"),
        ({"cluster_enabled": 1}, "is_cluster"),
        ({"redis_mode": "cluster"}, "is_cluster"),
        ({"valkey_version": "8.0.0"}, "is_valkey"),
        ({"server_name": "valkey"}, "is_valkey"),
        ({"aof_last_write_status": "err"}, "is_disk_failing"),
        ({"aof_last_bgrewrite_status": "err"}, "is_disk_failing"),
    ],
)
def test_each_fact_is_told_by_itself(info: dict[str, Any], name: str) -> None:
    assert getattr(facts(**info), name) is True
    assert getattr(facts(), name) is False


def test_an_append_only_file_that_is_off_is_known() -> None:
    assert facts(aof_enabled=0).has_append_only_file is False


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "6.2.14"}, "is Redis 6.2.14; install Redis 7 or newer"),
        ({"cluster_enabled": 1}, "is a Redis Cluster"),
        (
            {"maxmemory_policy": "allkeys-lru"},
            "has the maxmemory-policy allkeys-lru, which deletes",
        ),
    ],
)
def test_an_unfit_server_is_named_with_its_cure(info: dict[str, Any], said: str) -> None:
    assert said in (unfit(facts(**info)) or "")


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": "7.0.0"},
        {"redis_version": "10.0.0"},
        {"redis_version": "unstable"},
        {"redis_version": "6.0.0", "valkey_version": "1.0.0"},
        {"redis_version": "", "maxmemory_policy": ""},
    ],
)
def test_a_version_that_can_be_used_is_fit(info: dict[str, Any]) -> None:
    assert unfit(facts(**info)) is None


# --- asking a server ----------------------------------------------------------------------


class Server:
    """A Redis that says this, or fails; the host's clock is at 100 s, then at 101 s."""

    def __init__(self, info: dict[str, Any] | None = None, error: Exception | None = None) -> None:
        self.info_reply, self.error, self.asked = info or GOOD, error, [""]

    def pipeline(self, *, transaction: bool) -> Server:
        assert not transaction
        self.asked.clear()
        return self

    def info(self) -> None:
        self.asked.append("INFO")

    def time(self) -> None:
        self.asked.append("TIME")

    async def execute(self) -> tuple[dict[str, Any], tuple[int, int]]:
        if self.error is not None:
            raise self.error
        assert self.asked == ["INFO", "TIME"]
        return self.info_reply, (103, 500_000)

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None: ...


URL = "redis://:secret@h:6379/0"
DOWN = RedisConnectionError("down"), OSError("down")


def redis(info: dict[str, Any] | None = None, error: Exception | None = None) -> Redis:
    return cast(Redis, Server(info and {**GOOD, **info}, error))


async def test_the_clock_of_a_server_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 101.0])
    monkeypatch.setattr(fitness, "time", SimpleNamespace(time=lambda: next(times)))
    found = await fitness.read_facts(redis())
    assert found == ServerFacts.of(GOOD, clock_ahead_s=3.0)


async def test_a_user_who_may_not_read_facts_gets_none() -> None:
    server = redis(error=NoPermissionError("no"))
    assert await fitness.read_facts(server) is None
    await fitness.check(server, URL, "the registry's Redis")
    await fitness.require_usable(server, URL, "the registry's Redis")


@pytest.mark.parametrize("error", DOWN)
async def test_a_server_that_is_down_passes(error: Exception) -> None:
    await fitness.check(redis(error=error), URL, "it")
    await fitness.require_usable(redis(error=error), URL, "it")


async def test_a_good_server_passes() -> None:
    await fitness.check(redis(), URL, "it")
    await fitness.require_usable(redis(), URL, "it")


async def test_eviction_is_refused_where_calls_are_kept_only() -> None:
    evicting = redis({"maxmemory_policy": "allkeys-lru"})
    with pytest.raises(StoreUnfit, match=r"^it at redis://\S*h:6379/0 has the maxmemory-policy"):
        await fitness.check(evicting, URL, "it")
    await fitness.require_usable(evicting, URL, "it")


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "6.2.0"}, "is Redis 6.2.0"),
        ({"cluster_enabled": 1}, "is a Redis Cluster"),
    ],
)
async def test_an_old_server_or_a_cluster_is_refused(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], said: str
) -> None:
    for ask in (fitness.check, fitness.require_usable):
        with pytest.raises(StoreUnfit, match=f"^it at .* {said}"):
            await ask(redis(info), URL, "it")
    monkeypatch.setattr(fitness, "connect", lambda _url: redis(info))
    with pytest.raises(StoreUnfit, match=f"^the broker at .* {said}"):
        await fitness.check_broker(URL)


@pytest.mark.parametrize("error", [NoPermissionError("no"), *DOWN, TimeoutError(), None])
async def test_a_broker_that_is_down_or_good_passes(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr(fitness, "connect", lambda _url: redis(error=error))
    await fitness.check_broker(URL)


@pytest.mark.parametrize("error", DOWN)
async def test_a_broker_that_cannot_be_reached_as_told_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(fitness, "connect", lambda _url: redis(error=error))
    monkeypatch.setattr(fitness, "connection_trouble", lambda _error, _address: "has no TLS")
    with pytest.raises(StoreUnfit, match=r"has no TLS$"):
        await fitness.check_broker(URL)
