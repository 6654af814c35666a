"""`dialer demo` as a separate program, outside of the source tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

#: The demo takes less than a minute; with other tests on the machine it may take longer.
OVER_WITHIN_S = 90.0

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Demo:
    """The running program. All its processes have `mark` in their environment."""

    process: asyncio.subprocess.Process
    folder: Path
    mark: str
    said: str = ""

    async def says(self, words: str) -> str:
        """Read until a line contains `words`; return that line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(OVER_WITHIN_S):
            while line := (await self.process.stdout.readline()).decode():
                self.said += line
                if words in line:
                    return line
        raise AssertionError(f"it never said {words!r}:\n{self.said}")

    async def ends(self) -> int:
        """Wait for the end; return the exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(OVER_WITHIN_S):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def processes(self) -> dict[int, str]:
        """Its running processes: process id and command line."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get("DEMO_TEST_MARK") == self.mark:
                    found[process.pid] = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def one(self, words: str) -> int:
        """The only process whose command line contains `words`."""
        (pid,) = [pid for pid, command in self.processes().items() if words in command]
        return pid

    def kill_all(self) -> bool:
        """Kills what runs of it; true if nothing did."""
        found = self.processes()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    def is_gone(self) -> bool:
        return not self.processes() and not list(self.folder.glob("dialer-*"))


StartDemo = Callable[..., Awaitable[Demo]]


@pytest.fixture
async def start_demo(tmp_path: Path) -> AsyncIterator[StartDemo]:
    """Factory of demos whose temporary folders are in `tmp_path`."""
    started: list[Demo] = []

    async def start(*options: str) -> Demo:
        mark = uuid.uuid4().hex
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dialer.cli", "demo", *options),
            cwd=tmp_path,  # not the checkout
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "TMPDIR": str(tmp_path),
                "DEMO_TEST_MARK": mark,
                # variables of a real dialer on this machine must not reach the demo
                "DIALER_MULTCALL__REDIS_URL": "redis://127.0.0.1:1/0",
                "DIALER_CONFIG": "/nowhere/dialer.toml",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        started.append(Demo(process, tmp_path, mark))
        return started[-1]

    yield start
    for demo in started:
        # Again until none is left: what it started while they were listed would live on.
        await wait_until(demo.kill_all, "all of it is killed")
        await demo.process.wait()


async def test_demo_completes_its_calls_and_leaves_nothing(
    start_demo: StartDemo,
) -> None:
    demo = await start_demo("--calls", "40")
    assert await demo.ends() == 0, demo.said
    assert "violations: none" in demo.said
    assert re.search(r"40 requests in [0-9.]+ s, 40 Responses in [0-9.]+ s", demo.said)
    assert re.search(r"Request to ACK: p50 \d+ ms, p99 \d+ ms", demo.said)
    times_rung = re.search(r"times rung\W+(\d+)\W+(\d+)\W+(\d+)", demo.said)
    assert times_rung is not None
    on_pbx01, on_pbx02, both = map(int, times_rung.groups())
    assert on_pbx01 > 0 < on_pbx02
    assert on_pbx01 + on_pbx02 == both == 40
    assert "\x1b[" not in demo.said  # plain lines where there is no terminal
    assert demo.is_gone()


async def test_kept_demo_shows_every_call_in_flower(
    start_demo: StartDemo,
) -> None:
    demo = await start_demo("--calls", "10", "--keep")
    flower = (await demo.says("Flower: http")).split()[-1]
    await demo.says("violations: none")
    await demo.says("dialer monitor")

    def succeeded() -> int:
        with urllib.request.urlopen(f"{flower}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        ended = [x for x in lines if x.startswith("flower_events_total") and "-succeeded" in x]
        return int(sum(float(line.split()[-1]) for line in ended))

    await wait_until(lambda: succeeded() == 10, "Flower shows ten calls", within_s=OVER_WITHIN_S)
    demo.process.send_signal(signal.SIGTERM)
    assert await demo.ends() == 0, demo.said
    assert demo.is_gone()


async def test_ctrl_c_during_the_calls_stops_everything(start_demo: StartDemo) -> None:
    demo = await start_demo()
    await demo.says("Responses 1")
    assert len(demo.processes()) >= 6
    demo.process.send_signal(signal.SIGINT)
    assert await demo.ends() == 130, demo.said
    assert "nothing is left behind" in demo.said
    assert demo.is_gone()


async def test_ctrl_c_during_startup_stops_everything(start_demo: StartDemo) -> None:
    demo = await start_demo()
    await wait_until(
        lambda: any("-Q pbx02" in command for command in demo.processes().values()),
        "a worker",
        within_s=OVER_WITHIN_S,
    )
    demo.process.send_signal(signal.SIGINT)
    assert await demo.ends() == 130, demo.said
    assert demo.is_gone()


async def test_dead_worker_fails_the_demo_with_its_last_log_lines(
    start_demo: StartDemo,
) -> None:
    demo = await start_demo()
    await demo.says("Flower:")
    os.kill(demo.one("worker -Q pbx01"), signal.SIGKILL)
    assert await demo.ends() == 2, demo.said
    assert "worker-pbx01 ended by itself (exit code -9)" in demo.said
    assert "PBX ready pbx=pbx01" in demo.said
    assert demo.is_gone()


async def test_killed_demo_leaves_no_process(
    start_demo: StartDemo,
) -> None:
    demo = await start_demo()
    await demo.says("Flower:")
    demo.process.kill()
    await demo.process.wait()
    await wait_until(lambda: not demo.processes(), "all is gone", within_s=OVER_WITHIN_S)
