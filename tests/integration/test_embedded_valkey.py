"""Embedded server: its data, restarts, and its end with the parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dialer.errors import StoreUnavailable
from dialer.simulation.valkey import EmbeddedValkey
from tests.waiting import wait_blocking

# Of Linux' ptrace.h and wait.h.
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000

# Starts a server in a separate process, prints its address, and waits to be killed.
PARENT = """
import sys
from dialer.simulation.valkey import EmbeddedValkey
server = EmbeddedValkey()
server.start()
print(server.pid, server.log_path.parent, flush=True)
sys.stdin.read()
"""


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


@pytest.mark.parametrize(("fsync", "is_lost"), [({}, False), ({"appendfsync": "everysec"}, True)])
def test_killed_server_on_a_slow_disk_keeps_its_answers(
    fsync: dict[str, str], is_lost: bool
) -> None:
    """Not with everysec: the simulated Multcall then read a Response twice."""
    with EmbeddedValkey(appendonly=True, config=fsync) as server, connect(server) as client:
        client.set("call", "one")
        with disk_at_a_standstill(server, client):
            client.set("call", "two")
            assert client.get("call") == "two"
        server.start()
        assert client.get("call") == ("one" if is_lost else "two")


@contextlib.contextmanager
def disk_at_a_standstill(server: EmbeddedValkey, client: redis.Redis) -> Iterator[None]:
    """Stop the thread that flushes the file, like a busy disk; kill the server at the end."""
    libc, pid = ctypes.CDLL(None, use_errno=True), server.pid
    assert pid is not None
    names = {task.name: (task / "comm").read_text() for task in Path(f"/proc/{pid}/task").iterdir()}
    thread = next(int(task) for task, name in names.items() if name.startswith("bio_aof"))
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, thread, None, None) != 0:
            pytest.skip(f"needs ptrace: {os.strerror(ctypes.get_errno())}")
    try:
        if client.config_get("appendfsync") == {"appendfsync": "everysec"}:
            wait_blocking(lambda: _waits_for_the_disk(client), "a flush waits")
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(thread, WALL)
        server.kill()


def _waits_for_the_disk(client: redis.Redis) -> bool:
    client.set("call", "one")
    return bool(client.info("persistence")["aof_pending_bio_fsync"])


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
    wait_blocking(lambda: not psutil.pid_exists(int(pid)), "the server is gone")
    wait_blocking(lambda: not Path(folder.strip()).exists(), "its folder is gone")


def test_ctrl_c_for_the_parent_does_not_reach_the_server(
    parent: subprocess.Popen[str],
) -> None:
    assert parent.stdout is not None
    pid, _ = parent.stdout.readline().split(maxsplit=1)
    assert os.getpgid(int(pid)) != os.getpgid(parent.pid)
