"""Seeded runs: a site on real Asterisk 22 and 16 and real Redis dials while parts of it die.

    python -m tests.chaos.run --seed 1 --runs 5 --faults 220 --calls 2000

prints a table of what was done and what became of the calls, and exits 1 where a promise broke.
Every `--sentinel-every`th run has a Redis master with a replica and sentinels instead of the lab's
Redis. `--pbx simulated` needs no Docker: simulated PBXs, and an embedded Valkey as Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.lab.lab import Lab
from tests.chaos.book import Book
from tests.chaos.chaos import Chaos
from tests.chaos.clock import compiler
from tests.chaos.faults import COMPILER, KINDS, Points
from tests.chaos.places import (
    LocalValkey,
    Pbxs,
    RealPbxs,
    RealRedis,
    Sentinels,
    SimulatedPbxs,
    Store,
)


def make(seed: int, given: argparse.Namespace, points: dict[str, Points]) -> Chaos:
    """One run as the command line wants it."""
    folder = Path(given.folder) / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    pbxs: Pbxs = SimulatedPbxs() if given.pbx == "simulated" else RealPbxs(Lab())
    store: Store = LocalValkey() if given.pbx == "simulated" else RealRedis(Lab())
    every = given.sentinel_every
    if every and (seed - given.seed) % every == every - 1:
        store = Sentinels(folder)
    return Chaos(
        seed=seed,
        faults=given.faults,
        calls=given.calls,
        rate=given.rate,
        pace_s=given.pace,
        folder=folder,
        points=points,
        pbxs=pbxs,
        store=store,
        only=given.only,
    )


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--faults", type=int, default=220, help="in each run, at most")
    parser.add_argument("--calls", type=int, default=2000, help="in each run")
    parser.add_argument("--rate", type=float, default=12.0, help="requests a second")
    parser.add_argument("--pace", type=float, default=0.7, help="mean seconds between faults")
    parser.add_argument("--pbx", choices=("real", "simulated"), default="real")
    parser.add_argument("--sentinel-every", type=int, default=5, help="which runs; 0: none")
    kinds = [kind.name for kind in KINDS]
    parser.add_argument("--only", nargs="+", choices=kinds, default=[], metavar="KIND")
    parser.add_argument("--folder", help="for logs; default: one that is left behind")
    given = parser.parse_args(arguments)
    given.folder = given.folder or tempfile.mkdtemp(prefix="chaos-")
    return given


def rehearse(given: argparse.Namespace) -> tuple[Book, dict[str, Points]]:
    """All runs, one after the other; each prints a line when it is over."""
    book = Book()
    points = {who: Points(who, random.Random(given.seed)) for who in ("bridge", "worker")}
    for seed in range(given.seed, given.seed + given.runs):
        began = time.monotonic()
        chaos = make(seed, given, points)
        summary = asyncio.run(chaos.run())
        book.add(chaos, summary)
        sys.stdout.write(
            f"seed {seed}: {len(chaos.done)} faults, {summary.calls} calls, "
            f"{len(summary.violations)} violations, {time.monotonic() - began:.0f} s\n"
        )
        sys.stdout.flush()
    return book, points


def main() -> int:
    """The program."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # then the programs are stopped too
    given = parsed()
    if compiler() is None:
        left_out = ", ".join(kind.name for kind in KINDS if kind.needs == COMPILER)
        sys.stdout.write(f"left out for want of {COMPILER}: {left_out}\n")
    book, points = rehearse(given)
    sys.stdout.write("\n".join(book.lines()) + "\n")
    for who, these in points.items():
        missed = sorted(set(these.all) - set(these.fired))
        sys.stdout.write(
            f"failure points of the {who}: {len(these.all) - len(missed)} of {len(these.all)} "
            f"fired; not met: {', '.join(missed) or 'none'}\n"
        )
    sys.stdout.write(f"logs in {given.folder}\n")
    return int(book.is_broken)


if __name__ == "__main__":
    sys.exit(main())
