"""Requests that the bridges admit a second, alone: backlog, cells and bridges grow.

PBXs are simulated, with real workers. When the first request is admitted the workers are stopped
(SIGSTOP), so that the bridges and Redis have the machine; for some seconds the workers' heartbeats
still say that they take calls. The lists are kept full. What counts is CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.caller import requests
from benchmarks.tables import Row, Table, Value
from benchmarks.usage import Traffic, Used
from benchmarks.verdict import NotMeasured
from dialer.multcall.keys import CellKeys
from tests.integration.stack import CELL, Stack
from tests.waiting import wait_until

#: More than the bridges can fill: 1,000 calls a second each, 10,000 at once. If the pace were the
#: limit, the cells would wait for each other and not for the bridge.
PBXS: Final = 8
LIMITS: Final = {"max_calls": 10_000, "cps": 1000}

#: The measurement begins this long after the first admission and lasts so long, in seconds. It
#: must be over before the stopped workers count as silent (5 s).
SETTLED_S: Final = 0.3
WINDOW_S: Final = 2.0

#: Share of the admitted calls whose message must wait for the workers at the end: the bridges may
#: publish in batches, and the workers took the first ones.
PUBLISHED: Final = 0.8

#: How often the lists are filled up again, in seconds.
FEED_EVERY_S: Final = 0.05
PUSH_BATCH: Final = 5000

#: How often a load is tried, if the machine is busy.
ATTEMPTS: Final = 3

COLUMNS: Final = (
    "waiting", "cells", "bridges", "admits/s", "admits per bridge CPU s", "bridge ms", "redis ms",
    "commands", "steps", "round trips", "of the first",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What waits for whom: `waiting` requests in all, spread over the cells."""

    waiting: int = 1000
    cells: int = 1
    bridges: int = 1


@dataclass(slots=True)
class Feeder:
    """Keeps the Request lists of all cells filled."""

    stack: Stack
    cells: Sequence[str]
    level: int
    _made: int = 0

    async def fill(self) -> None:
        """Fill every list up to the level."""
        pipeline = self.stack.redis.pipeline(transaction=False)
        for cell in self.cells:
            pipeline.llen(CellKeys(cell).request)
        for cell, length in zip(self.cells, await pipeline.execute(), strict=True):
            for size in _parts(self.level - length):
                asked = requests("backlog", size, 0, [cell], self._made)
                self._made += size
                push: Any = self.stack.redis.rpush(
                    CellKeys(cell).request, *(one.element for one in asked)
                )
                await push

    async def keep(self) -> None:
        """Fill them again and again."""
        while True:
            await self.fill()
            await asyncio.sleep(FEED_EVERY_S)

    async def admitted(self) -> int:
        """Return the calls admitted so far; none ends while the workers are stopped."""
        values = await self.stack.redis.mget([CellKeys(cell).counter for cell in self.cells])
        return sum(int(value or 0) for value in values)


def _parts(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, PUSH_BATCH)
        size -= PUSH_BATCH


async def measure(folder: Path, load: Load) -> dict[str, Value]:
    """Measure one load on a stack of its own.

    Raises:
        NotMeasured: the bridges stopped admitting within the window.
    """
    threads = min(10_000, 4 * 10_000 // load.cells)
    async with Stack(folder, cell={"threads": threads}) as stack:
        cells = [CELL, *(f"CELL{n:03d}" for n in range(2, load.cells + 1))]
        for cell in cells[1:]:
            stack.add_cell(cell, threads=threads)
        for n in range(PBXS):
            stack.add_pbx(f"pbx{n + 1:02d}", table=LIMITS)
        await stack.start(bridges=0)
        feeder = Feeder(stack, cells, max(1, load.waiting // load.cells))
        await feeder.fill()
        for _ in range(load.bridges):
            await stack.start_bridge(wait=False)
        await wait_until(feeder.admitted, "the first request is admitted", within_s=60.0)
        for worker in stack.workers.values():
            worker.freeze()
        feeding = asyncio.create_task(feeder.keep())
        try:
            return await _in_window(stack, feeder)
        finally:
            feeding.cancel()
            for worker in stack.workers.values():
                worker.thaw()


async def _in_window(stack: Stack, feeder: Feeder) -> dict[str, Value]:
    bridges = [bridge.pid for bridge in stack.bridges]
    await asyncio.sleep(SETTLED_S)
    before, began = await _reading(stack, feeder, bridges), time.monotonic()
    await asyncio.sleep(WINDOW_S / 2)
    middle = await feeder.admitted()
    await asyncio.sleep(WINDOW_S / 2)
    after, seconds = await _reading(stack, feeder, bridges), time.monotonic() - began
    admits, used, traffic = after[0] - before[0], after[1] - before[1], after[2] - before[2]
    if (after[0] - middle) * 4 < admits or await _published(stack) < after[0] * PUBLISHED:
        raise NotMeasured("the bridges stood still, because the machine is too busy")
    return {
        "admits/s": admits / seconds,
        "admits per bridge CPU s": admits / used.cpu_s,
        "bridge ms": used.cpu_s * 1000 / admits,
        "redis ms": traffic.cpu_s * 1000 / admits,
        "commands": traffic.commands / admits,
        "steps": traffic.steps / admits,
        "round trips": traffic.reads / admits,
    }


async def _published(stack: Stack) -> int:
    """Return the Celery messages that wait for the stopped workers."""
    async with Redis.from_url(stack.broker_url) as broker:
        lengths = [await broker.llen(name) for name in stack.pbxs]
    return sum(lengths)


async def _reading(
    stack: Stack, feeder: Feeder, bridges: Sequence[int]
) -> tuple[int, Used, Traffic]:
    info: Any = await stack.redis.info("everything")
    return await feeder.admitted(), Used.by(*bridges), Traffic.of(info)


def tried(load: Load) -> dict[str, Value]:
    """Measure a load, on a busy machine several times."""
    for attempt in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            try:
                return asyncio.run(measure(Path(folder), load))
            except NotMeasured:
                if attempt == ATTEMPTS - 1:
                    raise
    raise AssertionError


def _series(loads: Sequence[Load]) -> list[Row]:
    """Measure each load; the first is what the others are compared with."""
    rows: list[Row] = []
    for load in loads:
        row: dict[str, Value] = {
            "waiting": load.waiting,
            "cells": load.cells,
            "bridges": load.bridges,
        }
        row |= tried(load)
        key = "admits per bridge CPU s"
        base, value = (rows or [row])[0][key], row[key]
        assert isinstance(base, float)
        assert isinstance(value, float)
        row["of the first"] = value / base
        rows.append(row)
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--waiting", default="1000,10000,100000,1000000")
    parser.add_argument("--cells", default="1,10,50,200")
    parser.add_argument("--bridges", default="1,2,3")


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure as asked; an empty list leaves a series out."""
    series = {
        "waiting": [Load(waiting=n) for n in _numbers(asked.waiting)],
        "cells": [Load(waiting=20_000, cells=n) for n in _numbers(asked.cells)],
        "bridges": [Load(waiting=20_000, bridges=n) for n in _numbers(asked.bridges)],
    }
    titles = {
        "waiting": "Requests that wait",
        "cells": "Busy cells",
        "bridges": "Bridges on one machine",
    }
    return [
        Table(
            name=f"admission-{name}",
            title=titles[name],
            columns=COLUMNS,
            rows=_series(loads),
            note="Per admitted request; CPU in ms. Redis with what fills the lists.",
        )
        for name, loads in series.items()
        if loads
    ]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]
