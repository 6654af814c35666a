"""Commands for the do-not-call list: `dialer dnc add|remove|import|check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dialer.cli.groups import EXIT_NO, group
from dialer.errors import DialerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dialer.store.registry import Registry

_Answer = TypeVar("_Answer")


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
        Path, typer.Argument(readable=False, help="One number per line; # starts a comment.")
    ],
) -> None:
    """Add the numbers of a file to the do-not-call list."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DialerError(
            f"{file} cannot be read as text; name a file that you can read, saved as UTF-8"
        ) from None
    checked = _checked([text for line in lines if (text := line.partition("#")[0].strip())])
    added = _with_registry(lambda registry: registry.dnc_add(checked))
    typer.echo(f"{added} added, {len(checked) - added} were on the list")


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
    import re

    plain = [re.sub(r"[ ().-]", "", number) for number in numbers]
    for given, number in zip(numbers, plain, strict=True):
        if not re.fullmatch(r"\+?[0-9]{3,20}", number):
            raise DialerError(
                f"{given!r} is not a telephone number: 3 to 20 digits with an optional leading +"
            )
    return list(dict.fromkeys(plain))


def _with_registry(work: Callable[[Registry], Awaitable[_Answer]]) -> _Answer:
    """Connect to the registry's Redis, await `work` and return its result."""
    import asyncio

    from dialer.settings import load
    from dialer.store.client import connect, require
    from dialer.store.fitness import require_usable
    from dialer.store.registry import Registry
    from dialer.store.steps import Steps

    url = load().registry_redis_url

    async def connected() -> _Answer:
        steps = Steps(connect(url), "the registry's Redis")
        try:
            await require(steps.redis, url, "the registry's Redis")
            await require_usable(steps.redis, url, "the registry's Redis")
            return await work(Registry(steps))
        finally:
            await steps.close()

    return asyncio.run(connected())
