"""Runs the bridge: every cell's intake, codes and recovery in one process, until a signal."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from redis.exceptions import RedisError

from dialer import failpoints
from dialer.bridge.codes import Codes
from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.intake import Intake
from dialer.bridge.recovery import Recovery
from dialer.bridge.site import CellSite
from dialer.errors import ConfigError
from dialer.settings import Cell, Settings
from dialer.store.client import cancel, connect
from dialer.store.ledger import Ledger
from dialer.store.registry import Registry
from dialer.store.servers import Servers

logger = logging.getLogger(__name__)

#: Longest wait for the hand to be put back at a graceful stop, in seconds.
STOP_WITHIN_S: Final = 4.0

#: Pause after a server refused a command for good, before it is tried anew, in seconds.
REFUSED_PAUSE_S: Final = 5.0


def run(settings: Settings, cells: Sequence[str] = ()) -> None:
    """Runs the bridge of the named cells (none: all) until SIGTERM or SIGINT.

    Raises:
        ConfigError: a name is no cell's.
        StoreUnavailable: a Redis cannot be reached at start.
    """
    known = {cell.name for cell in settings.cells}
    for name in cells:
        if name not in known:
            raise ConfigError(
                f"there is no cell {name!r} in the configuration; "
                f"cells are {', '.join(sorted(known))}"
            )
    chosen = [cell for cell in settings.cells if not cells or cell.name in cells]
    asyncio.run(_serve(settings, chosen))


async def _serve(settings: Settings, cells: Sequence[Cell]) -> None:
    from dialer.celery import app  # Celery reads the configuration when imported

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    if failpoints.armed():
        logger.warning("Failure points are armed: this is a test")
    async with AsyncExitStack() as stack:
        dispatcher = Dispatcher(app)
        stack.callback(dispatcher.close)
        sites = await _sites(settings, cells, dispatcher, stack)
        tasks: list[asyncio.Task[None]] = []
        for site in sites:
            tasks += await _start(site, settings, stack)
        logger.info("Bridge ready", extra={"cells": [cell.name for cell in cells]})
        await _until(stop, tasks)
        await cancel(tasks)
        await _leave(sites)
    logger.info("Bridge stopped")


async def _until(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Waits for the signal, or for a task that failed: then its error is raised."""
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if stopped not in done:
        stopped.cancel()
        for task in done:
            await task


async def _leave(sites: Sequence[CellSite]) -> None:
    """Puts back what the bridge has in hand, where Redis answers in time."""
    await asyncio.gather(*(_leave_one(site) for site in sites))


async def _leave_one(site: CellSite) -> None:
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await site.ledger.leave(site.bridge)
    except (TimeoutError, RedisError) as error:
        logger.warning(
            "What is in hand could not be put back; another bridge will take it over",
            extra={"cell": site.cell.name, "error": str(error) or "Redis does not answer"},
        )


async def _sites(
    settings: Settings, cells: Sequence[Cell], dispatcher: Dispatcher, stack: AsyncExitStack
) -> list[CellSite]:
    bridge = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    servers = Servers()
    stack.push_async_callback(servers.close)
    registry = Registry(await servers.at(settings.registry_redis_url, "the registry's Redis"))
    steps = await servers.of_cells({cell.name: settings.cell_redis_url(cell) for cell in cells})
    return [
        CellSite(
            bridge=bridge,
            cell=cell,
            pbxs=tuple(settings.pbx(name) for name in cell.pbxs),
            ledger=Ledger(steps[cell.name], cell.name, settings.multcall.push),
            registry=registry,
            dispatcher=dispatcher,
        )
        for cell in cells
    ]


async def _start(
    site: CellSite, settings: Settings, stack: AsyncExitStack
) -> list[asyncio.Task[None]]:
    url = settings.cell_redis_url(site.cell)
    blocking = [connect(url), connect(url)]
    for client in blocking:
        stack.push_async_callback(client.aclose)
    intake = Intake(site, blocking[0])
    codes = Codes(site, blocking[1])

    def reload() -> None:
        intake.reload = True

    recovery = Recovery(site, settings.recovery.pbx_lost_after, took_over=reload)
    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "intake": intake.run,
        "codes": codes.run,
        "late codes": codes.run_late,
        "heartbeat": recovery.run_heartbeat,
        "recovery": recovery.run,
        "reaper": recovery.run_reaper,
    }
    # Before anything is taken; where the cell's Redis is away, its first heartbeat does it.
    taking_over = asyncio.create_task(recovery.take_over())
    if not await site.ledger.steps.done_or_away(taking_over):
        taking_over.cancel()
    return [
        asyncio.create_task(_for_ever(part, site.cell.name, name, reload), name=name)
        for name, part in parts.items()
    ]


async def _for_ever(
    part: Callable[[], Awaitable[None]], cell: str, name: str, reload: Callable[[], None]
) -> None:
    """Keeps a part running where Redis refuses a command for good: one cell stops no other."""
    while True:
        try:
            await part()
        except RedisError as error:
            logger.exception(
                "Redis refused a command; trying anew",
                extra={"cell": cell, "part": name, "error": str(error)},
            )
            reload()
            await asyncio.sleep(REFUSED_PAUSE_S)
