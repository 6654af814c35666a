"""`dialer monitor`: the snapshot on a terminal every second; once if output is not a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack

from redis.exceptions import RedisError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dialer.monitor.snapshot import Snapshot, take_snapshot
from dialer.settings.tables import Pbx
from dialer.store.client import connect, require
from dialer.store.fitness import read_facts, require_usable, unfit
from dialer.store.ledger import LedgerReads
from dialer.store.redis_url import redacted
from dialer.store.registry import Registry
from dialer.store.steps import Steps

EVERY_S = 1.0


async def watch(
    registry_url: str,
    pbxs: tuple[Pbx, ...],
    cell_urls: dict[str, str],
    console: Console,
    pbxs_of_cells: Mapping[str, Collection[str]],
) -> None:
    """Show the system until interrupted. `pbxs_of_cells` has the PBXs that each cell may use.

    Raises:
        StoreUnavailable: a Redis cannot be reached at start.
        StoreUnfit: a Redis is too old, or a cluster.
    """
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

        async def rendered() -> Group:
            snapshot = await take_snapshot(registry, pbxs, ledgers, pbxs_of_cells)
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
        link = Text(pbx.link or "none", style="green" if load.ready else "bold red")
        pbxs.add_row(name, link, str(load.calls), str(load.max_calls), str(load.starts), silent)
    cells = Table("cell", "waiting", "calls", "unclaimed", "await code", "dead", title="Cells")
    for name, counts in snapshot.cells.items():
        columns = (counts.waiting, counts.live, counts.unclaimed, counts.awaiting, counts.dead)
        cells.add_row(name, *map(str, columns))
    troubles = [Text(trouble, style="bold red") for trouble in (*of_servers, *snapshot.troubles())]
    return Group(pbxs, cells, *(troubles or [Text("All is well.", style="green")]))
