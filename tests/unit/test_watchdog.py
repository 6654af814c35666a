"""What systemd gets, and when a heartbeat counts as silent."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dialer.watchdog import CHECKS, EXIT_HUNG, LIMIT_S, ServiceManager, Watchdog
from tests.waiting import wait_until

#: systemd's limit in these tests: heartbeats are looked at every 10 ms.
WATCHDOG_S = 0.2


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@dialer-test-{os.getpid()}"


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    """systemd's end of the notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        listener.settimeout(5.0)
        yield listener


def watchdog_of(address: str | None, watchdog_s: float = WATCHDOG_S) -> Watchdog:
    return Watchdog(ServiceManager(address, watchdog_s))


def pass_limit(watchdog: Watchdog) -> list[str]:
    """As many looks as the limit has and one more; return who is silent then."""
    silent = []
    for _ in range(CHECKS + 1):
        silent = watchdog.check()
    return silent


def fields(systemd: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in systemd.recv(4096).decode().splitlines())


def nothing_came(systemd: socket.socket) -> bool:
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)
    return True


async def silent_write() -> None:
    await asyncio.Event().wait()


async def quick_write() -> None:
    pass


def test_systemd_gets_the_documented_messages(systemd: socket.socket, address: str) -> None:
    watchdog = watchdog_of(address)
    watchdog.systemd.send(READY="1", STATUS="Serving pbx01")
    assert fields(systemd) == {"READY": "1", "STATUS": "Serving pbx01"}
    watchdog.beat("heartbeat", "AMI link down, 3 calls")
    assert fields(systemd) == {"WATCHDOG": "1", "STATUS": "AMI link down, 3 calls"}
    watchdog.stopping()
    assert fields(systemd) == {"STOPPING": "1", "STATUS": "Stopping"}


def test_nothing_is_sent_without_a_notify_socket() -> None:
    watchdog = watchdog_of(None)
    watchdog.beat("heartbeat")
    watchdog.stopping()


def test_a_systemd_that_does_not_listen_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog_of(str(tmp_path / "nobody")).beat("heartbeat")
    assert "systemd does not accept our message" in caplog.text


@pytest.mark.parametrize(
    ("environment", "limit_s"),
    [
        ({}, LIMIT_S),
        ({"WATCHDOG_USEC": "4000000"}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, LIMIT_S),
        ({"WATCHDOG_USEC": "600000000"}, LIMIT_S),
    ],
)
def test_the_limit_is_half_of_systemds(environment: dict[str, str], limit_s: float) -> None:
    assert Watchdog(ServiceManager.of(environment)).limit_s == limit_s


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_one_silent_heartbeat_stops_the_reports_to_systemd(
    systemd: socket.socket, address: str
) -> None:
    watchdog = watchdog_of(address, 1e-6)  # every heartbeat is reported
    watchdog.beat("cell A")
    assert fields(systemd)["WATCHDOG"] == "1"
    watchdog.beat("cell B")
    assert fields(systemd)["WATCHDOG"] == "1"
    assert pass_limit(watchdog) == ["cell A", "cell B"]
    watchdog.beat("cell A")
    assert nothing_came(systemd)
    assert watchdog.check() == ["cell B"]


async def beating(
    watchdog: Watchdog, write: Callable[[], object], *, is_down: bool = False
) -> asyncio.Task[None]:
    """A running heartbeat."""
    task = asyncio.create_task(
        watchdog.keep_beating("heartbeat", write, every_s=0.01, is_down=lambda: is_down)  # type: ignore[arg-type]
    )
    await asyncio.sleep(0)
    return task


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_each_write_counts_as_a_heartbeat() -> None:
    watchdog = watchdog_of(None)
    task = await beating(watchdog, quick_write)
    assert pass_limit(watchdog) == ["heartbeat"]
    await wait_until(lambda: watchdog.check() == [], "the next heartbeat")
    await cancelled(task)


async def test_a_wait_for_a_redis_that_is_down_is_no_silence() -> None:
    watchdog = watchdog_of(None)
    task = await beating(watchdog, silent_write, is_down=True)
    watchdog.beat("heartbeat")
    assert pass_limit(watchdog) == ["heartbeat"]
    await wait_until(lambda: watchdog.check() == [], "the next heartbeat")
    await cancelled(task)


async def test_a_write_that_hangs_is_silence() -> None:
    watchdog = watchdog_of(None)
    watchdog.beat("heartbeat")
    task = await beating(watchdog, silent_write)
    await wait_until(lambda: watchdog.check() == ["heartbeat"], "the silence")
    await cancelled(task)


async def test_a_heartbeat_that_fails_stays_supervised() -> None:
    watchdog = watchdog_of(None)

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await watchdog.keep_beating("heartbeat", fail, every_s=0.01, is_down=lambda: False)
    assert pass_limit(watchdog) == ["heartbeat"]


async def test_a_cancelled_heartbeat_is_no_longer_supervised() -> None:
    watchdog = watchdog_of(None)
    await cancelled(await beating(watchdog, quick_write))
    assert pass_limit(watchdog) == []


HANGS = """
import asyncio, time
from dialer.watchdog import ServiceManager, Watchdog

async def block_the_loop():
    time.sleep(60)

async def main():
    watchdog = Watchdog(ServiceManager(None, 0.2))
    watchdog.beat("heartbeat of ASR_TIM")
    watchdog.ready("Serving")
    await watchdog.keep_beating(
        "heartbeat of ASR_TIM", block_the_loop, every_s=1, is_down=lambda: True
    )

asyncio.run(main())
"""


def test_a_hung_process_ends_and_prints_its_stacks() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30)
    assert done.returncode == EXIT_HUNG
    assert "Process hangs and ends now" in done.stderr
    assert "in block_the_loop" in done.stderr
