"""Commands that change live parameters: `dialer cells`, `dialer pbx`, `dialer changes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialer.cli.groups import group
from dialer.cli.tables import printable, table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dialer.domain.parameters import Change, Kind, Subject
    from dialer.settings.live import Live
    from dialer.steering import Made, Steering

cells = group("List the cells, or change them while they dial.", lists=True)
pbx = group("List the PBXs, or change them while they dial.", lists=True)
changes = group("List the changes of live parameters, or undo one.", lists=True)

CellName = Annotated[str, typer.Argument(metavar="CELL", help="Name of the cell.")]
PbxName = Annotated[str, typer.Argument(metavar="PBX", help="Name of the PBX.")]
Pairs = Annotated[
    list[str],
    typer.Argument(metavar="KEY=VALUE...", help="KEY= without a value: as in dialer.toml again."),
]
CellNames = Annotated[list[str] | None, typer.Argument(metavar="CELL...")]
PbxNames = Annotated[list[str] | None, typer.Argument(metavar="PBX...")]
All = Annotated[bool, typer.Option("--all", help="All of dialer.toml.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the audit trail.")]

#: What `set` takes, below its help. Blank lines keep the lines apart.
_CELL_VALUES = """threads=30 · pbxs=pbx01,pbx02 · trunk=tim (none: the default of each PBX) ·
retries=2 · ring_timeout=30 (seconds) · queue_timeout=60 (s) · timeout_command_response=20 (s) ·
timeout_command_ack=10 (s) · mode=ura|progressive|power · power_ratio=1.5 (calls for each free
operator) · amd=off|hangup|pass · outside_hours=hold|expire ·
'calling_hours=mon-fri 08:00-20:00; sat 08:00-14:00' ('calling_hours=any time': always)

KEY= without a value: the value of dialer.toml again.
"""
_PBX_VALUES = """max_calls=60 · cps=12.5 (calls a second) · governor=true|false ·
trunks=backup,tim (their order: the first is the default)

KEY= without a value: the value of dialer.toml again.
"""

#: Most changes that `dialer changes` lists.
LISTED_AT_MOST = 1000


# --- cells ----------------------------------------------------------------------------------


@cells.callback()
def list_cells(context: typer.Context) -> None:
    """List the cells, or change them while they dial."""
    if context.invoked_subcommand is not None:
        return
    from dialer.store.redis_url import redacted

    live = _live()
    settings = live.settings
    rows = [
        (
            cell.name,
            str(cell.threads),
            " ".join(cell.pbxs),
            redacted(settings.cell_redis_url(cell)),
            live.pauses.get(cell.name, ""),
        )
        for cell in settings.cells
    ]
    for line in table(("CELL", "THREADS", "PBXS", "REDIS", "STATE"), rows):
        typer.echo(line)


@cells.command("set", epilog=_CELL_VALUES)
def set_cell(cell: CellName, values: Pairs, why: Why = "") -> None:
    """Set live values of a cell: in force everywhere within a second. No call is touched."""
    _set("cell", cell, values, why)


@cells.command("pause")
def pause_cell(cells: CellNames = None, every: All = False, why: Why = "") -> None:
    """Stop placing calls of cells. Calls that are up go on; requests wait."""
    _each("cell", cells, every=every, stops=True, why=why)


@cells.command("resume")
def resume_cell(cells: CellNames = None, every: All = False, why: Why = "") -> None:
    """Place calls of cells again."""
    _each("cell", cells, every=every, stops=False, why=why)


# --- PBXs -----------------------------------------------------------------------------------


@pbx.callback()
def list_pbxs(context: typer.Context) -> None:
    """List the PBXs, or change them while they dial."""
    if context.invoked_subcommand is not None:
        return
    from dialer.settings.typed import value_words

    live = _live()
    rows = [
        (
            one.name,
            str(one.max_calls),
            value_words("cps", one.cps),
            " ".join(one.trunks),
            live.drains.get(one.name, ""),
        )
        for one in live.settings.pbxs
    ]
    for line in table(("PBX", "MAX_CALLS", "CPS", "TRUNKS", "STATE"), rows):
        typer.echo(line)


@pbx.command("set", epilog=_PBX_VALUES)
def set_pbx(pbx: PbxName, values: Pairs, why: Why = "") -> None:
    """Set live values of a PBX: in force everywhere within a second. No call is touched."""
    _set("pbx", pbx, values, why)


@pbx.command("drain")
def drain_pbx(pbxs: PbxNames = None, every: All = False, why: Why = "") -> None:
    """Stop sending calls to PBXs. Calls that are up continue; queued calls move to other PBXs."""
    _each("pbx", pbxs, every=every, stops=True, why=why)


@pbx.command("resume")
def resume_pbx(pbxs: PbxNames = None, every: All = False, why: Why = "") -> None:
    """Send PBXs calls again."""
    _each("pbx", pbxs, every=every, stops=False, why=why)


# --- changes --------------------------------------------------------------------------------


@changes.callback()
def list_changes(
    context: typer.Context,
    last: Annotated[
        int, typer.Option(min=1, max=LISTED_AT_MOST, help="How many, the newest ones.")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each change.")] = False,
) -> None:
    """List the changes of live parameters, or undo one."""
    if context.invoked_subcommand is not None:
        return
    found = _with_store(lambda steering: steering.store.changes(at_most=last))
    for change in reversed(found):
        for line in _json(change) if json else _lines(change):
            typer.echo(printable(line))
    if not found:
        typer.echo("no changes yet", err=True)


@changes.command("undo")
def undo(
    number: Annotated[
        int, typer.Argument(metavar="N", min=1, max=10**14, help="Number of the change.")
    ],
    why: Why = "",
) -> None:
    """Undo a change, unless a later one changed the same value."""
    _run(lambda steering: steering.undo(number, why=why), "has these values already")


# --- what they share ------------------------------------------------------------------------


def _subject(kind: Kind, name: str) -> Subject:
    from dialer.domain.parameters import Subject

    return Subject(kind, name)


def _each(kind: Kind, names: list[str] | None, *, every: bool, stops: bool, why: str) -> None:
    """Pause, drain or resume each named cell or PBX; none if one of them does not exist.

    `every`: all of the file. `stops`: pause or drain; else resume.

    Raises:
        ConfigError: none is named, or one does not exist.
    """
    from dialer.domain.parameters import STATES
    from dialer.errors import ConfigError

    if bool(names) is every:
        raise ConfigError("name one or more, or give --all")

    async def all_of_them(steering: Steering) -> list[Made]:
        known = steering.file.cells if kind == "cell" else steering.file.pbxs
        subjects = [_subject(kind, name) for name in names or [one.name for one in known]]
        await steering.require(subjects)
        work = steering.stop if stops else steering.resume
        return [await work(one, why=why) for one in subjects]

    state = STATES[kind]
    for made in _with_store(all_of_them):
        _print(made, f"is {state} already" if stops else f"is not {state}")


def _set(kind: Kind, name: str, values: list[str], why: str) -> None:
    from dialer.settings.typed import wanted

    fresh = wanted(kind, values)
    _run(
        lambda steering: steering.set(_subject(kind, name), fresh, why=why),
        "has these values already",
    )


def _run(work: Callable[[Steering], Awaitable[Made]], as_before: str) -> None:
    """Make a change, and print what it did; `as_before` is what to say if that was nothing."""
    _print(_with_store(work), as_before)


def _print(made: Made, as_before: str) -> None:
    from dialer.steering import words

    if not made.number:
        typer.echo(f"nothing changed: {made.subject} {as_before}")
        return
    for edit in made.edits:
        typer.echo(printable(f"change {made.number}: {words(made.subject, edit)}"))


def _with_store(work: Callable[[Steering], Awaitable[Any]]) -> Any:
    from dialer.cli.registry import with_registry
    from dialer.settings import load
    from dialer.steering import Steering
    from dialer.store.parameters import ParameterStore

    settings = load()
    by = operator()
    return with_registry(
        settings, lambda steps: work(Steering(store=ParameterStore(steps), file=settings, by=by))
    )


def _live() -> Live:
    """Return the settings in force; those of the file, with a warning, if Redis is away."""
    from dialer.cli.live import read_live
    from dialer.settings import load

    live, _ = read_live(load())
    return live


def operator() -> str:
    """Return who uses this terminal, for the audit trail: user@host."""
    import getpass
    import os
    import socket

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _lines(change: Change) -> Iterable[str]:
    """Yield one line for each value of a change, with who changed it and why."""
    from datetime import UTC, datetime

    from dialer.steering import words

    at = datetime.fromtimestamp(change.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    undoes = f", undoes {change.undoes}" if change.undoes else ""
    why = f" ({change.why})" if change.why else ""
    for edit in change.edits:
        yield (f"{change.number}  {at}  {change.by}{undoes}  {words(change.subject, edit)}{why}")


def _json(change: Change) -> Iterable[str]:
    import json
    from dataclasses import asdict
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(change.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    shown = {
        "change": change.number,
        "at": at,
        "by": change.by,
        "why": change.why,
        "undoes": change.undoes or None,
        change.subject.kind: change.subject.name,
        "values": [{**asdict(edit), "name": edit.name.replace("/", ".")} for edit in change.edits],
    }
    yield json.dumps(shown, ensure_ascii=False)
