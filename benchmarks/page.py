"""What `dialer web` costs: with viewers of the overview, and with none.

The server is an embedded Valkey with the keys of a running system; the heartbeats of its bridge and
workers are kept fresh. The viewers are streams that are read as a browser reads them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.snapshot import fill
from benchmarks.tables import Row, Table
from benchmarks.usage import Used, rss_bytes
from dialer.domain.roles import Role
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store import keys
from dialer.store.client import cancel, connect
from dialer.store.keys import LedgerKeys
from dialer.store.people import People
from dialer.store.steps import Steps

#: The programs settle this long, in seconds.
SETTLED_S: Final = 4.0

#: Calls of each cell.
CALLS: Final = 200

#: Pause between two heartbeats of the bridge, in seconds.
BEAT_EVERY_S: Final = 0.5

READY_WITHIN_S: Final = 60.0

COLUMNS: Final = ("cells", "PBXs", "viewers", "web %", "looks/s", "MB", "kB/s a viewer")


@dataclass(frozen=True, slots=True)
class Site:
    """A system with that many cells and PBXs, and `dialer web` for it."""

    folder: Path
    url: str
    cells: Mapping[str, Sequence[str]]
    pbxs: int

    def write(self) -> Path:
        """Write the settings file and return it."""
        text = f'[multcall]\nredis_url = "{self.url}"\n[broker]\nurl = "{self.url}"\n'
        for n in range(self.pbxs):
            text += f'[[pbxs]]\nname = "pbx{n:02}"\nport = 5038\nsecret = "none"\nmax_calls = 100\n'
            text += 'cps = 10\ntrunks = { tim = "PJSIP/{number}@tim" }\n'
        for cell, pbxs in self.cells.items():
            names = ", ".join(f'"{pbx}"' for pbx in pbxs)
            text += f'[[cells]]\nnome = "{cell}"\nthreads = 50\npbxs = [{names}]\n'
        path = self.folder / "dialer.toml"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return path

    async def beat(self) -> None:
        """Keep the heartbeats of a bridge and of the workers fresh, until cancelled."""
        async with Redis.from_url(self.url) as redis:
            while True:
                pipe, now_ms = redis.pipeline(transaction=False), int(time.time() * 1000)
                for cell in self.cells:
                    pipe.zadd(LedgerKeys(cell).bridges, {"bridge-1": now_ms})
                for n in range(self.pbxs):
                    beat: Any = {"link": "up", "instance": "w", "seen_ms": now_ms}
                    pipe.hset(keys.pbx(f"pbx{n:02}"), mapping=beat | {"ready_ms": now_ms})
                await pipe.execute()
                await asyncio.sleep(BEAT_EVERY_S)

    async def session(self) -> str:
        """Return the token of a session that may see everything."""
        steps = Steps(connect(self.url), "Redis")
        try:
            people = People(steps)
            await people.put("viewer", Role.ADMIN, None, by="benchmark")
            user = await people.user("viewer")
            assert user is not None
            return await people.begin_session(user)
        finally:
            await steps.close()


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[tuple[int, int]]:
    """Run `dialer web`; yield its pid and its port."""
    environment = {**os.environ, "DIALER_CONFIG": str(site.write()), "PYTHONUNBUFFERED": "1"}
    port = await _free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dialer.cli", "web", "--port", str(port)),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.1)
        yield process.pid, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _free_port() -> int:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@dataclass(slots=True)
class Viewer:
    """One stream of the overview. `events` and `size` are what came."""

    port: int
    token: str
    events: int = 0
    size: int = 0

    async def watch(self) -> None:
        """Read until cancelled."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"GET /events?page=/ HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            writer.write(f"{head}Cookie: __Host-dialer={self.token}\r\n\r\n".encode())
            while part := await reader.read(1 << 16):
                self.size += len(part)
                self.events += part.count(b"event: live")
        finally:
            writer.close()


async def measure(url: str, size: tuple[int, int], viewers: int, seconds: float) -> Row:
    """Measure `dialer web` on an empty server."""
    cells, pbxs = size
    names = [f"pbx{n:02}" for n in range(pbxs)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        site = Site(Path(folder), url, {f"CELL{n:03}": names for n in range(cells)}, pbxs)
        async with Redis.from_url(url) as redis:
            await redis.flushall()
            await fill(redis, site.cells, CALLS)
        token = await site.session()
        async with serving(site) as (pid, port):
            watching = [Viewer(port, token) for _ in range(viewers)]
            tasks = [asyncio.create_task(each.watch()) for each in watching]
            tasks.append(asyncio.create_task(site.beat()))
            try:
                await asyncio.sleep(SETTLED_S)
                used, before = Used.by(pid), [(v.events, v.size) for v in watching]
                began = time.monotonic()
                await asyncio.sleep(seconds)
                spent, passed = Used.by(pid) - used, time.monotonic() - began
                after = [(v.events, v.size) for v in watching]
            finally:
                await cancel(tasks)
            memory = rss_bytes(pid) / 1e6
    events = sum(now[0] - then[0] for now, then in zip(after, before, strict=True))
    came = sum(now[1] - then[1] for now, then in zip(after, before, strict=True))
    each = max(1, viewers)
    return {
        "cells": cells,
        "PBXs": pbxs,
        "viewers": viewers,
        "web %": spent.cpu_s * 100 / passed,
        "looks/s": events / each / passed,
        "MB": memory,
        "kB/s a viewer": came / each / passed / 1000,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--viewers", default="0,1,100,500")
    parser.add_argument("--seconds", type=float, default=20.0)


def run(asked: argparse.Namespace) -> list[Table]:
    """Measure a small and a large system."""
    rows = []
    with EmbeddedValkey(appendonly=False) as server:
        for size in ((5, 2), (50, 20)):
            for viewers in map(int, asked.viewers.split(",")):
                rows.append(asyncio.run(measure(server.url(0), size, viewers, asked.seconds)))
    return [
        Table(
            name="page",
            title="The web page: viewers of the overview",
            columns=COLUMNS,
            rows=rows,
            note="CPU of dialer web in percent of one core; one look each second serves all.",
        )
    ]
