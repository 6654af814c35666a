"""Memory of a worker and of Redis with 100, 1,000 and 5,000 calls at once, and after many calls.

One worker, one simulated PBX. Resident memory, in 10^6 bytes and in KiB a call.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.caller import Caller, requests
from benchmarks.idle import QuietStack
from benchmarks.tables import Row, Table, Value
from benchmarks.usage import rss_bytes
from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.stack import CELL, Stack
from tests.waiting import wait_until

#: Last two digits of numbers that are answered and stay; of those that end at once.
STAYS: Final = 90
SHORT: Final = 60

#: Calls of the warm-up, after which the empty worker is measured.
WARM_UP: Final = 200

WITHIN_S: Final = 180.0
RATE: Final = 200.0
HANG_UP_AT_ONCE: Final = 20

LIMITS: Final = {"max_calls": 10_000, "cps": 1000}
TALK: Final[dict[str, Any]] = {
    "ring_time": (0.05, 0.1), "talk_time": (0.05, 0.1), "long_talk": 3600.0,
}  # fmt: skip

COLUMNS: Final = ("calls", "worker MB", "bridge MB", "redis MB", "worker KiB a call", "violations")


async def measure(folder: Path, levels: Sequence[int]) -> list[Row]:
    """Bring the calls up level by level, then end them all."""
    async with QuietStack(folder, cell={"threads": 10_000}) as stack:
        pbx = stack.add_pbx(table=LIMITS, **TALK)
        await stack.start()
        async with Caller(stack.valkey.url(0), [CELL]) as caller:
            await caller.call(requests("warm", WARM_UP, SHORT, [CELL]), RATE, WITHIN_S)
            rows, made = [await _sizes(stack, 0)], WARM_UP
            for level in levels:
                more = level - (made - WARM_UP)
                asked = requests("level", more, STAYS, [CELL], made)
                made += more
                pushing = asyncio.create_task(caller.call(asked, RATE, 0.0))
                up = WARM_UP + level
                await wait_until(
                    lambda up=up: pbx.exchange.floor.answered >= up,  # type: ignore[misc]
                    f"{level} calls are up",
                    within_s=WITHIN_S,
                )
                await pushing
                rows.append(await _sizes(stack, level, rows[-1]))
            await _hang_up(pbx)
            await caller.wait(made, WITHIN_S)
            rows.append({**await _sizes(stack, 0), "calls": "ended"})
        violations = len(caller.checked().violations())
    return [{**row, "violations": violations} for row in rows]


async def _hang_up(pbx: SimulatedPbx) -> None:
    floor = pbx.exchange.floor
    for n, call in enumerate(list(floor.live.values())):
        floor.hang_up(call, cause=16)
        if n % HANG_UP_AT_ONCE == 0:
            await asyncio.sleep(0.01)


async def _sizes(stack: Stack, calls: int, before: Row | None = None) -> dict[str, Value]:
    """Return the sizes now; a call's is that of the calls since `before`."""
    worker = rss_bytes(stack.workers["pbx01"].pid)
    info: Any = await stack.redis.info("memory")
    row: dict[str, Value] = {
        "calls": calls,
        "worker MB": worker / 1e6,
        "bridge MB": rss_bytes(stack.bridges[0].pid) / 1e6,
        "redis MB": info["used_memory"] / 1e6,
    }
    if before is not None:
        added = worker - float(before["worker MB"] or 0) * 1e6
        row["worker KiB a call"] = added / 1024 / (calls - int(before["calls"] or 0))
    return row


async def soak(folder: Path, calls: int, rate: float) -> list[Row]:
    """Dial many short calls; read the memory ten times on the way."""
    async with QuietStack(folder, cell={"threads": 10_000}) as stack:
        stack.add_pbx(table=LIMITS, **TALK)
        await stack.start()
        async with Caller(stack.valkey.url(0), [CELL]) as caller:
            rows: list[Row] = []
            violations = 0
            for part in range(10):
                asked = requests(f"soak{part}", calls // 10, SHORT, [CELL], part * calls // 10)
                await caller.call(asked, rate, WITHIN_S)
                violations += len(caller.checked().violations())
                caller.forget()
                row = await _sizes(stack, (part + 1) * (calls // 10))
                rows.append({**row, "violations": violations})
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--calls", default="100,1000,5000", help="calls at once")
    parser.add_argument("--soak", type=int, default=0, help="short calls, one after the other")
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second of the soak")


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure as asked."""
    made = []
    if levels := [int(word) for word in asked.calls.split(",") if word]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rows = asyncio.run(measure(Path(folder), levels))
        made.append(
            Table(
                name="memory",
                title="Calls at once on one simulated PBX, one worker",
                columns=COLUMNS,
                rows=rows,
                note=f"Empty: after {WARM_UP} calls. Redis in used_memory, the rest resident.",
            )
        )
    if asked.soak:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rows = asyncio.run(soak(Path(folder), asked.soak, asked.rate))
        made.append(
            Table(
                name="soak",
                title=f"Short calls one after the other, {asked.rate:g} a second",
                columns=[column for column in COLUMNS if "KiB" not in column],
                rows=rows,
                note="A done call stays in Redis for 24 h.",
            )
        )
    return made
