"""What INFO says of a Redis server, and if calls may be kept in it."""

from __future__ import annotations

from typing import Any

import pytest

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
        {"redis_version": "6.0.0", "valkey_version": "8.0.0"},
        {"redis_version": "", "maxmemory_policy": ""},
    ],
)
def test_a_version_that_can_be_used_is_fit(info: dict[str, Any]) -> None:
    assert unfit(facts(**info)) is None
