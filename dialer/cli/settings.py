"""Commands about the settings: `dialer config check|show|export|import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialer.cli.groups import group
from dialer.cli.tables import printable
from dialer.errors import ConfigError, DialerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dialer.settings.live import Live

config = group("Check, show or export the settings, or import an old settings file.")

# Typer's own check of readability would print a usage box instead of our sentence.
File = Annotated[
    Path | None, typer.Argument(readable=False, help="Default: DIALER_CONFIG, or ./dialer.toml.")
]


@config.command("check")
def check(file: File = None) -> None:
    """Check the settings; warn about valid values that look like mistakes."""
    from dialer.settings import config_path, load, stray_variables
    from dialer.settings.advice import advice, has_public_secrets, on_urls

    path = file or config_path()
    settings = load(path)
    for warning in (*on_urls(settings.urls), *advice(settings.pbxs, settings.cells)):
        typer.echo(f"warning: {warning}", err=True)
    for variable, meant in stray_variables(settings):
        typer.echo(f"warning: {variable} has no effect; did you mean {meant}?", err=True)
    if has_public_secrets(path):
        typer.echo(
            f"warning: every user can read the secrets in {path}: chmod o-r {path}", err=True
        )
    pbxs, cells = len(settings.pbxs), len(settings.cells)
    counts = f"{pbxs} PBX{'s' * (pbxs > 1)}, {cells} cell{'s' * (cells > 1)}"
    typer.echo(f"{path} is valid: {counts}")


@config.command("show")
def show(file: File = None) -> None:
    """Print the settings in force, each with where it comes from, without secrets.

    The source is the file, a variable, a default, or a live parameter with who set it.
    """
    from dialer.cli.live import read_live
    from dialer.domain.parameters import Parameters
    from dialer.settings import load
    from dialer.settings.sources import Sources, with_sources

    live, parameters = read_live(load(file))
    typer.echo(with_sources(Sources.of(file, live, parameters or Parameters())), nl=False)
    for subject, values in live.overrides.items():
        for knob, value in values.items():
            if value is None:  # TOML cannot write it
                typer.echo(f"# {knob} of {subject} is none: live")
    for name, text in _states(live):
        typer.echo(printable(f"# {name} is {text}"))


@config.command("export")
def export(
    file: File = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Overwrite the file.")] = False,
) -> None:
    """Print dialer.toml with the live values in it, comments and secrets as they are."""
    from dialer.cli.live import read_live
    from dialer.settings import config_path, load
    from dialer.settings.sources import exported

    live, parameters = read_live(load(file))
    if parameters is None:
        raise DialerError("nothing was exported, because the live parameters are not known")
    text, hidden = exported(file or config_path(), live)
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text, force=force)
        typer.echo(f"{output} is written")
    for name, state in _states(live):
        typer.echo(printable(f"not exported: {name} is {state}"), err=True)
    for value in hidden:
        typer.echo(f"not exported: {value}", err=True)


@config.command("import")
def import_old(
    old: Annotated[
        Path,
        typer.Argument(readable=False, metavar="SETTINGS.PY", help="The old dialer's file."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Overwrite the file.")] = False,
) -> None:
    """Convert the settings.py of the old dialer to a dialer.toml, without executing it."""
    from dialer.settings.legacy import convert

    imported = convert(old)
    if output is None:
        typer.echo(imported.toml, nl=False)
    else:
        _write(output, imported.toml, force=force)
        typer.echo(f"{output} is written; correct the PBX, then: dialer config check {output}")
    for note in imported.notes:
        typer.echo(f"not imported: {note}", err=True)
    for problem in _problems(imported.toml):
        typer.echo(f"to correct: {problem}", err=True)


def _states(live: Live) -> Iterator[tuple[str, str]]:
    """Yield each cell that is paused and each PBX that is drained, with who did it."""
    yield from ((f"cell {name}", words) for name, words in live.pauses.items())
    yield from ((f"PBX {name}", words) for name, words in live.drains.items())


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write a file that only its owner can read.

    Raises:
        ConfigError: the file exists and `force` is false, or it cannot be written.
    """
    import os

    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists; use --force to overwrite it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _problems(toml: str) -> Sequence[object]:
    """Return the problems that `config check` would find in this text."""
    import tomllib

    from dialer.settings import Settings
    from dialer.settings.problems import SettingsRefused

    try:
        Settings(**tomllib.loads(toml))
    except SettingsRefused as error:
        return error.problems
    return ()
