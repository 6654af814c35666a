"""`dialer monitor`: the snapshot on a terminal every second; once if output is not a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.table import Table
from rich.text import Text

from dialer.domain.agents import Team
from dialer.domain.call import Result
from dialer.domain.limits import Limit
from dialer.monitor.as_json import as_json
from dialer.monitor.collector import Collector
from dialer.monitor.queues import queues
from dialer.monitor.snapshot import NOBODY, OUTCOMES_OF_MIN, Snapshot
from dialer.settings import Settings
from dialer.store.ledger import by_result

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
    async with Collector(settings, view.server) as collector:
        if view.is_json:
            await _write_json(collector, console, view)
        elif view.is_once or not console.is_terminal:
            seen = await collector.look()
            # A sentence that wraps cannot be searched for, nor its command copied.
            for part in render(seen.snapshot, seen.unfit, collector.cell_urls).renderables:
                console.print(part, soft_wrap=isinstance(part, Text))
        else:
            with LiveDisplay(console=console, auto_refresh=False) as display:
                while True:
                    seen = await collector.look()
                    shown = render(seen.snapshot, seen.unfit, collector.cell_urls)
                    display.update(shown, refresh=True)
                    await asyncio.sleep(view.every_s)


async def _write_json(collector: Collector, console: Console, view: View) -> None:
    while True:
        seen = await collector.look()
        shown = as_json(seen.snapshot, seen.live, collector.cell_urls, seen.unfit)
        console.out(json.dumps(shown, ensure_ascii=False), highlight=False)
        if view.is_once:
            return
        await asyncio.sleep(view.every_s)


def render(
    snapshot: Snapshot, of_servers: Sequence[str] = (), cell_urls: Mapping[str, str] = NOBODY
) -> Group:
    """Return the snapshot as tables, followed by the problems."""
    parts = [
        *(_pbxs(snapshot), _cells(snapshot), _operators(snapshot), _outcomes(snapshot)),
        _lists(snapshot, cell_urls),
    ]
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


def _operators(snapshot: Snapshot) -> Table:
    """Return what the operators of cells with a queue do; no rows if there is no such cell."""
    states = Team.__slots__
    table = Table("cell", *(_STATES.get(state, state) for state in states), title="Operators")
    for name in snapshot.cells:
        if (team := snapshot.team(name)) is not None:
            numbers = {state: str(getattr(team, state)) for state in states}
            free = Text(numbers.pop("available"), style="green" if team.available else "")
            stale = Text(numbers.pop("stale"), style="bold red" if team.stale else "")
            table.add_row(name, free, *numbers.values(), stale)
    return table


#: How states of agents are said in a head.
_STATES: Final = {
    "available": "free",
    "ringing": "ring",
    "busy": "talk",
    "wrapup": "wrap up",
    "stale": "not known",
}


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
    for one in queues(snapshot, cell_urls):
        if one.size:
            table.add_row(one.server, one.key, one.cell, one.function, str(one.size))
    return table
