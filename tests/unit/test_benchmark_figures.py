"""Figures, tables, pages and gates of the benchmarks, without measuring anything."""

from __future__ import annotations

import argparse
import math
import os
import re
import threading
from pathlib import Path

import pytest

from benchmarks import gates, report
from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import Latency, rate_per_s
from benchmarks.plan import plan
from benchmarks.ratios import tree_of
from benchmarks.report import PAGES, blocks, filled, stored
from benchmarks.tables import Row, Table, cell
from benchmarks.usage import Traffic, Used, rss_bytes
from benchmarks.verdict import BASELINE, NotMeasured, Result
from tests.waiting import wait_blocking

TABLE = Table(
    name="real",
    title="Calls",
    columns=("way", "calls/s", "ratio"),
    rows=[{"way": "bare", "calls/s": 201.25}, {"way": "full", "calls/s": 190.0, "ratio": 0.944}],
)


def test_rate_leaves_out_one_calls_own_time() -> None:
    ends = [100.0 + n / 50 for n in range(500)]  # a call ends 2 s after its request
    assert rate_per_s(ends, first_s=98.0, own_s=2.0) == pytest.approx(500 / 9.98)


def test_burst_of_late_ends_lowers_the_rate() -> None:
    ends = [*[100.0 + n / 50 for n in range(250)], *[130.0] * 250]
    assert rate_per_s(ends, first_s=98.0, own_s=2.0) == pytest.approx(500 / 30)


def test_rate_of_no_good_call_is_zero() -> None:
    assert rate_per_s([], first_s=98.0, own_s=2.0) == 0.0


def test_latency_of_nothing_misses_every_limit() -> None:
    assert not Latency.of([]).p99 <= 1000
    assert Latency.of([0.001, 0.002, 0.1]) == Latency(p50=2.0, p99=100.0, longest=100.0)


def test_use_counts_the_cpu_time_of_ended_threads() -> None:
    before = Used.by(os.getpid())

    def burn() -> None:
        while (Used.by(os.getpid()) - before).cpu_s < 0.05:
            sum(range(1000))

    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
    used = Used.by(os.getpid()) - before
    assert used.cpu_s >= 0.05
    assert rss_bytes(os.getpid()) > 10_000_000


def test_use_counts_the_switches_of_a_thread_that_waits() -> None:
    before, done = Used.by(os.getpid()).switches, threading.Event()
    thread = threading.Thread(target=lambda: [done.wait(0.001) for _ in range(50)] and done.wait())
    thread.start()
    try:
        wait_blocking(lambda: Used.by(os.getpid()).switches - before >= 50, "50 switches")
    finally:
        done.set()
        thread.join()


def test_traffic_is_what_info_says_of_it() -> None:
    info = {
        "total_commands_processed": 120,
        "total_reads_processed": 30,
        "total_net_input_bytes": 1000,
        "total_net_output_bytes": 500,
        "used_cpu_user": 1.5,
        "used_cpu_sys": 0.5,
        "cmdstat_evalsha": {"calls": 12},
        "cmdstat_eval": {"calls": 1},
    }
    traffic = Traffic.of(info)
    assert traffic == Traffic(commands=120, steps=13, reads=30, net_bytes=1500, cpu_s=2.0)
    assert traffic - traffic / 2 == Traffic(
        commands=60, steps=6.5, reads=15, net_bytes=750, cpu_s=1.0
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (math.nan, ""), ("full", "full"), (0.0, "0"), (3, "3"), (0.0123, "0.012"),
        (0.98765, "0.99"), (12.345, "12.3"), (4321.6, "4322"),
    ],
)  # fmt: skip
def test_figure_has_only_meaningful_digits(value: str | float | None, text: str) -> None:
    assert cell(value) == text


def test_table_is_the_same_after_it_was_stored() -> None:
    document = Table.from_json(TABLE.to_json())
    assert document.markdown() == TABLE.markdown()
    assert TABLE.markdown().splitlines()[2] == "| bare | 201 |  |"


def test_nan_is_stored_as_not_measured() -> None:
    table = Table(name="x", title="", columns=("a",), rows=[{"a": math.nan}])
    assert table.to_json()["rows"] == [{"a": None}]


def test_page_keeps_what_has_no_new_result() -> None:
    page = (
        "a\n<!-- bench real -->\nold\n<!-- /bench -->\n<!-- bench idle -->\nkept\n<!-- /bench -->"
    )
    assert filled(page, {"real": "new"}) == page.replace("old", "new")


def test_page_has_text_with_its_command_and_machine() -> None:
    machine = {"commit": "abc", "measured": "today", "processors": "2"}
    texts = blocks({"real": {"command": "run it", "machine": machine, "tables": [TABLE.to_json()]}})
    assert "`run it` at abc, today" in texts["real"]
    assert texts["machine real"] == "- commit: abc\n- processors: 2"


def test_pages_show_the_stored_results() -> None:
    results = stored()
    texts = blocks(results) | {"plan": plan(report.all_tables(results)).markdown()}
    for page in PAGES:
        assert filled(page.read_text("utf-8"), texts) == page.read_text("utf-8"), page.name


def test_every_stored_table_has_its_place_on_a_page() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    places = set(re.findall(r"<!-- bench ([\w -]+) -->", pages))
    assert set(report.all_tables(stored())) <= places
    assert set(stored()) <= set(BENCHMARKS)


def test_plan_grows_with_what_a_call_costs() -> None:
    def bridges(ms: float) -> object:
        rows: list[Row] = [{"way": "full", "bridge ms": ms}, {"way": "old", "bridge ms": 9.0}]
        table = Table(name="real-cpu", title="", columns=("bridge ms",), rows=rows)
        return plan({"real-cpu": table}).rows[0]["needs"]

    assert (bridges(0.5), bridges(1.0)) == (10, 20)
    assert plan({}).rows[0]["needs"] is None


def _exit_code(figures: dict[str, float], *, record: bool = False) -> int:
    asked = argparse.Namespace(busy=True, record=record)
    return gates.checked(asked, lambda: Result(figures=figures), commit="a-commit")


@pytest.mark.parametrize(
    ("figures", "code"), [({"steps": 5.4}, 0), ({"steps": 5.6}, 1), ({}, 3), ({"other": 1.0}, 3)]
)
def test_check_compares_with_the_recorded_figures(
    figures: dict[str, float], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = tmp_path / "baseline.toml"
    baseline.write_text(BASELINE.read_text("utf-8"), encoding="utf-8")
    monkeypatch.setattr("benchmarks.verdict.BASELINE", baseline)
    monkeypatch.setattr("benchmarks.gates.BASELINE", baseline)
    assert _exit_code({"steps": 5.0}, record=True) == 0
    assert _exit_code(figures) == code
    assert gates.base_commit() == "a-commit"


def test_cpu_is_recorded_as_that_of_the_commit_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = tmp_path / "baseline.toml"
    baseline.write_text("", encoding="utf-8")
    monkeypatch.setattr("benchmarks.verdict.BASELINE", baseline)
    monkeypatch.setattr("benchmarks.gates.BASELINE", baseline)
    with pytest.raises(NotMeasured, match="no commit"):
        gates.base_commit()
    assert _exit_code({"worker_to_base": 0.8}, record=True) == 0
    assert _exit_code({"worker_to_base": 1.09}) == 0
    assert _exit_code({"worker_to_base": 1.11}) == 1


def test_a_commit_that_is_not_here_measures_nothing() -> None:
    with pytest.raises(NotMeasured, match="cannot be checked out"), tree_of("0" * 40):
        pass


@pytest.mark.parametrize("record", [False, True])
def test_check_that_measured_nothing_exits_with_3(record: bool) -> None:
    def measured() -> Result:
        raise NotMeasured("the bridges stopped admitting")

    before = BASELINE.read_bytes()
    asked = argparse.Namespace(busy=True, record=record)
    assert gates.checked(asked, measured, commit="a-commit") == 3
    assert BASELINE.read_bytes() == before


def test_record_refuses_a_run_with_violations() -> None:
    before = BASELINE.read_bytes()
    broken = Result(figures={"steps": 5.0}, broken=["1 violations"])
    asked = argparse.Namespace(busy=True, record=True)
    assert gates.checked(asked, lambda: broken, commit="a-commit") == 1
    assert BASELINE.read_bytes() == before
