"""What one look at the whole system costs: the snapshot behind monitor, `dialer why` and JSON.

The server is an embedded Valkey with the keys of calls as a running system has them. Milliseconds
of Redis and of the reader, as CPU time, which a busy machine stretches less than the wall clock.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.tables import Row, Table
from dialer.monitor.snapshot import OUTCOMES_OF_MIN, take_snapshot
from dialer.settings.tables import Pbx
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect
from dialer.store.keys import LedgerKeys
from dialer.store.ledger import Survey
from dialer.store.registry import Registry
from dialer.store.steps import Steps

#: Looks that are measured, after the first one, which also reads the outcomes of an hour.
LOOKS: Final = 10

#: What a look may cost in all, in ms, at 50 cells, 20 PBXs and 10,000 calls.
WITHIN_MS: Final = 50.0

COLUMNS: Final = ("cells", "PBXs", "calls", "Redis ms", "reader ms", "wall ms", "commands")


@dataclass(frozen=True, slots=True)
class Size:
    """How large the system is. `calls` are those of each cell."""

    cells: int
    pbxs: int
    calls: int


SIZES: Final = (Size(5, 2, 50), Size(50, 20, 20), Size(50, 20, 200), Size(200, 20, 50))


async def fill(redis: Redis, cells: Mapping[str, Sequence[str]], calls: int) -> None:
    """Write the keys of these calls, and the outcomes of the last hour."""
    now_ms = int(time.time() * 1000)
    for cell, pbxs in cells.items():
        keys, pipe = LedgerKeys(cell), redis.pipeline(transaction=False)
        pipe.zadd(keys.bridges, {"bridge-1": now_ms})
        for n in range(calls):
            name, pbx = f"{cell}:r{n}", pbxs[n % len(pbxs)]
            pipe.hset(keys.call(name), mapping={"state": "answered", "pbx": pbx})
            pipe.zadd(keys.live, {name: now_ms})
            pipe.sadd(keys.claimed(pbx), name)
        for pbx in pbxs:
            pipe.set(keys.worker(pbx), '["worker", "host", 1, "place"]')
        outcomes: Any = {f"{pbx} {one}": 5 for pbx in pbxs for one in ("ANSWERED", "BUSY")}
        for minute in range(now_ms // 60_000 - OUTCOMES_OF_MIN + 1, now_ms // 60_000 + 1):
            pipe.hset(keys.minute(minute), mapping=outcomes)
        await pipe.execute()


async def measure(url: str, size: Size) -> Row:
    """Measure looks at a system of this size, on an empty server."""
    pbxs = [
        Pbx(name=f"pbx{n:02}", max_calls=100, cps=10, trunks={"tim": "PJSIP/{number}@tim"})
        for n in range(size.pbxs)
    ]
    cells = {f"CELL{n:03}": [pbx.name for pbx in pbxs] for n in range(size.cells)}
    steps = Steps(connect(url), "Redis")
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        await fill(redis, cells, size.calls)
        survey, registry = Survey(steps, OUTCOMES_OF_MIN), Registry(steps)

        async def look() -> None:
            await take_snapshot(registry, pbxs, [(survey, cells)])

        await look()
        before = await _used(redis)
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(LOOKS):
            await look()
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        after = await _used(redis)
    await steps.close()
    return {
        "cells": size.cells,
        "PBXs": size.pbxs,
        "calls": size.cells * size.calls,
        "Redis ms": (after["cpu_s"] - before["cpu_s"]) * 1000 / LOOKS,
        "reader ms": cpu_s * 1000 / LOOKS,
        "wall ms": wall_s * 1000 / LOOKS,
        "commands": round((after["sent"] - before["sent"] - 2) / LOOKS),  # without our two INFO
    }


async def _used(redis: Redis) -> dict[str, float]:
    """Return the CPU that the server has used, in s, and how many commands it was sent."""
    cpu, stats = await redis.info("cpu"), await redis.info("commandstats")
    sent = sum(
        int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "time")
    )
    return {"cpu_s": cpu["used_cpu_user"] + cpu["used_cpu_sys"], "sent": sent + 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This benchmark has none."""
    del parser


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure all sizes."""
    del asked
    with EmbeddedValkey(appendonly=False) as server:
        rows = [asyncio.run(measure(server.url(0), size)) for size in SIZES]
    note = (
        f"A look may cost {WITHIN_MS:g} ms at 50 cells, 20 PBXs and 10,000 calls. It is one step "
        "for each 1,000 keys, whatever the number of calls."
    )
    title = "One look at the whole system"
    return [Table(name="snapshot", title=title, columns=COLUMNS, rows=rows, note=note)]
