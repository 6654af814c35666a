"""The page of a cell: why it dials or not, outcomes, charts, parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request

from dialer.domain.agents import Agent, AgentState
from dialer.domain.call import Result
from dialer.domain.parameters import Subject
from dialer.errors import DialerError
from dialer.monitor.why import Why, time_of, why
from dialer.settings import Cell
from dialer.store.agents import AgentStore
from dialer.store.ledger import Minute, Outcomes
from dialer.web import charts
from dialer.web.access import Page
from dialer.web.hub import Look
from dialer.web.live import LivePage
from dialer.web.pages import steer
from dialer.web.pages.overview import MINUTE_S, answer_rate, cell_row
from dialer.web.pages.parameters import operations, parameters_of
from dialer.web.site import Site, site_of

#: The charts show so many minutes, the present one too.
MINUTES: Final = 60

#: Redis has so long to say what was at a time in the past, in seconds.
PAST_WITHIN_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteRow:
    """What became of the requests of one minute. `rate` is the share of dialed calls answered.

    `peak` is the most calls at once. Half of the ACKs came within `ack_p50_s` after the admission,
    99 % within `ack_p99_s`; None if there were none, infinite if too late to be measured.
    """

    at: datetime
    dialed: int
    rate: float | None
    peak: int
    ack_p50_s: float | None
    ack_p99_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeTable:
    """Outcomes by result, in the columns the PBXs and all; the PBX '' is no PBX at all."""

    pbxs: Sequence[str]
    rows: Sequence[tuple[Result, Sequence[int]]]
    totals: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """An operator of the cell's queue. `for_s` is how long it is in that state, in seconds.

    `state` is an AgentState, or `stale` if nothing confirms it. `look` is how it is shown.
    """

    name: str
    pbx: str
    state: str
    for_s: float
    calls: int
    reason: str
    look: str


async def context(site: Site, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what is shown of a cell now.

    Raises:
        ConfigError: there is no such cell.
    """
    cell = look.seen.live.settings.cell(names["cell"])
    state = look.seen.snapshot.cells[cell.name]
    minutes = minutes_of(site.collector.minutes(cell.name), look.at)
    first = int(minutes[0].at.timestamp()) // MINUTE_S
    return {
        "cell": cell_row(site, look, cell.name),
        "pbxs": cell.pbxs,
        "queue": cell.queue,
        "operators": await _operators(site, look, cell),
        "team_words": _team_words(look, cell.name),
        "since": _since(look, cell.name),
        "outcomes": outcome_table(state.outcomes),
        "minutes": minutes,
        "calls": charts.bars(charts.Minutes(first=first, values=[one.dialed for one in minutes])),
        "rates": charts.lines(first, [one.rate for one in minutes], most=1.0),
        "peaks": charts.bars(charts.Minutes(first=first, values=[one.peak for one in minutes])),
        "acks": charts.lines(
            first, [one.ack_p50_s for one in minutes], [one.ack_p99_s for one in minutes]
        ),
    }


async def _operators(site: Site, look: Look, cell: Cell) -> list[OperatorRow]:
    """Return the operators of a cell's queue, those who are free first."""
    if cell.agents == "multcall":
        told = look.seen.snapshot.cells[cell.name].operators
        return _sorted(
            _operator(one, "", "stale" if one.interface in told.stale else one.state)
            for one in told.agents
        )
    if cell.queue is None:
        return []
    registry = site.collector.registry
    found = await registry.or_none_if_down(AgentStore(registry).read(cell.pbxs)) or {}
    rows = []
    for pbx, agents in found.items():
        team = look.seen.snapshot.pbxs[pbx].team(cell.queue)
        is_stale = team is None or team.stale > 0
        for agent in agents:
            if (state := agent.queues.get(cell.queue.casefold())) is not None:
                is_unsure = is_stale and state is not AgentState.GONE
                rows.append(_operator(agent, pbx, "stale" if is_unsure else state))
    return _sorted(rows)


def _sorted(rows: Iterable[OperatorRow]) -> list[OperatorRow]:
    order = [*AgentState, "stale"]
    return sorted(rows, key=lambda row: (order.index(row.state), row.name.casefold()))


def _operator(agent: Agent, pbx: str, state: str) -> OperatorRow:
    now = datetime.now(UTC).timestamp()
    return OperatorRow(
        name=agent.name,
        pbx=pbx,
        state=state,
        for_s=max(0.0, now - agent.since),
        calls=agent.calls,
        reason=agent.reason if state == AgentState.PAUSED else "",
        look={AgentState.AVAILABLE: "good", "stale": "bad"}.get(state, ""),
    )


def _team_words(look: Look, name: str) -> list[tuple[str, int]]:
    """Return how many operators are in each state, without those in which there are none."""
    team = look.seen.snapshot.team(name)
    return (
        [(what, n) for what, n in asdict(team).items() if n or what == "available"] if team else []
    )


async def around(request: Request) -> Mapping[str, Any]:
    """Return the parameters of a cell, and what it did at the time that was asked for."""
    site, name = site_of(request), request.path_params["cell"]
    asked = request.query_params.get("at", "").strip()
    past, trouble = await _past(site, site.file.cell(name), asked)
    return {
        "parameters": await parameters_of(site, Subject("cell", name)),
        "done": steer.number_in(request.query_params.get("done", "")),
        "asked": asked,
        "past": past,
        "past_trouble": trouble,
    }


async def _past(site: Site, cell: Cell, asked: str) -> tuple[Why | None, str]:
    """Return what bound the cell at the time that somebody typed, or why that is not known."""
    if not asked:
        return None, ""
    try:
        async with asyncio.timeout(PAST_WITHIN_S):
            return await why(site.file, cell.name, time_of(asked, cell)), ""
    except DialerError as error:
        return None, str(error)


def minutes_of(counted: Mapping[int, Minute], now: datetime) -> list[MinuteRow]:
    """Return the last minutes, the present one last; `counted` is by minute since 1970."""
    last = max(counted, default=int(now.timestamp()) // MINUTE_S)
    minutes = range(last - MINUTES + 1, last + 1)
    return [_row(minute, counted.get(minute, Minute())) for minute in minutes]


def _row(minute: int, counted: Minute) -> MinuteRow:
    p50_ms, p99_ms = counted.acks_within_ms(0.5), counted.acks_within_ms(0.99)
    return MinuteRow(
        at=charts.time_of(minute),
        dialed=sum(n for (pbx, _), n in counted.outcomes.items() if pbx),
        rate=answer_rate(counted.outcomes),
        peak=counted.peak,
        ack_p50_s=None if p50_ms is None else p50_ms / 1000,
        ack_p99_s=None if p99_ms is None else p99_ms / 1000,
    )


def outcome_table(outcomes: Outcomes) -> OutcomeTable:
    """Return the outcomes as a table."""
    counted = {key: n for key, n in outcomes.items() if n}
    pbxs = sorted({pbx for pbx, _ in counted})
    rows = []
    for result in Result:
        if any(one is result for _, one in counted):
            numbers = [counted.get((pbx, result), 0) for pbx in pbxs]
            rows.append((result, [*numbers, sum(numbers)]))
    columns = [numbers for _, numbers in rows]
    return OutcomeTable(
        pbxs=pbxs, rows=rows, totals=[sum(one) for one in zip(*columns, strict=True)]
    )


def _since(look: Look, name: str) -> datetime | None:
    """Return since when the present limit binds the cell; None if the log does not say."""
    logged = look.seen.snapshot.cells[name].logged
    limit = look.seen.snapshot.decision(name).limit
    return logged.at if logged is not None and logged.decision.limit is limit else None


CELL: Final = LivePage(
    path="/cells/{cell}",
    template="cell.html",
    live_template="cell_live.html",
    context=context,
    around=around,
)
LIVE: Sequence[LivePage] = (CELL,)
PAGES: Sequence[Page] = operations(CELL, "cell", stop="pause")
