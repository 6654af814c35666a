"""Results of benchmarks and their comparison with the committed figures.

Pure except `busy_share`, which reads /proc/stat. A benchmark's module has `run()`, which returns
a `Result` or raises `NotMeasured`. The committed figures are in baseline.toml.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

BASELINE: Final = Path(__file__).with_name("baseline.toml")

#: A figure counts as worse if it differs from the committed one by more than this share.
TOLERANCE: Final = 0.10

#: Figures for which higher is better; for all others lower is better.
MORE_IS_BETTER: Final = frozenset({"ratio"})

#: Highest CPU share of other programs at which a figure is meaningful.
BUSY_SHARE: Final = 0.15

Figures = Mapping[str, float]


class NotMeasured(Exception):
    """The benchmark could not run, or its figures are not meaningful; the message is the reason."""


class Verdict(StrEnum):
    """Result of `--check` for one benchmark."""

    HELD = "held"
    BROKEN = "BROKEN"
    NOT_MEASURED = "not measured"


#: Exit codes of `--check`; 2 means wrong arguments.
EXIT_CODES: Final = {Verdict.HELD: 0, Verdict.BROKEN: 1, Verdict.NOT_MEASURED: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures by name, and a sentence for each limit that was not met."""

    figures: Figures
    broken: Sequence[str] = ()


def judge(run: Callable[[], Result], committed: Figures) -> tuple[Verdict, str]:
    """Run a benchmark; return the verdict and the reason, empty if HELD."""
    try:
        result = run()
    except NotMeasured as reason:
        return Verdict.NOT_MEASURED, str(reason)
    if problems := [*result.broken, *_worse(result.figures, committed)]:
        return Verdict.BROKEN, "; ".join(problems)
    if missing := [name for name in committed if name not in result.figures]:
        return Verdict.NOT_MEASURED, f"it has no figure for {', '.join(missing)}"
    if not committed:
        return Verdict.NOT_MEASURED, "baseline.toml has no figures to compare with"
    return Verdict.HELD, ""


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine verdicts: BROKEN if one is, HELD only if all are and there is at least one."""
    if Verdict.BROKEN in verdicts:
        return Verdict.BROKEN
    if not verdicts or Verdict.NOT_MEASURED in verdicts:
        return Verdict.NOT_MEASURED
    return Verdict.HELD


def _worse(figures: Figures, committed: Figures) -> list[str]:
    worse = []
    for name in committed.keys() & figures.keys():
        value, was = figures[name], committed[name]
        bound = was * (1 - TOLERANCE if name in MORE_IS_BETTER else 1 + TOLERANCE)
        # Not `value > bound`: NaN is worse than everything.
        if not (value >= bound if name in MORE_IS_BETTER else value <= bound):
            worse.append(f"{name} is {value:.3g}, {was:.3g} was measured before")
    return sorted(worse)


def baseline() -> Mapping[str, Any]:
    """Return the tables of baseline.toml: the committed figures of each benchmark, and the base."""
    tables: dict[str, Any] = tomllib.loads(BASELINE.read_text(encoding="utf-8"))
    return tables


def require_quiet(share: float) -> None:
    """Check that no other program uses much CPU.

    Raises:
        NotMeasured: others use more than `BUSY_SHARE`.
    """
    if share > BUSY_SHARE:
        raise NotMeasured(
            f"other programs use {share:.0%} of the CPUs; try again when they have ended"
        )


def busy_share(seconds: float = 1.0) -> float:
    """Return the share of all CPUs in use during `seconds`, from 0 to 1."""
    idle, total = _ticks()
    time.sleep(seconds)
    later_idle, later_total = _ticks()
    return 1 - (later_idle - idle) / max(1, later_total - total)


def _ticks() -> tuple[int, int]:
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)  # idle and waiting for a disk
