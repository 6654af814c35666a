"""Real workers and bridges whose event loop hangs end; an outage of Redis ends none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from dialer.watchdog import CHECKS, EXIT_HUNG
from tests.integration.stack import Program, Stack
from tests.waiting import wait_until

#: A limit of 3 s: systemd's is twice the watchdog's.
WATCHDOG = {"WATCHDOG_USEC": "6000000"}

Kind = Literal["worker", "bridge"]

on_both = pytest.mark.parametrize("kind", ["worker", "bridge"])


class Systemd:
    """systemd's end of the notify socket."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(folder / "notify"), **WATCHDOG}
        self.messages: list[str] = []

    def count(self, line: str) -> int:
        """How many messages so far have that line."""
        try:
            while True:
                self.messages.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return sum(line in message.splitlines() for message in self.messages)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(tmp_path)
    yield listener
    listener.close()


async def started(stack: Stack, kind: Kind, environment: dict[str, str]) -> Program:
    await stack.start(bridges=0, workers=False)
    if kind == "worker":
        return await stack.start_worker("pbx01", env=environment, wait=False)
    return await stack.start_bridge(env=environment, wait=False)


@on_both
async def test_a_process_whose_event_loop_hangs_ends(kind: Kind, tmp_path: Path) -> None:
    step = {"worker": "heartbeat", "bridge": "pulse"}[kind]
    environment = {"DIALER_FAILPOINTS": f"{step}.before:hang@8", **WATCHDOG}
    async with Stack(tmp_path) as stack:
        program = await started(stack, kind, environment)
        assert await program.exit_code(within_s=60.0) == EXIT_HUNG
        assert "Process hangs and ends now" in program.log
        assert "silent=" in program.log
        assert "in failpoint" in program.log  # the stack says where


@on_both
async def test_a_redis_outage_ends_no_process(kind: Kind, tmp_path: Path, systemd: Systemd) -> None:
    async with Stack(tmp_path) as stack:
        program = await started(stack, kind, systemd.environment)
        await wait_until(lambda: systemd.count("READY=1"), "READY", within_s=60.0)
        stack.valkey.stop()
        await wait_until(lambda: "Redis unavailable; retrying" in program.log, "the outage")
        before = systemd.count("WATCHDOG=1")
        # One message comes in a tenth of the limit: that many take longer than systemd's limit.
        await wait_until(
            lambda: systemd.count("WATCHDOG=1") > before + 3 * CHECKS, "heartbeats", within_s=60.0
        )
        stack.valkey.start()
        await wait_until(
            lambda: "Redis available again" in program.log, "Redis is back", within_s=60.0
        )
        assert await program.stop() == 0
        assert systemd.count("STOPPING=1") == 1


async def test_a_worker_without_asterisk_is_ready_and_says_so(
    tmp_path: Path, systemd: Systemd
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0, workers=False)
        await stack.pbxs["pbx01"].stop()
        await stack.start_worker("pbx01", env=systemd.environment, wait=False)
        await wait_until(lambda: systemd.count("READY=1"), "READY", within_s=60.0)
        status = "STATUS=AMI link down, 0 calls"
        await wait_until(lambda: systemd.count(status), "the status", within_s=60.0)
