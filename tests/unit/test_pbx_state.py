"""The state of a worker's PBX: why no calls are dialed, and what the heartbeat says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from dialer.domain.limits import Limit
from workers.ami import AmiLink
from workers.pbx.state import REFUSED_FOR_S, PbxState


@dataclass(slots=True)
class Link:
    ready: bool = True


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def state(link: Link) -> PbxState:
    return PbxState("pbx01", cast(AmiLink, link))


def test_a_new_state_knows_nothing_against_dialing(state: PbxState) -> None:
    assert (state.reason_not_to_dial("C"), state.trouble, state.link_state) == (None, "", "up")
    assert (state.answered(), state.cap, state.confirms) == (0, 0, False)


def test_a_link_that_is_down_is_a_reason(state: PbxState, link: Link) -> None:
    link.ready = False
    assert state.reason_not_to_dial("C") == "the AMI link of pbx01 is down"
    assert state.link_state == "down"


def test_a_worker_that_stops_dials_nothing(state: PbxState, link: Link) -> None:
    state.is_stopping = True
    for link.ready in (True, False):
        assert state.reason_not_to_dial("C") == "the worker of pbx01 stops"
        assert state.link_state == "stopping"


def test_the_first_trouble_that_is_found_is_named(state: PbxState) -> None:
    state.lacking["C"] = "no queue"
    state.looks += [
        (Limit.CLOCK_SKEW, lambda: ""),
        (Limit.NOT_CONSUMING, lambda: "no broker"),
        (Limit.REDIS_AWAY, lambda: "no lease"),
    ]
    assert state.trouble == "no broker"
    assert state.reason_not_to_dial("C") == state.reason_not_to_dial("D") == "no broker"


def test_a_missing_target_holds_up_its_own_cell_only(state: PbxState) -> None:
    state.lacking["C"] = "no queue"
    assert (state.reason_not_to_dial("C"), state.reason_not_to_dial("D")) == ("no queue", None)


def test_a_redis_that_refuses_holds_up_its_cell_for_a_while(state: PbxState) -> None:
    now = 100.0
    state.monotonic = lambda: now
    state.refuse("C", ValueError("NOPERM"))
    sentence = state.reason_not_to_dial("C") or ""
    assert sentence.startswith("the Redis of cell C refuses the worker of pbx01 (NOPERM)")
    assert (state.reason_not_to_dial("D"), state.trouble) == (None, "")
    now += REFUSED_FOR_S - 0.1
    assert state.refusals() == {"C": sentence}
    now += 0.1
    assert state.refusals() == {}
    assert state.reason_not_to_dial("C") is None


def test_each_instance_has_another_name(state: PbxState) -> None:
    before = state.instance
    state.new_instance()
    assert state.instance
    assert state.instance != before
