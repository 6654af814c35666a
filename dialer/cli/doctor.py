"""The command `dialer doctor`: try everything that the programs of this host need.

The only module of `dialer` that uses `workers`: a PBX is checked over the worker's own AMI link.
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from dialer.doctor.findings import Finding
    from dialer.settings import Pbx, Settings

#: Width of the table in a pipe or a file, in characters.
PIPE_WIDTH: Final = 300


def doctor(
    pbx: Annotated[
        list[str] | None,
        typer.Option(help="Check this PBX; may be repeated. Default: those of this host."),
    ] = None,
    no_pbx: Annotated[
        bool, typer.Option("--no-pbx", help="Check no PBX: a host of bridges only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Try everything that the programs of this host need; exit code 0, 1 doubtful, 2 wrong."""
    import logging

    from dialer.doctor import report
    from dialer.doctor.findings import exit_code
    from dialer.settings import settings

    logging.disable(logging.CRITICAL)  # the findings have the reasons
    chosen = [] if no_pbx else _chosen(settings(), pbx or [])
    findings = asyncio.run(examine(settings(), chosen))
    if as_json:
        typer.echo(report.as_json(findings))
    else:
        report.print_table(findings, _console())
    raise typer.Exit(exit_code(findings))


def _console() -> Console:
    """Return standard output; in a pipe lines are not broken."""
    import sys

    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no ✓
    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


def _chosen(settings: Settings, names: list[str]) -> list[Pbx]:
    from workers.doctor import local_pbxs

    return [settings.pbx(name) for name in names] if names else local_pbxs(settings)


async def examine(settings: Settings, pbxs: list[Pbx]) -> list[Finding]:
    """Run every check; `pbxs` are those whose worker runs on this host."""
    from dialer.doctor.examination import check_host, check_servers
    from workers.doctor import check_pbxs

    host, servers, asterisks = await asyncio.gather(
        check_host(settings, pbxs), check_servers(settings), check_pbxs(settings, pbxs)
    )
    return [*host, *servers, *asterisks]
