"""Operators as Multcall tells them: a hash of the cell, one field for each operator.

For cells with `agents = "multcall"`, whose operators are not members of a queue of Asterisk. Nobody
says when Multcall stops to write: a state is believed for a limited time only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dialer.domain.agents import Agent, AgentState, Team
from dialer.multcall.request import Instant

#: With `Visto` a state is believed for so long after it, in seconds.
SEEN_FOR_S: Final = 60.0

#: Without `Visto`, for so long after `Desde`, in seconds. A pause and a logout have no end.
BELIEVED_S: Final[Mapping[AgentState, float]] = {
    AgentState.AVAILABLE: 4 * 3_600.0,
    AgentState.RINGING: 120.0,
    AgentState.BUSY: 7_200.0,
    AgentState.WRAPUP: 1_800.0,
    AgentState.PAUSED: math.inf,
    AgentState.GONE: math.inf,
}

#: A wrap-up does not last longer, whatever `LivreEm` says.
WRAPUP_MAX: Final = timedelta(hours=1)

#: A time that is further ahead is wrong, in seconds.
AHEAD_S: Final = 60.0

#: More operators of a cell are not read.
AGENTS_MAX: Final = 2_000

_STATES: Final = {
    "LIVRE": AgentState.AVAILABLE,
    "CHAMANDO": AgentState.RINGING,
    "FALANDO": AgentState.BUSY,
    "POS": AgentState.WRAPUP,
    "PAUSA": AgentState.PAUSED,
    "FORA": AgentState.GONE,
}


class Operador(BaseModel):
    """What an operator does; a field of the hash `ZancURA2.0-Operadores-<cell>`."""

    model_config = ConfigDict(title="Operador", frozen=True)

    state: Literal["LIVRE", "CHAMANDO", "FALANDO", "POS", "PAUSA", "FORA"] = Field(
        alias="Estado",
        description="free, telephone rings, talks, wraps up, pauses, logged out",
    )
    since: Instant = Field(alias="Desde", description="since when, with a time zone")
    free_at: Instant | None = Field(
        default=None, alias="LivreEm", description="POS: when the operator will be free"
    )
    seen: Instant | None = Field(
        default=None,
        alias="Visto",
        description="when Multcall last saw this state; then it is believed for 60 s",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """The operators of a cell. `stale` are the names of those whose state is too old.

    `problems` are sentences about entries that cannot be read.
    """

    agents: Sequence[Agent] = ()
    stale: frozenset[str] = frozenset()
    problems: Sequence[str] = ()

    @property
    def team(self) -> Team:
        """How many are in each state."""
        counts = dict.fromkeys(Team.__slots__, 0)
        for agent in self.agents:
            counts["stale" if agent.interface in self.stale else agent.state.value] += 1
        return Team(**counts)


def operators_in(row: Mapping[bytes, bytes], now: float) -> Operators:
    """Read the hash of a cell; `now` is the present time in seconds since 1970."""
    agents: list[Agent] = []
    stale: set[str] = set()
    problems: list[str] = []
    for raw_name, raw in list(row.items())[:AGENTS_MAX]:
        name = raw_name.decode(errors="replace")
        try:
            told = Operador.model_validate_json(raw)
        except ValidationError as error:
            problems.append(f"operator {name!r}: {_wrong(error)}")
            continue
        agents.append(_agent(name, told))
        if ahead := _ahead(told, now):
            problems.append(f"operator {name!r}: {ahead} is in the future: see the clock and zone")
        if ahead or _is_stale(told, now):
            stale.add(name)
    if len(row) > AGENTS_MAX:
        problems.append(f"there are {len(row)} operators; only {AGENTS_MAX} are read")
    return Operators(agents=agents, stale=frozenset(stale), problems=problems)


def _agent(name: str, told: Operador) -> Agent:
    return Agent(
        interface=name,
        name=name,
        state=_STATES[told.state],
        since=told.since.timestamp(),
        free_at=told.free_at.timestamp() if told.free_at is not None else None,
    )


def _ahead(told: Operador, now: float) -> str:
    """Return the field with a time that has not come yet, '' if there is none."""
    times = {"Desde": told.since, "Visto": told.seen}
    late = (name for name, at in times.items() if at and at.timestamp() > now + AHEAD_S)
    return next(late, "")


def _is_stale(told: Operador, now: float) -> bool:
    state = _STATES[told.state]
    if state is AgentState.GONE:
        return False
    if told.seen is not None:
        return now - told.seen.timestamp() > SEEN_FOR_S
    return now - _latest(told).timestamp() > BELIEVED_S[state]


def _latest(told: Operador) -> datetime:
    if told.state != "POS" or told.free_at is None:
        return told.since
    return max(told.since, min(told.free_at, told.since + WRAPUP_MAX))


def _wrong(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if not where:
        return 'it is no JSON object as {"Estado": "LIVRE", "Desde": "2026-11-27T10:42:00-03:00"}'
    if first["type"] == "missing":
        return f"{where} is missing"
    takes = {
        "Estado": "must be LIVRE, CHAMANDO, FALANDO, POS, PAUSA or FORA",
    }.get(where, 'must be a time with its zone, as "2026-11-27T10:42:00-03:00"')
    return f"{where} {takes}"
