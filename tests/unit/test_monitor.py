"""`dialer monitor`: its tables and the problems it reports."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from dialer.domain.agents import Team
from dialer.domain.governor import Governed
from dialer.domain.limits import Limit
from dialer.domain.room import PbxLoad
from dialer.domain.taking import Results, Verdict
from dialer.monitor.snapshot import Snapshot
from dialer.monitor.terminal import render
from dialer.monitor.troubles import of_bridges
from dialer.store.ledger import CellCounts, CellState, Late
from dialer.store.registry import BridgeState, PbxState

READY = PbxState(
    load=PbxLoad(name="pbx01", ready=True, calls=7, max_calls=200, starts=2),
    instance="host-1-abc",
    link="up",
    lacking={},
    silent_s=0.5,
    unready_s=0.5,
)
DOWN = replace(READY, load=replace(READY.load, ready=False))
QUIET = CellCounts(live=7, awaiting=1)
SERVED = CellState(counts=QUIET, bridges={"b": 0.1})
ALLOWED = {"ASR_TIM": ("pbx01",)}


def troubles(pbx: PbxState, cell: CellCounts = QUIET) -> list[str]:
    state = replace(SERVED, counts=cell)
    return Snapshot(pbxs={"pbx01": pbx}, cells={"ASR_TIM": state}, pbxs_of_cells=ALLOWED).troubles()


def test_ready_pbxs_cause_no_trouble() -> None:
    assert troubles(READY) == []


def test_a_limited_pbx_is_shown_with_the_reason() -> None:
    slow = Governed(starts=37, answer_s=0.42, normal_s=0.012)
    assert troubles(replace(READY, cps=100, governed=slow)) == [
        "pbx01: pbx_slow: limited to 37 of 100 calls a second because Asterisk answers in 420 ms "
        "(normal: 12 ms); see the load of its host, or lower cps"
    ]


def test_pbx_without_a_cells_target_shows_what_it_lacks() -> None:
    lacking = replace(READY, lacking={"ASR_TIM": "no queue", "OTHER": "is not served there"})
    assert troubles(lacking) == ["pbx01 takes no calls of ASR_TIM: no queue"]


def test_unready_pbx_is_shown_with_the_reason() -> None:
    never = replace(DOWN, instance="", link="", silent_s=math.inf, unready_s=math.inf)
    assert "celery -A dialer worker -Q pbx01" in troubles(never)[0]
    assert "was stopped" in troubles(replace(DOWN, link="stopping"))[0]
    assert "no heartbeat of its worker for 12 s" in troubles(replace(DOWN, silent_s=12.0))[0]
    assert "no AMI link for 3 s" in troubles(replace(DOWN, link="down", unready_s=3.0))[0]


def test_calls_without_messages_are_named() -> None:
    pbx = replace(READY, results=Results(claimed=40, unannounced=38))
    snapshot = Snapshot(pbxs={"pbx01": pbx}, cells={"ASR_TIM": SERVED}, pbxs_of_cells=ALLOWED)
    assert snapshot.troubles() == [
        "pbx01: no message announced 38 of its 40 calls of the last minute in time; its worker "
        "found them itself, each a second late: was the broker down, is [broker] url the same on "
        "its host and on the bridge's, and does no other program take from the queue pbx01?"
    ]
    down = {"another": BridgeState(skew_s=0.0, broker="it is down")}  # says more
    assert replace(snapshot, bridges=down).troubles() == []


def test_a_carrier_without_room_is_named() -> None:
    assert troubles(replace(READY, results=Results(claimed=12, congested=12))) == [
        "pbx01: 12 of its 12 calls of the last minute ended in CONGESTION: ask the carrier, and "
        "see that its trunks are registered and have channels free"
    ]


def test_a_worker_with_another_registry_is_named() -> None:
    never = replace(DOWN, instance="", link="", silent_s=math.inf, unready_s=math.inf)
    cells = {"ASR_TIM": replace(SERVED, workers={"pbx01": "pid 7 on host two"})}
    snapshot = Snapshot(pbxs={"pbx01": never}, cells=cells, pbxs_of_cells=ALLOWED)
    assert snapshot.troubles() == [
        "pbx01: its worker, pid 7 on host two, uses another registry than this dialer.toml: make "
        "[registry] redis_url, and that of [multcall], equal on both hosts"
    ]
    assert replace(snapshot, pbxs={"pbx01": READY}).troubles() == []


def test_waiting_requests_are_shown_without_a_ready_pbx() -> None:
    waiting = replace(QUIET, waiting=40)
    assert "ASR_TIM: 40 requests wait, and no PBX takes calls" in troubles(DOWN, waiting)
    assert troubles(READY, waiting) == []


def test_waiting_requests_are_shown_if_only_other_cells_have_a_pbx() -> None:
    idle = Snapshot(
        pbxs={"pbx01": DOWN, "pbx02": READY},
        cells={"ASR_TIM": replace(SERVED, counts=replace(QUIET, waiting=40))},
        pbxs_of_cells=ALLOWED,
    )
    assert "ASR_TIM: 40 requests wait, and no PBX takes calls" in idle.troubles()


def test_trouble_that_the_worker_names_is_shown() -> None:
    cancelled = replace(DOWN, trouble="its consumer was cancelled; add it again")
    assert troubles(cancelled) == ["pbx01 takes no calls: its consumer was cancelled; add it again"]


def test_verdict_of_the_bridges_is_shown_with_its_reason() -> None:
    verdict = Verdict(reason="it did not claim 3 calls", instance="i", age_s=9, trials=2)
    held = replace(READY, verdict=verdict, load=replace(READY.load, is_held=True))
    assert troubles(held) == [
        "pbx01 is not taking calls: it did not claim 3 calls; single calls try it, 2 failed"
    ]
    waiting = troubles(held, replace(QUIET, waiting=5))
    assert "ASR_TIM: 5 requests wait, and no PBX takes calls" in waiting


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [
        (1.9, None),
        (2.1, "pbx01: the clock of its host is 2 s ahead of that of Redis"),
        (-600.0, "pbx01 TAKES NO CALLS: the clock of its host is 600 s behind that of Redis"),
    ],
)
def test_clock_that_differs_from_redis_is_shown(skew_s: float, words: str | None) -> None:
    found = troubles(replace(READY, skew_s=skew_s))
    assert found[0].startswith(words) if words else found == [], found


def test_share_of_silent_originates_is_shown_before_any_verdict() -> None:
    silent = replace(READY, results=Results(claimed=100, accepted=95, no_word=5))
    (sentence,) = troubles(silent)
    assert "of its 100 calls of the last minute 5 got no word from Asterisk (5 %)" in sentence
    assert troubles(replace(READY, results=Results(claimed=100, no_word=4))) == []


def test_asterisk_limit_below_max_calls_is_shown() -> None:
    (sentence,) = troubles(replace(READY, cap=2, max_calls=200))
    assert "maxcalls in its asterisk.conf leaves room for 2 of its calls" in sentence
    assert troubles(replace(READY, cap=200, max_calls=200)) == []


def test_late_heartbeat_is_shown_before_the_pbx_counts_as_silent() -> None:
    assert troubles(replace(READY, silent_s=2.6)) == ["pbx01: no heartbeat of its worker for 3 s"]


def waits(pbx: PbxState, **fields: Any) -> list[str]:
    bridges = {"host-1": 0.4}
    snapshot = Snapshot(
        pbxs={"pbx01": pbx},
        cells={"ASR_TIM": CellState(counts=QUIET, **{"bridges": bridges, **fields})},
        pbxs_of_cells=ALLOWED,
        bridges={"host-1": BridgeState(skew_s=0.1, broker="")},
    )
    return snapshot.troubles()


def test_ready_pbx_that_places_none_of_its_calls_is_shown() -> None:
    late = Late(calls=3, oldest_s=4.2)
    assert waits(READY, late={"pbx01": late}) == [
        "pbx01 has not claimed 3 calls of ASR_TIM, queued to it for up to 4 s; "
        "see the log of its worker"
    ]
    (sentence,) = waits(READY, unanswered={"pbx01": Late(calls=1, oldest_s=9)})
    assert "Asterisk has not answered the Originate of 1 call of ASR_TIM for up to 9 s" in sentence
    down = replace(DOWN, link="down")
    assert len(waits(down, late={"pbx01": late})) == 1  # why it takes none is enough
    assert waits(READY) == []
    assert waits(READY, late={"pbx01": Late(calls=3, oldest_s=2.9)}) == []


def test_cell_that_no_bridge_serves_is_shown() -> None:
    assert waits(READY, bridges={}) == ["ASR_TIM: no bridge serves it; start 'dialer bridge'"]
    assert waits(READY, bridges={"host-1": 7.0, "host-2": 9.0}) == [
        "ASR_TIM: no bridge serves it for 7 s; start 'dialer bridge'"
    ]


def test_bridge_names_its_broker_and_its_clock() -> None:
    states = {
        "b-1": BridgeState(skew_s=0, broker="connection refused"),
        "b-2": BridgeState(skew_s=-3, broker=""),
        "b-3": BridgeState(skew_s=90, broker=""),
        "dead": BridgeState(skew_s=90, broker="x"),
    }
    ages = {"ASR_TIM": {"b-1": 0.1, "b-2": 0.1, "b-3": 0.1, "dead": 50.0}}
    found = list(of_bridges(ages, states))
    assert found[0] == "bridge b-1: the broker takes no tasks: connection refused"
    assert found[1].startswith("bridge b-2: the clock of its host is 3 s behind that of Redis")
    assert found[2].startswith("bridge b-3: WRONG CLOCK: ")
    assert len(found) == 3


def test_parked_requests_of_a_trunk_without_pbx_are_shown() -> None:
    waiting = replace(QUIET, waiting=40, parked={"tim": 0, "vivo": 40})
    tim = replace(READY, load=replace(READY.load, trunks=frozenset({"tim"})))
    wanted = "ASR_TIM: 40 requests wait for trunk vivo, and no PBX with it takes calls"
    assert troubles(tim, waiting) == [wanted]
    assert troubles(replace(READY, load=replace(READY.load, trunks=frozenset({"vivo"})))) == []
    assert troubles(tim, replace(waiting, parked={"tim": 40})) == []
    assert troubles(tim, replace(waiting, parked={"": 40})) == [], "any trunk will do"


def test_nonempty_dead_list_is_shown() -> None:
    assert troubles(READY, replace(QUIET, dead=3)) == [
        "ASR_TIM: 3 elements on the dead list: dialer dead list ASR_TIM"
    ]


def test_monitor_tells_what_a_full_dead_list_dropped() -> None:
    (sentence,) = troubles(READY, replace(QUIET, dead=100_000, dropped=12))
    assert sentence.endswith("dialer dead list ASR_TIM; 12 older ones were dropped")


def test_screen_shows_every_pbx_and_cell() -> None:
    out = io.StringIO()
    snapshot = Snapshot(pbxs={"pbx01": READY}, cells={"ASR_TIM": SERVED}, pbxs_of_cells=ALLOWED)
    Console(file=out, width=100).print(render(snapshot))
    assert all(word in out.getvalue() for word in ("pbx01", "ASR_TIM", "200", "All is well."))


def test_a_cell_whose_keys_cannot_be_read_is_named() -> None:
    broken = CellState(unreadable="WRONGTYPE", bridges={"b": 0.1})
    snapshot = Snapshot(pbxs={"pbx01": READY}, cells={"ASR_TIM": broken}, pbxs_of_cells=ALLOWED)
    assert snapshot.troubles() == ["ASR_TIM: its keys in Redis cannot be read: WRONGTYPE"]


def test_a_snapshot_says_what_limits_a_cell() -> None:
    state = replace(SERVED, counts=replace(QUIET, waiting=40))
    snapshot = Snapshot(
        pbxs={"pbx01": READY},
        cells={"ASR_TIM": state},
        pbxs_of_cells=ALLOWED,
        threads={"ASR_TIM": 7},
    )
    assert snapshot.decision("ASR_TIM").limit is Limit.THREADS_FULL
    assert replace(snapshot, threads={"ASR_TIM": 8}).decision("ASR_TIM").limit is Limit.NONE
    late = {"ASR_TIM": replace(state, late={"pbx01": Late(calls=1, oldest_s=2.0)})}
    again = replace(snapshot, threads={"ASR_TIM": 8}, cells=late)
    assert again.decision("ASR_TIM").limit is Limit.NOT_CLAIMING
    assert replace(snapshot, paused={"ASR_TIM": "x"}).decision("ASR_TIM").limit is Limit.PAUSED
    unserved = {"ASR_TIM": replace(state, bridges={})}
    assert replace(snapshot, cells=unserved).decision("ASR_TIM").limit is Limit.NO_BRIDGE


# --- operators -----------------------------------------------------------------------------------


def with_operators(team: Team, limit: Limit | None = None, reason: str = "") -> Snapshot:
    """A cell that dials for the operators of its queue on two PBXs."""
    limits = {"ASR_TIM": limit} if limit is not None else {}
    lacking = {"ASR_TIM": reason} if limit is not None else {}
    one = replace(READY, teams={"Q": team}, limits=limits, lacking=lacking)
    return Snapshot(
        pbxs={"pbx01": one, "pbx02": replace(READY, teams={"Q": Team(available=1)})},
        cells={"ASR_TIM": SERVED, "IVR": SERVED},
        pbxs_of_cells={"ASR_TIM": ("pbx01", "pbx02"), "IVR": ("pbx01",)},
        queues={"ASR_TIM": "Q"},
        reserving=["ASR_TIM"],
    )


def test_a_cells_operators_are_those_of_all_its_pbxs() -> None:
    snapshot = with_operators(Team(available=2, busy=3, stale=1))
    assert snapshot.team("ASR_TIM") == Team(available=3, busy=3, stale=1)
    assert snapshot.team("IVR") is None


def test_the_operators_have_a_table() -> None:
    out = io.StringIO()
    snapshot = with_operators(Team(available=2, busy=4, paused=1))
    Console(file=out, width=100).print(render(snapshot))
    shown = out.getvalue()
    (row,) = [line for line in shown.splitlines() if "ASR_TIM" in line and " 4 " in line]
    assert row.replace("│", " ").split() == ["ASR_TIM", "3", "0", "4", "0", "1", "0", "0"]
    assert "Operators" in shown


@pytest.mark.parametrize(
    ("team", "limit", "is_trouble"),
    [
        (Team(available=1), Limit.AGENTS_RESERVED, False),
        (Team(busy=3), Limit.AGENTS_BUSY, False),
        (Team(paused=3), Limit.NO_AGENTS, True),
        (Team(), Limit.NO_AGENTS, True),
        (Team(stale=3), Limit.STALE_AGENTS, True),
    ],
)
def test_operators_at_work_are_no_trouble(team: Team, limit: Limit, is_trouble: bool) -> None:
    found = with_operators(team, limit, "nobody is free").troubles()
    assert ("pbx01 takes no calls of ASR_TIM: nobody is free" in found) is is_trouble
