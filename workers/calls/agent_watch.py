"""Watch the operators of this PBX's queues, show them, and reserve one for each call.

The events of app_queue make the picture (`dialer.domain.agents`); counts of Asterisk confirm it.
The members of a queue are listed when the AMI link comes up, and again only if a count differs.

A cell whose mode is not `ura` dials only if an operator is free for the call: `progressive` one
call for each, `power` more. A call takes its place from the claim until an operator has it, or its
end. The worker decides this alone, so that two bridges cannot dial twice for one operator; what
its heartbeat says keeps the bridges from queueing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from dialer.domain.agents import (
    STALE_AFTER_S,
    Agent,
    AgentCompleted,
    Agents,
    Team,
)
from dialer.domain.limits import Limit
from dialer.domain.request import cell_of
from dialer.domain.why import Obstacle
from dialer.errors import AmiUnavailable
from dialer.settings import Cell
from dialer.store.agents import AgentStore
from dialer.store.ledger.fence import Fence
from workers.ami.agent_events import translate_agent
from workers.ami.connection import Fields
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.pbx.questions import Questions
from workers.pbx.state import PbxState

logger = logging.getLogger(__name__)

#: Each queue is counted this often, in seconds; less often if there are many.
COUNT_EVERY_S: Final = 3.0

#: A queue is counted this often while only a count tells if an operator still wraps up. In seconds.
COUNT_SOON_S: Final = 0.5

#: Average limit of AMI actions per second for these counts. Each count is two.
COUNTS_PER_S: Final = 5.0

#: The members of one queue are listed at most this often, in seconds: a list locks the queue.
LIST_EVERY_S: Final = 10.0

#: That a count differs is logged at most this often for a queue, in seconds.
LOG_EVERY_S: Final = 600.0

#: Events of one moment are shown together after this time, in seconds.
TOGETHER_S: Final = 0.05

#: Longest pause between two looks, in seconds; the shorter one if a cell reserves operators.
LOOK_EVERY_S: Final = 1.0
RESERVED_LOOK_EVERY_S: Final = 0.25

#: All agents are shown again this often, in seconds: the registry may have lost its last writes.
SHOW_ALL_EVERY_S: Final = 30.0


@dataclass(slots=True)
class AgentWatch:
    """The operators of one PBX. Belongs to the worker's event loop.

    `beat` writes a heartbeat now. `calls` are the followed calls.
    """

    state: PbxState
    questions: Questions
    cells: Cells
    calls: Calls
    store: AgentStore
    fence: Fence
    beat: Callable[[], Awaitable[None]]
    agents: Agents = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _shown: dict[str, Agent] = field(default_factory=dict)
    _all_shown_at: float = 0.0
    _said: object = None
    _count_at: dict[str, float] = field(default_factory=dict)
    _listed_at: dict[str, float] = field(default_factory=dict)
    _logged_at: dict[str, float] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.agents = Agents(frozenset(), self._day)

    # --- what Asterisk says -------------------------------------------------------------

    def on_event(self, fields: Fields) -> None:
        """Take note of an event of app_queue."""
        event = translate_agent(fields)
        if event is None:
            return
        self.agents.on(event, self._now)
        if isinstance(event, AgentCompleted):
            self._count_at[event.queue] = self._now + TOGETHER_S  # how long is the wrap-up time?
        self._changed.set()

    async def restore(self) -> None:
        """Take over what the former worker of this PBX showed."""
        found = await self.store.read([self.state.name])
        self.agents.restore(found[self.state.name])

    async def list_all(self) -> None:
        """List the members of all queues, and count them.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        self.agents.watch(self._queues)
        for queue in sorted(self._queues):
            await self._list(queue)
            await self._count(queue)
        self._changed.set()

    async def _list(self, queue: str) -> None:
        members = await self.questions.members(queue)
        self._listed_at[queue] = self._now
        self.agents.listed(queue, members, self._now)

    async def _count(self, queue: str) -> None:
        free, ready = await self.questions.free_and_ready(queue)
        now = self._now
        agrees = self.agents.counted(queue, free, ready, now)
        if not agrees and now - self._listed_at.get(queue, 0.0) >= LIST_EVERY_S:
            if now - self._logged_at.get(queue, 0.0) >= LOG_EVERY_S:
                self._logged_at[queue] = now
                logger.warning(
                    "Asterisk counts other free operators than its events said; its list counts "
                    "now. If this comes again, add agent to the read of the AMI user",
                    extra={"pbx": self.state.name, "queue": queue, "free": free},
                )
            await self._list(queue)
        pause_s = max(COUNT_EVERY_S, 2 * len(self._queues) / COUNTS_PER_S)
        if not agrees or self.agents.must_count(queue, now):
            pause_s = COUNT_SOON_S
        self._count_at[queue] = now + pause_s

    # --- what is shown ------------------------------------------------------------------

    async def run(self) -> None:
        """Count, and show what has changed, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._changed.wait()
            await asyncio.sleep(TOGETHER_S)
            self._changed.clear()
            with contextlib.suppress(AmiUnavailable):  # listed again with the next link
                await self._count_due()
            await self._show()

    @property
    def _pause_s(self) -> float:
        reserves = any(cell.asks_asterisk for cell in self.cells)
        return RESERVED_LOOK_EVERY_S if reserves else LOOK_EVERY_S

    async def _count_due(self) -> None:
        if not self.state.link.ready:
            return
        if self._queues != self.agents.queues:  # live parameters changed the cells of this PBX
            await self.list_all()
        for queue in sorted(self._queues):
            if self._count_at.get(queue, 0.0) <= self._now:
                await self._count(queue)

    async def _show(self) -> None:
        now = self._now
        self._log_stale(now)
        seen = {agent.interface: agent for agent in self.agents.seen(now)}
        are_all = now - self._all_shown_at >= SHOW_ALL_EVERY_S
        changed = [a for i, a in seen.items() if are_all or self._shown.get(i) != a]
        gone = self._shown.keys() - seen.keys()
        if changed or gone or (are_all and self._shown):
            await self.store.show(
                self.state.name, changed, gone=gone, are_all=are_all, fence=self.fence.number
            )
            self._shown = seen
        if are_all:
            self._all_shown_at = now
        if (said := (self.teams(), self.rooms(), {*self.obstacles()})) != self._said:
            self._said = said
            await self.beat()

    def _log_stale(self, now: float) -> None:
        if not self.state.link.ready:
            return
        asked = {cell.queue for cell in self._reserving() if cell.queue}
        stale = {queue for queue in asked if self.agents.is_stale(queue, now)}
        for queue in sorted(stale - self._stale):
            logger.error(
                "What the operators of a queue do is not known; calls that need one are not dialed",
                extra={"pbx": self.state.name, "queue": queue, "reason": _STALE_CURE},
            )
        for queue in sorted(self._stale - stale):
            logger.warning(
                "What the operators of a queue do is known again",
                extra={"pbx": self.state.name, "queue": queue},
            )
        self._stale = stale

    def has_operator(self, queue: str) -> bool | None:
        """True if somebody of a queue takes calls, now or later; None if that is not known."""
        return self.agents.has_operator(queue, self._now)

    def teams(self) -> dict[str, Team]:
        """Return the agents of each queue, for the heartbeat."""
        now = self._now
        return {queue: self.agents.team(queue, now) for queue in sorted(self._queues)}

    # --- one operator for each call ------------------------------------------------------

    def rooms(self) -> dict[str, int]:
        """Return how many more calls the operators allow, for each cell that reserves them."""
        return {cell.name: self.room(cell) for cell in self._reserving()}

    def obstacles(self) -> Mapping[str, Obstacle]:
        """Return why the operators prevent calls, for each cell whose calls they prevent."""
        found = {cell.name: self.obstacle(cell) for cell in self._reserving()}
        return {name: one for name, one in found.items() if one is not None}

    def why_not(self, name: str) -> str:
        """Return why the operators prevent a call of a cell now, '' if they do not."""
        cell = self.cells.get(name)
        found = self.obstacle(cell) if cell is not None else None
        return found.reason if found is not None else ""

    def room(self, cell: Cell) -> int:
        """Return how many more calls of a cell the operators allow now, negative if too many.

        An operator of several queues counts once, for all calls of these queues.
        """
        assert cell.queue is not None, "only cells with a queue reserve operators here"
        return min(
            int(cell.calls_per_agent * self._free(queues)) - self._without_agent(queues)
            for queues in (frozenset({cell.queue}), self.agents.pool(cell.queue))
        )

    def obstacle(self, cell: Cell) -> Obstacle | None:
        """Return why the operators prevent calls of a cell, None if they do not."""
        queue = cell.queue
        if queue is None or not cell.asks_asterisk:
            return None
        pbx, now = self.state.name, self._now
        if self.agents.is_stale(queue, now):
            reason = f"what the operators of queue {queue} of {pbx} do is not known: {_STALE_CURE}"
            return Obstacle(limit=Limit.STALE_AGENTS, reason=reason)
        if self.room(cell) > 0:
            return None
        free = self._free(frozenset({queue}))
        if not free:
            team = self.agents.team(queue, now).in_words()
            reason = f"nobody is free in queue {queue} of {pbx}: {team}"
            return Obstacle(limit=Limit.NO_AGENTS, reason=reason)
        reason = f"all free operators of queue {queue} of {pbx} ({free}) have calls on their way"
        return Obstacle(limit=Limit.AGENTS_RESERVED, reason=reason)

    def _free(self, queues: frozenset[str]) -> int:
        """Return how many operators of these queues are free, or ring for a call of ours."""
        return self.agents.free(queues, self._is_ours, self._now)

    def _is_ours(self, caller: str) -> bool:
        return self.calls.by_uniqueid(caller) is not None

    def _without_agent(self, queues: frozenset[str]) -> int:
        """Return how many calls of these queues have no operator yet."""
        of_cells = {cell.name for cell in self.cells if cell.queue in queues}
        wait = {f.call.call_id for f in self.calls.followed() if f.agent is None}
        return sum(cell_of(one) in of_cells for one in wait.union(self.calls.being_claimed()))

    def _reserving(self) -> list[Cell]:
        pbx = self.state.name
        return [c for c in self.cells if c.asks_asterisk and c.queue and pbx in c.pbxs]

    @property
    def _queues(self) -> frozenset[str]:
        pbx = self.state.name
        return frozenset(cell.queue for cell in self.cells if cell.queue and pbx in cell.pbxs)

    @property
    def _now(self) -> float:
        return self.state.clock.now().timestamp()

    def _day(self, at: float) -> str:
        zone = next((ZoneInfo(cell.limits.time_zone) for cell in self.cells), UTC)
        return str(datetime.fromtimestamp(at, zone).date())


_STALE_CURE: Final = (
    f"no count of Asterisk confirmed it for {STALE_AFTER_S:.0f} s; see that the AMI user has "
    "read = agent, and that Asterisk answers"
)
