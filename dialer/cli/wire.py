"""Commands about the wire: `dialer wire check` and `dialer wire sample`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from dialer.cli.groups import EXIT_ERROR, group
from dialer.errors import ConfigError, DialerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dialer.multcall.report import Report
    from dialer.settings import Cell, Settings

#: Much more than an element may have, and little enough to hold.
_READ_MAX_BYTES: Final = 16 * 1024 * 1024

wire = group("Show how elements of Multcall's lists are read, and what answers look like.")

CellName = Annotated[str | None, typer.Option("--cell", help="The cell; default: the first.")]


@wire.command("check")
def check(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|ELEMENT|-]",
            help="A file, the JSON text itself, or - for standard input. "
            "Default: the oldest element of the cell's list, which stays there.",
        ),
    ] = None,
    cell: CellName = None,
    code: Annotated[
        bool, typer.Option("--code", help="It is a CODLIGACAO, not a Request.")
    ] = False,
) -> None:
    """Read one element as the bridge would, and print all its problems; exit code 2 if any."""
    from dialer.multcall.report import report_of_code, report_of_request
    from dialer.settings import load

    settings = load()
    served = _cell(settings, cell)
    raw = _oldest(settings, served, code=code) if source is None else element_in(source)
    if code:
        report = report_of_code(raw, settings.multcall.wire)
    else:
        trunks = frozenset[str]().union(*(settings.pbx(name).trunks for name in served.pbxs))
        report = report_of_request(
            raw,
            settings.multcall.wire,
            cell=served.name,
            allowed=served.allowed,
            trunks=trunks,
        )
    for line in _lines(report, "CODLIGACAO" if code else "Request", served.name):
        typer.echo(line)
    if report.problems:
        raise typer.Exit(EXIT_ERROR)


@wire.command("sample")
def sample(cell: CellName = None) -> None:
    """Print an example of each message with the present settings."""
    from dialer.multcall.samples import samples
    from dialer.settings import load

    settings = load()
    served = _cell(settings, cell)
    trunk = served.trunk or settings.pbx(served.pbxs[0]).default_trunk
    for title, key, text in samples(
        served.name, settings.multcall.wire.fields, pbx=served.pbxs[0], trunk=trunk
    ):
        typer.echo(f"# {title}: {key}\n{text}\n")


def _cell(settings: Settings, name: str | None) -> Cell:
    return settings.cells[0] if name is None else settings.cell(name)


def element_in(source: str) -> bytes:
    """Return the element of the argument: JSON text, `-`, or the name of a file.

    Raises:
        ConfigError: the file cannot be read.
    """
    import sys
    from pathlib import Path

    if source == "-":
        return sys.stdin.buffer.read(_READ_MAX_BYTES)
    if source.lstrip()[:1] in ("{", "[", '"'):
        return source.encode("utf-8", "surrogateescape")
    try:
        with Path(source).open("rb") as file:
            return file.read(_READ_MAX_BYTES)
    except (OSError, ValueError) as error:  # a name with NUL
        reason = error.strerror if isinstance(error, OSError) else "it has a NUL in its name"
        raise ConfigError(
            f"{source!r} cannot be read: {reason}; name a file with one element, or give the "
            "element itself, which begins with {"
        ) from None


def _oldest(settings: Settings, cell: Cell, *, code: bool) -> bytes:
    """Return the element that the bridge would take next, and leave it where it is.

    Raises:
        DialerError: the list is empty.
    """
    import asyncio

    from dialer.multcall.keys import CellKeys
    from dialer.store.client import connect, require
    from dialer.store.steps import Steps

    url, what = settings.cell_redis_url(cell), f"the Redis of cell {cell.name}"
    keys = CellKeys(cell.name)
    key = keys.code if code else keys.request
    index = 0 if settings.multcall.push == "right" else -1

    async def connected() -> bytes | None:
        steps = Steps(connect(url), what)
        try:
            await require(steps.redis, url, what)
            found: list[bytes] = await steps.read("LRANGE", key, index, index)
            return found[0] if found else None
        finally:
            await steps.close()

    if (raw := asyncio.run(connected())) is None:
        raise DialerError(f"{key} is empty; push an element, or give one to this command")
    return raw


def _lines(report: Report, message: str, cell: str) -> Iterator[str]:
    width = max((len(row.name) for row in report.rows), default=0)
    for row in report.rows:
        yield f"{row.name:<{width}}  {row.text}"
    if report.ignored:
        yield f"ignored: {', '.join(report.ignored)}"
    for note in report.notes:
        yield f"note: {note}"
    for problem in report.problems:
        yield f"wrong: {problem}"
    if not report.problems:
        yield f"{message} of {cell}: read without a problem"
        return
    count = len(report.problems)
    yield f"{message} of {cell}: refused, {count} problem{'s' * (count > 1)}"
    if report.is_lenient_right:
        yield "with all = true under [multcall.lenient] in dialer.toml it would be read"
