"""Verdicts of benchmarks: worse figures fail, unmeasured ones are never HELD."""

from __future__ import annotations

import math

import pytest

from benchmarks.verdict import (
    EXIT_CODES,
    NotMeasured,
    Result,
    Verdict,
    judge,
    overall,
    require_quiet,
)

HELD, BROKEN, NOT_MEASURED = Verdict


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("ratio", 0.14, HELD),
        ("ratio", 0.127, HELD),
        ("ratio", 0.125, BROKEN),
        ("ratio", 0.06, BROKEN),
        ("ratio", math.nan, BROKEN),
        ("peak_mb", 0.14, HELD),
        ("peak_mb", 0.153, HELD),
        ("peak_mb", 0.155, BROKEN),
        ("peak_mb", math.nan, BROKEN),
    ],
)
def test_a_figure_more_than_a_tenth_worse_is_broken(
    name: str, value: float, verdict: Verdict
) -> None:
    found, reason = judge(lambda: Result(figures={name: value}), {name: 0.14})
    assert found is verdict
    assert (f"{name} is " in reason) is (verdict is BROKEN)


def test_missed_limit_is_broken_whatever_the_figures() -> None:
    result = Result(figures={"ratio": 1.0}, broken=["a number was dialed twice"])
    assert judge(lambda: result, {"ratio": 0.14}) == (BROKEN, "a number was dialed twice")


@pytest.mark.parametrize(
    ("figures", "committed"), [({}, {"ratio": 0.14}), ({"ratio": 0.14}, {}), ({}, {})]
)
def test_verdict_needs_a_figure_on_both_sides(
    figures: dict[str, float], committed: dict[str, float]
) -> None:
    found, reason = judge(lambda: Result(figures=figures), committed)
    assert found is NOT_MEASURED
    assert reason


def test_a_busy_machine_measures_nothing() -> None:
    require_quiet(0.1)
    with pytest.raises(NotMeasured, match="other programs use 60% of the CPUs"):
        require_quiet(0.6)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([HELD, HELD], 0),
        ([HELD, BROKEN, NOT_MEASURED], 1),
        ([HELD, NOT_MEASURED], 3),
        ([], 3),
    ],
)
def test_exit_code_distinguishes_broken_from_not_measured(
    verdicts: list[Verdict], code: int
) -> None:
    assert EXIT_CODES[overall(verdicts)] == code
