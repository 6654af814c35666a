"""`dialer dead`: the elements of Multcall that could not be used; correct, send again, discard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dialer.cli.groups import EXIT_NO, group
from dialer.cli.tables import printable, table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from dialer.dead_list import DeadElements
    from dialer.settings import Settings
    from dialer.store.ledger import DeadEntry

_Answer = TypeVar("_Answer")

dead = group("Show elements that could not be used; correct one and send it again, or discard it.")

CellName = Annotated[str, typer.Argument(metavar="CELL", help="Name of the cell.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="ENTRY…", help="Names that `dialer dead list` shows.")
]
Reason = Annotated[
    list[str] | None, typer.Option("--reason", help="Only those with this reason; may be repeated.")
]
Why = Annotated[str, typer.Option(help="Why, for the trail.")]

#: Most entries that one command sends or discards by their reason.
MANY: int = 100_000


@dead.command("list")
def list_entries(
    cell: CellName,
    reason: Reason = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each entry.")] = False,
) -> None:
    """List the newest entries first."""
    found, size = _with(
        cell,
        lambda it: _and_size(it, it.dead.newest(last, reasons=known_reasons(reason or []))),
        _settings(),
    )
    for line in map(_json, found) if json else _rows(found):
        typer.echo(line)
    if not json:
        typer.echo(f"{len(found)} of {size} entries of {cell}")


@dead.command("show")
def show(cell: CellName, entry: Annotated[str, typer.Argument(metavar="ENTRY")]) -> None:
    """Show one entry with its whole element, which may have a telephone number."""
    (found,) = _with(cell, lambda it: _named(it, [entry]), _settings())
    typer.echo(printable(f"{found.name}  {found.at}  {found.source}  {found.reason}"))
    typer.echo(printable(found.message))
    typer.echo(printable(found.raw.decode(errors="replace")))


@dead.command("send")
def send(
    cell: CellName,
    entries: Names = None,
    reason: Reason = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field, as Multcall names it; FIELD= takes it out; may be repeated.",
        ),
    ] = None,
    element: Annotated[
        str | None, typer.Option(help="The whole element instead: its JSON text, a file, or -.")
    ] = None,
    may_ring_again: Annotated[
        bool,
        typer.Option(
            "--may-ring-again",
            help="Also those whose number may have been rung: duplicate_request, internal_error.",
        ),
    ] = False,
    why: Why = "",
) -> None:
    """Correct entries and send them again, each once, under a new IdRequisicao."""
    from dialer.cli.live import read_live
    from dialer.cli.steer import operator
    from dialer.cli.wire import element_in
    from dialer.dead_list import Correction, changes_in, require_for_many
    from dialer.errors import ConfigError, DialerError

    if element is not None and len(entries or ()) != 1:
        raise ConfigError("--element replaces one element: name one entry")
    if element == "":
        raise ConfigError("--element is empty: give JSON text, the name of a file, or -")
    if may_ring_again and not entries:
        raise ConfigError("--may-ring-again rings people: name each entry")
    live, _ = read_live(_settings())  # PBXs and trunks are live
    settings = live.settings
    changes = changes_in(change or (), settings.multcall.wire)
    whole = element_in(element) if element is not None else None
    correction = Correction(
        changes=changes, element=whole, why=clean(why), may_ring_again=may_ring_again
    )
    failed = 0

    async def send_all(it: DeadElements) -> None:
        nonlocal failed
        chosen = await _chosen(it, entries, reason)
        if len(chosen) > 1:
            require_for_many(changes, settings.multcall.wire)
        for entry in reversed(chosen):  # the oldest first
            try:
                typer.echo(f"{entry.name}: sent as {await it.send(entry, correction)}")
            except DialerError as error:
                failed += 1
                typer.echo(printable(f"{entry.name}: {error}"), err=True)

    _with(cell, send_all, settings, operator())
    if failed:
        raise typer.Exit(EXIT_NO)


@dead.command("discard")
def discard(
    cell: CellName,
    entries: Names = None,
    reason: Reason = None,
    everything: Annotated[bool, typer.Option("--all", help="All entries of the cell.")] = False,
    why: Why = "",
) -> None:
    """Take entries out of the dead list. The last 1,000 are kept in the trail for 30 days."""
    from dialer.cli.steer import operator
    from dialer.errors import ConfigError

    if everything and (entries or reason):
        raise ConfigError("--all is for all entries: leave it out, or the names and --reason")

    async def discard_all(it: DeadElements) -> int:
        chosen = await (it.dead.newest(MANY) if everything else _chosen(it, entries, reason))
        return await it.discard(chosen, clean(why))

    typer.echo(f"{_with(cell, discard_all, _settings(), operator())} discarded")


# --- details ------------------------------------------------------------------------------


def _settings() -> Settings:
    from dialer.settings import load

    return load()


def _with(
    cell: str,
    work: Callable[[DeadElements], Awaitable[_Answer]],
    settings: Settings,
    by: str = "",
) -> _Answer:
    """Connect to the cell's Redis and await `work` with its dead elements.

    Raises:
        ConfigError: there is no such cell.
        StoreUnavailable: its Redis cannot be reached.
    """
    import asyncio

    from dialer.dead_list import DeadElements
    from dialer.errors import StoreUnavailable
    from dialer.store.client import cancel, connect, has_replicas, require
    from dialer.store.ledger import DeadList
    from dialer.store.steps import Steps

    served = settings.cell(cell)
    url, what = settings.cell_redis_url(served), f"the Redis of cell {cell}"

    async def connected() -> _Answer:
        steps = Steps(connect(url), what, replicated=has_replicas(url))
        try:
            await require(steps.redis, url, what)
            found = DeadList(steps, cell, settings.multcall.push)
            working = asyncio.ensure_future(work(DeadElements(found, settings, served, by)))
            if not await steps.wait_done_or_down(working):
                await cancel([working])
                reason = steps.obstacle.reason if steps.obstacle is not None else what
                raise StoreUnavailable(f"{reason}; look at the list when it does")
            return working.result()
        finally:
            await steps.close()

    return asyncio.run(connected())


async def _and_size(
    it: DeadElements, reading: Awaitable[list[DeadEntry]]
) -> tuple[list[DeadEntry], int]:
    return await reading, await it.dead.size()


async def _chosen(
    it: DeadElements, names: list[str] | None, reasons: list[str] | None
) -> list[DeadEntry]:
    """Return the entries that were named, or all with these reasons.

    Raises:
        ConfigError: nothing was chosen, or there is no entry of a name.
    """
    from dialer.errors import ConfigError

    if names and reasons:
        raise ConfigError("name entries or give --reason, not both")
    if names:
        return await _named(it, names)
    if reasons:
        return await it.dead.newest(MANY, reasons=known_reasons(reasons))
    raise ConfigError("name entries, as `dialer dead list` shows them, or give --reason")


def known_reasons(reasons: list[str]) -> list[str]:
    """Return the reasons.

    Raises:
        ConfigError: there is no such reason.
    """
    from typing import get_args

    from dialer.errors import ConfigError
    from dialer.multcall.answers import DeadReason

    known = (*get_args(DeadReason), "unknown")
    for reason in reasons:
        if reason not in known:
            raise ConfigError(f"there is no reason {reason}; there are {', '.join(known)}")
    return reasons


async def _named(it: DeadElements, names: list[str]) -> list[DeadEntry]:
    """Return the entries of these names.

    Raises:
        ConfigError: there is none of a name.
    """
    from dialer.errors import ConfigError

    found = await it.dead.newest(len(set(names)), names=names)
    if missing := set(names) - {entry.name for entry in found}:
        raise ConfigError(
            f"{it.dead.cell} has no dead entry {', '.join(sorted(missing))}: it was sent or "
            f"discarded, or never there; dialer dead list {it.dead.cell} shows which there are"
        )
    return found


def clean(text: str) -> str:
    """Return what was typed as text that can be stored."""
    return printable(text.encode("utf-8", "replace").decode())


def _rows(entries: list[DeadEntry]) -> Iterator[str]:
    rows = [(one.name, one.at, one.source, one.reason, one.message[:100]) for one in entries]
    yield from table(("ENTRY", "AT (UTC)", "SOURCE", "REASON", "MESSAGE"), rows)


def _json(entry: DeadEntry) -> str:
    import json

    shown: dict[str, Any] = {
        "entry": entry.name,
        "at": entry.at or None,
        "source": entry.source or None,
        "reason": entry.reason,
        "message": entry.message,
        "element": entry.raw.decode(errors="replace"),
    }
    return json.dumps(shown)  # a terminal may not show all signs
