"""Command line of the benchmarks; see docs/performance.md."""

import argparse
import importlib
import json
import sys
from types import ModuleType
from typing import Final

from benchmarks import gates, ratios, report
from benchmarks.verdict import NotMeasured, Verdict

#: Name, and what it measures. `all` runs them in this order.
BENCHMARKS: Final = {
    "real": "calls through real Asterisk 22, beside a bare AMI client and an old script",
    "variants": "the full path with Sentinel, RabbitMQ and TLS",
    "admission": "requests admitted a second, by backlog, cells and bridges",
    "idle": "what idle cells cost",
    "pbxs": "1 to 16 simulated PBXs",
    "memory": "memory of calls at once",
    "store_memory": "memory of a call in Redis",
    "snapshot": "one look of the monitor at the whole system",
    "page": "the web page with 0 to 500 viewers",
}


def main() -> int:
    """Run what the command line asks for; the exit code says what became of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="WHAT")
    for name, what in BENCHMARKS.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("--no-store", action="store_true", help="print only")
        _module(name).add_arguments(command)
    commands.add_parser("all", help="all of these, with their defaults")
    commands.add_parser("report", help="write the pages in docs/ from the stored results")
    gates.add_arguments(commands.add_parser("check", help="compare with baseline.toml"))
    commands.add_parser("cpu", help="CPU times of this tree as JSON; check runs it twice")
    asked = parser.parse_args()
    match asked.command:
        case "check":
            return gates.run(asked)
        case "report":
            report.write()
            return 0
        case "cpu":
            return _cpu()
        case "all":
            verdicts = [_measured(parser.parse_args([name]), [name]) for name in BENCHMARKS]
            return max(verdicts)
        case _:
            return _measured(asked, sys.argv[1:])


def _cpu() -> int:
    try:
        sys.stdout.write(f"{json.dumps(ratios.cpu())}\n")
    except NotMeasured as reason:
        sys.stderr.write(f"{reason}\n")
        return 3
    return 0


def _measured(asked: argparse.Namespace, words: list[str]) -> int:
    """Run one benchmark, print and store its tables; 3: it was not measured."""
    name = asked.command
    try:
        tables = _module(name).run(asked)
    except NotMeasured as reason:
        sys.stdout.write(f"{name}: {Verdict.NOT_MEASURED}: {reason}\n")
        return 3
    for table in tables:
        sys.stdout.write(f"{table.text()}\n\n")
    sys.stdout.flush()
    if not asked.no_store:
        report.store(name, " ".join(["python -m benchmarks", *words]), tables)
        report.write()
    return 0


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    sys.exit(main())
