"""`check`: compares the figures of one short run with the committed ones, or records them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial

from benchmarks import ratios
from benchmarks.machine import ROOT
from benchmarks.verdict import (
    BASELINE,
    EXIT_CODES,
    NotMeasured,
    Result,
    Verdict,
    baseline,
    busy_share,
    judge,
    require_quiet,
)

#: Tables of baseline.toml: the figures, and the commit that is measured beside this one.
NAME = "ratios"
BASE = "base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `check`."""
    parser.add_argument("--record", action="store_true", help="write the figures to baseline.toml")
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine too")


def run(asked: argparse.Namespace) -> int:
    """Return 0 if all was measured and nothing is worse, 1 if something is, 3 if not measured."""
    try:
        commit = _head() if asked.record else base_commit()
    except NotMeasured as reason:
        sys.stdout.write(f"{Verdict.NOT_MEASURED}: {reason}\n")
        return EXIT_CODES[Verdict.NOT_MEASURED]
    return checked(asked, partial(ratios.measured, commit), commit=commit)


def checked(asked: argparse.Namespace, measured: Callable[[], Result], *, commit: str) -> int:
    """Compare with the committed figures, or record them with their commit."""
    if not asked.busy:
        measured = partial(quietly, measured)
    measured = partial(_shown, measured)
    if asked.record:
        return _record(measured, commit)
    verdict, reason = judge(measured, baseline().get(NAME, {}))
    sys.stdout.write(f"{verdict}{': ' if reason else ''}{reason}\n")
    return EXIT_CODES[verdict]


def base_commit() -> str:
    """Return the commit with whose CPU times those of this one are compared.

    Raises:
        NotMeasured: baseline.toml has none.
    """
    found = baseline().get(BASE, {}).get("commit")
    if not found:
        raise NotMeasured("baseline.toml has no commit to compare with")
    return str(found)


def _head() -> str:
    """Return this commit.

    Raises:
        NotMeasured: there are changes that are not committed: nobody could compare with them.
    """
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    if git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip():
        raise NotMeasured("there are changes that are not committed")
    return git(["git", "rev-parse", "HEAD"]).stdout.strip()


def quietly(measured: Callable[[], Result]) -> Result:
    """Measure; raise NotMeasured if the machine is busy before or after it."""
    require_quiet(busy_share())
    result = measured()
    require_quiet(busy_share())
    return result


def _shown(measured: Callable[[], Result]) -> Result:
    """Measure, and print the figures beside the committed ones."""
    result = measured()
    committed: Mapping[str, float] = baseline().get(NAME, {})
    for name, value in result.figures.items():
        was = committed.get(name)
        before = "" if was is None else f"  was {was:g}"
        sys.stdout.write(f"{name:24} {value:10.3f}{before}\n")
    sys.stdout.flush()
    return result


def _record(measured: Callable[[], Result], commit: str) -> int:
    import tomlkit

    try:
        result = measured()
    except NotMeasured as reason:
        sys.stdout.write(f"{Verdict.NOT_MEASURED}: {reason}\n")
        return EXIT_CODES[Verdict.NOT_MEASURED]
    if result.broken:
        sys.stdout.write(f"{Verdict.BROKEN}: {'; '.join(result.broken)}\n")
        return EXIT_CODES[Verdict.BROKEN]
    document = tomlkit.parse(BASELINE.read_text(encoding="utf-8"))
    document[NAME] = {
        name: 1.0 if name.endswith(ratios.TO_BASE) else round(value, 3)
        for name, value in result.figures.items()
    }
    document[BASE] = {"commit": commit}
    BASELINE.write_text(tomlkit.dumps(document), encoding="utf-8")
    return 0
