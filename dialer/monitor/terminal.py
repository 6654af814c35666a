"""`dialer monitor`: the snapshot on a terminal every second; once if output is not a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from redis.exceptions import RedisError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dialer.monitor.snapshot import Snapshot, take_snapshot
from dialer.settings import Settings
from dialer.settings.live import with_parameters
from dialer.store.client import connect, require
from dialer.store.fitness import read_facts, require_usable, unfit
from dialer.store.ledger import LedgerReads
from dialer.store.parameters import ParameterStore, Watch
from dialer.store.redis_url import redacted
from dialer.store.registry import Registry
from dialer.store.steps import Steps

EVERY_S = 1.0


async def watch(settings: Settings, console: Console) -> None:
    """Show the system of these settings until interrupted.

    Raises:
        StoreUnavailable: a Redis cannot be reached at start.
        StoreUnfit: a Redis is too old, or a cluster.
    """
    cell_urls = {cell.name: settings.cell_redis_url(cell) for cell in settings.cells}
    registry_url = settings.registry_redis_url
    async with AsyncExitStack() as stack:
        by_url: dict[str, Steps] = {}
        for url in {registry_url, *cell_urls.values()}:
            redis = connect(url)
            by_url[url] = Steps(redis, "Redis")
            stack.push_async_callback(by_url[url].close)
            await require(redis, url, "the monitored Redis")
            await require_usable(redis, url, "the monitored Redis")
        registry = Registry(by_url[registry_url])
        ledgers = [LedgerReads(by_url[url], cell) for cell, url in cell_urls.items()]
        parameters = Watch(ParameterStore(by_url[registry_url]))

        async def rendered() -> Group:
            await parameters.look()
            live = with_parameters(settings, parameters.parameters)
            snapshot = await take_snapshot(
                registry,
                live.settings.pbxs,
                ledgers,
                {cell.name: cell.pbxs for cell in live.settings.cells},
                paused=live.pauses,
                drained=live.drains,
            )
            return render(snapshot, await _server_troubles(by_url))

        if not console.is_terminal:
            console.print(await rendered())
            return
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(await rendered(), refresh=True)
                await asyncio.sleep(EVERY_S)


async def _server_troubles(by_url: Mapping[str, Steps]) -> list[str]:
    """Return what makes a Redis unfit, one sentence each."""
    found = []
    for url, steps in by_url.items():
        with contextlib.suppress(RedisError, OSError):  # it is read again within a second
            if trouble := unfit(await read_facts(steps.redis)):
                found.append(f"Redis at {redacted(url)} {trouble}")
    return found


def render(snapshot: Snapshot, of_servers: Sequence[str] = ()) -> Group:
    """Return the snapshot as tables, followed by the problems."""
    pbxs = Table("PBX", "link", "calls", "of", "starts now", "heartbeat", title="PBXs")
    for name, pbx in snapshot.pbxs.items():
        silent = f"{pbx.silent_s:.0f} s ago" if pbx.instance else "never"
        load = pbx.load
        word = "drained" if pbx.drained else pbx.link or "none"
        link = Text(word, style="green" if load.ready else "bold red")
        pbxs.add_row(name, link, str(load.calls), str(load.max_calls), str(load.starts), silent)
    heads = ("cell", "state", "waiting", "calls", "unclaimed", "await code", "dead")
    cells = Table(*heads, title="Cells")
    for name, counts in snapshot.cells.items():
        columns = (counts.waiting, counts.live, counts.unclaimed, counts.awaiting, counts.dead)
        state = Text("paused", style="bold red") if name in snapshot.paused else ""
        cells.add_row(name, state, *map(str, columns))
    troubles = [Text(trouble, style="bold red") for trouble in (*of_servers, *snapshot.troubles())]
    return Group(pbxs, cells, *(troubles or [Text("All is well.", style="green")]))
