"""Everything one worker does for its PBX, on one event loop: link, tracker, heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from redis.exceptions import RedisError

from dialer import failpoints, watchdog
from dialer.domain.call import Call, Ending
from dialer.domain.request import cell_of
from dialer.errors import AmiUnavailable
from dialer.settings import Pbx, Settings
from dialer.store.cells import CellBook
from dialer.store.client import cancel
from dialer.store.ledger import WorkerLedger
from dialer.store.registry import HEARTBEAT_EVERY_S, Link, Registry
from dialer.store.servers import Servers
from dialer.store.steps import Steps
from workers.ami import AmiLink
from workers.ami.connection import Fields
from workers.ami.events import WANTED_EVENTS, translate
from workers.calls.journal import REFUSED_PAUSE_S
from workers.calls.originate import Originator
from workers.calls.tracker import Tracker
from workers.pbx.targets import LOOK_EVERY_S, Targets
from workers.recovery.reconcile import Reconciler

logger = logging.getLogger(__name__)

#: How often calls are looked for whose end was missed, in seconds.
SWEEP_EVERY_S: Final = 60.0

#: At a graceful stop, what is still to be written has this long, in seconds.
STOP_WITHIN_S: Final = 3.0


@dataclass(slots=True)
class PbxWorker:
    """The worker of one PBX. `on_done` hears of every call that ended here."""

    settings: Settings
    pbx: Pbx
    on_done: Callable[[Call, Ending], None]
    originator: Originator = field(init=False)
    _link: AmiLink = field(init=False)
    _tracker: Tracker = field(init=False)
    _reconciler: Reconciler = field(init=False)
    _targets: Targets = field(init=False)
    _registry: Registry = field(init=False)
    _servers: Servers = field(default_factory=Servers)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _instance: str = ""
    _stopping: asyncio.Task[None] | None = None
    _placing: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> asyncio.Task[None]:
        """Connects to Redis and starts the link; returns the link's task, which never ends well.

        Raises:
            StoreUnavailable: a Redis cannot be reached.
        """
        if failpoints.armed():
            logger.warning("Failure points are armed: this is a test")
        settings = self.settings
        self._registry = Registry(
            await self._servers.at(settings.registry_redis_url, "the registry's Redis")
        )
        # Also those that do not name this PBX (any more): it may have calls of theirs.
        cells = {cell.name: cell for cell in settings.cells}
        urls = {name: settings.cell_redis_url(cell) for name, cell in cells.items()}
        push = settings.multcall.push
        ledgers = {
            name: WorkerLedger(steps, name, push)
            for name, steps in (await self._servers.of_cells(urls)).items()
        }
        self._link = AmiLink(self.pbx, WANTED_EVENTS, self._on_event, self._on_up, self._on_down)
        self._tracker = Tracker(
            pbx=self.pbx.name,
            cells=cells,
            ledgers=ledgers,
            registry=self._registry,
            on_done=self.on_done,
            forget=self._link.forget,
            settle=lambda followed, at: self._reconciler.settle(followed, at),
        )
        self._reconciler = Reconciler(self._link, self._tracker)
        self._targets = Targets(self.pbx.name, self._link, lambda: self._reconciler.has_include)
        self.originator = Originator(
            self.pbx, self._link, self._tracker, self._reconciler, self._targets
        )
        for steps in self._servers.known.values():
            await steps.or_none_if_down(self._learn_departed(steps))
            steps.on_recovered = partial(self._on_redis_back, steps)
        self._new_instance()
        link = asyncio.create_task(self._link.run(), name="AMI link")
        self._tasks = [
            link,
            asyncio.create_task(self._for_ever(self._beat), name="heartbeat"),
            asyncio.create_task(self._for_ever(self._sweep), name="sweep"),
            asyncio.create_task(self._look_for_ever(), name="targets"),
        ]
        return link

    async def _learn_departed(self, steps: Steps) -> None:
        """Serves cells that left the settings too, by those they had, while they have calls."""
        tracker = self._tracker
        try:
            for cell in await CellBook(steps).cells():
                ledger = WorkerLedger(steps, cell.name, self.settings.multcall.push)
                if cell.name not in tracker.cells and await ledger.calls():
                    tracker.cells[cell.name] = cell
                    tracker.ledgers[cell.name] = ledger
        except RedisError as error:
            logger.error(  # noqa: TRY400  # the sentence says it all
                "Redis does not say which cells left the settings; their calls wait until this "
                "worker is restarted",
                extra={"redis": steps.where, "error": str(error)},
            )

    async def until_ready(self) -> None:
        """Waits until calls can be placed."""
        await self._link.up.wait()

    async def place(self, call_id: str, epoch: int) -> None:
        """Places a call for a task; see `Originator.place`.

        Where the cell's Redis is away, the placing goes on without the task: its thread is
        for the calls of other cells. Once the Redis is back, the call is placed or given back.
        """
        if self._stopping is not None:
            return
        task = asyncio.create_task(self.originator.place(call_id, epoch))
        self._placing.add(task)
        task.add_done_callback(self._placing.discard)
        ledger = self._tracker.ledgers.get(cell_of(call_id))
        if ledger is None or await ledger.steps.wait_done_or_down(task):
            await task
        else:
            self._tracker.writes.keep(task)

    async def begin_stop(self) -> None:
        """No new calls from here on: the bridge sends them elsewhere."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._begin_stop(), name="begin to stop")
        await asyncio.shield(self._stopping)

    async def _begin_stop(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._say("stopping"), STOP_WITHIN_S)
        if self._placing:
            await asyncio.wait(self._placing, timeout=STOP_WITHIN_S)
            for task in self._placing:
                task.cancel()

    async def stop(self) -> None:
        """Writes what it knows and lets go; the calls stay up, the next start adopts them."""
        await self.begin_stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._tracker.writes.drain(), STOP_WITHIN_S)
        await cancel(self._tasks)
        await self._servers.close()

    # --- parts ---------------------------------------------------------------------

    def _new_instance(self) -> None:
        self._instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def _on_event(self, fields: Fields) -> None:
        event = translate(fields)
        if event is not None:
            self._tracker.on_event(event)

    async def _on_up(self) -> None:
        await self._reconciler.run()
        await self._link.check_rights()  # after it: calls that ended are answered in any case
        self._new_instance()  # what was queued here and lost with the link is sent again
        if not self._reconciler.has_include:
            logger.warning(
                "The dialplan include is missing: calls that end while this worker or its link is "
                "down are answered UNKNOWN; put deploy/asterisk/dialer.conf into extensions.conf",
                extra={"pbx": self.pbx.name},
            )
        await self._look()
        logger.info(
            "PBX ready",
            extra={"pbx": self.pbx.name, "asterisk": await self._link.version()},
        )

    def _on_down(self) -> None:
        self._tracker.buffer = None

    def _on_redis_back(self, steps: Steps) -> None:
        self._tracker.writes.keep(asyncio.create_task(self._redis_back(steps)))

    async def _redis_back(self, steps: Steps) -> None:
        await self._learn_departed(steps)
        for ledger in self._tracker.ledgers.values():
            if ledger.steps is steps:
                self._tracker.writes.keep(asyncio.create_task(self._reconciler.ledger_back(ledger)))

    async def _for_ever(self, part: Callable[[], Awaitable[None]]) -> None:
        """Keeps a part running where Redis refuses a command for good, and says so."""
        while True:
            try:
                await part()
            except RedisError:
                logger.exception(
                    "Redis refused a command; trying anew", extra={"pbx": self.pbx.name}
                )
                await asyncio.sleep(REFUSED_PAUSE_S)

    async def _beat(self) -> None:
        await watchdog.process.keep_beating(
            "heartbeat",
            self._write_heartbeat,
            every_s=HEARTBEAT_EVERY_S,
            is_down=lambda: self._registry.steps.outage,
            status=lambda: f"AMI link {self._link_word}, {len(self._tracker.calls)} calls",
        )

    @property
    def _link_word(self) -> Link:
        return "up" if self._link.ready else "down"

    async def _write_heartbeat(self) -> None:
        if self._stopping is None:
            await self._say(self._link_word)

    async def _say(self, link: Link) -> None:
        await self._registry.heartbeat(
            self.pbx.name,
            instance=self._instance,
            link=link,
            facts={
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "calls": len(self._tracker.calls),
                "boot": self._reconciler.boot,
                "include": int(self._reconciler.has_include),
                "lacking": json.dumps(self._targets.lacking),
            },
        )

    async def _sweep(self) -> None:
        cleaned = 0
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            if not self._link.ready:
                continue
            with contextlib.suppress(AmiUnavailable):
                if self._tracker.calls:
                    await self._reconciler.sweep()
                if cleaned != self._link.session:
                    await self._reconciler.forget_old()
                    cleaned = self._link.session

    async def _look(self) -> None:
        """Looks what cells lack here, so that none is dialed without.

        Raises:
            AmiUnavailable: the link was lost meanwhile.
        """
        if await self._targets.look([*self._tracker.cells.values()]):
            self._new_instance()  # what was queued here meanwhile is sent again

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not self._link.ready:
                continue
            try:
                await self._look()
            except AmiUnavailable:
                pass  # all begins anew with the next link
            except Exception:
                logger.exception("What cells lack could not be seen", extra={"pbx": self.pbx.name})
