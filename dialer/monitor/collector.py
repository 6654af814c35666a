"""The collector: reads the whole system with the fixed connections of one program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from redis.exceptions import RedisError

from dialer.domain.limits import Limit
from dialer.errors import ConfigError, StepsStopped, StoreUnavailable
from dialer.monitor.snapshot import OUTCOMES_OF_MIN, Snapshot, take_snapshot
from dialer.settings import Settings
from dialer.settings.live import Live, with_parameters
from dialer.store.client import connect, has_replicas, require
from dialer.store.fitness import read_facts, require_usable, unfit
from dialer.store.ledger import Minute, Outcomes, Survey
from dialer.store.parameters import ParameterStore, Watch
from dialer.store.redis_url import place_of, redacted
from dialer.store.registry import Registry
from dialer.store.steps import Steps

#: If a cell's Redis may be away, it has so long to answer, in seconds.
CELLS_WITHIN_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look found. `unfit` are sentences about a Redis that calls must not be kept in.

    `counted` has the outcomes of each cell since the collector began, and of the hour before.
    """

    live: Live
    snapshot: Snapshot
    unfit: Sequence[str]
    counted: Mapping[str, Outcomes]


@dataclass(slots=True)
class Collector:
    """Reads the cells on one Redis, or all. An asynchronous context manager.

    `server` is `host` or `host:port` of the Redis, '' for all. `cell_urls` has the Redis of each
    cell. If `needs_every_redis` is false, only the registry's Redis must answer: cells whose Redis
    is away are unreadable until it is back. `on_stopped` is called if an unexpected error stops the
    steps of a Redis; the owner must then end its process.
    """

    settings: Settings
    server: str = ""
    needs_every_redis: bool = True
    on_stopped: Callable[[StepsStopped], None] | None = None
    cell_urls: Mapping[str, str] = field(init=False)
    _by_url: dict[str, Steps] = field(default_factory=dict)
    _surveys: dict[str, Survey] = field(default_factory=dict)
    _live: Live = field(init=False)
    _watch: Watch = field(init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConfigError: no cell is on the server.
            StoreUnavailable: a Redis that must answer cannot be reached.
            StoreUnfit: a Redis is too old, or a cluster.
        """
        self.cell_urls = cells_at(self.settings, self.server)
        try:
            for url in {self.settings.registry_redis_url, *self.cell_urls.values()}:
                await self._connect(url)
        except BaseException:
            await self._stack.aclose()
            raise
        self._surveys = {
            url: Survey(self._by_url[url], OUTCOMES_OF_MIN) for url in self.cell_urls.values()
        }
        self._live = Live(settings=self.settings)
        self._watch = Watch(self.parameters, restores=False)
        return self

    async def _connect(self, url: str) -> None:
        where = "Redis" if self.needs_every_redis else f"Redis at {place_of(url)}"
        steps = self._by_url[url] = Steps(
            connect(url), where, replicated=has_replicas(url), on_stopped=self.on_stopped
        )
        self._stack.push_async_callback(steps.close)
        try:
            await require(steps.redis, url, "the monitored Redis")
        except StoreUnavailable as error:
            if self.needs_every_redis or url == self.settings.registry_redis_url:
                raise
            steps.mark_down(error.__cause__ or error)
        else:
            await require_usable(steps.redis, url, "the monitored Redis")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def look(self) -> Seen:
        """Read everything once."""
        if await self._watch.look():
            self._live = with_parameters(self.settings, self._watch.parameters)
        live = self._live
        snapshot = await take_snapshot(
            Registry(self.registry),
            live.settings.pbxs,
            [(survey, self._pbxs_of_cells(url)) for url, survey in self._surveys.items()],
            live=live,
            cells_within_s=None if self.needs_every_redis else CELLS_WITHIN_S,
        )
        return Seen(
            live=live,
            snapshot=snapshot,
            unfit=await self._unfit(snapshot),
            counted={
                cell: counted
                for survey in self._surveys.values()
                for cell, counted in survey.counted.items()
            },
        )

    @property
    def registry(self) -> Steps:
        """The steps of the registry's Redis."""
        return self._by_url[self.settings.registry_redis_url]

    @property
    def parameters(self) -> ParameterStore:
        """The live parameters."""
        return ParameterStore(self.registry)

    def steps_at(self, url: str) -> Steps:
        """Return the steps of the Redis at the URL of a cell."""
        return self._by_url[url]

    def minutes(self, cell: str) -> Mapping[int, Minute]:
        """Return what the last look read of the last hour, by minute since 1970."""
        return self._surveys[self.cell_urls[cell]].by_minute(cell)

    def _pbxs_of_cells(self, url: str) -> dict[str, tuple[str, ...]]:
        """Return the cells on one Redis, each with its PBXs."""
        cells = self._live.settings.cells
        return {cell.name: cell.pbxs for cell in cells if self.cell_urls.get(cell.name) == url}

    async def _unfit(self, snapshot: Snapshot) -> list[str]:
        found = []
        refusing = snapshot.refusing.items()
        away = {self.cell_urls[c] for c, one in refusing if one.limit is Limit.REDIS_AWAY}
        for url, steps in self._by_url.items():
            if url in away:
                continue
            with contextlib.suppress(RedisError, OSError):  # it is read again soon
                if trouble := unfit(await read_facts(steps.redis)):
                    found.append(f"Redis at {redacted(url)} {trouble}")
        return found


def cells_at(settings: Settings, server: str) -> dict[str, str]:
    """Return the cells on that Redis with their URLs; all if it is ''.

    Raises:
        ConfigError: there are none.
    """
    urls = {cell.name: settings.cell_redis_url(cell) for cell in settings.cells}
    found = {cell: url for cell, url in urls.items() if not server or _is_at(server, url)}
    if not found:
        known = ", ".join(sorted({place_of(url) for url in urls.values()}))
        raise ConfigError(f"no cell is on the Redis {server}; there are: {known}")
    return found


def _is_at(server: str, url: str) -> bool:
    places = place_of(url).split(",")
    return server in places or server in [place.rpartition(":")[0] for place in places]
