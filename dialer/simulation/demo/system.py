"""The whole system on this machine: Valkey, two simulated PBXs, bridge, workers, page, Flower.

Bridge, workers, web page and Flower are the real programs in separate processes. All files are in
one temporary folder. Needs no Redis, Asterisk or Docker, and works from any directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from redis.asyncio import Redis

import dialer
from dialer.domain.roles import Role
from dialer.simulation.demo.processes import Part, PartFailed
from dialer.simulation.pbx.outcomes import Version
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import cancel, connect
from dialer.store.keys import LedgerKeys, pbx
from dialer.store.people import People
from dialer.store.steps import Steps

CELLS: Final = ("ASR_TIM", "ura-novoteste2")
PBXS: Final[Mapping[str, Version]] = {"pbx01": "22", "pbx02": "16"}
RING_TIMEOUT_S: Final = 3
CODE_WAIT_S: Final = 10.0

#: Seconds within which bridge and workers must be ready.
READY_WITHIN_S: Final = 60.0
POLL_S: Final = 0.05

#: Usual ports; another one is used if it is taken.
FLOWER_PORT: Final = 5555
WEB_PORT: Final = 8080

#: Who signs in to the page by the demo's link.
VISITOR: Final = "demo"

#: The extras that the page needs.
WEB_NEEDS: Final = ("argon2", "babel", "jinja2", "limits", "sse_starlette", "starlette", "uvicorn")

FLOWER_TASKS: Final = 2000

_HEAD: Final = """# Written by `dialer demo`; deleted when the demo ends.
[multcall]
redis_url = "{multcall}"

[broker]
url = "{broker}"
"""
_PBX: Final = """
[[pbxs]]
name = "{name}"
port = {port}
secret = "demo"
max_calls = 100
cps = 50
trunks = {{ carrier = "PJSIP/{{number}}@carrier" }}
"""
_CELL: Final = """
[[cells]]
nome = "{name}"
threads = 100
pbxs = [{pbxs}]
ring_timeout = {ring_timeout_s}
timeout_command_ack = {code_wait_s}
"""


@dataclass(slots=True)
class DemoSystem:
    """The running system; an asynchronous context manager that starts and stops it."""

    valkey: EmbeddedValkey = field(init=False)
    pbxs: list[SimulatedPbx] = field(default_factory=list, init=False)
    parts: list[Part] = field(default_factory=list, init=False)
    folder: Path = field(init=False)
    flower_url: str | None = field(default=None, init=False)
    web_url: str | None = field(default=None, init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    @property
    def config_path(self) -> Path:
        """The settings file, for `DIALER_CONFIG`."""
        return self.folder / "dialer.toml"

    @property
    def redis_url(self) -> str:
        """The URL of the Redis with Multcall's keys, the ledger and the registry."""
        return self.valkey.url(0)

    def rings(self) -> Counter[str]:
        """Return how often each number rang, summed over both PBXs."""
        return sum((each.rings for each in self.pbxs), Counter())

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def watch(self) -> None:
        """Wait until a process ends by itself.

        Raises:
            PartFailed: always, with the last lines of its log.
        """
        watching = [asyncio.create_task(part.watch()) for part in self.parts]
        try:
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel(watching)

    async def until_ready(self) -> None:
        """Wait until calls can start.

        Raises:
            PartFailed: a process ended, or was not ready in time.
        """
        watching = asyncio.create_task(self.watch())
        ready = asyncio.create_task(self._until_ready())
        try:
            await asyncio.wait({watching, ready}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            ready.result()
        finally:
            await cancel([watching, ready])

    # --- starting --------------------------------------------------------------------

    async def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dialer-demo-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.valkey = self._stack.enter_context(EmbeddedValkey(appendonly=True))
        for seed, (name, version) in enumerate(PBXS.items(), start=1):
            simulated = SimulatedPbx(
                name=name,
                secret="demo",
                version=version,
                ring_time=(0.3, 2.0),
                talk_time=(1.0, 4.0),
                seed=seed,
            )
            self.pbxs.append(await self._stack.enter_async_context(simulated))
        self._write_config()
        link = await self._link()
        self._stack.push_async_callback(self._stop_parts)
        for part in self._make_parts(link):
            self.parts.append(part)
            await part.start()

    def _write_config(self) -> None:
        text = _HEAD.format(multcall=self.valkey.url(0), broker=self.valkey.url(1))
        for simulated in self.pbxs:
            text += _PBX.format(name=simulated.name, port=simulated.port)
        names = ", ".join(f'"{name}"' for name in PBXS)
        for cell in CELLS:
            text += _CELL.format(
                name=cell, pbxs=names, ring_timeout_s=RING_TIMEOUT_S, code_wait_s=CODE_WAIT_S
            )
        self.config_path.touch(mode=0o600)
        self.config_path.write_text(text, encoding="utf-8")

    async def _link(self) -> str:
        """Return the path of a one-time link by which a visitor signs in to the page."""
        steps = Steps(connect(self.redis_url), "the demo's Valkey")
        try:
            people = People(steps)
            await people.put(VISITOR, Role.ADMIN, None, by="dialer demo")
            return f"/login?link={await people.new_link(VISITOR, Role.ADMIN, enters=True)}"
        finally:
            await steps.close()

    def _make_parts(self, link: str) -> Sequence[Part]:
        celery = ("-m", "celery", "-A", "dialer")
        commands: dict[str, Sequence[str]] = {"bridge": ("-m", "dialer.cli", "bridge")}
        for name in PBXS:
            commands[f"worker-{name}"] = (*celery, "worker", "-Q", name, "-n", f"{name}@%h")
        if importlib.util.find_spec("flower") is not None:
            port = _free_port(FLOWER_PORT)
            self.flower_url = f"http://127.0.0.1:{port}"
            options = ("--address=127.0.0.1", f"--port={port}", f"--max_tasks={FLOWER_TASKS}")
            commands["flower"] = (*celery, "flower", *options)
        if all(importlib.util.find_spec(name) is not None for name in WEB_NEEDS):
            port = _free_port(WEB_PORT)
            self.web_url = f"http://127.0.0.1:{port}{link}"
            commands["web"] = ("-m", "dialer.cli", "web", f"--port={port}")
        environment = self._environment()
        return [
            Part(name, (sys.executable, *command), self.folder, environment)
            for name, command in commands.items()
        ]

    def _environment(self) -> dict[str, str]:
        """Return our environment without variables for a real dialer on this machine."""
        real = ("DIALER_", "CELERY_", "CREDENTIALS_DIRECTORY")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(real)}
        source = str(Path(dialer.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (source, inherited.get("PYTHONPATH"))))
        return {
            **inherited,
            "DIALER_CONFIG": str(self.config_path),
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
        }

    async def _stop_parts(self) -> None:
        await asyncio.gather(*(part.stop() for part in self.parts))

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        async with connect(self.redis_url) as redis:
            while not await _is_ready(redis):
                if time.monotonic() > deadline:
                    logs = "\n".join(part.last_lines() for part in self.parts)
                    text = (
                        f"The demo was not ready within {READY_WITHIN_S:g} s; if this machine is "
                        "busy, end other programs and try again."
                    )
                    raise PartFailed(f"{text}\n{logs}")
                await asyncio.sleep(POLL_S)
        for url in filter(None, (self.flower_url, self.web_url)):
            await self._until_answers(url)

    async def _until_answers(self, url: str) -> None:
        """Wait for Flower and the page too, so that they see every call; go on if they do not."""
        port = urlsplit(url).port
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                while True:
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        return
                    await asyncio.sleep(POLL_S)


async def _is_ready(redis: Redis) -> bool:
    """True if every worker's AMI link is up and every cell has a bridge."""
    links = [await redis.hget(pbx(name), "link") for name in PBXS]
    bridges = [await redis.zcard(LedgerKeys(cell).bridges) for cell in CELLS]
    return all(link == b"up" for link in links) and all(bridges)


def _free_port(usual: int) -> int:
    """Return this port if it is free, else any free port."""
    for wanted in (usual, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            return int(probe.getsockname()[1])
    raise PartFailed("There is no free port on 127.0.0.1.")
