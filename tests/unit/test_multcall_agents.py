"""Operators as Multcall tells them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.agents import AgentState, Team, calls_allowed
from dialer.domain.limits import Limit
from dialer.domain.why import of_operators
from dialer.multcall.agents import AGENTS_MAX, operators_in

NOW = datetime(2026, 11, 27, 13, 42, tzinfo=UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).astimezone().isoformat()


def told(state: str, since_s: float = 5.0, **more: Any) -> bytes:
    return json.dumps({"Estado": state, "Desde": ago(since_s), **more}).encode()


def read(**entries: bytes) -> Any:
    return operators_in({name.encode(): raw for name, raw in entries.items()}, NOW.timestamp())


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("LIVRE", AgentState.AVAILABLE),
        ("CHAMANDO", AgentState.RINGING),
        ("FALANDO", AgentState.BUSY),
        ("POS", AgentState.WRAPUP),
        ("PAUSA", AgentState.PAUSED),
        ("FORA", AgentState.GONE),
    ],
)
def test_each_state_is_known(state: str, shown: AgentState) -> None:
    (ana,) = read(ana=told(state)).agents
    assert (ana.name, ana.state, ana.since) == ("ana", shown, NOW.timestamp() - 5)


def test_the_end_of_the_wrap_up_is_known() -> None:
    (ana,) = read(ana=told("POS", LivreEm=ago(-20))).agents
    assert ana.free_at == NOW.timestamp() + 20


def test_operators_are_counted() -> None:
    found = read(a=told("LIVRE"), b=told("LIVRE"), c=told("FALANDO"), d=told("FORA"))
    assert found.team == Team(available=2, busy=1, gone=1)


@pytest.mark.parametrize(
    ("state", "believed_s"),
    [("LIVRE", 14_400), ("CHAMANDO", 120), ("FALANDO", 7_200), ("POS", 1_800)],
)
def test_a_state_is_believed_for_some_time_only(state: str, believed_s: float) -> None:
    assert read(ana=told(state, believed_s - 1)).team.stale == 0
    assert read(ana=told(state, believed_s + 1)).team == Team(stale=1)


@pytest.mark.parametrize("state", ["PAUSA", "FORA"])
def test_a_pause_and_a_logout_have_no_end(state: str) -> None:
    assert read(ana=told(state, 900_000)).team.stale == 0


def test_what_multcall_saw_is_believed_for_a_minute() -> None:
    assert read(ana=told("LIVRE", 90_000, Visto=ago(59))).team.available == 1
    assert read(ana=told("LIVRE", 5, Visto=ago(61))).team == Team(stale=1)
    assert read(ana=told("PAUSA", 5, Visto=ago(61))).team == Team(stale=1)
    assert read(ana=told("FORA", 5, Visto=ago(61))).team == Team(gone=1)


def test_a_wrap_up_is_believed_from_its_end_on() -> None:
    assert read(ana=told("POS", 3_000, LivreEm=ago(1_000))).team.wrapup == 1


def test_the_end_of_a_wrap_up_is_no_leave_for_ever() -> None:
    assert read(ana=told("POS", 9_000, LivreEm=ago(-900_000))).team == Team(stale=1)
    assert read(ana=told("LIVRE", 90_000, LivreEm=ago(-900_000))).team == Team(stale=1)


@pytest.mark.parametrize("more", [{"since_s": -90}, {"Visto": ago(-90)}])
def test_a_time_that_has_not_come_is_named(more: dict[str, Any]) -> None:
    found = read(ana=told("LIVRE", **more))
    assert found.team == Team(stale=1)
    assert "is in the future" in found.problems[0]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "it is no JSON object as"),
        (b"LIVRE", "it is no JSON object as"),
        (b"[]", "it is no JSON object as"),
        (b"{}", "Estado is missing"),
        (b'{"Estado": "LIVRE"}', "Desde is missing"),
        (told("livre"), "Estado must be LIVRE, CHAMANDO, FALANDO, POS, PAUSA or FORA"),
        (b'{"Estado": "LIVRE", "Desde": "10:42"}', "Desde must be a time with its zone"),
        (b'{"Estado": "LIVRE", "Desde": "2026-11-27T10:42:00"}', "Desde must be a time with"),
        (told("POS", LivreEm="soon"), "LivreEm must be a time with its zone"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(raw: bytes, sentence: str) -> None:
    found = read(ana=raw, bob=told("LIVRE"))
    assert found.team == Team(available=1)
    assert found.problems[0].startswith(f"operator 'ana': {sentence}")


def test_too_many_operators_are_cut_off() -> None:
    found = read(**{f"a{n}": told("LIVRE") for n in range(AGENTS_MAX + 1)})
    assert found.team.available == AGENTS_MAX
    assert found.problems == [f"there are {AGENTS_MAX + 1} operators; only {AGENTS_MAX} are read"]


@given(st.dictionaries(st.binary(max_size=9), st.binary(max_size=60), max_size=5))
def test_no_entry_breaks_the_reading(row: dict[bytes, bytes]) -> None:
    found = operators_in(row, NOW.timestamp())
    assert len(found.agents) + len(found.problems) == len(row)  # no time in these


# --- how many calls they allow --------------------------------------------------------------------


def test_each_operator_at_work_has_a_call() -> None:
    team = Team(available=2, ringing=1, busy=3, wrapup=4, paused=5, gone=6, stale=7)
    assert calls_allowed(team, 1.0) == 6
    assert calls_allowed(team, 1.8) == 7


@pytest.mark.parametrize(
    ("team", "live", "limit"),
    [
        (Team(available=1), 0, None),
        (Team(available=1), 1, Limit.AGENTS_RESERVED),
        (Team(busy=2), 2, Limit.AGENTS_BUSY),
        (Team(paused=2), 0, Limit.NO_AGENTS),
        (Team(), 0, Limit.NO_AGENTS),
        (Team(stale=4), 0, Limit.STALE_AGENTS),
    ],
)
def test_why_operators_prevent_calls(team: Team, live: int, limit: Limit | None) -> None:
    found = of_operators(team, 1.0, live)
    assert (found.limit if found is not None else None) is limit
