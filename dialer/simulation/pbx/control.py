"""`dialer simulate pbx`: a simulated PBX as a program, with a control port.

Owns the program's configuration, the control commands and the signals. Tests that run the
simulation as a subprocess inject faults through them.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from dialer.simulation.pbx.outcomes import Version
from dialer.simulation.pbx.server import SimulatedPbx

#: Calls that the PBX can start a second: `capacity 20`, `capacity off`.
_CAPACITY: Final = re.compile(r"capacity ([1-9][0-9]{0,5}|off)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPbxConfig:
    """Configuration of the program. Times in seconds, ranges as (shortest, longest).

    `control_port` is None for no control port, 0 for any free port; the first line of output
    has its number.
    """

    name: str = "pbx01"
    host: str = "127.0.0.1"
    port: int = 5038
    username: str = "dialer"
    secret: str = "secret"
    version: Version = "22"
    ring_time: tuple[float, float] = (1.0, 4.0)
    talk_time: tuple[float, float] = (2.0, 8.0)
    long_talk: float = 300.0
    seed: int | None = 1
    include: bool = True
    control_port: int | None = None


async def serve(config: SimulatedPbxConfig) -> None:
    """Run until SIGINT or SIGTERM.

    The first line on standard output is JSON: name, host, port and control_port. SIGUSR1
    drops the links, SIGUSR2 hangs and unhangs, SIGHUP restarts.
    """
    pbx = SimulatedPbx(
        name=config.name,
        host=config.host,
        port=config.port,
        username=config.username,
        secret=config.secret,
        version=config.version,
        ring_time=config.ring_time,
        talk_time=config.talk_time,
        long_talk=config.long_talk,
        seed=config.seed,
        include=config.include,
    )
    stopped = asyncio.Event()
    await pbx.start()
    control: ControlPort | None = None
    try:
        if config.control_port is not None:
            control = ControlPort(pbx, stop=stopped.set)
            await control.start(config.host, config.control_port)
        _install_signal_handlers(pbx, stopped)
        _print_ports(config, pbx, control)
        await stopped.wait()
    finally:
        if control is not None:
            control.stop()
        await pbx.stop()


class ControlPort:
    """A line-based TCP port: one command in, one line out (`ok`, JSON, or `error: ...`)."""

    def __init__(self, pbx: SimulatedPbx, *, stop: Callable[[], None]) -> None:
        self.port = 0
        self._pbx = pbx
        self._server: asyncio.Server | None = None
        self._commands: Final[dict[str, Callable[[], None]]] = {
            "drop": pbx.drop_links,
            "hang": pbx.hang,
            "unhang": pbx.unhang,
            "restart": pbx.restart,
            "shutdown": lambda: pbx.restart(is_clean=True),
            "refuse": lambda: pbx.refuse_connections(True),
            "accept": lambda: pbx.refuse_connections(False),
            "stop": stop,
        }

    async def start(self, host: str, port: int) -> None:
        """Listen on `port`; 0 is any free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _ControlConnection(self), host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def answer(self, line: str) -> str:
        """Execute one control command and return the output line."""
        command = line.strip().lower()
        if found := _CAPACITY.fullmatch(command):
            self._pbx.slow_down(float(found[1]) if found[1] != "off" else None)
            return "ok"
        if command == "stats":
            return json.dumps(self._pbx.stats())
        if command not in self._commands:
            return f"error: unknown command; known: stats, capacity, {', '.join(self._commands)}"
        self._commands[command]()
        return "ok"


class _ControlConnection(asyncio.Protocol):
    """One connection to the control port; has no task that could outlive the loop."""

    def __init__(self, control: ControlPort) -> None:
        self._control = control
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no such class

    def data_received(self, data: bytes) -> None:
        """Answer each complete line."""
        assert self._transport is not None
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            answer = self._control.answer(line.decode("utf-8", "replace"))
            self._transport.write(f"{answer}\n".encode())


def _install_signal_handlers(pbx: SimulatedPbx, stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, pbx.drop_links)
    loop.add_signal_handler(signal.SIGUSR2, lambda: pbx.unhang() if pbx.is_hung else pbx.hang())
    loop.add_signal_handler(signal.SIGHUP, pbx.restart)


def _print_ports(
    config: SimulatedPbxConfig, pbx: SimulatedPbx, control: ControlPort | None
) -> None:
    ports = {
        "name": config.name,
        "host": config.host,
        "port": pbx.port,
        "control_port": control.port if control else None,
    }
    sys.stdout.write(f"{json.dumps(ports)}\n")
    sys.stdout.flush()
