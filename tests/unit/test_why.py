"""The limit that binds a cell: their order, their sentences, and what was lately."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from dialer.domain.limits import DIALING, Limit
from dialer.domain.room import CellRoom, PbxLoad, Room
from dialer.domain.why import (
    LATE_BRIDGE_S,
    LATELY_S,
    SENTENCES,
    UNCLAIMED_S,
    Decision,
    Lately,
    Obstacle,
    PbxFacts,
    Situation,
    Took,
    decide,
    stopped_by,
)


def load(name: str = "pbx01", **fields: Any) -> PbxLoad:
    some: dict[str, Any] = {"ready": True, "calls": 0, "max_calls": 10, "starts": 5}
    return PbxLoad(name=name, **(some | fields))


def pbx(name: str = "pbx01", blocked: Limit | None = None, **fields: Any) -> PbxFacts:
    names = ("calls", "starts", "trunks", "trunk_starts")
    of_load = {n: fields.pop(n) for n in names if n in fields}
    obstacle = Obstacle(limit=blocked, reason=f"{name} is bad") if blocked else None
    return PbxFacts(load=load(name, **of_load), obstacle=obstacle, cps=5.0, **fields)


def now(**fields: Any) -> Situation:
    """A cell whose requests wait although nothing prevents calls."""
    some: dict[str, Any] = {"threads": 9, "waiting": 7, "pbxs": [pbx()]}
    return Situation(cell="COB", **(some | fields))


def limit(**fields: Any) -> Limit:
    return decide(now(**fields)).limit


REDIS = Obstacle(limit=Limit.REDIS_REFUSES, reason="OOM")

#: In the order of importance: each is named although all later ones hold too.
ORDER: list[tuple[Limit, dict[str, Any]]] = [
    (Limit.REDIS_REFUSES, {"redis": REDIS}),
    (Limit.NO_BRIDGE, {"bridge_silent_s": LATE_BRIDGE_S}),
    (Limit.PAUSED, {"paused": "paused by ana"}),
    (Limit.OUTSIDE_HOURS, {"closed": "America/Sao_Paulo"}),
    (Limit.AMI_DOWN, {"pbxs": [pbx(blocked=Limit.AMI_DOWN)]}),
    (Limit.THREADS_FULL, {"live": 9}),
    (Limit.DO_NOT_CALL, {"took": Took(refused={Limit.DO_NOT_CALL: 3})}),
    (Limit.NO_REQUESTS, {"waiting": 0}),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_limit_of_the_order_is_named(first: int) -> None:
    fields: dict[str, Any] = {}
    for _, some in reversed(ORDER[first:]):
        if "live" in some and not fields.get("waiting", 7):
            fields.pop("waiting")  # threads limit nothing if no request waits
        fields |= some
    assert limit(**fields) is ORDER[first][0]


def test_a_cell_without_a_limit_dials() -> None:
    decision = decide(now(live=3))
    assert (decision.limit, decision.is_dialing) == (Limit.NONE, True)
    assert decision.sentence == "nothing limits COB: 3 calls are up and 7 requests wait"


def test_a_cell_that_starts_nothing_does_not_dial() -> None:
    assert not decide(now()).is_dialing
    assert decide(now(took=Took(has_started=True))).is_dialing


def test_a_heartbeat_that_is_a_little_late_is_none() -> None:
    assert limit(bridge_silent_s=LATE_BRIDGE_S - 0.01) is Limit.NONE


@pytest.mark.parametrize(
    ("silent_s", "words"), [(math.inf, "none ever did"), (12.4, "no heartbeat for 12 s")]
)
def test_a_missing_bridge_says_since_when(silent_s: float, words: str) -> None:
    assert f"no bridge serves COB ({words})" in decide(now(bridge_silent_s=silent_s)).sentence


# --- PBXs ---------------------------------------------------------------------------


def test_one_pbx_that_takes_calls_is_enough() -> None:
    assert limit(pbxs=[pbx("pbx01", Limit.AMI_DOWN), pbx("pbx02")]) is Limit.NONE


def test_what_can_be_cured_is_named_before_a_drain() -> None:
    pbxs = [pbx("pbx01", Limit.DRAINED), pbx("pbx02", Limit.NO_WORKER)]
    decision = decide(now(pbxs=pbxs))
    assert decision.limit is Limit.NO_WORKER
    assert decision.sentence.endswith("pbx01: pbx01 is bad; pbx02: pbx02 is bad")
    assert decision.numbers["pbxs"] == {"pbx01": "drained", "pbx02": "no_worker"}


def test_workers_that_miss_the_broker_too_are_its_doing() -> None:
    pbxs = [pbx("pbx01", Limit.NOT_CONSUMING), pbx("pbx02", Limit.DRAINED)]
    assert limit(pbxs=pbxs, broker="no answer") is Limit.BROKER_AWAY
    assert limit(pbxs=pbxs) is Limit.NOT_CONSUMING
    pbxs[1] = pbx("pbx02", Limit.AMI_DOWN)
    assert limit(pbxs=pbxs, broker="no answer") is Limit.AMI_DOWN


def test_a_broker_that_nobody_needs_limits_nothing() -> None:
    assert limit(broker="no answer") is Limit.NONE


def test_a_cell_without_pbxs_says_so() -> None:
    assert "the cell has no PBX" in decide(now(pbxs=[])).sentence


def test_calls_that_no_pbx_claims_are_named() -> None:
    late = pbx(late_s=UNCLAIMED_S)
    assert limit(pbxs=[late]) is Limit.NOT_CLAIMING
    assert limit(pbxs=[late, pbx("pbx02")]) is Limit.NONE
    assert limit(pbxs=[pbx(late_s=UNCLAIMED_S - 0.01)]) is Limit.NONE
    assert limit(pbxs=[late], waiting=0) is Limit.NOT_CLAIMING, "calls wait, although no request"
    assert limit(pbxs=[late], live=9) is Limit.NOT_CLAIMING


def test_calls_wait_for_their_turn_at_a_slow_asterisk() -> None:
    decision = decide(now(pbxs=[pbx(late_s=9.0, governed=2.5, starts=0)]))
    assert decision.limit is Limit.GOVERNED
    assert "gets 2.5 calls a second" in decision.sentence


def test_full_pbxs_are_told_from_those_at_their_pace() -> None:
    full = pbx(calls=10)
    assert limit(pbxs=[full]) is Limit.MAX_CALLS
    paced = decide(now(pbxs=[full, pbx("pbx02", starts=0)]))
    assert paced.limit is Limit.CPS
    assert paced.sentence == (
        "pbx02 starts 5 calls a second, and 'dialer pbx set pbx02 cps=N' allows more; "
        "7 requests of COB wait"
    )


def test_a_full_pbx_names_what_filled_it() -> None:
    assert "'dialer pbx set pbx01 max_calls=N' allows" in decide(now(pbxs=[pbx(calls=10)])).sentence
    capped = decide(now(pbxs=[pbx(calls=10, is_capped=True)]))
    assert "raise maxcalls in its asterisk.conf" in capped.sentence


def test_a_round_that_the_pace_ended_is_remembered() -> None:
    """Between two rounds the pace allows a start again, or a call has ended."""
    for one in (Limit.CPS, Limit.THREADS_FULL, Limit.MAX_CALLS):
        assert limit(took=Took(has_started=True, stopped_by=one)) is one


# --- requests -----------------------------------------------------------------------


def test_threads_limit_only_what_waits() -> None:
    assert limit(live=9, waiting=0) is Limit.NO_REQUESTS
    assert limit(live=8) is Limit.NONE


def test_a_cell_that_just_dialed_all_has_no_limit() -> None:
    assert limit(waiting=0, took=Took(has_started=True)) is Limit.NONE


def test_refusals_matter_only_if_nothing_is_dialed() -> None:
    refused = {Limit.DO_NOT_CALL: 3, Limit.REFUSED: 4}
    decision = decide(now(took=Took(refused=refused)))
    assert decision.limit is Limit.REFUSED
    assert decision.numbers["refused"] == 7
    assert limit(took=Took(refused=refused, has_started=True)) is Limit.NONE


TIM, OI = frozenset({"tim"}), frozenset({"oi"})


@pytest.mark.parametrize("parked", [7, 6])
def test_parked_requests_name_the_pbx_of_their_trunk(parked: int) -> None:
    away = pbx("pbx02", Limit.AMI_DOWN, trunks=OI)
    decision = decide(now(pbxs=[pbx(trunks=TIM), away], parked={"oi": parked}))
    assert decision.limit is Limit.AMI_DOWN
    assert f"{parked} requests wait for trunk oi; pbx02: pbx02 is bad" in decision.sentence


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"calls": 10}, Limit.MAX_CALLS),
        ({"starts": 0}, Limit.CPS),
        ({"starts": 0, "governed": 2.0}, Limit.GOVERNED),
        ({"trunk_starts": {"oi": 0}}, Limit.GOVERNED),
    ],
)
def test_a_trunk_without_room_is_named(fields: dict[str, Any], expected: Limit) -> None:
    pbxs = [pbx(trunks=TIM), pbx("pbx02", trunks=OI, **fields)]
    decision = decide(now(pbxs=pbxs, parked={"oi": 7}))
    assert decision.limit is expected
    assert "7 requests wait for trunk oi" in decision.sentence


@pytest.mark.parametrize("parked", [{"tim": 7}, {"": 7}, {"gone": 7}])
def test_requests_that_can_move_are_no_obstacle(parked: dict[str, int]) -> None:
    """A bridge refuses those for a trunk that no PBX has."""
    away = pbx("pbx02", Limit.AMI_DOWN, trunks=OI)
    assert limit(pbxs=[pbx(trunks=TIM), away], parked=parked) is Limit.NONE


def test_a_trunk_matters_only_if_nothing_is_dialed() -> None:
    away = pbx("pbx02", Limit.AMI_DOWN, trunks=OI)
    took = Took(has_started=True)
    assert limit(pbxs=[pbx(trunks=TIM), away], parked={"oi": 6}, took=took) is Limit.NONE


# --- sentences ------------------------------------------------------------------------


def test_each_limit_has_a_sentence_with_known_names() -> None:
    assert set(SENTENCES) == set(Limit)
    numbers = {"calls": 1, "threads": 2, "waiting": 3, "refused": 4}
    for one in Limit:
        sentence = Decision(cell="COB", limit=one, reason="why", numbers=numbers).sentence
        assert "?" not in sentence
        assert "COB" in sentence or sentence == "why"


def test_an_entry_without_a_number_can_be_shown() -> None:
    assert "? requests" in Decision(cell="COB", limit=Limit.PAUSED, reason="why").sentence


def test_braces_in_a_reason_are_shown_as_they_are() -> None:
    decision = Decision(cell="COB", limit=Limit.AMI_DOWN, reason="{calls} %s {0}")
    assert decision.sentence.endswith("{calls} %s {0}")


def test_numbers_are_values_of_json() -> None:
    decision = decide(
        now(pbxs=[pbx(blocked=Limit.AMI_DOWN)], took=Took(refused={Limit.REFUSED: 1}))
    )
    assert json.loads(json.dumps(decision.numbers)) == decision.numbers


def test_cells_dial_within_their_limits_of_speed() -> None:
    assert set(map(str, DIALING)) == {
        *("none", "threads_full", "max_calls", "cps", "governed"),
        *("agents_reserved", "agents_busy"),
    }


def test_what_two_bridges_did_is_one_answer() -> None:
    one = Took(has_started=True, refused={Limit.REFUSED: 2})
    two = Took(stopped_by=Limit.CPS, refused={Limit.REFUSED: 3, Limit.DO_NOT_CALL: 1})
    both = Took(
        has_started=True,
        stopped_by=Limit.CPS,
        refused={Limit.REFUSED: 5, Limit.DO_NOT_CALL: 1},
    )
    assert one.and_(two) == two.and_(one) == both
    assert Took().and_(one) == one


# --- lately ---------------------------------------------------------------------------


def test_what_was_long_ago_is_forgotten() -> None:
    lately = Lately()
    assert lately.seen(0.0) == Took()
    lately.started(10.0)
    lately.stopped(Limit.CPS, 10.0)
    lately.refused(Limit.REFUSED, 10.0)
    all_of_it = Took(has_started=True, stopped_by=Limit.CPS, refused={Limit.REFUSED: 1})
    assert lately.seen(10.0 + LATELY_S) == all_of_it
    assert lately.seen(10.01 + LATELY_S) == Took()


def test_refusals_are_counted_since_the_last_pause() -> None:
    lately = Lately()
    for at in (1.0, 2.0, 3.0):
        lately.refused(Limit.DO_NOT_CALL, at)
    assert lately.seen(3.0).refused == {Limit.DO_NOT_CALL: 3}
    lately.refused(Limit.DO_NOT_CALL, 3.01 + LATELY_S)
    assert lately.seen(3.01 + LATELY_S).refused == {Limit.DO_NOT_CALL: 1}


def room(*pbxs: PbxLoad, live: int = 0) -> Room:
    return Room(cell=CellRoom(threads=9, live=live, in_hand=0), pbxs=pbxs)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (room(load()), Limit.NONE),
        (room(load(), live=9), Limit.THREADS_FULL),
        (room(load(starts=0)), Limit.CPS),
        (room(load(calls=10)), Limit.MAX_CALLS),
        (room(load(calls=10), load("pbx02", starts=0)), Limit.CPS),
        (room(load(ready=False)), Limit.NONE),
        (room(load(is_held=True)), Limit.NONE),
    ],
)
def test_a_round_ends_for_want_of_room(left: Room, expected: Limit) -> None:
    assert stopped_by(left) is expected


def test_a_pbx_that_dials_for_its_operators_comes_before_one_that_is_away() -> None:
    busy = Obstacle(limit=Limit.AGENTS_BUSY, reason="nobody is free in queue Q of pbx01: 2 talk")
    away = Obstacle(limit=Limit.AMI_DOWN, reason="no AMI link for 9 s")
    both = [replace(pbx(), obstacle=one) for one in (away, busy)]
    decision = decide(now(waiting=4, pbxs=both))
    assert decision.limit is Limit.AGENTS_BUSY
    assert decision.is_dialing
    assert "no AMI link" in decision.sentence
