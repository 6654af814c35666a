"""The decision log: which limit binds each cell of one server, and since when.

It reads what `dialer why` reads, so both agree. A quiet cell whose PBXs have room is not read: its
requests would be taken at once. The log has a task of its own, so that nothing else waits if a
Redis does not answer. What fails is logged and tried again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from dialer.bridge.cell import BridgeCell
from dialer.bridge.intake import Intake
from dialer.bridge.life import Life
from dialer.domain.limits import DIALING, Limit
from dialer.domain.why import Decision, Obstacle, Situation, Took, decide
from dialer.errors import StepsStopped
from dialer.store.ledger import CellState, News, Survey, write_news
from dialer.store.ledger.decisions import UNKEPT_AFTER_S
from dialer.store.registry import PbxState
from dialer.store.situation import situation_of
from dialer.store.steps import Steps, redis_obstacle

logger = logging.getLogger(__name__)

#: Pause between two looks, in seconds. A limit that has ended may be named for this time and
#: `LATELY_S`.
EVERY_S: Final = 0.75

#: Pause after a look that failed, in seconds.
FAILED_PAUSE_S: Final = 2.0

#: The state of a PBX may be so old, in seconds.
STATE_AGE_S: Final = 0.5

#: The log of a quiet cell is compared with what is known of it this often, in seconds.
COMPARED_EVERY_S: Final = 60.0

#: So many changes of one cell are logged at once, and one more each so many seconds, so that a
#: limit that comes and goes does not fill the log. Those between limits under which the cell dials
#: or has nothing to dial have a budget of their own: they must not hide the others.
BURST: Final = 60
ONE_EACH_S: Final = 20.0

_QUIET_LIMITS: Final = DIALING | {Limit.NO_REQUESTS}


@dataclass(slots=True)
class Budget:
    """How many changes may be logged now."""

    left: float = BURST
    _filled_at: float = -math.inf

    def take(self, now: float) -> bool:
        """Take one, if there is one left; `now` is monotonic."""
        gained = max(0.0, now - self._filled_at) / ONE_EACH_S
        self.left, self._filled_at = min(BURST, self.left + gained), now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class Deciding:
    """A cell whose decisions are logged while `is_served`.

    `known` is the limit of the newest entry as it was last read or written, None if that is not
    known; `compared_at` is when it was read. `took` was written last. `problem` is why the log
    could not be written, '' if it could.
    """

    cell: BridgeCell
    intake: Intake
    life: Life
    is_served: Callable[[], bool] = lambda: True
    known: Limit | None = None
    compared_at: float = -math.inf
    took: Took = field(default_factory=Took)
    problem: str = ""
    budget: Budget = field(default_factory=Budget)
    quiet_budget: Budget = field(default_factory=Budget)

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.cell.name

    def own(self, now: float) -> Took:
        """Return what this bridge did lately."""
        return self.intake.lately.seen(now)

    def is_unchanged(self, states: Mapping[str, PbxState], now: float) -> bool:
        """True if a quiet cell has the limit that it had, so that nothing of it must be read."""
        return (
            self.life.is_quiet
            and not self.cell.settings.asks_multcall
            and now - self.compared_at < COMPARED_EVERY_S
            and self.own(now) == self.took == Took()
            and self.known is not None
            and self.known is self._expected(states)
        )

    def _expected(self, states: Mapping[str, PbxState]) -> Limit | None:
        """Return the limit of a quiet cell, whatever it has waiting; None if that matters."""
        if not (self.cell.paused or self._closed):
            taking = [one for one in states.values() if one.obstacle(self.name) is None]
            if any(one.load.room for one in taking):
                return Limit.NO_REQUESTS  # its bridges wait for one
            if taking:
                return None
        return self._decide(CellState(), states, Took()).limit

    def read(self, state: CellState, states: Mapping[str, PbxState], now: float) -> Decision:
        """Return the limit of a cell from what was read; note what its log has."""
        self.compared_at = now
        self.known = state.logged.decision.limit if state.logged is not None else None
        return self._decide(state, states, self.own(now))

    def _decide(self, state: CellState, states: Mapping[str, PbxState], took: Took) -> Decision:
        return decide(
            situation_of(
                self.name,
                state,
                list(states.values()),
                threads=self.cell.settings.threads,
                paused=self.cell.paused,
                closed=self._closed,
                broker=self.cell.dispatcher.problem,
                took=took,
                per_agent=self.cell.settings.calls_of_multcall,
            )
        )

    def suffered(self, redis: Obstacle) -> Decision:
        """Return the decision while a Redis cannot be used."""
        return decide(Situation(cell=self.name, threads=self.cell.settings.threads, redis=redis))

    def news(self, decision: Decision, now: float, *, is_asked: bool) -> News | None:
        """Return what is to be written, None if nothing is. `is_asked`: write in any case."""
        took = self.own(now)
        is_new = decision.limit is not self.known and self._may_log(decision.limit, now)
        if not (is_new or is_asked) and took == self.took == Took():
            return None
        return News(
            cell=self.cell.ledger.keys,
            took=took,
            at_ms=round(self.cell.clock.now().timestamp() * 1000),
            decision=decision if is_new or is_asked else None,
        )

    def written(self, news: News, reply: bool | str) -> None:
        """Note what was written; log once why it was not."""
        self.took = news.took
        problem = reply if isinstance(reply, str) else ""
        if problem != self.problem:
            self.problem = problem
            if problem:
                logger.error(
                    "Redis refused a command; trying again",
                    extra={"cell": self.name, "part": "decision log", "error": problem},
                )
        if reply is True and news.decision is not None:
            self.known = news.decision.limit

    def _may_log(self, limit: Limit, now: float) -> bool:
        is_quiet = limit in _QUIET_LIMITS and self.known in _QUIET_LIMITS
        return (self.quiet_budget if is_quiet else self.budget).take(now)

    @property
    def _closed(self) -> str:
        limits = self.cell.settings.limits
        return "" if limits.is_open(self.cell.clock.now()) else limits.time_zone


@dataclass(slots=True)
class Decisions:
    """The decision log of the bridge named `bridge` for cells on one server.

    `registry` are the steps of the registry's Redis. `_written_at` is when the log was last
    written, `_suffered` what prevented that since.
    """

    bridge: str
    steps: Steps
    registry: Steps
    cells: list[Deciding] = field(default_factory=list)
    _survey: Survey = field(init=False)
    _written_at: float = -math.inf
    _suffered: Obstacle | None = None

    def __post_init__(self) -> None:
        self._survey = Survey(self.steps)

    async def run(self) -> None:
        """Log decisions until cancelled."""
        while True:
            pause_s = EVERY_S
            try:
                await self.look()
            except StepsStopped:
                raise
            except Exception as error:
                # Dialing does not need this log.
                if isinstance(error, RedisError):
                    self._suffered = redis_obstacle(self.steps.where, error)
                logger.exception(
                    "The decision log was not written; trying again",
                    extra={"redis": self.steps.where, "error": str(error)},
                )
                pause_s = FAILED_PAUSE_S
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """Decide on each cell, and write what is new. Nothing is done while the server is down."""
        if (obstacle := self.steps.obstacle) is not None:
            self._suffered = obstacle
            return
        if not self._served:  # no clock yet
            return
        if (obstacle := self.registry.obstacle) is not None:
            self._suffered = obstacle
            await self._write({one.name: one.suffered(obstacle) for one in self._served})
            return
        decisions = await self.steps.or_none_if_down(self._decide_unless_down())
        if decisions is None:
            self._note_obstacle()
        else:
            await self._write(decisions)

    @property
    def _served(self) -> list[Deciding]:
        return [one for one in self.cells if one.is_served() and one.cell.clock.is_measured]

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _decide_unless_down(self) -> dict[str, Decision] | None:
        return await self.registry.or_none_if_down(self._decide())

    @property
    def _has_paused(self) -> bool:
        """True if nobody may have kept the logs for a while."""
        return self._now - self._written_at > UNKEPT_AFTER_S

    async def _decide(self) -> dict[str, Decision]:
        """Return the limit that binds each cell, without those that wait for requests as before."""
        to_read: dict[str, tuple[Deciding, Mapping[str, PbxState]]] = {}
        for one in self._served:
            cell = one.cell
            states = await cell.states(max_age_s=STATE_AGE_S)
            if self._has_paused or not one.is_unchanged(states, self._now):
                to_read[one.name] = one, states
        # Without PBXs: the registry says enough of them, and each costs some commands of each cell.
        read = await self._survey.read(dict.fromkeys(to_read, ()))
        return {
            name: one.read(read[name], states, self._now) for name, (one, states) in to_read.items()
        }

    async def _write(self, decisions: Mapping[str, Decision]) -> None:
        """Write what is new. After a pause, write also that nobody kept the logs."""
        has_paused = self._has_paused
        gap = self._gap if has_paused else None
        news = [
            (one, new)
            for one in self._served
            if one.name in decisions
            and (new := one.news(decisions[one.name], self._now, is_asked=has_paused)) is not None
        ]
        writing = write_news(self.steps, self.bridge, [new for _, new in news], gap=gap)
        replies = await self.steps.or_none_if_down(writing)
        if replies is None:
            self._note_obstacle()
            return
        self._written_at, self._suffered = self._now, None
        for (one, new), reply in zip(news, replies, strict=True):
            one.written(new, reply)

    def _note_obstacle(self) -> None:
        """Note what is in the way now: a Redis that refuses to write is up at the next look."""
        self._suffered = self.steps.obstacle or self.registry.obstacle or self._suffered

    @property
    def _gap(self) -> Decision:
        """What was while nobody kept the logs: a Redis was away, or no bridge was there."""
        if (redis := self._suffered) is not None:
            return Decision(cell="", limit=redis.limit, reason=redis.reason)
        is_first = math.isinf(self._written_at)
        words = "none was running" if is_first else "none was running, or it was held up"
        return Decision(cell="", limit=Limit.NO_BRIDGE, reason=words)
