"""`dialer monitor`: its tables and the problems it reports."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from rich.console import Console

from dialer.domain.room import PbxLoad
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
ALLOWED = {"ASR_TIM": ("pbx01",)}


def troubles(pbx: PbxState, cell: CellCounts = QUIET) -> list[str]:
    return Snapshot(pbxs={"pbx01": pbx}, cells={"ASR_TIM": cell}, pbxs_of_cells=ALLOWED).troubles()


def test_ready_pbxs_cause_no_trouble() -> None:
    assert troubles(READY) == []


def test_pbx_without_a_cells_target_shows_what_it_lacks() -> None:
    lacking = replace(READY, lacking={"ASR_TIM": "no queue", "OTHER": "is not served there"})
    assert troubles(lacking) == ["pbx01 takes no calls of ASR_TIM: no queue"]


def test_unready_pbx_is_shown_with_the_reason() -> None:
    never = replace(DOWN, instance="", link="", silent_s=math.inf, unready_s=math.inf)
    assert "celery -A dialer worker -Q pbx01" in troubles(never)[0]
    assert "was stopped" in troubles(replace(DOWN, link="stopping"))[0]
    assert "no heartbeat of its worker for 12 s" in troubles(replace(DOWN, silent_s=12.0))[0]
    assert "no AMI link for 3 s" in troubles(replace(DOWN, link="down", unready_s=3.0))[0]


def test_waiting_requests_are_shown_without_a_ready_pbx() -> None:
    waiting = replace(QUIET, waiting=40)
    assert "ASR_TIM: 40 requests wait, and no PBX takes calls" in troubles(DOWN, waiting)
    assert troubles(READY, waiting) == []


def test_parked_requests_of_a_trunk_without_pbx_are_shown() -> None:
    waiting = replace(QUIET, waiting=40, parked={"tim": 0, "vivo": 40})
    tim = replace(READY, load=replace(READY.load, trunks=frozenset({"tim"})))
    wanted = "ASR_TIM: 40 requests wait for trunk vivo, and no PBX with it takes calls"
    assert troubles(tim, waiting) == [wanted]
    assert troubles(replace(READY, load=replace(READY.load, trunks=frozenset({"vivo"})))) == []
    assert troubles(tim, replace(waiting, parked={"tim": 40})) == []


def test_nonempty_dead_list_is_shown() -> None:
    assert troubles(READY, replace(QUIET, dead=3)) == [
        "ASR_TIM: 3 elements on the dead list; read dialer:dead:ASR_TIM"
    ]


def test_monitor_tells_what_a_full_dead_list_dropped() -> None:
    (sentence,) = troubles(READY, replace(QUIET, dead=100_000, dropped=12))
    assert sentence.endswith("read dialer:dead:ASR_TIM; 12 older ones were dropped")


def test_screen_shows_every_pbx_and_cell() -> None:
    out = io.StringIO()
    snapshot = Snapshot(pbxs={"pbx01": READY}, cells={"ASR_TIM": QUIET}, pbxs_of_cells=ALLOWED)
    Console(file=out, width=100).print(render(snapshot))
    assert all(word in out.getvalue() for word in ("pbx01", "ASR_TIM", "200", "All is well."))
