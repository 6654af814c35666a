"""Embedded server: its data, restarts, and its end with the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dialer.errors import StoreUnavailable
from dialer.simulation.valkey import EmbeddedValkey

# Starts a server in a separate process, prints its address, and waits to be killed.
PARENT = """
import sys
from dialer.simulation.valkey import EmbeddedValkey
server = EmbeddedValkey()
server.start()
print(server.pid, server.log_path.parent, flush=True)
sys.stdin.read()
"""


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def connect(server: EmbeddedValkey, db: int = 0) -> redis.Redis:
    return redis.Redis.from_url(
        server.url(db), decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=5
    )


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        yield parent
        parent.kill()


def test_started_server_has_separate_databases(
    server: EmbeddedValkey,
) -> None:
    with connect(server, 0) as first, connect(server, 1) as second:
        first.set("call", "one")
        assert second.get("call") is None
        assert first.config_get("bind") == {"bind": "127.0.0.1"}


def test_every_test_gets_an_empty_database(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_the_next_test_does_not_see_what_the_last_one_left(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_killed_server_restarts_with_its_data() -> None:
    with EmbeddedValkey(appendonly=True) as server:
        port = server.port
        with connect(server) as client:
            client.rpush("calls", *range(1000))
        server.kill()
        assert not server.running
        assert server.pid is None
        server.start()
        assert server.port == port
        with connect(server) as client:
            assert client.llen("calls") == 1000


def test_killed_server_without_appendonly_restarts_empty(server: EmbeddedValkey) -> None:
    with connect(server) as client:
        client.set("call", "one")
    server.kill()
    server.start()
    with connect(server) as client:
        assert client.dbsize() == 0


def test_callers_folder_outlives_the_server(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with spaces"
    with EmbeddedValkey(appendonly=True, data_dir=folder) as server, connect(server) as client:
        client.set("call", "one")
    with EmbeddedValkey(appendonly=True, data_dir=folder) as server, connect(server) as client:
        assert client.get("call") == "one"


def test_own_folder_is_removed_with_the_server() -> None:
    with EmbeddedValkey() as server:
        folder = server.log_path.parent
        assert folder.is_dir()
    assert not folder.exists()


def test_two_servers_run_side_by_side(server: EmbeddedValkey) -> None:
    with EmbeddedValkey() as other:
        assert other.port != server.port
        with connect(server) as client, connect(other) as other_client:
            client.set("call", "one")
            assert other_client.get("call") is None


def test_used_port_is_refused_with_the_servers_message(server: EmbeddedValkey) -> None:
    second = EmbeddedValkey(port=server.port)
    with pytest.raises(StoreUnavailable, match="Address already in use"):
        second.start()
    second.close()
    assert server.running


def test_unknown_directive_is_shown() -> None:
    server = EmbeddedValkey(config={"no-such-directive": "yes"})
    with pytest.raises(StoreUnavailable, match="no-such-directive"):
        server.start()
    server.close()


def test_stopping_or_starting_twice_does_nothing(server: EmbeddedValkey) -> None:
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    server.close()
    assert not server.running


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_and_folder_vanish_with_the_parent(
    parent: subprocess.Popen[str], how: signal.Signals
) -> None:
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split(maxsplit=1)
    assert psutil.pid_exists(int(pid))
    os.killpg(parent.pid, how)
    parent.wait(10)
    wait_until(lambda: not psutil.pid_exists(int(pid)))
    wait_until(lambda: not Path(folder.strip()).exists())


def test_ctrl_c_for_the_parent_does_not_reach_the_server(
    parent: subprocess.Popen[str],
) -> None:
    assert parent.stdout is not None
    pid, _ = parent.stdout.readline().split(maxsplit=1)
    assert os.getpgid(int(pid)) != os.getpgid(parent.pid)
