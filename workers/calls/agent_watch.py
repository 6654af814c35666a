"""Watch the operators of this PBX's queues, show them, and reserve one for each call.

The events of app_queue make the picture (`dialer.domain.agents`); counts of Asterisk confirm it.
The members of a queue are listed when the AMI link comes up, and again only if a count differs.

A cell whose mode is not `ura` dials only if an operator is free for the call: `progressive` one
call for each, `power` more. A call takes its place from the claim until it needs no operator any
longer: it left the queue, it is a machine that gets none, or it has ended. The worker decides this
alone, so that two bridges cannot dial twice for one operator; what its heartbeat says keeps the
bridges from queueing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
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
    CallerLeft,
    Team,
    room_for,
)
from dialer.domain.followed import Followed
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
LIST_EVERY_S: Final = 7.0

#: A queue whose counts do not confirm all is listed this often, in seconds.
DOUBTFUL_LIST_EVERY_S: Final = 60.0

#: A stale queue was not confirmed by so many counts in a row, if they are that rare.
STALE_COUNTS: Final = 2.5

#: A call that was answered longer ago waits in its queue if it has no operator, in seconds.
JOINED_WITHIN_S: Final = 10.0

#: What app_amd says of a machine.
MACHINE: Final = "MACHINE"

#: A difference of the clock that is no drift, in seconds.
CLOCK_SET_S: Final = 2.0

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

    `beat` writes a heartbeat now. `on_room` is called when operators allow calls again. `calls` are
    the followed calls. Times are those of Redis when the watch began, and go on by the monotonic
    clock; if Redis's clock is set, they all move.
    """

    state: PbxState
    questions: Questions
    cells: Cells
    calls: Calls
    store: AgentStore
    fence: Fence
    beat: Callable[[], Awaitable[None]]
    on_room: Callable[[], None] = lambda: None
    agents: Agents = field(init=False)
    _offset_s: float | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _shown: dict[str, Agent] = field(default_factory=dict)
    _all_shown_at: float = 0.0
    _said: object = None
    _count_at: dict[str, float] = field(default_factory=dict)
    _listed_at: dict[str, float] = field(default_factory=dict)
    _logged_at: dict[str, float] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)
    #: Followed calls that need no operator any longer: they left their queue.
    _served: set[str] = field(default_factory=set)
    #: How many more calls of each cell the operators allowed at the last look.
    _rooms: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.agents = Agents(frozenset(), self._day)

    # --- what Asterisk says -------------------------------------------------------------

    def on_event(self, fields: Fields) -> None:
        """Take note of an event of app_queue."""
        event = translate_agent(fields)
        if event is None:
            return
        self.agents.on(event, self._now)
        if isinstance(event, CallerLeft) and (call_id := self.calls.by_uniqueid(event.caller)):
            self._served.add(call_id)
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
        asked_at = self._now
        members, waiting = await self.questions.members(queue)
        self._listed_at[queue] = self._now
        self.agents.listed(queue, members, self._now, asked_at)
        for followed in self._calls_of(queue):
            if self._has_left(followed, waiting):
                self._served.add(followed.call.call_id)

    def _has_left(self, followed: Followed, waiting: frozenset[str]) -> bool:
        """True if a call has an operator, though nobody said so: the worker was not there."""
        answered_at = followed.call.answered_at
        if answered_at is None or waiting.intersection(followed.uniqueids):
            return False
        return (self.state.clock.now() - answered_at).total_seconds() > JOINED_WITHIN_S

    async def _count(self, queue: str) -> None:
        free, ready = await self.questions.free_and_ready(queue)
        now = self._now
        agrees = self.agents.counted(queue, free, ready, now)
        listed_s = now - self._listed_at.get(queue, 0.0)
        if listed_s >= DOUBTFUL_LIST_EVERY_S and self.agents.is_doubtful(queue, now):
            await self._list(queue)
        if not agrees and listed_s >= LIST_EVERY_S:
            if now - self._logged_at.get(queue, 0.0) >= LOG_EVERY_S:
                self._logged_at[queue] = now
                logger.warning(
                    "Asterisk counts other free operators than its events said; its list counts "
                    "now. If this comes again, add agent to the read of the AMI user",
                    extra={"pbx": self.state.name, "queue": queue, "free": free},
                )
            await self._list(queue)
        pause_s = max(COUNT_EVERY_S, 2 * len(self._queues) / COUNTS_PER_S)
        self.agents.stale_after_s = max(STALE_AFTER_S, STALE_COUNTS * pause_s)
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
        self._follow_clock()
        now = self._now
        self._log_stale(now)
        self._served = {one for one in self._served if one in self.calls}
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
        before, self._rooms = self._rooms, self.rooms()
        if any(room > 0 and before.get(cell, 0) <= 0 for cell, room in self._rooms.items()):
            self.on_room()
        if (said := (self.teams(), self._rooms)) != self._said:
            self._said = said
            if self._reserving():  # else the next heartbeat is soon enough
                await self.beat()

    def _follow_clock(self) -> None:
        """Move all times if the clock of Redis was set."""
        by_s = self.state.clock.now().timestamp() - self._now
        if abs(by_s) < CLOCK_SET_S:
            return
        assert self._offset_s is not None, "it was read"
        self._offset_s += by_s
        self.agents.shift(by_s)
        self._all_shown_at = 0.0
        for times in (self._count_at, self._listed_at, self._logged_at):
            for queue in times:
                times[queue] += by_s

    def _log_stale(self, now: float) -> None:
        if not self.state.link.ready:
            return
        asked = {cell.queue.casefold() for cell in self._reserving() if cell.queue}
        stale = {queue for queue in asked if self.agents.is_stale(queue, now)}
        for queue in sorted(stale - self._stale):
            logger.error(
                "What the operators of a queue do is not known; calls that need one are not dialed",
                extra={"pbx": self.state.name, "queue": queue, "reason": self._stale_cure},
            )
        for queue in sorted(self._stale - stale):
            logger.warning(
                "What the operators of a queue do is known again",
                extra={"pbx": self.state.name, "queue": queue},
            )
        self._stale = stale

    def has_operator(self, queue: str) -> bool | None:
        """True if somebody of a queue takes calls, now or later; None if that is not known."""
        return self.agents.has_operator(queue.casefold(), self._now)

    def teams(self) -> dict[str, Team]:
        """Return the agents of each queue, by its name in the settings, for the heartbeat."""
        now = self._now
        names = sorted({cell.queue for cell in self._watched() if cell.queue})
        return {name: self.agents.team(name.casefold(), now) for name in names}

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
        groups = self.agents.groups(self._is_ours, self._now)
        return room_for(cell.queue.casefold(), cell.calls_per_agent, self._demands(), groups)

    def obstacle(self, cell: Cell) -> Obstacle | None:
        """Return why the operators prevent calls of a cell, None if they do not."""
        if cell.queue is None or not cell.asks_asterisk:
            return None
        pbx, now, queue = self.state.name, self._now, cell.queue.casefold()
        if self.agents.is_stale(queue, now):
            what = f"what the operators of queue {cell.queue} of {pbx} do is not known"
            reason = f"{what}: {self._stale_cure}"
            return Obstacle(limit=Limit.STALE_AGENTS, reason=reason)
        if self.room(cell) > 0:
            return None
        team = self.agents.team(queue, now)
        if team.available:
            reason = (
                f"all free operators of queue {cell.queue} of {pbx} ({team.available}) have calls "
                "on their way"
            )
            return Obstacle(limit=Limit.AGENTS_RESERVED, reason=reason)
        reason = f"nobody is free in queue {cell.queue} of {pbx}: {team.in_words()}"
        limit = Limit.AGENTS_BUSY if team.at_work else Limit.NO_AGENTS
        return Obstacle(limit=limit, reason=reason)

    @property
    def _stale_cure(self) -> str:
        return (
            f"no count of Asterisk confirmed it for {self.agents.stale_after_s:.0f} s; see that "
            "the AMI user has read = agent, and that Asterisk answers"
        )

    def _is_ours(self, caller: str) -> bool:
        return self.calls.by_uniqueid(caller) is not None

    def _demands(self) -> dict[str, int]:
        """Return how many calls of each queue have no operator yet, and may need one."""
        claiming = Counter(
            cell_of(one) for one in self.calls.being_claimed() if one not in self.calls
        )
        found: Counter[str] = Counter()
        for cell in self.cells:
            if cell.queue is not None:
                wait = sum(self._needs_agent(one, cell) for one in self.calls.in_cell(cell.name))
                found[cell.queue.casefold()] += wait + claiming[cell.name]
        return found

    def _needs_agent(self, followed: Followed, cell: Cell) -> bool:
        is_over = followed.hangup is not None or followed.over_at is not None
        is_left = followed.amd == MACHINE and cell.amd in {"hangup", "message"}
        goes_elsewhere = followed.request.context is not None
        has_agent = followed.agent is not None or followed.call.call_id in self._served
        return not (is_over or is_left or goes_elsewhere or has_agent)

    def _calls_of(self, queue: str) -> list[Followed]:
        return [
            followed
            for cell in self.cells
            if cell.queue is not None and cell.queue.casefold() == queue
            for followed in self.calls.in_cell(cell.name)
        ]

    def _watched(self) -> list[Cell]:
        pbx = self.state.name
        return [cell for cell in self.cells if cell.queue and pbx in cell.pbxs]

    def _reserving(self) -> list[Cell]:
        return [cell for cell in self._watched() if cell.asks_asterisk]

    @property
    def _queues(self) -> frozenset[str]:
        return frozenset(cell.queue.casefold() for cell in self._watched() if cell.queue)

    @property
    def _now(self) -> float:
        if self._offset_s is None:
            self._offset_s = self.state.clock.now().timestamp() - self.state.monotonic()
        return self._offset_s + self.state.monotonic()

    def _day(self, at: float) -> str:
        zone = next((ZoneInfo(cell.limits.time_zone) for cell in self.cells), UTC)
        return str(datetime.fromtimestamp(at, zone).date())
