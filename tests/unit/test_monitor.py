"""`dialer monitor`: what it says is wrong, and what it shows."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from rich.console import Console

from dialer.domain.routing import PbxLoad
from dialer.monitor.snapshot import Snapshot
from dialer.monitor.terminal import render
from dialer.store.ledger import CellCounts
from dialer.store.registry import PbxState

READY = PbxState(
    load=PbxLoad(name="pbx01", ready=True, calls=7, max_calls=200, starts=2),
    instance="host-1-abc",
    link="up",
    lacking={},
    silent_s=0.5,
    unready_s=0.5,
)
DOWN = replace(READY, load=replace(READY.load, ready=False))
QUIET = CellCounts(waiting=0, live=7, unclaimed=0, awaiting=1, dead=0, dropped=0)
SERVING = {"ASR_TIM": ("pbx01",)}


def troubles(pbx: PbxState, cell: CellCounts = QUIET) -> list[str]:
    return Snapshot(pbxs={"pbx01": pbx}, cells={"ASR_TIM": cell}, serving=SERVING).troubles()


def test_monitor_is_quiet_while_every_pbx_is_ready() -> None:
    assert troubles(READY) == []


def test_monitor_tells_what_a_pbx_lacks_for_a_cell() -> None:
    lacking = replace(READY, lacking={"ASR_TIM": "no queue", "OTHER": "is not served there"})
    assert troubles(lacking) == ["pbx01 takes no calls of ASR_TIM: no queue"]


def test_monitor_names_an_unready_pbx_with_the_reason() -> None:
    never = replace(DOWN, instance="", link="", silent_s=math.inf, unready_s=math.inf)
    assert "celery -A dialer worker -Q pbx01" in troubles(never)[0]
    assert "was stopped" in troubles(replace(DOWN, link="stopping"))[0]
    assert "silent for 12 s" in troubles(replace(DOWN, silent_s=12.0))[0]
    assert "no AMI link for 3 s" in troubles(replace(DOWN, link="down", unready_s=3.0))[0]


def test_monitor_counts_waiting_requests_without_a_ready_pbx() -> None:
    waiting = replace(QUIET, waiting=40)
    assert "ASR_TIM: 40 requests wait, and no PBX takes calls" in troubles(DOWN, waiting)
    assert troubles(READY, waiting) == []


def test_monitor_names_a_dead_list_with_entries() -> None:
    assert troubles(READY, replace(QUIET, dead=3)) == [
        "ASR_TIM: 3 elements on the dead list; read dialer:dead:ASR_TIM"
    ]


def test_monitor_tells_what_a_full_dead_list_dropped() -> None:
    (sentence,) = troubles(READY, replace(QUIET, dead=100_000, dropped=12))
    assert sentence.endswith("read dialer:dead:ASR_TIM; 12 older ones were dropped")


def test_screen_shows_every_pbx_and_cell() -> None:
    out = io.StringIO()
    snapshot = Snapshot(pbxs={"pbx01": READY}, cells={"ASR_TIM": QUIET}, serving=SERVING)
    Console(file=out, width=100).print(render(snapshot))
    assert all(word in out.getvalue() for word in ("pbx01", "ASR_TIM", "200", "All is well."))
