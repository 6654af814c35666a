"""The bridge process: serve cells until a signal; reload the settings on SIGHUP.

Connections and background tasks belong to `dialer.bridge.cells`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dialer import failpoints, watchdog
from dialer.bridge.cells import Served
from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.plans import CellPlan, plans_of, removed_cells
from dialer.bridge.quick_lane import QuickLane
from dialer.bridge.signals import Signals
from dialer.domain.parameters import Parameters
from dialer.errors import DialerError
from dialer.event_loop import new_event_loop, running_name
from dialer.settings import Settings, load
from dialer.settings.broker_url import is_rabbitmq
from dialer.settings.live import with_parameters
from dialer.store.client import cancel, connect
from dialer.store.fitness import check_broker

logger = logging.getLogger(__name__)

#: How often to look for cells that have calls and no bridge, in seconds.
LOOK_FOR_UNSERVED_EVERY_S: Final = 5.0


def run(settings: Settings, cells: Sequence[str] = ()) -> None:
    """Run the bridge for the named cells (none: all) until SIGTERM or SIGINT.

    SIGHUP reads the settings again. An error in them is logged and changes nothing.

    Raises:
        ConfigError: there is no cell of that name.
        StoreUnavailable: a Redis cannot be reached at start.
        StoreUnfit: a Redis answers, but cannot be used as it is.
    """
    plans = plans_of(settings, cells)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(settings, cells, plans))


async def _serve(settings: Settings, chosen: Sequence[str], plans: Sequence[CellPlan]) -> None:
    from dialer.celery import app, ignored_variables  # Celery reads the configuration when imported

    signals = Signals.listen()
    if failpoints.is_armed():
        logger.warning("Failure points are armed: this is a test")
    if names := ignored_variables(os.environ):
        logger.warning(
            "Celery's variables and -b are ignored; dialer.toml has the broker",
            extra={"variables": names},
        )
    lane = None
    if not is_rabbitmq(url := settings.broker.url):
        await check_broker(url)
        lane = QuickLane(app, connect(url))
    dispatcher = Dispatcher(app, lane)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    registry_url = settings.registry_redis_url
    served = await Served.connect(plans, registry_url, bridge=name, dispatcher=dispatcher)
    bridge = _Bridge(name, chosen, dispatcher, signals, settings, settings, served)
    try:
        await bridge.start()
        names = [plan.cell.name for plan in plans]
        logger.info("Bridge ready", extra={"cells": names, "loop": running_name()})
        watchdog.process.ready("Serving")
        await bridge.run()
        watchdog.process.stopping()
        await bridge.served.stop()
        await dispatcher.flush()
    finally:
        await bridge.served.close()
        dispatcher.close()
        if lane is not None:
            await lane.close()
    logger.info("Bridge stopped")


@dataclass(slots=True)
class _Bridge:
    """The process. `settings` are the present ones of the file, `at_start` those of its start.

    `in_force` are the settings with the live parameters, once they are applied. `drain_problem` is
    the last logged reason why cells could not be drained.
    """

    name: str
    chosen: Sequence[str]
    dispatcher: Dispatcher
    signals: Signals
    at_start: Settings
    settings: Settings
    served: Served
    drain_problem: str = ""
    in_force: Settings | None = None

    async def start(self) -> None:
        """Start to serve, by the live parameters that are in force."""
        self.apply(self.served.parameters)
        await self.served.start(self.apply)

    def apply(self, parameters: Parameters) -> None:
        """Serve by these live parameters from now on."""
        live = with_parameters(self.settings, parameters)
        self.in_force = live.settings
        for problem in live.problems:
            logger.error(
                "A live parameter is not valid here; the value of dialer.toml is in force",
                extra={"reason": str(problem)},
            )
        self.served.apply(live)
        if parameters.version:
            logger.info(
                "Live parameters are in force",
                extra={"change": parameters.version, "values": list(self.served.news)},
            )

    async def run(self) -> None:
        """Serve until the signal to stop.

        Raises:
            Exception: the error of a background task that ended.
        """
        stop, reread = self.signals.stop, self.signals.reread
        while not stop.is_set():
            signals = [asyncio.create_task(event.wait()) for event in (stop, reread)]
            looking = asyncio.create_task(self._unserved())
            failure: asyncio.Future[Any] = self.served.failure
            await asyncio.wait([*signals, looking, failure], return_when=asyncio.FIRST_COMPLETED)
            found = looking.result() if looking.done() else []
            await cancel([*signals, looking])
            if failure.done():
                failure.result()
            if reread.is_set() and not stop.is_set():
                reread.clear()  # a signal during the reload counts again
                await self._reread()
            elif found and not stop.is_set():
                await self._drain(found)

    async def _unserved(self) -> list[CellPlan]:
        """Wait until there are cells with calls and without a bridge."""
        if self.chosen:  # with --cell it serves only those cells
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(LOOK_FOR_UNSERVED_EVERY_S)
            if found := await self.served.unserved(self.in_force or self.settings):
                return found

    async def _drain(self, found: Sequence[CellPlan]) -> None:
        """Drain these cells: serve them too, until they have no calls left."""
        names = [plan.cell.name for plan in found]
        try:
            fresh = await self._unless_stopped(
                self.settings, [*plans_of(self.settings, self.chosen), *found]
            )
        except DialerError as error:
            if str(error) != self.drain_problem:
                logger.warning(
                    "Removed cells cannot be drained yet; trying again",
                    extra={"cells": names, "reason": str(error)},
                )
            self.drain_problem = str(error)
            return
        self.drain_problem = ""
        if fresh is not None:
            await self._change(fresh, self.settings)
            logger.warning(
                "Removed cells still have calls; finishing them",
                extra={"cells": names},
            )

    async def _reread(self) -> None:
        """Apply new settings if they are valid and their Redis answers; else log the reason."""
        try:
            settings = await asyncio.to_thread(load)
            plans = plans_of(settings, self.chosen)
            changes = list(_changes(self.settings, settings))
            if not changes:
                logger.info("Settings unchanged")
                return
            fresh = await self._unless_stopped(settings, plans)
        except DialerError as error:
            logger.error(  # noqa: TRY400  # needs no traceback
                "New settings refused; the old ones stay in force", extra={"reason": str(error)}
            )
            return
        if fresh is None:
            return
        await self._change(fresh, settings)
        logger.info(
            "New settings are in force",
            extra={"changed": changes, "cells": [plan.cell.name for plan in plans]},
        )
        if (settings.broker, settings.log) != (self.at_start.broker, self.at_start.log):
            logger.warning("[broker] and [log] stay as they are until the bridge is restarted")

    async def _unless_stopped(self, settings: Settings, plans: Sequence[CellPlan]) -> Served | None:
        """Connect for new settings while the old ones are served; None after a stop signal."""
        old = self.served.plans
        connecting = asyncio.create_task(
            Served.connect(
                [*plans, *removed_cells(old, plans)],
                settings.registry_redis_url,
                bridge=self.name,
                dispatcher=self.dispatcher,
                known={plan.redis_url for plan in old} | {self.settings.registry_redis_url},
            )
        )
        stopping = asyncio.create_task(self.signals.stop.wait())
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await cancel([stopping])
        if connecting.done():
            return connecting.result()
        await cancel([connecting])
        return None

    async def _change(self, fresh: Served, settings: Settings) -> None:
        """Stop the old cells and start the new ones under the same bridge name.

        The hand of that name is empty by then.
        """
        is_same = settings.registry_redis_url == self.settings.registry_redis_url
        old, self.served, self.settings = self.served, fresh, settings
        await old.stop()
        await old.close()
        if is_same:
            fresh.take_over(old)  # connecting may have taken longer than its watch
        if not self.signals.stop.is_set():
            await self.start()


def _changes(old: Settings, new: Settings) -> Iterator[str]:
    """Return the names of the tables that were changed, added or removed."""
    before, after = _tables(old), _tables(new)
    for name in [*after, *(name for name in before if name not in after)]:
        if before.get(name) != after.get(name):
            yield name


def _tables(settings: Settings) -> dict[str, Any]:
    single = {name: getattr(settings, name) for name in ("multcall", "registry", "recovery")}
    single |= {"broker": settings.broker, "log": settings.log}
    pbxs = {f"pbxs[{pbx.name}]": pbx for pbx in settings.pbxs}
    return single | pbxs | {f"cells[{cell.name}]": cell for cell in settings.cells}
