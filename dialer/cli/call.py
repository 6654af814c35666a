"""`dialer call`: the story of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialer.cli.groups import EXIT_NO
from dialer.cli.tables import printable, table

if TYPE_CHECKING:
    from dialer.domain.story import Story
    from dialer.monitor.stories import Told
    from dialer.settings import Settings
    from dialer.store.ledger import Replacement


def call(
    request_id: Annotated[
        str, typer.Argument(metavar="ID", help="IdRequisicao, or CELL:IdRequisicao.")
    ],
    cell: Annotated[str, typer.Option(help="Only in this cell.")] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each call.")] = False,
    hangup: Annotated[
        bool, typer.Option("--hangup", help="Hang it up, if it is dialed or up.")
    ] = False,
) -> None:
    """Show what a call of the last 24 hours went through; exit code 1 if there is none."""
    import asyncio

    from dialer.monitor.stories import not_found
    from dialer.settings import load

    settings = load()
    names = [settings.cell(cell).name] if cell else [one.name for one in settings.cells]
    found = asyncio.run(_stories(settings, names, request_id))
    for one in found:
        for line in [_json(one.story, one.replaces)] if json else _lines(one.story, one.replaces):
            typer.echo(line)
    if not found:
        typer.echo(not_found(request_id, names), err=True)
        raise typer.Exit(EXIT_NO)
    if hangup:
        _hang_up([one.story for one in found])


def _hang_up(found: list[Story]) -> None:
    """Hang up the call; exit code 1 if it is not dialed now.

    Raises:
        DialerError: there are several, or the broker or the worker does not answer.
    """
    from dialer.errors import DialerError
    from dialer.hangup import hang_up

    if len(found) > 1:
        cells = ", ".join(story.call_id.partition(":")[0] for story in found)
        raise DialerError(f"several cells have this call: add --cell, one of {cells}")
    (story,) = found
    if not story.is_dialed:
        typer.echo(printable(f"{story.call_id} is not dialed now: it is {story.state}"), err=True)
        raise typer.Exit(EXIT_NO)
    typer.echo(printable(hang_up(story.call_id, story.pbx)), err=True)


async def _stories(settings: Settings, cells: list[str], request_id: str) -> list[Told]:
    """Look for the call in these cells.

    Raises:
        StoreUnavailable: the Redis of a cell cannot be reached.
    """
    from dialer.monitor.stories import stories
    from dialer.store.client import connect, require
    from dialer.store.steps import Steps

    found: list[Told] = []
    for cell in cells:
        url = settings.cell_redis_url(cell)
        steps = Steps(connect(url), f"the Redis of cell {cell}")
        try:
            await require(steps.redis, url, steps.where)
            found += await stories(steps, cell, request_id)
        finally:
            await steps.close()
    return found


def _lines(story: Story, replacement: Replacement | None) -> list[str]:
    head = f"{story.call_id}: {story.state}" + (f", {story.result}" if story.result else "")
    rows = [
        (step.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], step.state, step.by, step.detail)
        for step in story.steps
    ]
    if replacement is not None:
        head += (
            f"; replaces {replacement.replaces or 'a refused element'}, corrected and sent again "
            f"by {replacement.by} at {replacement.at}"
        )
    return [printable(head), *table(("AT (UTC)", "STATE", "BY", "DETAIL"), rows)]


def _json(story: Story, replacement: Replacement | None) -> str:
    import json

    shown: dict[str, Any] = {
        "call": story.call_id,
        "state": story.state,
        "pbx": story.pbx or None,
        "result": story.result or None,
        "error": story.error or None,
        "replaces": replacement.replaces if replacement is not None else None,
        "states": [
            {
                "state": step.state,
                "at": step.at.isoformat(timespec="milliseconds"),
                "by": step.by,
                "detail": step.detail,
            }
            for step in story.steps
        ],
    }
    return json.dumps(shown)
