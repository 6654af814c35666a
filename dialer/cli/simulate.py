"""Commands that simulate the other systems: `dialer simulate pbx`, `dialer simulate multcall`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dialer.cli.groups import EXIT_NO, group
from dialer.cli.startup import settings_with_log

simulate = group("Simulate a PBX or Multcall.")


@simulate.command("pbx")
def pbx(
    name: Annotated[str, typer.Option(help="Name of the PBX.")] = "pbx01",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="AMI port; 0: any.")] = 5038,
    version: Annotated[Literal["16", "22"], typer.Option(help="Asterisk version.")] = "22",
    username: Annotated[str, typer.Option(help="AMI user.")] = "dialer",
    secret: Annotated[str, typer.Option(help="AMI secret.")] = "secret",
    control_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port for control commands; 0: any.")
    ] = None,
) -> None:
    """Run a simulated Asterisk: AMI on a TCP port, calls with realistic timing."""
    import asyncio

    from dialer.simulation.pbx.control import SimulatedPbxConfig, serve

    config = SimulatedPbxConfig(
        name=name,
        host=host,
        port=port,
        username=username,
        secret=secret,
        version=version,
        control_port=control_port,
    )
    asyncio.run(serve(config))


@simulate.command("multcall")
def multcall(
    cell: Annotated[
        list[str] | None, typer.Option(help="Simulate only this cell; may be repeated.")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="Number of requests to push.")] = 100,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests per second.")] = 10.0,
    number_prefix: Annotated[
        str, typer.Option(help="First digits of every number; eight digits follow.")
    ] = "+5511900",
    mix: Annotated[
        str | None, typer.Option(help="Weights of the outcomes, such as answered=80,busy=20.")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="The cells' Redis; default: as in dialer.toml.")
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
    """Simulate Multcall: push requests, send a code for each ACK, check every Response."""
    settings = settings_with_log("multcall")
    from dialer.simulation.multcall.player import run
    from dialer.simulation.multcall.requests import DEFAULT_MIX, parse_mix

    cells = [settings.cell(name) for name in cell] if cell else settings.cells
    is_right = run(
        {c.name: redis_url or settings.cell_redis_url(c) for c in cells},
        [c.name for c in cells],
        calls,
        rate,
        mix=parse_mix(mix) if mix else DEFAULT_MIX,
        number_prefix=number_prefix,
        push=settings.multcall.push,
        fields=settings.multcall.wire.fields,
        code_delay_s=code_delay,
        code_wait_s=min(c.timeout_command_ack for c in cells),
        ring_timeout_s=ring_timeout,
        answered_within_s=answered_within,
    )
    if not is_right:
        raise typer.Exit(EXIT_NO)
