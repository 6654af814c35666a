"""The cells that a bridge serves by one reading of the settings, from start to end in order.

Owns the connections and the tasks; knows nothing of signals, nor where settings come from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, Never, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.bridge.cell import BridgeCell
from dialer.bridge.codes import Codes
from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.intake import Intake
from dialer.bridge.recovery import Recovery
from dialer.errors import ConfigError
from dialer.settings import Cell, Pbx, Settings
from dialer.settings.kept import cells_of, text_of
from dialer.store.cells import CellBook
from dialer.store.client import cancel, connect
from dialer.store.ledger import BridgeLedger
from dialer.store.registry import Registry
from dialer.store.servers import Servers

logger = logging.getLogger(__name__)

#: At a stop, what goes from the hand into the ledger has this long to get there, in seconds.
ROUND_WITHIN_S: Final = 1.0

#: Longest wait for the hand to be put back at a stop, in seconds.
LEAVE_WITHIN_S: Final = 3.5

#: Pause after a server refused a command for good, before it is tried anew, in seconds.
REFUSED_PAUSE_S: Final = 5.0

#: How often a cell that is no longer in the settings is looked at, in seconds.
LAST_CALLS_EVERY_S: Final = 0.5

#: Between the lease of a slot and the admission of its call there is less than this, in seconds.
LEASED_WITHIN_S: Final = 1.0

#: How often the settings of a served cell are kept beside its calls, in seconds.
KEEP_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """One cell as the settings have it. `all_pbxs` names every PBX of theirs.

    `draining`: the settings lack it. Its calls are finished, no new request is taken.
    """

    cell: Cell
    pbxs: tuple[Pbx, ...]
    all_pbxs: tuple[str, ...]
    redis_url: str
    push: Literal["right", "left"]
    pbx_lost_after_s: float
    draining: bool = False

    @property
    def ledger_id(self) -> tuple[str, str]:
        """Which ledger it is: on another Redis a cell of the same name is another one."""
        return self.cell.name, self.redis_url


def plans_of(settings: Settings, chosen: Sequence[str]) -> list[CellPlan]:
    """The chosen cells (none named: all).

    Raises:
        ConfigError: a name is no cell's.
    """
    known = {cell.name for cell in settings.cells}
    for name in chosen:
        if name not in known:
            raise ConfigError(
                f"there is no cell {name!r} in the configuration; "
                f"cells are {', '.join(sorted(known))}"
            )
    return [
        _plan(settings, cell, settings.cell_redis_url(cell))
        for cell in settings.cells
        if not chosen or cell.name in chosen
    ]


def _plan(settings: Settings, cell: Cell, redis_url: str, *, draining: bool = False) -> CellPlan:
    known = [pbx.name for pbx in settings.pbxs]  # a cell that left may name a PBX that left too
    return CellPlan(
        cell=cell,
        pbxs=tuple(settings.pbx(name) for name in cell.pbxs if name in known),
        all_pbxs=tuple(known),
        redis_url=redis_url,
        push=settings.multcall.push,
        pbx_lost_after_s=settings.recovery.pbx_lost_after,
        draining=draining,
    )


@dataclass(slots=True)
class ServedCell:
    """One cell and the parts of the bridge that serve it. `is_alone` as its recovery has it."""

    plan: CellPlan
    site: BridgeCell
    clients: tuple[Redis, Redis]
    is_alone: Callable[[], bool]
    intake: Intake = field(init=False)
    codes: Codes = field(init=False)
    recovery: Recovery = field(init=False)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_over: bool = False

    def __post_init__(self) -> None:
        self.intake = Intake(self.site, self.clients[0])
        self.codes = Codes(self.site, self.clients[1])
        self.recovery = Recovery(
            self.site,
            self.plan.pbx_lost_after_s,
            took_over=self._look_into_hand,
            is_alone=self.is_alone,
        )

    def _look_into_hand(self) -> None:
        self.intake.reload = True

    async def start(self) -> None:
        """Takes over what dead bridges had in hand, then starts every part."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "codes": self.codes.run,
            "late codes": self.codes.run_late,
            "heartbeat": self.recovery.run_heartbeat,
            "recovery": self.recovery.run,
            "reaper": self.recovery.run_reaper,
            "kept settings": self._keep_settings,
        }
        if not self.plan.draining:
            parts["intake"] = self.intake.run
        # Before anything is taken; where the cell's Redis is away, its first heartbeat does it.
        taking_over = asyncio.create_task(self.recovery.take_over())
        if not await self.site.ledger.steps.wait_done_or_down(taking_over):
            taking_over.cancel()
        self.tasks = [
            asyncio.create_task(self._to_its_end(part, name), name=name)
            for name, part in parts.items()
        ]
        if self.plan.draining:
            last = self._to_its_end(partial(self._drain, tuple(self.tasks)), "last calls")
            self.tasks.append(asyncio.create_task(last, name="last calls"))

    async def _to_its_end(self, part: Callable[[], Awaitable[None]], name: str) -> None:
        """Keeps a part running where Redis refuses a command for good: one cell stops no other."""
        while True:
            try:
                await part()
                return
            except RedisError as error:
                logger.exception(
                    "Redis refused a command; trying anew",
                    extra={"cell": self.plan.cell.name, "part": name, "error": str(error)},
                )
                self._look_into_hand()
                await asyncio.sleep(REFUSED_PAUSE_S)

    async def _keep_settings(self) -> None:
        """Keeps them beside the calls, for ever: who starts without can end what is under way."""
        book = CellBook(self.site.ledger.steps)
        while True:
            await book.write(self.plan.cell.name, text_of(self.plan.cell))
            await asyncio.sleep(KEEP_EVERY_S)

    async def _drain(self, parts: Sequence[asyncio.Task[None]]) -> None:
        """Wait until a removed cell has no calls left, then stop serving it."""
        ledger = self.site.ledger
        while True:
            if await ledger.hand(self.site.bridge):  # a dead bridge's: Multcall's again
                await ledger.return_hand(self.site.bridge)
            elif not await ledger.calls():
                break
            await asyncio.sleep(LAST_CALLS_EVERY_S)
        await cancel(parts)
        await self._leave()
        # Nobody looks at its slots from now on. (A bridge that still has the cell may be leasing.)
        await asyncio.sleep(LEASED_WITHIN_S)
        await self.recovery.release_leaked(older_than_s=LEASED_WITHIN_S)
        self.is_over = True
        logger.info("A cell that left the settings is empty", extra={"cell": self.plan.cell.name})

    async def stop(self) -> None:
        """Ends every part and puts back what is in hand, where Redis answers in time."""
        # Not amid a round, where that can be had soon: a slot leased and not used, or a call
        # admitted and not published, is mended by the recovery, but only after a while.
        try:
            async with asyncio.timeout(ROUND_WITHIN_S):
                await self.intake.placing.acquire()
                await self.recovery.moving.acquire()
        except TimeoutError:
            pass  # a Redis or the broker is away
        await cancel(self.tasks)
        if not self.is_over:
            await self._leave()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self.site.ledger.return_hand(self.site.bridge)
        except (TimeoutError, RedisError) as error:
            logger.warning(
                "What is in hand could not be put back; another bridge will take it over",
                extra={
                    "cell": self.plan.cell.name,
                    "error": str(error) or "Redis does not answer",
                },
            )


@dataclass(slots=True)
class Served:
    """Every cell of one reading. `failure` holds what ended a part that should run for ever."""

    cells: list[ServedCell] = field(default_factory=list)
    failure: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _servers: Servers = field(default_factory=Servers)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _watch: asyncio.Task[Never] | None = None

    @classmethod
    async def connect(
        cls,
        plans: Sequence[CellPlan],
        registry_url: str,
        *,
        bridge: str,
        dispatcher: Dispatcher,
        known: Set[str] = frozenset(),
    ) -> Self:
        """Connects to every Redis and serves nothing yet.

        Args:
            plans: the cells.
            registry_url: the Redis of the registry, which must answer.
            bridge: this process's name in the ledgers.
            dispatcher: sends the tasks.
            known: Redis servers in use. Of these some may be away; where there are any, every
                other one must answer.

        Raises:
            StoreUnavailable: a Redis that must answer does not.
        """
        served = cls()
        try:
            servers = served._servers
            served._stack.push_async_callback(servers.close)
            registry = Registry(await servers.at(registry_url, "the registry's Redis"))
            staying = {plan.cell.name: plan.redis_url for plan in plans if not plan.draining}
            for name, url in staying.items():
                if known and url not in known:
                    await servers.at(url, f"the Redis of cell {name}")
            await servers.of_cells(staying)
            for plan in plans:
                what = f"the Redis of cell {plan.cell.name}"
                steps = await servers.at(plan.redis_url, what, must_answer=False)
                served._add(
                    plan,
                    BridgeCell(
                        bridge=bridge,
                        cell=plan.cell,
                        pbxs=plan.pbxs,
                        all_pbxs=plan.all_pbxs,
                        ledger=BridgeLedger(steps, plan.cell.name, plan.push),
                        registry=registry,
                        dispatcher=dispatcher,
                    ),
                )
        except BaseException:
            await served.close()
            raise
        return served

    def _add(self, plan: CellPlan, site: BridgeCell) -> None:
        clients = (connect(plan.redis_url), connect(plan.redis_url))
        for client in clients:
            self._stack.push_async_callback(client.aclose)

        def is_alone() -> bool:
            return [p.cell.name for p in self.plans].count(plan.cell.name) <= 1

        self.cells.append(ServedCell(plan, site, clients, is_alone))

    @property
    def plans(self) -> list[CellPlan]:
        """Of the cells that are still served."""
        return [cell.plan for cell in self.cells if not cell.is_over]

    async def unserved(self, settings: Settings) -> list[CellPlan]:
        """Cells on these servers that nobody serves, with what is under way: to be seen out.

        Servers that are away, or refuse to tell, are passed over.
        """
        mine = {plan.ledger_id for plan in self.plans}
        found: dict[str, CellPlan] = {}
        for url, steps in self._servers.known.items():
            try:
                texts = await steps.or_none_if_down(CellBook(steps).unserved()) or {}
            except RedisError as error:
                logger.exception(
                    "Redis refused a command; trying anew",
                    extra={"redis": steps.where, "part": "unserved cells", "error": str(error)},
                )
                continue
            for cell in cells_of(texts):
                plan = _plan(settings, cell, url, draining=True)
                if plan.ledger_id not in mine:
                    found.setdefault(cell.name, plan)
        return list(found.values())

    async def start(self) -> None:
        """Serves from now on."""
        self._watch = asyncio.create_task(self._servers.watch(), name="Redis steps")
        self._watch.add_done_callback(self._ended)
        for cell in self.cells:
            await cell.start()
            for task in cell.tasks:
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failure.done():
            self.failure.set_exception(error)

    async def stop(self) -> None:
        """Serves no more, and has nothing in hand."""
        await asyncio.gather(*(cell.stop() for cell in self.cells))

    async def close(self) -> None:
        """Gives the connections up."""
        if self._watch is not None:
            await cancel([self._watch])
        await self._stack.aclose()


def removed_cells(old: Iterable[CellPlan], new: Iterable[CellPlan]) -> list[CellPlan]:
    """The old cells that the new settings lack, to be brought to their end."""
    staying = {plan.ledger_id for plan in new}
    return [replace(plan, draining=True) for plan in old if plan.ledger_id not in staying]
