"""Long-running programs: `dialer bridge`, `monitor`, `metrics`, `traces`, `web`, `demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from dialer.cli.startup import settings_with_log
from dialer.errors import DialerError


def bridge(
    cell: Annotated[
        list[str] | None, typer.Option(help="Serve only this cell; may be repeated.")
    ] = None,
) -> None:
    """Fetch Multcall's requests and distribute them over the PBXs."""
    from dialer.bridge.signals import block_sighup

    block_sighup()
    settings = settings_with_log("bridge")
    from dialer.bridge.service import run

    run(settings, cell or [])


def demo(
    keep: Annotated[bool, typer.Option(help="Continue after the last call.")] = False,
    calls: Annotated[int, typer.Option(min=1, help="Number of calls.")] = 200,
) -> None:
    """Run the whole system on this machine, with a simulated PBX and a simulated Multcall."""
    try:
        from dialer.simulation.demo.run import run
    except ModuleNotFoundError as error:
        raise _lacks(error, "pip", "demo") from None
    run(calls=calls, keep=keep)


def monitor(
    server: Annotated[
        str, typer.Option(help="Only the cells on that Redis: HOST or HOST:PORT.")
    ] = "",
    interval: Annotated[
        int, typer.Option(min=100, max=3_600_000, metavar="MS", help="Pause between two looks.")
    ] = 1000,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each look.")] = False,
) -> None:
    """Show cells, PBXs, calls and outcomes on the terminal, updated continuously."""
    settings = settings_with_log("monitor")
    import asyncio

    from rich.console import Console

    from dialer.monitor.terminal import View, watch

    view = View(every_s=interval / 1000, is_once=once, is_json=json, server=server)
    asyncio.run(watch(settings, Console(), view))


def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9464,
) -> None:
    """Serve metrics for Prometheus at /metrics, read when it scrapes."""
    settings = settings_with_log("metrics")
    import asyncio

    from dialer.monitor.metrics import serve

    asyncio.run(serve(settings, host, port))


def traces(
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="The collector's OTLP over HTTP.")
    ] = "http://127.0.0.1:4318",
) -> None:
    """Send each call that ended to an OpenTelemetry collector, as a trace."""
    settings = settings_with_log("traces")
    import asyncio

    try:
        from dialer.monitor.traces import serve
    except ModuleNotFoundError as error:
        raise _lacks(error, "/opt/dialer/bin/pip", "traces") from None
    if not endpoint.startswith(("http://", "https://")):
        raise DialerError(f"{endpoint} is not a URL: give --endpoint http://HOST:4318")
    asyncio.run(serve(settings, endpoint))


def web(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    proxy: Annotated[
        str,
        typer.Option(
            metavar="ADDRESSES",
            help="Reverse proxies whose X-Forwarded headers are believed, with commas; * for all.",
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve the web page: watch the system and steer it in a browser."""
    settings = settings_with_log("web")
    import asyncio

    try:
        from dialer.web.server import serve
    except ModuleNotFoundError as error:
        raise _lacks(error, "/opt/dialer/bin/pip", "web") from None
    asyncio.run(serve(settings, host, port, proxy))


def _lacks(error: ModuleNotFoundError, pip: str, extra: str) -> DialerError:
    """Return the error of a command whose packages are not installed, with the cure."""
    return DialerError(
        f"this command needs {error.name}, which is not installed: "
        f"in the checkout, {pip} install -c constraints.txt '.[{extra}]'"
    )
