"""`dialer why`: what keeps a cell from dialing, now or at a time in the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialer.cli.tables import printable

if TYPE_CHECKING:
    from datetime import datetime

    from dialer.monitor.why import Why
    from dialer.settings import Cell


def why(
    cell: Annotated[str, typer.Argument(help="Name of the cell.")],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="A time of the last 24 hours: 10:42, or 2026-11-27T10:42, in the time zone of the "
            "cell, or with one: 2026-11-27T10:42Z. One that has not come today was yesterday.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say why a cell does not dial, or what limits it: one sentence with the cure."""
    import asyncio

    from dialer.monitor.why import why as find
    from dialer.settings import load

    settings = load()
    asked = settings.cell(cell)
    then = _asked_time(at, asked) if at is not None else None
    found = asyncio.run(find(settings, asked.name, then))
    typer.echo(_json(found) if json else _lines(found, asked))


def _asked_time(text: str, cell: Cell) -> datetime:
    """Return the time that `--at` gives.

    Raises:
        ConfigError: it is no time, or has not come yet.
    """
    from dialer.errors import ConfigError
    from dialer.monitor.why import time_of

    try:
        return time_of(text, cell)
    except ConfigError as error:
        raise ConfigError(f"--at {error}") from None


def _lines(found: Why, cell: Cell) -> str:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(cell.limits.time_zone)

    def shown(at: datetime) -> str:
        return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}"

    head = f"{cell.name}: {found.decision.limit}"
    if found.since is not None:
        head += f" since {shown(found.since)} ({zone})"
    if found.until is not None:
        head += f" until {shown(found.until)}"
    return printable(head) + "\n" + printable(found.decision.sentence)


def _json(found: Why) -> str:
    import json

    decision = found.decision
    shown: dict[str, Any] = {
        "cell": decision.cell,
        "dialing": decision.is_dialing,
        "limit": decision.limit,
        "sentence": decision.sentence,
        "at": _iso(found.at),
        "since": _iso(found.since),
        "until": _iso(found.until),
        "age_s": round(found.age_s, 3),
        "numbers": dict(decision.numbers),
    }
    return json.dumps(shown)


def _iso(at: datetime | None) -> str | None:
    from datetime import UTC

    return at.astimezone(UTC).isoformat(timespec="milliseconds") if at is not None else None
