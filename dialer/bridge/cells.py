"""The cells that a bridge serves with one version of the settings.

Owns the connections and supervises the tasks. Does not know signals or the settings file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from redis.exceptions import RedisError

from dialer.bridge.cell import BridgeCell
from dialer.bridge.decisions import Deciding, Decisions
from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.life import BLOCK_QUIET_S
from dialer.bridge.operators import Operators, Watched
from dialer.bridge.own_state import OwnState
from dialer.bridge.plans import CellPlan, in_force, plan_of
from dialer.bridge.pulse import Beating, Pulse
from dialer.bridge.served_cell import ServedCell
from dialer.domain.numbers import Numbering
from dialer.domain.parameters import Parameters
from dialer.errors import TaskEnded
from dialer.settings import Settings
from dialer.settings.kept import cells_of
from dialer.settings.live import Live
from dialer.store.cells import CellBook
from dialer.store.client import cancel, connect
from dialer.store.clock import RedisClock
from dialer.store.ledger import BridgeLedger
from dialer.store.parameters import ParameterStore, Watch
from dialer.store.redis_url import reply_timeout_s
from dialer.store.registry import Registry
from dialer.store.servers import Servers

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Served:
    """All cells of one version of the file. `live` has the live parameters over it.

    `failure` is set if a background task ended unexpectedly.
    """

    cells: list[ServedCell] = field(default_factory=list)
    failure: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _servers: Servers = field(default_factory=Servers)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _own: list[asyncio.Task[Any]] = field(default_factory=list)
    _own_state: OwnState | None = None
    live: Watch | None = None
    _pulses: dict[str, Pulse] = field(default_factory=dict)
    _decisions: dict[str, Decisions] = field(default_factory=dict)
    _operators: dict[str, Operators] = field(default_factory=dict)
    _is_stopping: bool = False

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
        """Connect to every Redis without serving yet.

        Args:
            plans: the cells.
            registry_url: the Redis of the registry, which must answer.
            bridge: this process's name in the ledgers.
            dispatcher: sends the tasks.
            known: Redis servers in use, which may be down. If there are any, every other server
                must answer.

        Raises:
            StoreUnavailable: a Redis that must answer does not.
            StoreUnfit: the registry's Redis refuses to tell the live parameters.
        """
        served = cls()
        try:
            servers = served._servers
            served._stack.push_async_callback(servers.close)
            registry = await servers.at(registry_url, "the registry's Redis")
            served._own_state = OwnState(bridge, Registry(registry), dispatcher)
            served.live = Watch(ParameterStore(registry))
            await served.live.begin()
            registries: dict[Numbering, Registry] = {}  # cells share their readings
            staying = {plan.cell.name: plan.redis_url for plan in plans if not plan.draining}
            for name, url in staying.items():
                if known and url not in known:
                    await servers.at(url, f"the Redis of cell {name}")
            await servers.of_cells(staying)
            for plan in plans:
                what = f"the Redis of cell {plan.cell.name}"
                steps = await servers.at(plan.redis_url, what, must_answer=False)
                pulse = served._pulses.setdefault(
                    plan.redis_url, Pulse(bridge, steps, RedisClock())
                )
                served._decisions.setdefault(plan.redis_url, Decisions(bridge, steps, registry))
                served._operators.setdefault(plan.redis_url, Operators(steps))
                served._add(
                    plan,
                    BridgeCell(
                        bridge=bridge,
                        settings=plan.cell,
                        pbxs=plan.limits,
                        all_pbxs=plan.all_pbxs,
                        ledger=BridgeLedger(
                            steps, plan.cell.name, plan.push, plan.wire.fields, plan.numbering
                        ),
                        registry=registries.setdefault(
                            plan.numbering, Registry(registry, plan.numbering)
                        ),
                        dispatcher=dispatcher,
                        wire=plan.wire,
                        clock=pulse.clock,
                        reply_within_s=reply_timeout_s(plan.redis_url),
                    ),
                )
        except BaseException:
            await served.close()
            raise
        return served

    def _add(self, plan: CellPlan, cell: BridgeCell) -> None:
        intake, codes = (connect(plan.redis_url, waits_s=BLOCK_QUIET_S) for _ in range(2))
        for client in (intake, codes):
            self._stack.push_async_callback(client.aclose)

        def is_alone() -> bool:
            return [p.cell.name for p in self.plans].count(plan.cell.name) <= 1

        served = ServedCell(plan, cell, (intake, codes), is_alone)
        self.cells.append(served)
        self._pulses[plan.redis_url].cells.append(
            Beating(served.life, served.recovery, lambda: not served.is_ending)
        )
        self._operators[plan.redis_url].cells.append(Watched(cell, lambda: not served.is_ending))
        # Those that are drained too: of two bridges that beat for a cell one keeps its log.
        self._decisions[plan.redis_url].cells.append(
            Deciding(cell, served.intake, served.life, lambda: not served.is_ending)
        )

    @property
    def parameters(self) -> Parameters:
        """Return the live parameters as last read."""
        return self.live.parameters if self.live is not None else Parameters()

    @property
    def news(self) -> Sequence[str]:
        """Return what the last change of live parameters changed, and who did it."""
        return self.live.news if self.live is not None else ()

    def take_over(self, other: Served) -> None:
        """Know the live parameters that the other version, of the same registry, has in force."""
        if self.live is not None and other.live is not None:
            self.live.take_over(other.live)

    def apply(self, live: Live) -> None:
        """Serve all cells by these settings from now on; calls are not touched."""
        for cell in self.cells:
            cell.apply(in_force(cell.plan, live))

    @property
    def plans(self) -> list[CellPlan]:
        """Return the plans of the cells that are still served."""
        return [cell.plan for cell in self.cells if not cell.is_over]

    async def unserved(self, settings: Settings) -> list[CellPlan]:
        """Find cells on these servers that have calls and no bridge, to drain them.

        Skip servers that are down or refuse.
        """
        mine = {plan.ledger_id for plan in self.plans}
        found: dict[str, CellPlan] = {}
        for url, steps in self._servers.known.items():
            try:
                texts = await steps.or_none_if_down(CellBook(steps).unserved()) or {}
            except RedisError as error:
                logger.exception(
                    "Redis refused a command; trying again",
                    extra={"redis": steps.where, "part": "unserved cells", "error": str(error)},
                )
                continue
            for cell in cells_of(texts):
                plan = plan_of(settings, cell, url, draining=True)
                if plan.ledger_id not in mine:
                    found.setdefault(cell.name, plan)
        return list(found.values())

    async def start(self, on_change: Callable[[Parameters], None]) -> None:
        """Start to serve every cell. `on_change` is called when live parameters have changed."""
        self._supervise(asyncio.create_task(self._servers.watch(), name="Redis steps"))
        if self.live is not None:
            watch = self.live.run(on_change)
            self._supervise(asyncio.create_task(watch, name="live parameters"))
        if self._own_state is not None:
            self._supervise(asyncio.create_task(self._own_state.run(), name="own state"))
        for pulse in self._pulses.values():
            self._supervise(asyncio.create_task(pulse.run(), name="heartbeat"))
        for operators in self._operators.values():
            self._supervise(asyncio.create_task(operators.run(), name="operators of Multcall"))
        for decisions in self._decisions.values():
            self._supervise(asyncio.create_task(decisions.run(), name="decision log"))
        for cell in self.cells:
            await cell.start()
            for task in cell.tasks:
                self._supervise(task, cell)

    def _supervise(self, task: asyncio.Task[Any], cell: ServedCell | None = None) -> None:
        """Set `failure` if the task ends although we did not cancel it."""
        if cell is None:
            self._own.append(task)
        task.add_done_callback(partial(self._ended, cell))

    def _ended(self, cell: ServedCell | None, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        is_expected = self._is_stopping or (cell is not None and cell.is_ending and error is None)
        if is_expected or self.failure.done():
            return
        name = cell.plan.cell.name if cell is not None else None
        reason = "it was cancelled" if task.cancelled() else "it returned"
        failure = error or TaskEnded(f"the background task {task.get_name()!r} ended: {reason}")
        logger.critical(
            "Background task ended unexpectedly; the bridge ends",
            extra={"cell": name, "task": task.get_name(), "reason": repr(failure)},
        )
        self.failure.set_exception(failure)

    async def stop(self) -> None:
        """Stop serving; put the hands back."""
        self._is_stopping = True
        await asyncio.gather(*(cell.stop() for cell in self.cells))

    async def close(self) -> None:
        """Close the connections."""
        self._is_stopping = True
        await cancel(self._own)
        await self._stack.aclose()
