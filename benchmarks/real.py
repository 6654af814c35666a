"""Calls through real Asterisk 22 to a SIP carrier, in three ways, side by side at rising rates.

    bare  an asyncio AMI client that only dials (benchmarks/bare.py)
    full  Multcall's list, bridge, Celery, worker, AMI, Response
    old   a thread per call, with blocking Redis and AMI (benchmarks/old_script.py)

All on one machine. A call counts if it was answered; the carrier always answers, so NO_ANSWER is a
call that Asterisk starved.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.bare import BareClient
from benchmarks.caller import Caller, requests
from benchmarks.figures import Latency, rate_per_s
from benchmarks.meter import Meter
from benchmarks.place import CELL, LAST_TWO, PBX, TRUNK, Place, place
from benchmarks.tables import Row, Table, Value
from benchmarks.usage import Traffic, Used
from dialer.domain.call import Result
from dialer.simulation.multcall.checker import Checker
from tests.processes import ROOT, Program

WAYS: Final = ("bare", "full", "old")

#: Calls before a measurement, at a low rate: scripts are loaded, code is warm.
WARM_UP: Final = 40
WARM_UP_RATE: Final = 20.0

#: The last call ends within this time after the last request, in seconds: a starved call rings for
#: 30 s, and its code may be late.
ENDS_WITHIN_S: Final = 60.0

#: The old script is not driven beyond a rate of which it reaches less than this share.
SATURATED: Final = 0.7

#: What one process of ours is called in the table.
OURS: Final = ("bridge", "worker", "redis", "broker")

COLUMNS: Final = (
    "way", "offered/s", "calls/s", "ratio", "answered", "starved", "other", "violations",
    "originate p50", "originate p99", "originate max", "ack p50", "ack p99", "ack max",
    "invite p50", "invite p99",
)  # fmt: skip
CPU_COLUMNS: Final = (
    "way", "offered/s", "ours ms", "bridge ms", "worker ms", "redis ms", "asterisk ms",
    "carrier ms", "caller ms", "switches", "commands", "steps", "round trips", "bytes",
)  # fmt: skip


@dataclass(slots=True)
class Dialed:
    """What one way made of its calls; times are monotonic, keyed by number."""

    pushed_at: dict[str, float]
    ended_at: dict[str, float] = field(default_factory=dict)
    originated_at: dict[str, float] = field(default_factory=dict)
    acked_at: dict[str, float] = field(default_factory=dict)
    starved: int = 0
    violations: Sequence[str] = ()
    used: Mapping[str, Used] = field(default_factory=dict)
    traffic: Traffic | None = None


def _wall_offset_s() -> float:
    """Return what to add to the monotonic clock to get seconds since 1970."""
    return time.time() - time.monotonic()


async def dial_bare(here: Place, rate: float, calls: int, first: int) -> Dialed:
    """Dial with the bare client, which runs in this process."""
    run = secrets.token_hex(4)
    numbers = [one.number for one in requests(run, calls, LAST_TWO, [CELL], first)]
    client = BareClient(run=f"bare-{run}", trunk=TRUNK, at_once=here.at_once)
    meter = Meter(
        {"worker": [os.getpid()], "asterisk": [here.asterisk_pid], "carrier": [here.carrier_pid]}
    )
    done = await client.dial(here.manager, numbers, rate, ENDS_WITHIN_S)
    used = meter.read()
    return Dialed(
        pushed_at={call.number: call.sent_at for call in done.values()},
        acked_at={c.number: c.accepted_at for c in done.values() if c.accepted_at is not None},
        ended_at={c.number: c.ended_at for c in done.values() if c.is_good and c.ended_at},
        starved=sum(call.result == b"Failure" for call in done.values()),
        used=used,
    )


async def dial_full(here: Place, rate: float, calls: int, first: int) -> Dialed:
    """Dial with bridge and worker."""
    with here.site() as site:
        pids = {
            "bridge": [p.pid for name, p in site.programs.items() if name != PBX],
            "worker": [site.programs[PBX].pid],
        }
        return await _through_redis(here, rate, calls, first, pids)


async def dial_old(here: Place, rate: float, calls: int, first: int) -> Dialed:
    """Dial with the old script."""
    manager = here.manager
    command = [
        *(sys.executable, "-m", "benchmarks.old_script", "--redis", here.stores.caller_url),
        *("--cell", CELL, "--ami", f"{manager.host}:{manager.port}"),
        *("--user", manager.username, "--secret", manager.secret),
        *("--threads", str(here.at_once)),
    ]
    log = here.folder / f"old-{first}.log"
    script = Program("old script", command, here.folder / "none.toml", log)
    script.start(PYTHONPATH=str(ROOT))
    try:
        dialed = await _through_redis(here, rate, calls, first, {"worker": [script.pid]})
    finally:
        await asyncio.to_thread(script.stop)
    switches = int(script.said().split()[-1]) * calls // (calls + WARM_UP)
    worker = replace(dialed.used["worker"], switches=switches)
    dialed.used = {**dialed.used, "worker": worker}
    return dialed


async def _through_redis(
    here: Place, rate: float, calls: int, first: int, pids: Mapping[str, Sequence[int]]
) -> Dialed:
    run = secrets.token_hex(4)
    async with Caller(here.stores.caller_url, [CELL]) as caller:
        warm = requests(f"warm-{run}", WARM_UP, LAST_TWO, [CELL], first + calls)
        await caller.call(warm, WARM_UP_RATE, ENDS_WITHIN_S)
        broker = here.stores.broker_pid
        meter = Meter(
            {
                **pids,
                **({"broker": [broker]} if broker is not None else {}),
                "redis": [here.stores.redis_pid],
                "asterisk": [here.asterisk_pid],
                "carrier": [here.carrier_pid],
                "caller": [os.getpid()],
            }
        )
        before = await caller.others_traffic()
        asked = requests(run, calls, LAST_TWO, [CELL], first)
        await caller.call(asked, rate, ENDS_WITHIN_S)
        used, traffic = meter.read(), await caller.others_traffic() - before
        offset = _wall_offset_s()
    return _dialed(caller.checked(), run, offset, used, traffic)


def _dialed(
    checker: Checker, run: str, offset: float, used: Mapping[str, Used], traffic: Traffic
) -> Dialed:
    """Return the calls of one run, judged by the checker."""
    dialed = Dialed(pushed_at={}, used=used, traffic=traffic)
    starved = set()
    for (_, request_id), played in checker.calls.items():
        if not request_id.startswith(f"{run}-"):
            continue  # of the warm-up
        number, response = played.asked.number, played.response
        dialed.pushed_at[number] = played.pushed_at
        if played.acked_at is not None:
            dialed.acked_at[number] = played.acked_at
        if response is None or played.responded_at is None:
            continue
        if response.dialed_at is not None:
            at = datetime.fromisoformat(response.dialed_at).timestamp()
            dialed.originated_at[number] = at - offset
        if response.result is Result.ANSWERED:
            dialed.ended_at[number] = played.responded_at
        elif response.result is Result.NO_ANSWER:
            starved.add(request_id)
    dialed.starved = len(starved)
    dialed.violations = [
        str(found)
        for found in checker.violations()
        if not (found.kind == "result" and found.request_id in starved)
    ]
    return dialed


DIAL: Final[Mapping[str, Callable[..., Any]]] = {
    "bare": dial_bare,
    "full": dial_full,
    "old": dial_old,
}


def _row(
    way: str, rate: float, own_s: float, dialed: Dialed, invited_at: Mapping[str, float]
) -> dict[str, Value]:
    """Return the figures of one run."""
    calls, pushed = len(dialed.pushed_at), dialed.pushed_at
    offset = _wall_offset_s()

    def since_push(times: Mapping[str, float]) -> Latency:
        return Latency.of(at - pushed[number] for number, at in times.items() if number in pushed)

    originate, ack = since_push(dialed.originated_at), since_push(dialed.acked_at)
    invite = since_push({number: at - offset for number, at in invited_at.items()})
    answered = len(dialed.ended_at)
    row: dict[str, Value] = {
        "way": way,
        "offered/s": rate,
        "calls": calls,
        "calls/s": rate_per_s([*dialed.ended_at.values()], min(pushed.values()), own_s),
        "answered": answered,
        "starved": dialed.starved,
        "other": calls - answered - dialed.starved,
        "violations": len(dialed.violations),
        "originate p50": originate.p50,
        "originate p99": originate.p99,
        "originate max": originate.longest,
        "ack p50": ack.p50,
        "ack p99": ack.p99,
        "ack max": ack.longest,
        "invite p50": invite.p50,
        "invite p99": invite.p99,
    }
    row |= {f"{name} ms": used.cpu_s * 1000 / calls for name, used in dialed.used.items()}
    ours = [used for name, used in dialed.used.items() if name in OURS]
    row["ours ms"] = sum(used.cpu_s for used in ours) * 1000 / calls
    row["switches"] = sum(used.switches for used in ours) / calls
    if (traffic := dialed.traffic) is not None:
        row |= {
            "commands": traffic.commands / calls,
            "steps": traffic.steps / calls,
            "round trips": traffic.reads / calls,
            "bytes": traffic.net_bytes / calls,
        }
    return row


async def _own_s(here: Place) -> float:
    """Return how long one call rings and talks, from a few calls that wait for nothing."""
    dialed = await dial_bare(here, WARM_UP_RATE, WARM_UP, 0)
    return statistics.median(dialed.ended_at[n] - at for n, at in dialed.pushed_at.items())


async def measure(
    here: Place, ways: Sequence[str], rates: Sequence[float], seconds: float
) -> list[Row]:
    """Measure every way at every rate, one after the other; the old one up to its saturation."""
    rows: list[Row] = []
    own_s, first, is_old_saturated = await _own_s(here), WARM_UP, False
    for rate in rates:
        bare_rate = 0.0
        for way in ways:
            if way == "old" and is_old_saturated:
                continue
            await asyncio.to_thread(here.clear)
            async with Redis.from_url(here.stores.caller_url) as redis:
                await redis.flushall()
            calls = max(1, round(rate * seconds))
            dialed = await DIAL[way](here, rate, calls, first)
            first += calls + WARM_UP
            row = _row(way, rate, own_s, dialed, await asyncio.to_thread(here.invited_at))
            _tell(way, rate, row, dialed.violations)
            bare_rate = _number(row["calls/s"]) if way == "bare" else bare_rate
            row["ratio"] = _number(row["calls/s"]) / bare_rate if bare_rate else None
            if way == "old":
                is_old_saturated = _number(row["calls/s"]) < SATURATED * rate
            rows.append(row)
    return rows


def _tell(way: str, rate: float, row: Row, violations: Sequence[str]) -> None:
    """Show that a run is over, and what was wrong."""
    sys.stderr.write(f"{way} at {rate:g}/s: {_number(row['calls/s']):.1f} calls/s\n")
    sys.stderr.writelines(f"  {sentence}\n" for sentence in violations[:5])


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the tables of the rows."""
    return [
        Table(
            name="real",
            title="Calls through real Asterisk 22 (times in ms since the request)",
            columns=COLUMNS,
            rows=rows,
        ),
        Table(
            name="real-cpu",
            title="What one call costs (CPU in ms; Redis without Multcall's own commands)",
            columns=CPU_COLUMNS,
            rows=rows,
        ),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--rates", default="50,100,150,300", help="offered calls a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--ways", default=",".join(WAYS), help="which of them: " + ", ".join(WAYS))
    parser.add_argument("--at-once", type=int, default=400, help="most calls at once, of each way")


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure as asked.

    Raises:
        NotMeasured: there is no Docker.
    """
    rates = [float(rate) for rate in asked.rates.split(",")]
    ways = asked.ways.split(",")
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        place(Path(folder), asked.at_once) as here,
    ):
        return tables(asyncio.run(measure(here, ways, rates, asked.seconds)))
