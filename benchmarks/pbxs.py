"""One bridge and 1 to 16 simulated PBXs, each with its worker, at a fixed rate a PBX.

Everything runs on this machine, the simulated PBXs in this process, so the machine is full at some
point; the table shows what each part needs until then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.caller import Caller, requests
from benchmarks.figures import Latency, rate_per_s
from benchmarks.idle import QuietStack
from benchmarks.meter import Meter
from benchmarks.tables import Row, Table, Value
from dialer.domain.call import Result
from tests.integration.stack import CELL, Stack

#: Last two digits of numbers that the simulated PBX answers and clears itself.
LAST_TWO: Final = 60
RING_S: Final = 0.1
TALK_S: Final = 0.2

WARM_UP: Final = 20
WARM_UP_RATE: Final = 20.0
ENDS_WITHIN_S: Final = 60.0

COLUMNS: Final = (
    "pbxs", "offered/s", "calls/s", "of the offered", "violations", "ack p50", "ack p99",
    "ours ms", "bridge ms", "workers ms", "redis ms", "switches", "steps", "round trips",
    "machine %",
)  # fmt: skip


async def measure(folder: Path, pbxs: int, rate: float, seconds: float) -> dict[str, Value]:
    """Measure one number of PBXs."""
    async with QuietStack(folder, cell={"threads": 10_000}) as stack:
        for n in range(1, pbxs + 1):
            stack.add_pbx(
                f"pbx{n:02d}",
                table={"max_calls": 2000, "cps": 1000},
                ring_time=(RING_S, RING_S),
                talk_time=(TALK_S, TALK_S),
            )
        await stack.start()
        row = await dialed(stack, rate, max(1, round(rate * seconds)))
    return {"pbxs": pbxs, **row}


async def dialed(stack: Stack, rate: float, calls: int) -> dict[str, Value]:
    """Dial calls on a started stack at `rate` a second in all; return the figures."""
    run = secrets.token_hex(4)
    async with Caller(stack.valkey.url(0), [CELL]) as caller:
        warm = WARM_UP * len(stack.pbxs)
        await caller.call(
            requests(f"warm-{run}", warm, LAST_TWO, [CELL], calls), WARM_UP_RATE, ENDS_WITHIN_S
        )
        pid = stack.valkey.pid
        assert pid is not None
        meter = Meter(
            {
                "bridge": [bridge.pid for bridge in stack.bridges],
                "workers": [worker.pid for worker in stack.workers.values()],
                "redis": [pid],
                "pbxs and caller": [os.getpid()],
            }
        )
        before, began = await caller.others_traffic(), time.monotonic()
        await caller.call(requests(run, calls, LAST_TWO, [CELL]), rate, ENDS_WITHIN_S)
        used, seconds = meter.read(), time.monotonic() - began
        traffic = await caller.others_traffic() - before
    checker = caller.checked()
    mine = [p for (_, name), p in checker.calls.items() if name.startswith(f"{run}-")]
    ends = [
        p.responded_at
        for p in mine
        if p.responded_at and p.response and p.response.result is Result.ANSWERED
    ]
    ack = Latency.of(p.acked_at - p.pushed_at for p in mine if p.acked_at)
    reached = rate_per_s(ends, min(p.pushed_at for p in mine), RING_S + TALK_S)
    ours = [used[name] for name in ("bridge", "workers", "redis")]
    return {
        "seconds": seconds,
        "offered/s": rate,
        "calls/s": reached,
        "of the offered": reached / rate,
        "violations": len(checker.violations()),
        "ack p50": ack.p50,
        "ack p99": ack.p99,
        "ours ms": sum(one.cpu_s for one in ours) * 1000 / calls,
        "bridge ms": used["bridge"].cpu_s * 1000 / calls,
        "workers ms": used["workers"].cpu_s * 1000 / calls,
        "redis ms": used["redis"].cpu_s * 1000 / calls,
        "switches": sum(one.switches for one in ours) / calls,
        "commands": traffic.commands / calls,
        "steps": traffic.steps / calls,
        "round trips": traffic.reads / calls,
        "bytes": traffic.net_bytes / calls,
        "machine %": sum(one.cpu_s for one in used.values())
        * 100
        / seconds
        / (os.cpu_count() or 1),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--pbxs", default="1,2,4,8,16")
    parser.add_argument("--rate", type=float, default=10.0, help="calls a second of each PBX")
    parser.add_argument("--seconds", type=float, default=15.0)


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure as asked."""
    rows: list[Row] = []
    for count in map(int, asked.pbxs.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            made: Any = asyncio.run(measure(Path(folder), count, asked.rate * count, asked.seconds))
            rows.append(made)
    return [
        Table(
            name="pbxs",
            title=f"Simulated PBXs at {asked.rate:g} calls/s each, one bridge",
            columns=COLUMNS,
            rows=rows,
            note="CPU in ms a call. The machine's share includes the simulated PBXs and Multcall.",
        )
    ]
