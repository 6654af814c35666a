"""Metrics for Prometheus: what a snapshot becomes, and their labels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.core import Metric

from dialer.domain.call import Result
from dialer.domain.limits import Limit
from dialer.monitor.collector import Seen
from dialer.monitor.metrics import families
from dialer.monitor.snapshot import Snapshot
from dialer.store.ledger import CellCounts, CellState, Outcomes
from tests.unit.test_monitor import DOWN, READY

COUNTS = CellCounts(waiting=40, live=7, unclaimed=2, awaiting=3, dead=4, parked={"oi": 5})
STATE = CellState(counts=COUNTS, bridges={"b": 0.1, "dead": 70.0})
SNAPSHOT = Snapshot(
    pbxs={"pbx01": replace(READY, cps=12.5), "pbx02": replace(DOWN, link="down")},
    cells={"COB": STATE},
    pbxs_of_cells={"COB": ("pbx01",)},
    threads={"COB": 9},
)
COUNTED = {"COB": Outcomes({("pbx01", Result.BUSY): 3, ("", Result.EXPIRED): 1})}


def seen(snapshot: Snapshot = SNAPSHOT, **fields: Any) -> Seen:
    some: dict[str, Any] = {"live": None, "unfit": [], "counted": COUNTED}
    return Seen(snapshot=snapshot, **(some | fields))


def samples(of: Seen) -> dict[tuple[str, ...], float]:
    found: list[Metric] = list(families(of))
    assert all(family.documentation for family in found)
    return {(s.name, *s.labels.values()): s.value for family in found for s in family.samples}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dialer_requests_waiting", 40),
        ("dialer_requests_parked", 5),
        ("dialer_calls", 7),
        ("dialer_calls_unclaimed", 2),
        ("dialer_calls_awaiting_code", 3),
        ("dialer_threads", 9),
        ("dialer_dead_elements", 4),
        ("dialer_bridges", 1),
        ("dialer_cell_dialing", 1),
    ],
)
def test_a_cell_has_its_figures(name: str, value: float) -> None:
    assert samples(seen())[name, "COB"] == value


def test_the_limit_of_a_cell_is_one_of_all() -> None:
    found = {k[2]: v for k, v in samples(seen()).items() if k[0] == "dialer_cell_limit"}
    assert found.keys() == set(map(str, Limit))
    assert [limit for limit, value in found.items() if value] == ["none"]


def test_responses_are_counted_by_outcome() -> None:
    found = {k[1:]: v for k, v in samples(seen()).items() if k[0] == "dialer_responses_total"}
    assert found == {("COB", "pbx01", "BUSY"): 3, ("COB", "", "EXPIRED"): 1}


def test_a_pbx_has_its_figures() -> None:
    found = samples(seen())
    assert found["dialer_pbx_ready", "pbx01"] == 1
    assert found["dialer_pbx_ready", "pbx02"] == 0
    assert found["dialer_pbx_cps", "pbx01"] == 12.5
    assert found["dialer_pbx_heartbeat_age_seconds", "pbx01"] == 0.5
    assert found["dialer_pbx_obstacle", "pbx02", "ami_down"] == 1
    assert ("dialer_pbx_obstacle", "pbx01", "ami_down") not in found


def test_a_pbx_without_a_worker_has_no_age() -> None:
    never = replace(DOWN, instance="", link="", silent_s=math.inf, unready_s=math.inf)
    found = samples(seen(replace(SNAPSHOT, pbxs={"pbx01": never})))
    assert math.isnan(found["dialer_pbx_heartbeat_age_seconds", "pbx01"])


def test_troubles_are_counted() -> None:
    before = samples(seen())["dialer_troubles",]
    assert samples(seen(unfit=["a Redis is too old"]))["dialer_troubles",] == before + 1


def test_labels_are_few() -> None:
    """Each new value of a label is one more time series: so no call, number or sentence is one."""
    labels = {name for f in families(seen()) for s in f.samples for name in s.labels}
    assert labels == {"cell", "pbx", "outcome", "reason"}
