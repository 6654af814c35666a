"""The worker of one PBX on one event loop: AMI link, calls, heartbeat, checks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from dialer import failpoints, watchdog
from dialer.domain.call import Call, Ending
from dialer.domain.followed import Followed
from dialer.domain.limits import Limit
from dialer.domain.parameters import Parameters, Subject
from dialer.domain.request import cell_of
from dialer.errors import (
    AmiLoginRefused,
    AmiUnavailable,
    ConfigError,
    DialerError,
    Fenced,
    StepsStopped,
)
from dialer.event_loop import running_name
from dialer.settings import Pbx, Settings
from dialer.settings.broker_url import is_rabbitmq
from dialer.settings.kept import cells_of
from dialer.settings.live import with_parameters
from dialer.steering import Made, Steering
from dialer.store.agents import AgentStore, agents_text
from dialer.store.cells import CellBook
from dialer.store.client import cancel
from dialer.store.fitness import check_broker
from dialer.store.ledger import WorkerLedger
from dialer.store.ledger.fence import Fence
from dialer.store.ledger.unannounced import unannounced
from dialer.store.parameters import ParameterStore, Watch
from dialer.store.registry import HEARTBEAT_EVERY_S, Registry
from dialer.store.servers import Servers
from dialer.store.steps import Steps
from workers.ami import AmiLink
from workers.ami.agent_events import AGENT_EVENTS
from workers.ami.connection import Fields
from workers.ami.events import WANTED_EVENTS, translate
from workers.calls.agent_watch import AgentWatch
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.calls.journal import Journal
from workers.calls.originate import Originator
from workers.calls.tracker import Tracker
from workers.pbx.governor import PbxGovernor
from workers.pbx.hand_overs import HandOvers
from workers.pbx.lease import PbxLease
from workers.pbx.presence import Presence
from workers.pbx.questions import Questions
from workers.pbx.state import PbxState
from workers.pbx.targets import QUEUE_EVENTS, Targets
from workers.recovery.reconcile import Reconciler
from workers.recovery.replay import Replay

logger = logging.getLogger(__name__)

#: How often long calls are checked for a missed Hangup, in seconds.
CHECK_EVERY_S: Final = 120.0

#: Time limit of a graceful stop, in seconds.
STOP_WITHIN_S: Final = 7.0

#: Time limit in it for calls that are being dialed, in seconds.
DIALING_WITHIN_S: Final = 3.0

#: Time limit for the return of the lease, in seconds.
LET_GO_WITHIN_S: Final = 1.0

#: A queued call of which no message came for so long is dialed without it, in seconds.
ANNOUNCED_WITHIN_S: Final = 0.5


#: Calls that waited while this worker could not dial are no sign of lost messages: those that it
#: finds within so many seconds afterwards do not count.
SETTLED_S: Final = 5.0


@dataclass(slots=True)
class PbxWorker:
    """The worker of one PBX. `on_done` is called for every call that ended here.

    `settings` and `pbx` are those of the file. The live parameters lie over them.
    `failure` is done when a background task has ended before the stop; the process must end.
    `broker_trouble` returns why no nudges come from the broker, '' if they do. `is_revoked` tells
    if somebody revoked a call that is not dialed yet.
    `check_every_s` is the pause between two checks of long calls.
    """

    settings: Settings
    pbx: Pbx
    on_done: Callable[[Call, Ending], None]
    check_every_s: float = CHECK_EVERY_S
    broker_trouble: Callable[[], str] = str
    is_revoked: Callable[[str], bool] = frozenset[str]().__contains__
    failure: asyncio.Future[None] = field(init=False)
    link: AmiLink = field(init=False)
    state: PbxState = field(init=False)
    governor: PbxGovernor = field(init=False)
    _cells: Cells = field(default_factory=Cells)
    _calls: Calls = field(default_factory=Calls)
    _servers: Servers = field(default_factory=Servers)
    _journal: Journal = field(init=False)
    _registry: Registry = field(init=False)
    _live: Watch = field(init=False)
    _lease: PbxLease = field(init=False)
    _presence: Presence = field(init=False)
    _fence: Fence = field(init=False)
    _tracker: Tracker = field(init=False)
    _reconciler: Reconciler = field(init=False)
    _targets: Targets = field(init=False)
    _agents: AgentWatch = field(init=False)
    _originator: Originator = field(init=False)
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    _stopping: asyncio.Task[None] | None = None
    _trouble: str = ""
    _logged_trouble: str = ""
    _dialing: set[asyncio.Task[None]] = field(default_factory=set)
    _look_now: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        wanted = WANTED_EVENTS | QUEUE_EVENTS | AGENT_EVENTS
        self.link = AmiLink(self.pbx, wanted, self._on_event, self._on_up)
        self.state = PbxState(self.pbx.name, self.link)
        self.governor = PbxGovernor(
            self.pbx.name, float(self.pbx.cps), self.link, is_on=self.pbx.governor
        )
        self._journal = Journal(self.pbx.name)
        self._fence = Fence(self.pbx.name)

    async def start(self) -> asyncio.Task[None]:
        """Connect to Redis and start; return the AMI link's task, which only ends by raising.

        Raises:
            StoreUnavailable: a Redis cannot be reached.
            PbxHeld: another worker serves this PBX.
            StoreUnfit: a Redis answers, but cannot be used as it is.
        """
        if failpoints.is_armed():
            logger.warning("Failure points are armed: this is a test")
        self.failure = asyncio.get_running_loop().create_future()
        if not is_rabbitmq(self.settings.broker.url):
            await check_broker(self.settings.broker.url)
        url = self.settings.registry_redis_url
        self._registry = Registry(await self._servers.at(url, "the registry's Redis"))
        self._lease = PbxLease(self._registry, self._fence, self.state.clock)
        await self._lease.take()
        self.state.looks += [
            (Limit.REDIS_AWAY, lambda: self._lease.trouble),
            (Limit.CLOCK_SKEW, lambda: self.state.clock.trouble),
            (Limit.NOT_CONSUMING, self.broker_trouble),
            (Limit.AMI_DOWN, lambda: self.link.silence),
        ]
        self._presence = Presence(self.pbx.name, self._lease.me, self._lease.pulse)
        await self._connect_cells()
        await self._require_alone()
        self._build()
        self._live = Watch(ParameterStore(self._registry.steps))
        await self._live.begin()
        self._apply(self._live.parameters)
        for steps in self._servers.known.values():
            await steps.or_none_if_down(self._add_removed_cells(steps))
            steps.on_recovered = partial(self._on_redis_back, steps)
        await self._registry.steps.or_none_if_down(self._agents.restore())
        link = self._run("AMI link", self.link.run())
        self._run("heartbeat", self._retry_refused(self._beat))
        self._run("check of long calls", self._check_long_calls())
        self._run("check of targets", self._check_targets_again())
        self._run("governor", self.governor.run())
        self._run("operators", self._retry_refused(self._agents.run))
        self._run("live parameters", self._live.run(self._apply))
        self._run("Redis", self._servers.watch())
        for steps in self._servers.known.values():
            look = self._retry_refused(partial(self._look_for_calls, steps))
            self._run(f"look for calls in {steps.where}", look)
        return link

    async def _refresh(self) -> None:
        """Read the live parameters now, if Redis answers."""
        with contextlib.suppress(RedisError):
            steps = self._registry.steps
            if await steps.or_none_if_down(self._live.look()):
                self._apply(self._live.parameters)

    def _apply(self, parameters: Parameters) -> None:
        """Dial by these live parameters from now on; calls that are up are not touched."""
        self.state.changed_at = self.state.monotonic()
        live = with_parameters(self.settings, parameters)
        for problem in live.problems:
            logger.error(
                "A live parameter is not valid here; the value of dialer.toml is in force",
                extra={"pbx": self.pbx.name, "reason": str(problem)},
            )
        before = [*self._cells]
        for cell in live.settings.cells:
            self._cells.change(cell)
        if [*self._cells] != before:
            self._targets.check_soon()
        self.state.paused = live.pauses
        pbx = live.settings.pbx(self.pbx.name)
        self._originator.pbx = self._targets.pbx = pbx
        self.governor.change(float(pbx.cps), is_on=pbx.governor)
        if parameters.version:
            logger.info(
                "Live parameters are in force",
                extra={
                    "pbx": self.pbx.name,
                    "change": parameters.version,
                    "values": list(self._live.news),
                },
            )

    async def drain(self, *, why: str, by: str) -> Made:
        """Drain this PBX, so that it gets no new calls. This changes a live parameter.

        Raises:
            DialerError: the reason is too long, or others make one change after the other.
        """
        return await self._steering(by).stop(Subject("pbx", self.pbx.name), why=why)

    async def resume(self, *, why: str, by: str) -> Made:
        """End the draining of this PBX.

        Raises:
            DialerError: as `drain`.
        """
        return await self._steering(by).resume(Subject("pbx", self.pbx.name), why=why)

    def _steering(self, by: str) -> Steering:
        return Steering(store=self._live.store, file=self.settings, by=by)

    async def _require_alone(self) -> None:
        """Raise PbxHeld if a worker of this PBX with another registry serves one of the cells."""

        async def look(ledger: WorkerLedger) -> None:
            with contextlib.suppress(RedisError):  # the other cells go on; the log names the right
                alone = self._presence.require_alone(ledger.steps, ledger.cell)
                await ledger.steps.or_none_if_down(alone)

        await asyncio.gather(*map(look, self._cells.ledgers()))

    async def _connect_cells(self) -> None:
        settings = self.settings
        # All cells, even those that no longer list this PBX: it may still have their calls.
        urls = {cell.name: settings.cell_redis_url(cell) for cell in settings.cells}
        steps = await self._servers.of_cells(urls)
        for cell in settings.cells:
            self._cells.add(cell, self._ledger(cell.name, steps[cell.name]))

    def _ledger(self, cell: str, steps: Steps) -> WorkerLedger:
        multcall = self.settings.multcall
        return WorkerLedger(steps, cell, multcall.push, multcall.wire.fields, fence=self._fence)

    def _build(self) -> None:
        """Create the parts; each one knows only those created before it."""
        state, link, cells, calls, journal = (
            self.state, self.link, self._cells, self._calls, self._journal,
        )  # fmt: skip
        state.answered = calls.answered
        hand_overs = HandOvers(state)
        questions = Questions(link)
        self._agents = AgentWatch(
            state,
            questions,
            cells,
            calls,
            AgentStore(self._registry.steps),
            self._fence,
            beat=self._beat_once,
            on_room=self._look_now.set,
        )
        state.without_agent = self._agents.why_not
        known = self._agents.has_operator
        self._targets = Targets(self.pbx, state, link, hand_overs, questions, known)
        self._tracker = Tracker(
            state,
            link,
            cells,
            calls,
            journal,
            self._registry,
            hand_overs,
            self.on_done,
            fence=self._fence,
        )
        replay = Replay(self.pbx.name, calls, self._tracker)
        self._originator = Originator(
            self.pbx,
            state,
            link,
            cells,
            calls,
            self._tracker,
            replay,
            journal,
            self.governor,
            is_revoked=self.is_revoked,
            refresh=self._refresh,
        )
        self._reconciler = Reconciler(state, link, cells, calls, self._tracker, journal, replay)

    def _run(self, name: str, part: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a part in the background; if it ends before the stop, the process must end."""
        task = asyncio.create_task(part, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._part_ended)
        return task

    def _part_ended(self, task: asyncio.Task[Any]) -> None:
        if self.state.is_stopping or self.failure.done():
            return
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Fenced):
            logger.critical(
                "Worker fenced; it ends", extra={"pbx": self.pbx.name, "reason": str(error)}
            )
        elif not isinstance(error, AmiLoginRefused | ConfigError):  # the start says those
            logger.critical(
                "A part of the worker ended unexpectedly; the worker ends",
                exc_info=None if isinstance(error, DialerError) else error,
                extra={"pbx": self.pbx.name, "part": task.get_name(), "error": str(error or "")},
            )
        self.failure.set_result(None)

    async def _add_removed_cells(self, steps: Steps) -> None:
        """Serve cells that were removed from the settings and still have calls."""
        try:
            for cell in cells_of(await CellBook(steps).read()):
                ledger = self._ledger(cell.name, steps)
                if cell.name not in self._cells and await ledger.calls():
                    self._cells.add_removed(cell, ledger)
        except RedisError as error:
            logger.error(  # noqa: TRY400  # needs no traceback
                "Redis refused to list removed cells; their calls wait until this worker is "
                "restarted",
                extra={"redis": steps.where, "error": str(error)},
            )

    # --- dialing and stopping ------------------------------------------------------

    async def until_ready(self) -> None:
        """Wait until calls can be dialed."""
        await self.link.up.wait()

    def followed(self) -> list[Followed]:
        """Return every call that this worker has claimed and that has not ended."""
        return self._calls.followed()

    async def hang_up(self, call_id: str) -> str | None:
        """Hang up a call, as soon as it has a channel; return why Asterisk does not, '' if it does.

        None: it is not followed here.
        """
        if self._calls.get(call_id) is None:
            return None
        return await self._tracker.hang_up(call_id)

    def take(self, call_id: str, epoch: int) -> None:
        """Begin to dial a call for a nudge, and return at once; see `Originator.dial`."""
        if self.state.is_stopping:
            return
        task = self._journal.start(self._dial(call_id, epoch))
        self._dialing.add(task)
        task.add_done_callback(self._dialing.discard)

    async def _dial(self, call_id: str, epoch: int) -> None:
        try:
            await self._originator.dial(call_id, epoch)
        except RedisError as error:
            self.state.refuse(cell_of(call_id), error)
            logger.error(  # noqa: TRY400  # needs no traceback
                "Redis refused a claim; the call stays queued",
                extra={"pbx": self.pbx.name, "call_id": call_id, "error": str(error)},
            )

    async def begin_stop(self) -> None:
        """Stop dialing new calls; the bridge sends them to other PBXs."""
        if self._stopping is None:
            self.state.is_stopping = True
            self.governor.turns.open()  # those that waited are not dialed
            self._stopping = asyncio.create_task(self._begin_stop(), name="begin to stop")
        await asyncio.shield(self._stopping)

    async def _begin_stop(self) -> None:
        with contextlib.suppress(TimeoutError, RedisError, StepsStopped, Fenced):
            await asyncio.wait_for(self._write_heartbeat(), DIALING_WITHIN_S)
        if self._dialing:
            await asyncio.wait(self._dialing, timeout=DIALING_WITHIN_S)
            for task in self._dialing:
                task.cancel()

    async def stop(self) -> None:
        """Finish the pending writes and stop; calls stay up and the next start adopts them."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self.begin_stop()
                await self._journal.wait_done()
        except TimeoutError:
            logger.warning("Worker stopped before all was written; the next start repairs it")
        await self.close()

    async def close(self) -> None:
        """End the background tasks, return the lease and close the connections."""
        self.state.is_stopping = True
        if hasattr(self, "_lease"):  # not if the start failed before
            with contextlib.suppress(TimeoutError, RedisError, StepsStopped):
                await asyncio.wait_for(self._let_go(), LET_GO_WITHIN_S)
            self._lease.pulse.stop()
        await cancel(self._tasks)
        await self._servers.close()

    async def _let_go(self) -> None:
        ledgers = self._cells.ledgers()
        hide = [self._presence.show(one.steps, [one.cell], ended=True) for one in ledgers]
        up = [one.steps.or_none_if_down(end) for one, end in zip(ledgers, hide, strict=True)]
        await asyncio.gather(*up, return_exceptions=True)
        await self._lease.let_go()

    # --- the AMI link --------------------------------------------------------------

    def _on_event(self, fields: Fields) -> None:
        name = fields.get("Event")
        if name in AGENT_EVENTS:
            self._agents.on_event(fields)
        if name in QUEUE_EVENTS:
            self._targets.on_event(fields)
            return
        event = translate(fields)
        if event is not None:
            self.governor.on_event(event)
            self._tracker.on_event(event)

    async def _on_up(self) -> None:
        await self.link.check_version()
        await self._identify()
        await self._reconciler.run()
        await self.link.check_rights()  # last, so that ended calls are answered in any case
        self.state.new_instance()  # a verdict on what was before no longer holds
        if not self.state.has_include:
            logger.warning(
                "The dialplan include is missing: calls that end while this worker or its link is "
                "down are answered UNKNOWN; put deploy/asterisk/dialer.conf into extensions.conf",
                extra={"pbx": self.pbx.name},
            )
        elif not self.state.confirms:
            logger.warning(
                "The dialplan include is an old one: nothing reports if answered calls reach their "
                "target; replace it by deploy/asterisk/dialer.conf and reload the dialplan",
                extra={"pbx": self.pbx.name},
            )
        await self._agents.list_all()
        await self._check_targets()
        logger.info(
            "PBX ready",
            extra={
                "pbx": self.pbx.name,
                "asterisk": await self.link.version(),
                "loop": running_name(),
            },
        )

    async def _identify(self) -> None:
        """Note which Asterisk this is; log it if another one had this PBX's name before.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        self.state.asterisk = await self.link.identity()
        former = await self._registry.steps.or_none_if_down(self._registry.asterisk(self.pbx.name))
        if former and former != self.state.asterisk:
            logger.warning(
                "Another Asterisk serves this PBX now; calls that are up on the former one are "
                "answered UNKNOWN",
                extra={"pbx": self.pbx.name, "former": former, "now": self.state.asterisk},
            )

    # --- Redis ---------------------------------------------------------------------

    def _on_redis_back(self, steps: Steps) -> None:
        self._journal.start(self._redis_back(steps))

    async def _redis_back(self, steps: Steps) -> None:
        await self._add_removed_cells(steps)
        for ledger in self._cells.ledgers():
            if ledger.steps is steps:
                back = partial(self._reconciler.on_ledger_recovered, ledger)
                self._journal.write(ledger.cell, "replay", back)

    async def _retry_refused(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part again if Redis refuses a command for good, and log it."""
        while True:
            try:
                await part()
            except RedisError:
                logger.exception(
                    "Redis refused a command; trying again", extra={"pbx": self.pbx.name}
                )
                await asyncio.sleep(self._journal.refused_pause_s)
            else:
                return

    # --- periodic tasks ----------------------------------------------------------------

    async def _beat(self) -> None:
        await watchdog.process.keep_beating(
            "heartbeat",
            self._beat_once,
            every_s=HEARTBEAT_EVERY_S,
            is_down=lambda: self._registry.steps.is_down,
            status=lambda: f"AMI link {self.state.link_state}, {len(self._calls)} calls",
        )

    async def _beat_once(self) -> None:
        if not self.state.is_stopping:  # begin_stop wrote the last heartbeat
            await self._write_heartbeat()
            self._log_trouble()

    def _log_trouble(self) -> None:
        """Log a trouble that lasts for two heartbeats, and its end, once each."""
        before, self._trouble = self._trouble, self.state.trouble
        if self._trouble != before or self._trouble == self._logged_trouble:
            return
        self._logged_trouble = self._trouble
        extra = {"pbx": self.pbx.name}
        if self._trouble:
            logger.error("PBX takes no calls", extra={**extra, "reason": self._trouble})
        else:
            logger.warning("PBX takes calls again", extra=extra)

    async def _write_heartbeat(self) -> None:
        sent_at = time.monotonic()
        without_agent = self._agents.obstacles()
        beat = await self._registry.heartbeat(
            self.pbx.name,
            instance=self.state.instance,
            link=self.state.link_state,
            facts={
                "host": self._lease.me.host,
                "pid": self._lease.me.pid,
                "calls": len(self._calls),
                "boot": self.state.boot,
                "include": int(self.state.has_include),
                "lacking": json.dumps(
                    {name: one.reason for name, one in without_agent.items()}
                    | self.state.refusals()
                    | self.state.lacking
                ),
                "agents": agents_text(
                    self._agents.teams(), self._agents.rooms(), self.state.instance
                ),
                "trouble": self.state.trouble or self.link.trouble,
                "limits": json.dumps(
                    {
                        "instance": self.state.instance,
                        "of": {name: one.limit for name, one in without_agent.items()}
                        | self.state.known_limits,
                    }
                ),
                "cap": self.state.cap,
                "skew_ms": self.state.clock.skew_ms,
                **({"asterisk": self.state.asterisk} if self.state.asterisk else {}),
                "governor": self.governor.fact(self.state.instance),
                "results": json.dumps(self.state.results.last_minute()),
            },
            holder=self._lease.me.name,
            fence=self._fence.number,
        )
        self.state.clock.hear(beat.now_ms, sent_at)
        if not beat.is_holder:
            self._lease.lost()
        self._lease.renewed(sent_at)

    async def _look_for_calls(self, steps: Steps) -> None:
        """Dial queued calls of which no message came, such as those of a broker that lost some."""
        able_since = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_EVERY_S):
                    await self._look_now.wait()
            self._look_now.clear()
            served = [
                one.cell
                for one in self._cells.ledgers()
                if one.steps is steps and one.cell not in self.state.paused
            ]
            cells = [cell for cell in served if not self.state.reason_not_to_claim(cell)]
            if len(cells) < len(served):
                able_since = time.monotonic()
            try:
                await steps.or_none_if_down(self._show(steps, served))
                found = await steps.or_none_if_down(self._unannounced(steps, cells))
            except RedisError as error:
                for cell in served:
                    self.state.refuse(cell, error)
                raise
            fresh = [one for one in found or [] if not self._is_known(*one)]
            is_settled = time.monotonic() - able_since > SETTLED_S
            for call_id, epoch in fresh:
                if is_settled:
                    self.state.results.count("unannounced")
                self.take(call_id, epoch)
            if fresh:
                logger.info(
                    "Dialing calls that no message announced",
                    extra={"pbx": self.pbx.name, "calls": len(fresh)},
                )

    def _is_known(self, call_id: str, epoch: int) -> bool:
        """True if the call is on its way here: it is being claimed, or waits for its turn."""
        waits = (call_id, epoch) in self.governor.turns
        return waits or self._calls.is_claiming(call_id)

    async def _unannounced(self, steps: Steps, cells: list[str]) -> list[tuple[str, int]]:
        if not cells:
            return []
        return await unannounced(steps, cells, self.pbx.name, older_than_s=ANNOUNCED_WITHIN_S)

    async def _show(self, steps: Steps, cells: list[str]) -> None:
        if not (self._lease.trouble or self.state.is_stopping):
            await self._presence.show(steps, cells)

    async def _check_long_calls(self) -> None:
        cleaned = 0
        while True:
            await asyncio.sleep(self.check_every_s)
            if not self.link.ready:
                continue
            with contextlib.suppress(AmiUnavailable):
                await self._reconciler.check_long_calls()
                if cleaned != self.link.session:
                    await self._reconciler.delete_old_records()
                    cleaned = self.link.session

    async def _check_targets(self) -> None:
        """Check that each cell's answered calls can be taken on this Asterisk.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        if await self._targets.check([*self._cells]):
            self.state.new_instance()  # a verdict on what was before no longer holds

    async def _check_targets_again(self) -> None:
        while True:
            await self._targets.wait_until_due()
            if self.link.ready:
                with contextlib.suppress(AmiUnavailable):  # checked again with the next link
                    await self._check_targets()
