"""What a bridge logs of its decisions: changes only, not too many, also while Redis is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from dialer.bridge import decisions as module
from dialer.bridge.decisions import (
    BURST,
    OFFER_EVERY_S,
    ONE_EACH_S,
    WAITING_MAX,
    CellLog,
    Deciding,
    Decisions,
)
from dialer.bridge.intake import Intake
from dialer.bridge.life import Life
from dialer.domain.limits import Limit
from dialer.domain.room import PbxLoad
from dialer.domain.why import Decision, Lately, Obstacle, PbxFacts, Took
from dialer.store.keys import LedgerKeys
from dialer.store.ledger import News
from dialer.store.steps import Steps
from tests.unit.stand_ins import Notes, a

AT = datetime(2026, 11, 27, tzinfo=UTC)


def decision(limit: Limit) -> Decision:
    return Decision(cell="COB", limit=limit)


def flapping(log: CellLog, times: int, *, start: float = 0.0, every_s: float = 0.0) -> None:
    for n in range(times):
        limit = Limit.CPS if n % 2 else Limit.NONE
        log.note(decision(limit), AT, start + n * every_s)


def test_only_another_limit_is_logged() -> None:
    log = CellLog()
    for limit in (Limit.NONE, Limit.NONE, Limit.CPS, Limit.CPS, Limit.NONE):
        log.note(decision(limit), AT, 0.0)
    assert [one.decision.limit for one in log.waiting] == ["none", "cps", "none"]


def test_a_limit_that_comes_and_goes_does_not_fill_the_log() -> None:
    log = CellLog()
    flapping(log, 3 * BURST)
    assert len(log.waiting) == BURST
    log.waiting.clear()
    flapping(log, 1000, start=ONE_EACH_S, every_s=ONE_EACH_S / 100)
    assert 10 <= len(log.waiting) <= 11


def test_the_limit_in_force_is_logged_once_there_is_room() -> None:
    log = CellLog()
    flapping(log, BURST + 1)
    assert log.last == "cps"
    log.note(decision(Limit.PAUSED), AT, 1.0)
    assert log.last == "cps"
    log.note(decision(Limit.PAUSED), AT, 1.0 + ONE_EACH_S)
    assert log.last == "paused"


def test_what_waits_for_redis_has_a_limit() -> None:
    log = CellLog()
    for n in range(2 * WAITING_MAX):
        log.last = None
        log.note(decision(Limit.CPS), AT, n * ONE_EACH_S)
    assert len(log.waiting) == WAITING_MAX


# --- one cell ---------------------------------------------------------------------------


class Site:
    """A cell that a bridge decides on. `others`: seconds since the heartbeats of other bridges."""

    def __init__(self, **others: float) -> None:
        self.notes = Notes()
        self.obstacle: Obstacle | None = None
        self.sizes = 0, 0
        self.others = others
        limits = a(is_open=lambda _: True, time_zone="UTC")
        self.cell: Any = a(
            name="COB",
            bridge="mine",
            paused="",
            settings=a(threads=9, limits=limits),
            pbxs=("pbx01",),
            registry=a(pbxs=self._states),
            ledger=a(
                sizes=self.notes.of("sizes", lambda: self.sizes),
                served_by=self._bridges,
                keys=LedgerKeys("COB"),
            ),
            clock=a(now=lambda: AT, is_measured=True),
            dispatcher=a(problem=""),
        )
        self.intake = a(parked={}, lately=Lately())
        self.life = Life(is_known=True, is_quiet=True)
        self.deciding = Deciding(self.cell, cast(Intake, self.intake), self.life)

    async def _states(self, *_: Any, **__: Any) -> dict[str, Any]:
        load = PbxLoad(name="pbx01", ready=True, calls=0, max_calls=5, starts=5)
        facts = PbxFacts(load=load, obstacle=self.obstacle)
        return {"pbx01": a(facts=lambda _: facts)}

    async def _bridges(self) -> dict[str, float]:
        return {"mine": 0.0, **self.others}

    async def limits(self) -> list[str]:
        await self.deciding.look()
        return [one.decision.limit for one in self.deciding.log.waiting]

    @property
    def news(self) -> News:
        news = self.deciding.news()
        assert news is not None
        return news


async def test_a_quiet_cell_costs_no_read() -> None:
    site = Site()
    assert await site.limits() == ["no_requests"]
    assert site.notes == []


async def test_a_busy_cell_is_known_by_its_pulse() -> None:
    site = Site()
    site.life.is_quiet, site.life.live, site.life.waiting = False, 9, 4
    assert await site.limits() == ["threads_full"]
    assert site.notes == []


@pytest.mark.parametrize("why", ["obstacle", "pause", "no pulse"])
async def test_what_waits_for_a_cell_that_dials_nothing_is_read(why: str) -> None:
    site = Site()
    site.sizes = 0, 70
    if why == "obstacle":
        site.obstacle = Obstacle(limit=Limit.AMI_DOWN, reason="down")
    elif why == "pause":
        site.cell.paused = "paused by ana"
    else:
        site.life.is_known = False
    await site.deciding.look()
    (logged,) = site.deciding.log.waiting
    assert logged.decision.numbers["waiting"] == 70
    assert site.notes.names == ["sizes"]


async def test_a_cell_without_news_writes_nothing() -> None:
    site = Site()
    await site.deciding.look()
    news = site.news
    assert [one.decision.limit for one in news.entries] == ["no_requests"]
    site.deciding.written(news, keeps_log=True)
    await site.deciding.look()
    assert site.deciding.news() is None


async def test_what_is_done_lately_is_written_until_it_is_past() -> None:
    site = Site()
    site.intake.lately.started(asyncio.get_running_loop().time())
    news = site.news
    assert news.took == Took(has_started=True)
    site.deciding.written(news, keeps_log=True)
    site.intake.lately = Lately()
    news = site.news
    assert news.took == Took()
    site.deciding.written(news, keeps_log=True)
    assert site.deciding.news() is None


async def test_a_bridge_offers_its_log_until_it_keeps_it() -> None:
    site = Site()
    await site.deciding.look()
    site.cell.paused = "paused by ana"
    await site.deciding.look()
    site.deciding.written(site.news, keeps_log=False)
    assert site.deciding.news() is None
    site.deciding.log.offered_at -= OFFER_EVERY_S
    news = site.news
    assert [one.decision.limit for one in news.entries] == ["paused"]
    site.deciding.written(news, keeps_log=True)
    assert site.deciding.news() is None


async def test_a_bridge_logs_that_nobody_served_its_cell() -> None:
    site = Site(dead=70.0, older=500.0)
    await site.deciding.begin()
    (logged,) = site.deciding.log.waiting
    assert logged.decision.limit is Limit.NO_BRIDGE
    assert logged.at == AT - timedelta(seconds=70)


@pytest.mark.parametrize("others", [{}, {"dead": 70.0, "alive": 0.4}])
async def test_a_cell_that_others_serve_has_no_gap(others: dict[str, float]) -> None:
    site = Site(**others)
    await site.deciding.begin()
    assert not site.deciding.log.waiting


# --- all cells of a server ----------------------------------------------------------------


async def test_a_redis_that_is_away_is_logged_later(monkeypatch: pytest.MonkeyPatch) -> None:
    site, kept = Site(), Notes()
    away = Obstacle(limit=Limit.REDIS_AWAY, reason="gone")
    steps: Any = a(obstacle=away, where="the Redis")
    decisions = Decisions("mine", steps, cast(Steps, a(obstacle=None)), [site.deciding])
    monkeypatch.setattr(asyncio, "sleep", kept.of("sleep", asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await decisions.run()
    (logged,) = site.deciding.log.waiting
    assert (logged.decision.limit, logged.decision.sentence) == (Limit.REDIS_AWAY, "gone")


async def test_a_refusal_of_redis_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site, sleeps = Site(), Notes()
    site.cell.registry.pbxs = Notes().of("pbxs", ResponseError("no rights"))

    async def unless_down(work: Any) -> Any:
        return await work

    steps: Any = a(obstacle=None, where="the Redis", or_none_if_down=unless_down)
    decisions = Decisions("mine", steps, steps, [site.deciding])
    monkeypatch.setattr(
        asyncio, "sleep", sleeps.of("sleep", lambda s: asyncio.CancelledError() if s < 1 else None)
    )
    with pytest.raises(asyncio.CancelledError):
        await decisions.run()
    assert sleeps.given("sleep") == [module.REFUSED_PAUSE_S, module.EVERY_S]
    (logged,) = site.deciding.log.waiting
    assert logged.decision.limit is Limit.REDIS_REFUSES
    assert vars(caplog.records[0])["part"] == "decision log"


async def test_a_cell_without_a_clock_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times would be those of the host."""
    site, written = Site(), Notes()
    site.cell.clock.is_measured = False
    monkeypatch.setattr(module, "write_news", written.of("write", [True]))
    decisions = Decisions("mine", cast(Steps, a()), cast(Steps, a()), [site.deciding])
    await decisions._look()
    assert written == []
    site.cell.clock.is_measured = True
    await decisions._look()
    assert written.names == ["write"]
    assert not site.deciding.log.waiting
