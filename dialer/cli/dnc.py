"""Commands for the do-not-call list: `dialer dnc add|remove|import|check`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, TypeVar

import typer

from dialer.cli.groups import EXIT_NO, group
from dialer.errors import DialerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from dialer.cli.number_file import Layout
    from dialer.store.registry import Registry

_Answer = TypeVar("_Answer")

#: Refused lines of a file that are printed one by one.
REFUSED_SHOWN: Final = 20

#: Numbers of a file that are added in one round trip.
BATCH: Final = 1000


dnc = group("Manage the do-not-call list: numbers that are never dialed.")

Numbers = Annotated[list[str], typer.Argument(metavar="NUMBER...")]


@dnc.command("add")
def add(numbers: Numbers) -> None:
    """Add numbers to the do-not-call list."""
    checked = _checked(numbers)
    added = _with_registry(lambda registry: registry.dnc_add(checked))
    typer.echo(f"{added} added, {len(checked) - added} were on the list")


@dnc.command("remove")
def remove(numbers: Numbers) -> None:
    """Remove numbers from the do-not-call list."""
    checked = _checked(numbers)
    removed = _with_registry(lambda registry: registry.dnc_remove(checked))
    typer.echo(f"{removed} removed, {len(checked) - removed} were not on the list")


@dnc.command("import")
def import_file(
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="Text or CSV; - is standard input.")
    ],
    column: Annotated[
        str, typer.Option(help="Column with the numbers: its name in the header, or 1, 2, ...")
    ] = "",
    delimiter: Annotated[
        str, typer.Option(help="Delimiter of the columns; default: found in the first line.")
    ] = "",
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Add the others if some lines are refused.")
    ] = False,
) -> None:
    """Add the numbers of a file to the do-not-call list.

    One number a line (# starts a comment), or CSV. If a line is no number, nothing is added.
    """
    from dialer.cli.number_file import DELIMITERS, Layout

    mark = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if mark and mark not in DELIMITERS:
        raise DialerError("--delimiter takes one of ; , | : and tab")
    layout = Layout(column=column, delimiter=mark)
    with _opened(file) as opened:
        name = "standard input" if file == "-" else file
        valid, refused = _checked_file(opened, name, layout)
        if refused and not skip_invalid:
            raise DialerError(
                f"nothing was added: {refused} of {valid + refused} lines are wrong (above); "
                "correct them, or add the others with --skip-invalid"
            )
        added, listed = _with_registry(lambda registry: _add_all(registry, opened, name, layout))
    skipped = f", {refused} lines skipped" if refused else ""
    typer.echo(f"{added} added, {listed} were on the list{skipped}")


@dnc.command("check")
def check(numbers: Numbers) -> None:
    """Print which numbers are on the do-not-call list; exit code 1 if any is not."""
    checked = _checked(numbers)
    listed = _with_registry(lambda registry: registry.dnc_contains(checked))
    for number, is_listed in zip(checked, listed, strict=True):
        typer.echo(f"{number} is {'on the list' if is_listed else 'not on the list'}")
    if not all(listed):
        raise typer.Exit(EXIT_NO)


def _checked(numbers: Sequence[str]) -> list[str]:
    """Return the numbers without separators and without repetitions.

    Raises:
        DialerError: one of them is not a telephone number.
    """
    from dialer.domain.numbers import without_separators

    plain: dict[str, None] = {}
    for given in numbers:
        if (number := without_separators(given)) is None:
            raise DialerError(
                f"{given!r} is not a telephone number: 3 to 20 digits with an optional leading +"
            )
        plain[number] = None
    return list(plain)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """Open the file. What can be read only once, as a pipe, is copied to a temporary file.

    Raises:
        DialerError: it cannot be read.
    """
    import shutil
    import sys
    import tempfile

    try:
        opened = sys.stdin.buffer if file == "-" else open(file, "rb")  # noqa: SIM115  # closed below
    except (OSError, ValueError) as error:  # a name with NUL
        reason = getattr(error, "strerror", None) or "it has a NUL in its name"
        raise DialerError(
            f"{file!r} cannot be read: {reason}; name a file that you can read"
        ) from None
    with opened:
        if file != "-" and opened.seekable():
            yield opened
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(opened, copy)
            yield copy


def _checked_file(file: BinaryIO, name: str, layout: Layout) -> tuple[int, int]:
    """Print each line that is no number; return how many are and how many are not."""
    from dialer.cli.number_file import numbers_in

    valid = refused = shown = 0
    file.seek(0)
    for line in numbers_in(file, name, layout):
        if line.number is not None:
            valid += 1
            continue
        refused += line.lines
        if shown < REFUSED_SHOWN:
            typer.echo(f"{name} line {line.at}: {line.problem}", err=True)
        shown += 1
    if shown > REFUSED_SHOWN:
        typer.echo(f"... and {shown - REFUSED_SHOWN} more", err=True)
    return valid, refused


async def _add_all(
    registry: Registry, file: BinaryIO, name: str, layout: Layout
) -> tuple[int, int]:
    """Add the numbers of the file in batches; return how many are new, and how many are not.

    Raises:
        StoreUnavailable: Redis went away; the message says how many were added.
    """
    from itertools import islice

    from dialer.cli.number_file import numbers_in

    added = done = listed = 0
    file.seek(0)
    numbers = (line.number for line in numbers_in(file, name, layout) if line.number is not None)
    try:
        while batch := list(islice(numbers, BATCH)):
            fresh = await registry.dnc_add(batch)
            added += fresh
            listed += len(set(batch)) - fresh
            done += len(batch)
    except DialerError as error:
        raise DialerError(
            f"stopped after {done} numbers, {added} of them new; run it again to add the rest: "
            f"{error}"
        ) from error
    return added, listed


def _with_registry(work: Callable[[Registry], Awaitable[_Answer]]) -> _Answer:
    """Connect to the registry's Redis, await `work` and return its result."""
    from dialer.cli.registry import with_registry
    from dialer.settings import load
    from dialer.store.registry import Registry

    settings = load()
    numbering = settings.numbers.numbering
    return with_registry(settings, lambda steps: work(Registry(steps, numbering)))
