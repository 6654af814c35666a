"""The full path on real Asterisk 22 with Sentinel, with RabbitMQ as broker, and with TLS.

Each beside the plain one of the same run. With TLS are Redis, broker and AMI; that Redis is the
lab's, the others are embedded Valkeys.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import real
from benchmarks.place import place
from benchmarks.stores import VARIANTS
from benchmarks.tables import Row, Table

COLUMNS: Final = (
    "variant", "offered/s", "calls/s", "answered", "starved", "other", "violations", "ack p50",
    "ack p99", "ours ms", "bridge ms", "worker ms", "redis ms", "broker ms", "switches",
    "round trips",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rates", default="50,150", help="offered calls a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--at-once", type=int, default=400, help="most calls at once")


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure as asked.

    Raises:
        NotMeasured: there is no Docker.
    """
    rates = [float(rate) for rate in asked.rates.split(",")]
    rows: list[Row] = []
    for variant in asked.variants.split(","):
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            place(Path(folder), asked.at_once, variant) as here,
        ):
            measured = asyncio.run(real.measure(here, ["full"], rates, asked.seconds))
        rows += [{"variant": variant, **row} for row in measured]
    rows.sort(key=lambda row: float(row["offered/s"] or 0))
    return [
        Table(
            name="variants",
            title="The full path with other servers",
            columns=COLUMNS,
            rows=rows,
            note="*broker* is RabbitMQ, a part of *ours*. Of Sentinel's Redis only the master.",
        )
    ]
