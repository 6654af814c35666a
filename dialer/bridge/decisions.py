"""The decision log: which limit binds each cell of one server, and since when.

It reads what the other parts of the bridge know, and writes only what has changed. It is a task of
its own: if it waits for a Redis, nothing else does.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from redis.exceptions import RedisError

from dialer.bridge.cell import BridgeCell
from dialer.bridge.intake import Intake
from dialer.bridge.life import Life
from dialer.domain.limits import Limit
from dialer.domain.why import Decision, Obstacle, Situation, Took, decide
from dialer.store.ledger import BRIDGE_DEAD_AFTER_S, Logged, News, write_news
from dialer.store.registry import PbxState
from dialer.store.steps import Steps, redis_obstacle

logger = logging.getLogger(__name__)

#: Pause between two looks, in seconds.
EVERY_S: Final = 0.5

#: Pause after Redis refused a command, in seconds.
REFUSED_PAUSE_S: Final = 5.0

#: The state of a PBX may be so old, in seconds.
STATE_AGE_S: Final = 0.5

#: So many changes of one cell are logged at once, and one more each so many seconds, so that a
#: limit that comes and goes does not fill the log.
BURST: Final = 60
ONE_EACH_S: Final = 20.0

#: Entries that wait while Redis is away.
WAITING_MAX: Final = 100

#: A bridge that does not keep the log of a cell offers its decision again after this, in seconds.
OFFER_EVERY_S: Final = 5.0


@dataclass(slots=True)
class CellLog:
    """What one bridge has to log of one cell.

    `last` is the limit that was logged last, None if the log may have another one. `waiting` are
    entries that Redis does not have yet.
    """

    last: Limit | None = None
    waiting: deque[Logged] = field(default_factory=lambda: deque(maxlen=WAITING_MAX))
    took: Took = field(default_factory=Took)
    offered_at: float = -math.inf
    _left: float = BURST
    _filled_at: float = -math.inf

    def note(self, decision: Decision, at: datetime, now: float) -> None:
        """Take a decision into the log, if it is another one; `now` is monotonic."""
        if decision.limit is self.last:
            return
        self._left = min(BURST, self._left + max(0.0, now - self._filled_at) / ONE_EACH_S)
        self._filled_at = now
        if self._left < 1:
            return
        self._left -= 1
        self.last = decision.limit
        self.waiting.append(Logged(at=at, decision=decision))


@dataclass(slots=True)
class Deciding:
    """A cell whose decisions are logged while `is_served`."""

    cell: BridgeCell
    intake: Intake
    life: Life
    is_served: Callable[[], bool] = lambda: True
    log: CellLog = field(default_factory=CellLog)
    has_begun: bool = False

    async def begin(self) -> None:
        """Log since when no bridge served the cell, if that was so."""
        others = await self.cell.ledger.served_by()
        others.pop(self.cell.bridge, None)
        silent_s = min(others.values(), default=0.0)
        if silent_s >= BRIDGE_DEAD_AFTER_S:
            since = self.cell.clock.now() - timedelta(seconds=silent_s)
            self.log.note(self._unserved(silent_s), since, self._monotonic)
        self.has_begun = True

    def _unserved(self, silent_s: float) -> Decision:
        return decide(self._situation({}, bridge_silent_s=silent_s))

    async def look(self) -> None:
        """Decide, and note what is new."""
        cell = self.cell
        states = await cell.registry.pbxs(cell.pbxs, cell.name, max_age_s=STATE_AGE_S)
        situation = self._situation(states, live=self.life.live, waiting=self.life.waiting)
        is_open = not (situation.paused or situation.closed) and situation.taking
        if not is_open or not self.life.is_known:
            live, waiting = await cell.ledger.sizes()
            situation = self._situation(states, live=live, waiting=waiting)
        self.log.note(decide(situation), cell.clock.now(), self._monotonic)

    def suffer(self, redis: Obstacle) -> None:
        """Note that a Redis cannot be used."""
        decision = decide(self._situation({}, redis=redis))
        self.log.note(decision, self.cell.clock.now(), self._monotonic)

    def news(self) -> News | None:
        """Return what is to be written, None if nothing is."""
        took, log, now = self.intake.lately.seen(self._monotonic), self.log, self._monotonic
        is_offer = log.waiting and now - log.offered_at >= OFFER_EVERY_S
        if took == log.took == Took() and not is_offer:
            return None
        return News(
            cell=self.cell.ledger.keys,
            took=took,
            at_ms=round(self.cell.clock.now().timestamp() * 1000),
            entries=tuple(log.waiting) if is_offer else (),
        )

    def written(self, news: News, *, keeps_log: bool) -> None:
        """Note that the news are written."""
        self.log.took = news.took
        for _ in news.entries:
            if keeps_log and self.log.waiting:
                self.log.waiting.popleft()
        if news.entries and not keeps_log:
            self.log.offered_at = self._monotonic
            while len(self.log.waiting) > 1:
                self.log.waiting.popleft()  # the bridge that keeps the log has its own

    @property
    def _monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def _situation(
        self,
        states: Mapping[str, PbxState],
        *,
        live: int = 0,
        waiting: int = 0,
        redis: Obstacle | None = None,
        bridge_silent_s: float = 0.0,
    ) -> Situation:
        cell = self.cell
        limits, now = cell.settings.limits, cell.clock.now()
        parked = dict(self.intake.parked)
        return Situation(
            cell=cell.name,
            threads=cell.settings.threads,
            live=live,
            waiting=waiting + sum(parked.values()),
            parked=parked,
            paused=cell.paused,
            closed="" if limits.is_open(now) else limits.time_zone,
            redis=redis,
            broker=cell.dispatcher.problem,
            bridge_silent_s=bridge_silent_s,
            pbxs=[state.facts(cell.name) for state in states.values()],
            took=self.intake.lately.seen(self._monotonic),
        )


@dataclass(slots=True)
class Decisions:
    """The decision log of the bridge named `bridge` for cells on one server.

    `registry` are the steps of the registry's Redis.
    """

    bridge: str
    steps: Steps
    registry: Steps
    cells: list[Deciding] = field(default_factory=list)

    async def run(self) -> None:
        """Log decisions until cancelled."""
        while True:
            if not self._redis_obstacle:
                try:
                    await self._unless_down(self._look())
                except RedisError as error:
                    await self._refused(error)
            if (obstacle := self._redis_obstacle) is not None:
                for cell in self._served:
                    cell.suffer(obstacle)
            await asyncio.sleep(EVERY_S)

    @property
    def _served(self) -> list[Deciding]:
        return [cell for cell in self.cells if cell.is_served()]

    @property
    def _redis_obstacle(self) -> Obstacle | None:
        return self.steps.obstacle or self.registry.obstacle

    async def _unless_down(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`; give it up if a Redis goes down."""
        await self.steps.or_none_if_down(self.registry.or_none_if_down(work))

    async def _look(self) -> None:
        """Decide on each cell, and write what is new."""
        for cell in self._served:
            if not cell.cell.clock.is_measured:
                continue
            if not cell.has_begun:
                await cell.begin()
            await cell.look()
        news = [(cell, one) for cell in self._served if (one := cell.news()) is not None]
        if not news:
            return
        kept = await write_news(self.steps, self.bridge, [one for _, one in news])
        for (cell, one), keeps_log in zip(news, kept, strict=True):
            cell.written(one, keeps_log=keeps_log)

    async def _refused(self, error: RedisError) -> None:
        for cell in self._served:
            cell.suffer(redis_obstacle(self.steps.where, error))
        logger.error(
            "Redis refused a command; trying again",
            extra={"redis": self.steps.where, "part": "decision log", "error": str(error)},
        )
        await asyncio.sleep(REFUSED_PAUSE_S)
