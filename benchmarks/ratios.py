"""The figures that `check` compares: counts and ratios, from one short run without Docker.

Counts of steps, commands and round trips hardly depend on the machine; what idle cells do is
subtracted from them. CPU times are in units of a fixed piece of Python work, timed in the same
run, and beside those of a bare AMI client.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks import admission, idle, memory
from benchmarks.bare import BareClient, Manager
from benchmarks.caller import requests
from benchmarks.idle import QuietStack
from benchmarks.pbxs import dialed
from benchmarks.simulated import LAST_TWO, PbxProcess
from benchmarks.tables import Row, Value
from benchmarks.usage import Traffic
from benchmarks.verdict import NotMeasured, Result
from tests.integration.stack import CELL, SECRET

#: Each round dials so many calls at this rate, first barely and then with the dialer.
ROUNDS: Final = 3
RATE: Final = 50.0
CALLS: Final = 300
ENDS_WITHIN_S: Final = 30.0

IDLE_CELLS: Final = 20
IDLE_S: Final = 5.0

#: Memory is compared between these numbers of calls at once.
CALLS_AT_ONCE: Final = (500, 2500)

#: Pieces of work of which the unit is the mean.
PIECES: Final = 4000


def unit_ms() -> float:
    """Return the CPU time of one piece of the work that is the unit, in milliseconds.

    JSON, dictionaries, text and an event loop's callbacks: what bridge and worker do all day.
    """
    loop = asyncio.new_event_loop()
    began = time.thread_time()
    for n in range(PIECES):
        text = json.dumps({"IdRequisicao": f"R{n}", "Telefone": "+5511999990000", "n": [n, None]})
        fields = dict(part.partition(":")[::2] for part in text.split(","))
        loop.call_soon(fields.get, "n")
        json.loads(text)
    loop.call_soon(loop.stop)
    loop.run_forever()
    used_s = time.thread_time() - began
    loop.close()
    return used_s * 1000 / PIECES


async def bare_ms(port: int) -> float:
    """Return the CPU time of a bare client per call, in milliseconds."""
    manager = Manager(host="127.0.0.1", port=port, username="dialer", secret=SECRET)
    run = secrets.token_hex(4)
    client = BareClient(run=f"bare-{run}", trunk="PJSIP/{number}@tim", at_once=10_000)
    numbers = [one.number for one in requests(run, CALLS, LAST_TWO, [CELL])]
    began = time.process_time()
    done = await client.dial(manager, numbers, RATE, ENDS_WITHIN_S)
    used_s = time.process_time() - began
    if not all(call.is_good for call in done.values()):
        raise NotMeasured("the bare client's calls did not all end")
    return used_s * 1000 / CALLS


async def calls(folder: Path) -> tuple[dict[str, float], list[str]]:
    """Return the figures per call, medians of the rounds, and what was wrong."""
    rounds: list[dict[str, float]] = []
    broken: list[str] = []
    with PbxProcess() as pbx:
        async with QuietStack(folder, cell={"threads": 10_000}) as stack:
            pbx.add_to(stack)
            await stack.start()
            idle_per_s = await idle.traffic_per_s(stack, IDLE_S)
            for _ in range(ROUNDS):
                unit, bare = await asyncio.to_thread(unit_ms), await bare_ms(pbx.port)
                row = await dialed(stack, RATE, CALLS)
                broken += [f"{row['violations']} violations"] if row["violations"] else []
                rounds.append(_per_call(row, idle_per_s, unit, bare))
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}, broken


def _per_call(
    row: Mapping[str, Value], idle_per_s: Traffic, unit: float, bare: float
) -> dict[str, float]:
    share = _number(row, "seconds") / CALLS
    return {
        "steps": _number(row, "steps") - idle_per_s.steps * share,
        "commands": _number(row, "commands") - idle_per_s.commands * share,
        "round_trips": _number(row, "round trips") - idle_per_s.reads * share,
        "bytes": _number(row, "bytes") - idle_per_s.net_bytes * share,
        "switches": _number(row, "switches"),
        "ours_over_bare": _number(row, "ours ms") / bare,
        "worker_units": _number(row, "workers ms") / unit,
        "bridge_units": _number(row, "bridge ms") / unit,
    }


def _number(row: Row, name: str) -> float:
    value = row[name]
    if not isinstance(value, int | float):
        raise NotMeasured(f"there is no figure for {name}")
    return float(value)


def measured() -> Result:
    """Measure everything that `check` compares."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        figures, broken = asyncio.run(calls(Path(folder)))
    unit = unit_ms()
    admitted = admission.tried(admission.Load())
    figures["admit_units"] = _number(admitted, "bridge ms") / (unit + unit_ms()) * 2
    figures["admit_steps"] = _number(admitted, "steps")
    quiet = idle.series([IDLE_CELLS], IDLE_S)[0]
    figures["idle_commands_per_cell"] = _number(quiet, "commands/s a cell")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rows = asyncio.run(memory.measure(Path(folder), CALLS_AT_ONCE))
    figures["worker_kib_per_call"] = _number(rows[2], "worker KiB a call")
    broken += [f"{row['violations']} violations" for row in rows[:1] if row["violations"]]
    return Result(figures=figures, broken=broken)
