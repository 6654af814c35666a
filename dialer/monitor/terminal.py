"""`dialer monitor`: the snapshot on a terminal every second; once if output is not a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError
from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.table import Table
from rich.text import Text

from dialer.domain.call import Result
from dialer.domain.limits import Limit
from dialer.errors import ConfigError
from dialer.monitor.as_json import as_json
from dialer.monitor.snapshot import NOBODY, OUTCOMES_OF_MIN, Snapshot, take_snapshot
from dialer.multcall.keys import PREFIX
from dialer.settings import Settings
from dialer.settings.live import Live, with_parameters
from dialer.store.client import connect, require
from dialer.store.fitness import read_facts, require_usable, unfit
from dialer.store.ledger import Survey, by_result
from dialer.store.parameters import ParameterStore, Watch
from dialer.store.redis_url import place_of, redacted
from dialer.store.registry import Registry
from dialer.store.steps import Steps

#: Pause between two looks, if the caller names none. In seconds.
EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How the monitor shows the system.

    `every_s` is the pause between two looks. `is_once`: look once, as if the output is no terminal.
    `is_json`: write one JSON object for each look instead of tables. `server`: only the cells on
    that Redis, `host` or `host:port`; '' for all.
    """

    every_s: float = EVERY_S
    is_once: bool = False
    is_json: bool = False
    server: str = ""


VIEW: Final = View()


async def watch(settings: Settings, console: Console, view: View = VIEW) -> None:
    """Show the system of these settings until interrupted.

    Raises:
        ConfigError: no cell is on the server of the view.
        StoreUnavailable: a Redis cannot be reached at start.
        StoreUnfit: a Redis is too old, or a cluster.
    """
    cell_urls = cells_at(settings, view.server)
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
        surveys = {url: Survey(by_url[url], OUTCOMES_OF_MIN) for url in cell_urls.values()}
        parameters = Watch(ParameterStore(by_url[registry_url]), restores=False)

        live = Live(settings=settings)

        async def look() -> tuple[Live, Snapshot, list[str]]:
            nonlocal live
            if await parameters.look():
                live = with_parameters(settings, parameters.parameters)
            snapshot = await take_snapshot(
                registry,
                live.settings.pbxs,
                [
                    (survey, pbxs_of_cells(live.settings, cell_urls, url))
                    for url, survey in surveys.items()
                ],
                live=live,
            )
            return live, snapshot, await _server_troubles(by_url)

        if view.is_json:
            await _write_json(look, console, cell_urls, view)
        elif view.is_once or not console.is_terminal:
            _, snapshot, troubles = await look()
            # A sentence that wraps cannot be searched for, nor its command copied.
            for part in render(snapshot, troubles, cell_urls).renderables:
                console.print(part, soft_wrap=isinstance(part, Text))
        else:
            with LiveDisplay(console=console, auto_refresh=False) as display:
                while True:
                    _, snapshot, troubles = await look()
                    display.update(render(snapshot, troubles, cell_urls), refresh=True)
                    await asyncio.sleep(view.every_s)


async def _write_json(
    look: Callable[[], Awaitable[tuple[Live, Snapshot, list[str]]]],
    console: Console,
    cell_urls: Mapping[str, str],
    view: View,
) -> None:
    while True:
        live, snapshot, troubles = await look()
        text = json.dumps(as_json(snapshot, live, cell_urls, troubles), ensure_ascii=False)
        console.out(text, highlight=False)
        if view.is_once:
            return
        await asyncio.sleep(view.every_s)


def cells_at(settings: Settings, server: str) -> dict[str, str]:
    """Return the cells on that Redis with their URLs; all if it is ''.

    Raises:
        ConfigError: there are none.
    """
    urls = {cell.name: settings.cell_redis_url(cell) for cell in settings.cells}
    found = {cell: url for cell, url in urls.items() if not server or _is_at(server, url)}
    if not found:
        known = ", ".join(sorted({place_of(url) for url in urls.values()}))
        raise ConfigError(f"no cell is on the Redis {server}; there are: {known}")
    return found


def pbxs_of_cells(
    settings: Settings, cell_urls: Mapping[str, str], url: str
) -> dict[str, tuple[str, ...]]:
    """Return the cells on one Redis, each with its PBXs."""
    return {c.name: c.pbxs for c in settings.cells if cell_urls.get(c.name) == url}


def _is_at(server: str, url: str) -> bool:
    places = place_of(url).split(",")
    return server in places or server in [place.rpartition(":")[0] for place in places]


async def _server_troubles(by_url: Mapping[str, Steps]) -> list[str]:
    """Return what makes a Redis unfit, one sentence each."""
    found = []
    for url, steps in by_url.items():
        with contextlib.suppress(RedisError, OSError):  # it is read again within a second
            if trouble := unfit(await read_facts(steps.redis)):
                found.append(f"Redis at {redacted(url)} {trouble}")
    return found


def render(
    snapshot: Snapshot, of_servers: Sequence[str] = (), cell_urls: Mapping[str, str] = NOBODY
) -> Group:
    """Return the snapshot as tables, followed by the problems."""
    parts = [_pbxs(snapshot), _cells(snapshot), _outcomes(snapshot), _lists(snapshot, cell_urls)]
    troubles = [Text(trouble, style="bold red") for trouble in (*of_servers, *snapshot.troubles())]
    well = [Text("All is well.", style="green")]
    return Group(*(part for part in parts if part.row_count), *(troubles or well))


def _pbxs(snapshot: Snapshot) -> Table:
    pbxs = Table("PBX", "link", "calls", "of", "starts now", "heartbeat", title="PBXs")
    for name, pbx in snapshot.pbxs.items():
        silent = f"{pbx.silent_s:.0f} s ago" if pbx.instance else "never"
        load = pbx.load
        word = "drained" if pbx.drained else pbx.link or "none"
        link = Text(word, style="green" if load.ready else "bold red")
        pbxs.add_row(name, link, str(load.calls), str(load.max_calls), str(load.starts), silent)
    return pbxs


def _cells(snapshot: Snapshot) -> Table:
    heads = ("cell", "state", "waiting", "calls", "of", "unclaimed", "await code", "dead")
    cells = Table(*heads, title="Cells")
    for name, one in snapshot.cells.items():
        counts, decision = one.counts, snapshot.decision(name)
        most = snapshot.threads.get(name, "")
        columns = (counts.live, most, counts.unclaimed, counts.awaiting, counts.dead)
        word = "dialing" if decision.limit is Limit.NONE else decision.limit.replace("_", " ")
        state = Text(word, style="green" if decision.is_dialing else "bold red")
        cells.add_row(name, state, str(counts.waiting), *map(str, columns))
    return cells


def _outcomes(snapshot: Snapshot) -> Table:
    """Return the outcomes of cells; no rows if there are none. Columns of zeros are left out."""
    found = {name: by_result(state.outcomes) for name, state in snapshot.cells.items()}
    results = [result for result in Result if any(one[result] for one in found.values())]
    heads = [result.value.replace("_", " ").lower() for result in results]
    title = f"Responses of the last {OUTCOMES_OF_MIN} minutes"
    table = Table("cell", "responses", "answered %", *heads, title=title)
    for name, one in found.items():
        if total := one.total():
            share = f"{100 * one[Result.ANSWERED] / total:.0f}"
            table.add_row(name, str(total), share, *(str(one[result]) for result in results))
    return table


def _lists(snapshot: Snapshot, cell_urls: Mapping[str, str]) -> Table:
    """Return Multcall's lists and counters that are not empty."""
    table = Table("Servidor", "Chave", "Célula", "Função", "Quantidade", title="Multcall")
    for name, state in snapshot.cells.items():
        for function, size in state.counts.lists.items():
            if size and name in cell_urls:
                key = f"{PREFIX}{function}-{name}"
                table.add_row(place_of(cell_urls[name]), key, name, function, str(size))
    return table
