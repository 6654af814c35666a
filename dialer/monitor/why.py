"""Why a cell does not dial, now or at a time of the last 24 hours. Read-only but for one probe."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from dialer.domain.limits import Limit
from dialer.domain.why import LATE_BRIDGE_S, Decision, Obstacle, Situation, decide
from dialer.errors import ConfigError, DialerError, StoreUnavailable
from dialer.monitor.snapshot import take_snapshot
from dialer.settings import Cell, Settings
from dialer.settings.live import with_parameters
from dialer.store.client import connect, require
from dialer.store.ledger import DecisionReads, Survey
from dialer.store.parameters import ParameterStore
from dialer.store.registry import Registry
from dialer.store.steps import Steps, redis_obstacle, redis_time

#: A Redis that does not answer in this time counts as away, in seconds.
ANSWER_WITHIN_S: Final = 1.5


class NothingKnown(DialerError):
    """The decision log has nothing of that time."""

    code = "nothing_known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The limit that bound a cell at `at`, and since when; `until` is None if it still does.

    `since` is None if nobody knows. `age_s` is how old the information is, in seconds.
    """

    decision: Decision
    at: datetime
    since: datetime | None = None
    until: datetime | None = None
    age_s: float = 0.0


async def why(settings: Settings, cell: str, at: datetime | None = None) -> Why:
    """Return the limit of that cell and how long it binds it; `at` is a time in the past.

    Raises:
        ConfigError: there is no such cell.
        NothingKnown: the log has nothing of that time.
        StoreUnavailable: it is asked for the past, and the cell's Redis does not answer.
    """
    async with AsyncExitStack() as stack:
        reader = _Reader(settings, settings.cell(cell), stack)
        if at is not None and at < datetime.now(UTC):
            return await reader.then(at)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await reader.now()
        except StoreUnavailable as error:
            redis = Obstacle(limit=Limit.REDIS_AWAY, reason=str(error))
        except TimeoutError as error:
            redis = redis_obstacle(reader.asking, error)
        unknown = Situation(cell=cell, threads=reader.cell.threads, redis=redis)
        return Why(decision=decide(unknown), at=datetime.now(UTC))


def time_of(text: str, cell: Cell) -> datetime:
    """Return the time that was typed: 10:42, or with a date, in the cell's time zone or its own.

    Raises:
        ConfigError: it is no time, or has not come yet.
    """
    zone = ZoneInfo(cell.limits.time_zone)
    now = datetime.now(zone)
    is_of_day = re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text) is not None
    try:
        if not is_of_day and ":" not in text:
            raise ValueError
        at = datetime.fromisoformat(f"{now.date()}T{text.zfill(5)}" if is_of_day else text)
    except ValueError:
        raise ConfigError(
            f"{text} is no time: write 10:42, 10:42:30, or 2026-11-27T10:42"
        ) from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone)
    if is_of_day and at > now:
        at -= timedelta(days=1)
    if at > now:
        raise ConfigError(f"{text} has not come yet; it is {now:%Y-%m-%d %H:%M} in {zone}")
    return at


@dataclass(slots=True)
class _Reader:
    """Reads about one cell. `cell` are its settings of the file, `asking` is which Redis is asked.

    The registry is asked first, so that a cell's Redis is not blamed for it.
    """

    file: Settings
    cell: Cell
    stack: AsyncExitStack
    asking: str = ""

    async def now(self) -> Why:
        steps = await self._steps(self.file.registry_redis_url, "the registry's Redis")
        live = with_parameters(self.file, await ParameterStore(steps).read())
        cell_steps = await self._of_cell()
        cell = live.settings.cell(self.cell.name)
        pbxs = [live.settings.pbx(name) for name in cell.pbxs]
        of_cell = [(Survey(cell_steps), {cell.name: cell.pbxs})]
        snapshot = await take_snapshot(Registry(steps), pbxs, of_cell, live=live)
        state = snapshot.cells[cell.name]
        decision, now = snapshot.decision(cell.name), await _time_of(cell_steps)
        since = now  # the log may not have it yet
        if decision.limit is Limit.NO_BRIDGE:
            since = await DecisionReads(cell_steps, cell.name).kept_until() or now
        elif state.logged is not None and state.logged.decision.limit is decision.limit:
            since = state.logged.at
        return Why(decision=decision, at=now, since=since)

    async def then(self, at: datetime) -> Why:
        steps = await self._of_cell()
        log = DecisionReads(steps, self.cell.name)
        logged, after = await log.in_force_at(at)
        if logged is None:
            raise NothingKnown(
                f"nothing is known of {at:%Y-%m-%d %H:%M:%S %Z}: the decision log of "
                f"{self.cell.name} keeps 24 hours, and begins when its bridge first runs"
            )
        now = await _time_of(steps)
        found = Why(
            decision=logged.decision,
            at=at,
            since=logged.at,
            until=after.at if after is not None else None,
            age_s=(now - at).total_seconds(),
        )
        kept_until = await log.kept_until()
        if after is not None or kept_until is None:
            return found
        silent_s = (at - kept_until).total_seconds()
        if silent_s < LATE_BRIDGE_S:
            return found
        gone = Situation(cell=self.cell.name, threads=self.cell.threads, bridge_silent_s=silent_s)
        return replace(found, decision=decide(gone), since=kept_until)

    async def _of_cell(self) -> Steps:
        where = f"the Redis of cell {self.cell.name}"
        return await self._steps(self.file.cell_redis_url(self.cell), where)

    async def _steps(self, url: str, where: str) -> Steps:
        self.asking = where
        steps = Steps(connect(url), where)
        self.stack.push_async_callback(steps.close)
        await require(steps.redis, url, where)
        return steps


async def _time_of(steps: Steps) -> datetime:
    """Return the time of a Redis, which all times of the log are."""
    return datetime.fromtimestamp(await redis_time(steps), UTC)
