"""What bridge, worker and Redis do while nothing is to be dialed, with 1 to 200 cells."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import Row, Table, Value
from benchmarks.usage import Traffic, Used
from tests.integration.stack import Stack

#: The programs settle this long after their start, in seconds.
SETTLED_S: Final = 3.0

COLUMNS: Final = (
    "cells", "bridge %", "worker %", "redis %", "commands/s", "steps/s", "round trips/s",
    "commands/s a cell",
)  # fmt: skip


class QuietStack(Stack):
    """A Stack whose Multcall does nothing, so that all commands are the dialer's."""

    def play_multcall(self, cell: str) -> Any:
        return None


async def measure(folder: Path, cells: int, seconds: float) -> dict[str, Value]:
    """Measure an idle site with that many cells."""
    async with QuietStack(folder) as stack:
        for n in range(2, cells + 1):
            stack.add_cell(f"CELL{n:03d}")
        stack.add_pbx()
        await stack.start()
        await asyncio.sleep(SETTLED_S)
        pids = {"bridge": stack.bridges[0].pid, "worker": stack.workers["pbx01"].pid}

        async def reading() -> tuple[dict[str, Used], Traffic, float]:
            info = await _info(stack)
            used = {name: Used.by(pid) for name, pid in pids.items()}
            return used, Traffic.of(info), time.monotonic()

        used0, traffic0, began = await reading()
        await asyncio.sleep(seconds)
        used, after, ended = await reading()
        passed, traffic = ended - began, after - traffic0
    shares = {f"{n} %": (used[n] - used0[n]).cpu_s * 100 / passed for n in pids}
    return {
        "cells": cells,
        **shares,
        "redis %": traffic.cpu_s * 100 / passed,
        "commands/s": traffic.commands / passed,
        "steps/s": traffic.steps / passed,
        "round trips/s": traffic.reads / passed,
        "commands/s a cell": traffic.commands / passed / cells,
    }


async def traffic_per_s(stack: Stack, seconds: float) -> Traffic:
    """Return what Redis does in a second for a started stack without calls."""
    await asyncio.sleep(SETTLED_S)
    before = Traffic.of(await _info(stack))
    await asyncio.sleep(seconds)
    return (Traffic.of(await _info(stack)) - before) / seconds


async def _info(stack: Stack) -> Any:
    return await stack.redis.info("everything")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--cells", default="1,10,50,200")
    parser.add_argument("--seconds", type=float, default=10.0)


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure as asked."""
    rows = series([int(word) for word in asked.cells.split(",")], asked.seconds)
    return [
        Table(
            name="idle",
            title="Idle cells, one bridge, one worker",
            columns=COLUMNS,
            rows=rows,
            note="CPU in percent of one core. Redis commands include those inside Lua steps.",
        )
    ]


def series(cells: Sequence[int], seconds: float) -> list[Row]:
    """Measure each number of cells on a stack of its own."""
    rows: list[Row] = []
    for count in cells:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rows.append(asyncio.run(measure(Path(folder), count, seconds)))
    return rows
