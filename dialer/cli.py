"""The command line: `dialer`. Each command imports what it needs when it runs.

Owns the words on the terminal and the exit codes: 0 done, 1 the answer is no, 2 an error
that one sentence tells, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from dialer.errors import ConfigError, DialerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from dialer.settings import Settings
    from dialer.store.registry import Registry

_Answer = TypeVar("_Answer")

EXIT_NO = 1
EXIT_ERROR = 2

# pretty_exceptions would show local variables, and with them secrets.
_plain: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(help="Places Multcall's calls on Asterisk PBXs.", **_plain)
config = typer.Typer(help="Look at the settings, or make them from an old file.", **_plain)
simulate = typer.Typer(help="Play the part of a PBX or of Multcall.", **_plain)
dnc = typer.Typer(help="The numbers that are never called.", **_plain)
app.add_typer(config, name="config")
app.add_typer(simulate, name="simulate")
app.add_typer(dnc, name="dnc")


def main() -> None:
    """The program `dialer`: an error of ours is one sentence and exit code 2."""
    try:
        app(prog_name="dialer")
    except DialerError as error:
        sys.stderr.write(f"dialer: {error}\n")
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


# --- the programs -------------------------------------------------------------------------


@app.command()
def bridge(
    cell: Annotated[
        list[str] | None, typer.Option(help="Serve this cell only; may be repeated.")
    ] = None,
) -> None:
    """Take Multcall's requests and spread them over the PBXs."""
    from dialer.bridge.signals import block_sighup

    block_sighup()
    settings = _settings("bridge")
    from dialer.bridge.service import run

    run(settings, cell or [])


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Go on running after the last call.")] = False,
    calls: Annotated[int, typer.Option(min=1, help="How many calls to place.")] = 200,
) -> None:
    """Run the whole system on this machine, with a simulated PBX and Multcall."""
    run = _part("dialer.simulation.demo.run")
    run(calls=calls, keep=keep)


@app.command()
def monitor() -> None:
    """Watch cells, PBXs and calls on the terminal."""
    settings = _settings("monitor")
    import asyncio

    from rich.console import Console

    from dialer.monitor.terminal import watch

    cell_urls = {cell.name: settings.cell_redis_url(cell) for cell in settings.cells}
    serving = {cell.name: cell.pbxs for cell in settings.cells}
    asyncio.run(watch(settings.registry_redis_url, settings.pbxs, cell_urls, Console(), serving))


@simulate.command("pbx")
def simulate_pbx(
    name: Annotated[str, typer.Option(help="Its name.")] = "pbx01",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="AMI port; 0: any.")] = 5038,
    version: Annotated[Literal["16", "22"], typer.Option(help="The Asterisk to play.")] = "22",
    username: Annotated[str, typer.Option(help="AMI user.")] = "dialer",
    secret: Annotated[str, typer.Option(help="AMI secret.")] = "secret",
    control_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to steer it; 0: any.")
    ] = None,
) -> None:
    """Run a simulated Asterisk: AMI on a TCP port, with calls that run by the clock."""
    import asyncio

    from dialer.simulation.pbx.control import SimulatedPbxConfig, serve

    played = SimulatedPbxConfig(
        name=name,
        host=host,
        port=port,
        username=username,
        secret=secret,
        version=version,
        control_port=control_port,
    )
    asyncio.run(serve(played))


@simulate.command("multcall")
def simulate_multcall(
    cell: Annotated[
        list[str] | None, typer.Option(help="Play this cell only; may be repeated.")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="How many requests to push.")] = 100,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests per second.")] = 10.0,
    number_prefix: Annotated[
        str, typer.Option(help="What every number begins with; eight digits follow.")
    ] = "+5511900",
    mix: Annotated[
        str | None, typer.Option(help="Shares of the outcomes, such as answered=80,busy=20.")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="The Redis of the cells; default: as in dialer.toml.")
    ] = None,
    code_delay: Annotated[
        float, typer.Option(min=0, help="Seconds from an ACK to its CODLIGACAO.")
    ] = 0.02,
    ring_timeout: Annotated[
        int | None, typer.Option(min=1, max=120, help="TempoToque; default: the cell's.")
    ] = None,
    answered_within: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for Responses after the last request.")
    ] = 120.0,
) -> None:
    """Play Multcall: push requests, answer each ACK with a code, check every Response."""
    settings = _settings("multcall")
    from dialer.simulation.multcall.player import run
    from dialer.simulation.multcall.requests import DEFAULT_MIX, parse_mix

    chosen = [settings.cell(name) for name in cell] if cell else settings.cells
    is_right = run(
        {c.name: redis_url or settings.cell_redis_url(c) for c in chosen},
        [c.name for c in chosen],
        calls,
        rate,
        mix=parse_mix(mix) if mix else DEFAULT_MIX,
        number_prefix=number_prefix,
        push=settings.multcall.push,
        code_delay_s=code_delay,
        code_wait_s=min(c.timeout_command_ack for c in chosen),
        ring_timeout_s=ring_timeout,
        answered_within_s=answered_within,
    )
    if not is_right:
        raise typer.Exit(EXIT_NO)


def _part(module: str) -> Callable[..., None]:
    """The `run` of a part of the system that this installation may lack."""
    import importlib

    try:
        run: Callable[..., None] = importlib.import_module(module).run
    except ModuleNotFoundError as error:
        raise DialerError(
            f"this command needs {error.name}, which is not installed: "
            "pip install 'multcall-dialer[demo]'"
        ) from None
    return run


def _settings(program: str) -> Settings:
    """The settings, with this process's log set up as they say."""
    from dialer.logs import configure
    from dialer.settings import settings

    configure(settings().log, program)
    return settings()


# --- the settings -------------------------------------------------------------------------


@app.command()
def cells() -> None:
    """List the cells: how many calls at once, on which PBXs, on which Redis."""
    from dialer.settings import load
    from dialer.store.redis_url import redacted

    settings = load()
    rows = [
        (cell.name, str(cell.threads), " ".join(cell.pbxs), redacted(settings.cell_redis_url(cell)))
        for cell in settings.cells
    ]
    for line in _table(("CELL", "THREADS", "PBXS", "REDIS"), rows):
        typer.echo(line)


File = Annotated[Path | None, typer.Argument(help="Default: DIALER_CONFIG, or dialer.toml here.")]


@config.command("check")
def config_check(file: File = None) -> None:
    """Say whether the settings are right, and what in them is doubtful."""
    from dialer.settings import config_path, load, stray_variables
    from dialer.settings.advice import advice, secrets_lie_open

    path = file or config_path()
    settings = load(path)
    for doubt in advice(settings.pbxs, settings.cells):
        typer.echo(f"warning: {doubt}", err=True)
    for variable, meant in stray_variables(settings):
        typer.echo(f"warning: {variable} sets nothing; did you mean {meant}?", err=True)
    if secrets_lie_open(path):
        typer.echo(f"warning: everybody can read the secrets in {path}: chmod o-r {path}", err=True)
    pbxs, cells = len(settings.pbxs), len(settings.cells)
    counts = f"{pbxs} PBX{'s' * (pbxs > 1)}, {cells} cell{'s' * (cells > 1)}"
    typer.echo(f"{path} is right: {counts}")


@config.command("show")
def config_show(file: File = None) -> None:
    """Print the settings in effect, environment and defaults included, without secrets."""
    import tomlkit

    from dialer.settings import load

    tables = load(file).model_dump(mode="json", by_alias=True, exclude_none=True)
    typer.echo(tomlkit.dumps(tables), nl=False)


@config.command("import")
def config_import(
    old: Annotated[Path, typer.Argument(metavar="SETTINGS.PY", help="The old dialer's file.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write; default: print it.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Overwrite the file.")] = False,
) -> None:
    """Make a dialer.toml from the settings.py of the old dialer, without executing it."""
    from dialer.settings.legacy import convert

    imported = convert(old)
    if output is None:
        typer.echo(imported.toml, nl=False)
    else:
        _write(output, imported.toml, force=force)
        typer.echo(f"{output} is written; put the PBX right, then: dialer config check {output}")
    for note in imported.notes:
        typer.echo(f"not carried over: {note}", err=True)
    for problem in _still_wrong(imported.toml):
        typer.echo(f"to be put right: {problem}", err=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Left-aligned columns, two spaces apart."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield "  ".join(
            f"{text:<{width}}" for text, width in zip(line, widths, strict=True)
        ).rstrip()


def _write(path: Path, text: str, *, force: bool) -> None:
    """Writes a file that only its owner can read."""
    import os

    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists; --force overwrites it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _still_wrong(toml: str) -> Sequence[object]:
    """What `config check` would find wrong in a file of that text."""
    import tomllib

    from dialer.settings import Settings
    from dialer.settings.problems import SettingsRefused

    try:
        Settings(**tomllib.loads(toml))
    except SettingsRefused as error:
        return error.problems
    return ()


# --- never to be called -------------------------------------------------------------------

Numbers = Annotated[list[str], typer.Argument(metavar="NUMBER...")]


@dnc.command("add")
def dnc_add(numbers: Numbers) -> None:
    """Put numbers on the do-not-call list."""
    wanted = _checked(numbers)
    added = _with_registry(lambda registry: registry.dnc_add(wanted))
    typer.echo(f"{added} added, {len(wanted) - added} were on the list")


@dnc.command("remove")
def dnc_remove(numbers: Numbers) -> None:
    """Take numbers off the do-not-call list."""
    wanted = _checked(numbers)
    removed = _with_registry(lambda registry: registry.dnc_remove(wanted))
    typer.echo(f"{removed} removed, {len(wanted) - removed} were not on the list")


@dnc.command("import")
def dnc_import(
    file: Annotated[Path, typer.Argument(help="One number a line; # starts a comment.")],
) -> None:
    """Put the numbers of a file on the do-not-call list."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DialerError(f"{file} cannot be read as text") from None
    numbers = _checked([text for line in lines if (text := line.partition("#")[0].strip())])
    added = _with_registry(lambda registry: _import(registry, numbers))
    typer.echo(f"{added} added, {len(numbers) - added} were on the list")


@dnc.command("check")
def dnc_check(numbers: Numbers) -> None:
    """Say which numbers are on the do-not-call list; exit code 1 if any is not."""
    wanted = _checked(numbers)
    listed = _with_registry(lambda registry: registry.dnc_contains(wanted))
    for number, is_listed in zip(wanted, listed, strict=True):
        typer.echo(f"{number} is {'on the list' if is_listed else 'not on the list'}")
    if not all(listed):
        raise typer.Exit(EXIT_NO)


async def _import(registry: Registry, numbers: Sequence[str]) -> int:
    step = 1000
    batches = (numbers[at : at + step] for at in range(0, len(numbers), step))
    return sum([await registry.dnc_add(batch) for batch in batches])


def _checked(numbers: Sequence[str]) -> list[str]:
    """The numbers as Multcall writes them, each once: separators within them are dropped."""
    import re

    plain = [re.sub(r"[ ().-]", "", number) for number in numbers]
    for given, number in zip(numbers, plain, strict=True):
        if not re.fullmatch(r"\+?[0-9]{3,20}", number):
            raise DialerError(
                f"{given!r} is no telephone number: 3 to 20 digits, perhaps a + first"
            )
    return list(dict.fromkeys(plain))


def _with_registry(ask: Callable[[Registry], Awaitable[_Answer]]) -> _Answer:
    """What the registry of these settings answers."""
    import asyncio

    from dialer.settings import load
    from dialer.store.client import connect, require
    from dialer.store.registry import Registry
    from dialer.store.steps import Steps

    url = load().registry_redis_url

    async def asked() -> _Answer:
        steps = Steps(connect(url), "the registry's Redis")
        try:
            await require(steps.redis, url, "the registry's Redis")
            return await ask(Registry(steps))
        finally:
            await steps.close()

    return asyncio.run(asked())


if __name__ == "__main__":
    main()
