"""The plan for 1,000 PBXs and 10,000 calls a second, computed from the measured figures. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from benchmarks.tables import Row, Table

PBXS: Final = 1000
CALLS_PER_S: Final = 10_000
CALL_S: Final = 30.0
CELLS: Final = 1000
DAY_S: Final = 10 * 3600

#: The most of a core that is planned for: the rest is for peaks and for a dead neighbour's share.
PLANNED: Final = 0.5


def plan(tables: Mapping[str, Table]) -> Table:
    """Return what the plan needs, from the tables that are there."""
    rows: list[Row] = []

    def need(what: str, amount: float | None, unit: str, rests_on: str) -> None:
        rows.append({"what": what, "needs": amount, "unit": unit, "rests on": rests_on})

    admits = _last(tables, "admission-cells", "admits per bridge CPU s")
    redis_ms = _last(tables, "real-cpu", "redis ms", way="full")
    worker_ms = _last(tables, "real-cpu", "worker ms", way="full")
    net_bytes = _last(tables, "real-cpu", "bytes", way="full")
    trips = _last(tables, "real-cpu", "round trips", way="full")
    bridge_ms = _last(tables, "real-cpu", "bridge ms", way="full")
    live = CALLS_PER_S * CALL_S
    need("bridges, whole path", _cores(bridge_ms), "cores", "bridge ms a call (real)")
    if admits:
        cores = math.ceil(CALLS_PER_S / admits / PLANNED)
        need("bridges, admission alone", cores, "cores", "admits per bridge CPU s (cells)")
    need("Redis servers, one core each", _cores(redis_ms), "servers", "Redis ms a call (real)")
    if net_bytes is not None:
        need("network of Redis", net_bytes * CALLS_PER_S * 8 / 1e6, "Mbit/s", "bytes a call (real)")
    if trips is not None:
        need("round trips to Redis", trips * CALLS_PER_S, "a second", "round trips a call (real)")
    accepted, done = (_of(tables, what) for what in ("an accepted call", "a done call"))
    if accepted is not None and done is not None:
        size = (accepted * live + done * CALLS_PER_S * DAY_S) / 2**30
        need("memory of Redis, all servers", size, "GiB", "bytes of a call (store_memory)")
    if worker_ms is not None:
        share = worker_ms * CALLS_PER_S / PBXS / 10
        need("worker, on each PBX's host", share, "% of a core", "worker ms a call (real)")
    kib = _last(tables, "memory", "worker KiB a call")
    if kib is not None:
        need("calls of a worker", kib * live / PBXS / 1024, "MiB", "worker KiB a call (memory)")
    return Table(
        name="plan",
        title=f"{PBXS:,} PBXs, {CALLS_PER_S:,} calls/s of {CALL_S:g} s",
        columns=("what", "needs", "unit", "rests on"),
        rows=rows,
    )


def _cores(ms: float | None) -> float | None:
    """Return the cores for all calls, each used up to `PLANNED`."""
    return None if ms is None else math.ceil(ms / 1000 * CALLS_PER_S / PLANNED)


def _last(tables: Mapping[str, Table], name: str, column: str, way: str = "") -> float | None:
    """Return the last row's figure: the highest rate, or the most of what grows."""
    rows = tables[name].rows if name in tables else []
    values = [row.get(column) for row in rows if not way or row.get("way") == way]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return numbers[-1] if numbers else None


def _of(tables: Mapping[str, Table], what: str) -> float | None:
    rows = tables["store_memory"].rows if "store_memory" in tables else []
    return next((float(str(row["bytes"])) for row in rows if row["what"] == what), None)
