"""What a bridge logs of its decisions: changes only, not too many, and it needs little for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from dialer.bridge import decisions as module
from dialer.bridge.decisions import (
    BURST,
    COMPARED_EVERY_S,
    EVERY_S,
    FAILED_PAUSE_S,
    ONE_EACH_S,
    Budget,
    Deciding,
    Decisions,
)
from dialer.bridge.intake import Intake
from dialer.bridge.life import Life
from dialer.domain.limits import Limit
from dialer.domain.room import PbxLoad
from dialer.domain.why import Decision, Lately, Obstacle, PbxFacts, Took
from dialer.errors import StepsStopped
from dialer.store.keys import LedgerKeys
from dialer.store.ledger import CellCounts, CellState, Logged, News
from dialer.store.steps import Steps
from tests.unit.stand_ins import DIALS_FOR_NOBODY, Notes, a

AT = datetime(2026, 11, 27, tzinfo=UTC)
AWAY = Obstacle(limit=Limit.REDIS_AWAY, reason="gone")


def test_a_budget_is_filled_again() -> None:
    budget = Budget()
    assert [budget.take(0.0) for _ in range(BURST + 2)] == [True] * BURST + [False] * 2
    assert not budget.take(ONE_EACH_S - 1)
    assert budget.take(ONE_EACH_S)
    assert not budget.take(ONE_EACH_S)
    assert [budget.take(1e6) for _ in range(BURST + 1)] == [True] * BURST + [False]


class Site:
    """Cells of one server that a bridge decides on, all on one PBX.

    `state` is what a survey reads of each. `written` has what was written, `gaps` the gaps.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.room, self.obstacle = 5, cast(Obstacle | None, None)
        self.state = CellState()
        self.surveyed: list[str] = []
        self.written: list[News] = []
        self.gaps: list[Decision | None] = []
        self.reply: bool | str = True
        self.steps: Any = a(obstacle=None, where="the Redis", or_none_if_down=self._await)
        self.registry: Any = a(obstacle=None, or_none_if_down=self._await)
        self.cells = [self._cell(name) for name in names or ("COB",)]
        self.decisions = Decisions("mine", self.steps, self.registry, self.cells)
        self.decisions._survey = cast(Any, a(read=self._survey))
        monkeypatch.setattr(module, "write_news", self._write)

    def _cell(self, name: str) -> Deciding:
        limits = a(is_open=lambda _: True, time_zone="UTC")
        cell: Any = a(
            name=name,
            paused="",
            settings=a(threads=9, limits=limits, **DIALS_FOR_NOBODY),
            pbxs=("pbx01",),
            states=self._states,
            ledger=a(keys=LedgerKeys(name)),
            clock=a(now=lambda: AT, is_measured=True),
            dispatcher=a(problem=""),
        )
        intake = cast(Intake, a(lately=Lately()))
        return Deciding(cell, intake, Life(is_known=True, is_quiet=True))

    async def _await(self, work: Any) -> Any:
        return await work

    async def _states(self, *_: Any, **__: Any) -> dict[str, Any]:
        load = PbxLoad(name="pbx01", ready=True, calls=0, max_calls=5, starts=self.room)
        facts = PbxFacts(load=load, obstacle=self.obstacle)
        pbx = a(load=load, facts=lambda *_, **__: facts, obstacle=lambda _: self.obstacle)
        return {"pbx01": pbx}

    async def _survey(self, cells: dict[str, list[str]]) -> dict[str, CellState]:
        self.surveyed += cells
        return dict.fromkeys(cells, self.state)

    async def _write(
        self, _: Any, bridge: str, news: list[News], *, gap: Decision | None
    ) -> list[bool | str]:
        assert bridge == "mine"
        self.written, self.gaps = [*self.written, *news], [*self.gaps, gap]
        return [self.reply] * len(news)

    @property
    def limits(self) -> list[Limit]:
        return [one.decision.limit for one in self.written if one.decision is not None]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


def logged(limit: Limit) -> Logged:
    return Logged(at=AT, decision=Decision(cell="COB", limit=limit))


async def test_a_limit_is_written_once(site: Site) -> None:
    for _ in range(3):
        await site.decisions.look()
    assert site.limits == ["no_requests"]


async def test_a_quiet_cell_is_read_now_and_then(site: Site) -> None:
    for _ in range(5):
        await site.decisions.look()
    assert site.surveyed == ["COB"]
    assert len(site.gaps) == 5, "each look says that the bridge keeps the log"
    site.cells[0].compared_at -= COMPARED_EVERY_S
    await site.decisions.look()
    assert site.limits == ["no_requests", "no_requests"], "the log was lost"


@pytest.mark.parametrize("why", ["busy", "no room", "obstacle", "pause", "dialed"])
async def test_a_cell_that_may_have_requests_is_read(site: Site, why: str) -> None:
    (one,) = site.cells
    await site.decisions.look()
    if why == "busy":
        one.life.is_quiet = False
    elif why == "no room":
        site.room = 0
    elif why == "obstacle":
        site.obstacle = AWAY
    elif why == "pause":
        one.cell.paused = "paused by ana"
    else:
        one.intake.lately.started(asyncio.get_running_loop().time())
    await site.decisions.look()
    assert site.surveyed == ["COB", "COB"]


@pytest.mark.parametrize("why", ["pause", "hours", "obstacle"])
async def test_a_cell_that_must_not_dial_is_read_once(site: Site, why: str) -> None:
    """All cells are closed at night."""
    (one,) = site.cells
    if why == "obstacle":
        site.obstacle = AWAY
    elif why == "pause":
        one.cell.paused = "paused by ana"
    else:
        cell: Any = one.cell
        cell.settings.limits.is_open = lambda _: False
    for _ in range(5):
        await site.decisions.look()
        site.state = CellState(logged=logged(site.limits[-1]))
    assert site.surveyed == ["COB"]
    assert len(site.limits) == 1


async def test_the_log_says_what_dialer_why_says(site: Site) -> None:
    counts = CellCounts(waiting=70, live=9)
    site.cells[0].life.is_quiet = False
    site.state = CellState(counts=counts, logged=logged(Limit.NONE))
    await site.decisions.look()
    assert site.limits == ["threads_full"]
    assert site.written[-1].decision is not None
    assert site.written[-1].decision.numbers["waiting"] == 70
    site.state = replace(site.state, logged=logged(Limit.THREADS_FULL))
    await site.decisions.look()
    assert site.limits == ["threads_full"]
    site.state = replace(site.state, unreadable="WRONGTYPE")
    await site.decisions.look()
    assert site.limits == ["threads_full", "redis_refuses"]


async def test_what_is_done_lately_is_written_until_it_is_past(site: Site) -> None:
    (one,) = site.cells
    await site.decisions.look()
    one.intake.lately.started(asyncio.get_running_loop().time())
    await site.decisions.look()
    one.intake.lately = Lately()
    for _ in range(3):
        await site.decisions.look()
    assert [new.took for new in site.written] == [Took(), Took(has_started=True), Took()]


@pytest.mark.parametrize("reply", [False, "WRONGTYPE"])
async def test_what_another_bridge_logs_is_offered_again(site: Site, reply: bool | str) -> None:
    site.reply = reply
    for _ in range(3):
        await site.decisions.look()
    assert site.limits == ["no_requests"] * 3


async def test_limits_that_come_and_go_hide_no_others(site: Site) -> None:
    (one,) = site.cells
    one.life.is_quiet = False
    for n in range(3 * BURST):
        last = Limit.NONE if n % 2 else Limit.THREADS_FULL
        live = 9 if n % 2 else 8
        counts = CellCounts(waiting=70, live=live)
        site.state = CellState(counts=counts, logged=logged(last))
        await site.decisions.look()
    assert len(site.limits) == BURST
    one.cell.paused = "paused by ana"
    await site.decisions.look()
    assert site.limits[-1] == "paused"


# --- gaps -----------------------------------------------------------------------------


async def test_the_first_look_asks_who_was_there_before(site: Site) -> None:
    await site.decisions.look()
    await site.decisions.look()
    first, second = site.gaps
    assert first is not None
    assert (first.limit, first.reason) == (Limit.NO_BRIDGE, "none was running")
    assert second is None


async def test_a_look_after_a_pause_writes_of_every_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(monkeypatch, "TIM", "OI")
    for _ in range(2):
        await site.decisions.look()
    assert len(site.written) == 2
    site.decisions._written_at -= 60
    await site.decisions.look()
    assert len(site.written) == 4
    assert site.gaps[-1] is not None
    assert site.limits == ["no_requests"] * 4, "what is now follows the gap"


async def test_a_redis_that_was_away_is_logged_later(site: Site) -> None:
    await site.decisions.look()
    site.steps.obstacle = AWAY
    await site.decisions.look()
    assert len(site.gaps) == 1
    site.steps.obstacle = None
    site.decisions._written_at -= 60
    await site.decisions.look()
    gap = site.gaps[-1]
    assert gap is not None
    assert (gap.limit, gap.reason) == (Limit.REDIS_AWAY, "gone")
    site.decisions._written_at -= 60
    await site.decisions.look()
    gap = site.gaps[-1]
    assert gap is not None
    assert gap.limit is Limit.NO_BRIDGE


@pytest.mark.parametrize("works", [0, 1])
async def test_a_redis_that_refuses_to_write_and_is_up_between_is_logged_later(
    site: Site, works: int
) -> None:
    """It is up at each look, because it is read, and goes down at the first or second await."""
    await site.decisions.look()
    awaited = 0

    async def refuses(work: Any) -> Any:
        nonlocal awaited
        awaited += 1
        if awaited <= works:
            return await work
        work.close()
        site.steps.obstacle = AWAY
        return None

    site.steps.or_none_if_down, works_again = refuses, site.steps.or_none_if_down
    site.decisions._written_at -= 60
    await site.decisions.look()
    site.steps.obstacle, site.steps.or_none_if_down = None, works_again
    await site.decisions.look()
    gap = site.gaps[-1]
    assert gap is not None
    assert (gap.limit, gap.reason) == (Limit.REDIS_AWAY, "gone")


async def test_a_registry_that_is_away_is_logged_at_once(site: Site) -> None:
    await site.decisions.look()
    site.registry.obstacle = AWAY
    await site.decisions.look()
    assert site.limits == ["no_requests", "redis_away"]


async def test_nothing_is_decided_if_a_redis_goes_down_while_it_is_read(site: Site) -> None:
    async def is_down(work: Any) -> None:
        work.close()

    site.steps.or_none_if_down = is_down
    await site.decisions.look()
    assert site.gaps == []


async def test_a_cell_without_a_clock_or_a_bridge_waits(site: Site) -> None:
    (one,) = site.cells
    one.cell.clock.is_measured = False
    await site.decisions.look()
    assert site.gaps == [], "the first look with a clock asks who was there before"
    one.cell.clock.is_measured = True
    one.is_served = lambda: False
    await site.decisions.look()
    assert site.written == []


# --- what goes wrong --------------------------------------------------------------------


@pytest.mark.parametrize("error", [ResponseError("no rights"), ValueError("a defect")])
async def test_an_error_ends_nothing(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """Dialing does not need the log."""
    sleeps = Notes()
    errors: list[Exception | None] = [error, None]
    monkeypatch.setattr(Decisions, "look", Notes().of("look", lambda _: errors.pop(0)))
    monkeypatch.setattr(
        asyncio, "sleep", sleeps.of("sleep", lambda s: asyncio.CancelledError() if s < 1 else None)
    )
    with pytest.raises(asyncio.CancelledError):
        await site.decisions.run()
    assert sleeps.given("sleep") == [FAILED_PAUSE_S, EVERY_S]
    (record,) = caplog.records
    assert record.message == "The decision log was not written; trying again"
    suffered = site.decisions._suffered
    assert (suffered is not None) is isinstance(error, ResponseError)


async def test_steps_that_stopped_end_the_bridge(site: Site) -> None:
    cell: Any = site.cells[0].cell
    cell.states = Notes().of("states", StepsStopped("a defect"))
    with pytest.raises(StepsStopped):
        await Decisions("mine", site.steps, cast(Steps, site.registry), site.cells).run()
