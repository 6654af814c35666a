import argparse
import importlib
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.verdict import (
    BASELINE,
    EXIT_CODES,
    NotMeasured,
    Result,
    Verdict,
    baseline,
    busy_share,
    judge,
    overall,
    require_quiet,
)

NAMES = ("memory", "store_memory", "throughput", "latency")


def main() -> int:
    """Run the named benchmarks, by default all.

    With `--check` the exit code is 0 if all were measured and none is worse than before, 1 if one
    is worse or missed a limit, 3 if one was not measured.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(NAMES))
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare with baseline.toml")
    what.add_argument("--record", action="store_true", help="write the figures to baseline.toml")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.name) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    names = asked.name or list(NAMES)
    if asked.check:
        return _check(names)
    for name in names:
        try:
            result = _of(name)()
        except NotMeasured as reason:
            sys.stdout.write(f"{name}: {Verdict.NOT_MEASURED}: {reason}\n")
            continue
        for sentence in result.broken:
            sys.stdout.write(f"{name}: {Verdict.BROKEN}: {sentence}\n")
        if asked.record and not result.broken:
            _record(name, result)
    return 0


def _of(name: str) -> Callable[[], Result]:
    run: Callable[[], Result] = importlib.import_module(f"benchmarks.{name}").run
    return run


def _check(names: list[str]) -> int:
    verdicts = []
    for name in names:
        verdict, reason = judge(partial(_quietly, _of(name)), baseline().get(name, {}))
        sys.stdout.write(f"{name}: {verdict}{': ' if reason else ''}{reason}\n")
        sys.stdout.flush()
        verdicts.append(verdict)
    return EXIT_CODES[overall(verdicts)]


def _quietly(run: Callable[[], Result]) -> Result:
    """Run a benchmark; raise NotMeasured if the machine is busy before or after it."""
    require_quiet(busy_share())
    result = run()
    require_quiet(busy_share())
    return result


def _record(name: str, result: Result) -> None:
    import tomlkit

    document = tomlkit.parse(BASELINE.read_text(encoding="utf-8"))
    document[name] = {key: round(value, 3) for key, value in result.figures.items()}
    BASELINE.write_text(tomlkit.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
