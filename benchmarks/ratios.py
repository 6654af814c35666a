"""The figures that `check` compares: counts and ratios, from one short run without Docker.

Counts of steps, commands and round trips hardly depend on the machine; what idle cells do is
subtracted from them. CPU times depend on it much, also as multiples of some other work. So this
tree and the tree of an earlier commit, `base_commit`, are measured in turn, and compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import admission, idle, memory
from benchmarks.idle import QuietStack
from benchmarks.machine import ROOT
from benchmarks.pbxs import dialed
from benchmarks.simulated import PbxProcess
from benchmarks.tables import Row, Value
from benchmarks.usage import Traffic
from benchmarks.verdict import NotMeasured, Result

#: Each round dials so many calls at this rate.
ROUNDS: Final = 3
RATE: Final = 50.0
CALLS: Final = 300

IDLE_CELLS: Final = 20
IDLE_S: Final = 5.0

#: Memory is compared between these numbers of calls at once.
CALLS_AT_ONCE: Final = (500, 2500)

#: CPU times of a call, in ms. The ratios to those of the earlier commit are compared.
CPU: Final = ("worker_ms", "bridge_ms", "admit_ms")

CPU_WITHIN_S: Final = 120.0

#: How the names of these ratios end.
TO_BASE: Final = "_to_base"


async def calls(folder: Path, rounds: int) -> tuple[dict[str, float], list[str]]:
    """Return the figures per call, medians of the rounds, and what was wrong."""
    found: list[dict[str, float]] = []
    broken: list[str] = []
    with PbxProcess() as pbx:
        async with QuietStack(folder, cell={"threads": 10_000}) as stack:
            pbx.add_to(stack)
            await stack.start()
            idle_per_s = await idle.traffic_per_s(stack, IDLE_S)
            for _ in range(rounds):
                row = await dialed(stack, RATE, CALLS)
                broken += [f"{row['violations']} violations"] if row["violations"] else []
                found.append(_per_call(row, idle_per_s))
    return {name: statistics.median(one[name] for one in found) for name in found[0]}, broken


def _per_call(row: Mapping[str, Value], idle_per_s: Traffic) -> dict[str, float]:
    share = _number(row, "seconds") / CALLS
    return {
        "steps": _number(row, "steps") - idle_per_s.steps * share,
        "commands": _number(row, "commands") - idle_per_s.commands * share,
        "round_trips": _number(row, "round trips") - idle_per_s.reads * share,
        "bytes": _number(row, "bytes") - idle_per_s.net_bytes * share,
        "switches": _number(row, "switches"),
        "worker_ms": _number(row, "workers ms"),
        "bridge_ms": _number(row, "bridge ms"),
    }


def _number(row: Row, name: str) -> float:
    value = row[name]
    if not isinstance(value, int | float):
        raise NotMeasured(f"there is no figure for {name}")
    return float(value)


def cpu() -> dict[str, float]:
    """Return the CPU times of this tree, see `CPU`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        figures, broken = asyncio.run(calls(Path(folder), 1))
    if broken:
        raise NotMeasured("; ".join(broken))
    figures["admit_ms"] = _number(admission.tried(admission.Load()), "bridge ms")
    return {name: figures[name] for name in CPU}


def cpu_of(tree: Path) -> dict[str, float]:
    """Return the CPU times of a tree, measured by its own code."""
    command = [sys.executable, "-m", "benchmarks", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            timeout=CPU_WITHIN_S,
            check=True,
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise NotMeasured(f"{tree}: {error.stderr.decode(errors='replace')[-500:]}") from None
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise NotMeasured(f"{tree}: {error}") from None
    return found


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Check an earlier commit out into a folder of its own.

    Raises:
        NotMeasured: this clone does not have it.
    """
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tree = Path(folder) / "base"
        made = subprocess.run(
            [*git, "add", "--detach", tree, commit], capture_output=True, check=False
        )
        if made.returncode:
            said = made.stderr.decode(errors="replace").strip()
            raise NotMeasured(f"commit {commit} cannot be checked out: {said}")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", tree], capture_output=True, check=False)


def compared(commit: str) -> dict[str, float]:
    """Return the ratios of the CPU times to those of an earlier commit, medians of the rounds."""
    ratios: dict[str, list[float]] = {name: [] for name in CPU}
    with tree_of(commit) as base:
        for n in range(ROUNDS):
            first, second = (base, ROOT) if n % 2 else (ROOT, base)
            by_tree = {first: cpu_of(first), second: cpu_of(second)}
            for name, found in ratios.items():
                found.append(by_tree[ROOT][name] / by_tree[base][name])
    return {
        name.replace("_ms", TO_BASE): statistics.median(found) for name, found in ratios.items()
    }


def measured(base_commit: str) -> Result:
    """Measure everything that `check` compares."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        figures, broken = asyncio.run(calls(Path(folder), ROUNDS))
    figures = {name: value for name, value in figures.items() if name not in CPU}
    figures["admit_steps"] = _number(admission.tried(admission.Load()), "steps")
    quiet = idle.series([IDLE_CELLS], IDLE_S)[0]
    figures["idle_commands_per_cell"] = _number(quiet, "commands/s a cell")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rows = asyncio.run(memory.measure(Path(folder), CALLS_AT_ONCE))
    figures["worker_kib_per_call"] = _number(rows[2], "worker KiB a call")
    broken += [f"{row['violations']} violations" for row in rows[:1] if row["violations"]]
    return Result(figures=figures | compared(base_commit), broken=broken)
