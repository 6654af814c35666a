"""Where a run takes place: the PBXs and the Redis, real or not, and what can be done to them.

Real PBXs and their Redis are the containers of the lab. Without Docker there are simulated PBXs,
which live in this event loop, and an embedded Valkey. A run with Sentinel has two Valkeys and
three sentinels in either case.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dialer.simulation.pbx.server import SimulatedPbx
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect
from tests.acceptance.lab.lab import AMI_SECRET, PROJECT, Lab, Version
from tests.integration.sentinel import Watched
from tests.processes import Program

VERSION: dict[str, Version] = {"pbx22": "22", "pbx16": "16"}

#: Within this time the sentinels have made a replica the master, in seconds.
PROMOTED_WITHIN_S = 60.0

#: The sentinels do not take a master for dead that is only busy, in seconds.
DOWN_AFTER_S = 4.0

#: How long the PBX stays on the line, by the tens digit of the number (carrier/uas.xml). All others
#: are cleared by the carrier; a BYE of the PBX before is always too early. In seconds.
STAYS_S: Mapping[str, float] = {"6": 2.0, "9": 600.0}

#: By how much the carrier's times of answer and BYE may be off, in seconds.
SLACK_S = 0.5


def was_cut_off(number: str, talked_s: float | None) -> bool:
    """True if the PBX cleared an answered call before the dialplan had a reason to.

    `talked_s` is None if the PBX did not clear it.
    """
    stays_s = 1.0 if number.endswith("95") else STAYS_S.get(number[-2], float("inf"))
    return talked_s is not None and talked_s < stays_s - SLACK_S


class Pbxs(Protocol):
    """The PBXs of a run, by name."""

    secret: str

    async def up(self) -> None: ...
    async def down(self) -> None: ...
    def port(self, pbx: str) -> int: ...
    async def kill(self, pbx: str) -> None: ...
    async def pause(self, pbx: str) -> None: ...
    async def unpause(self, pbx: str) -> None: ...
    def rings(self) -> Counter[str]: ...
    def cut_off(self) -> set[str]: ...


class Store(Protocol):
    """The Redis of a run: `url` gives the URL of one of its databases."""

    #: Its port, where a proxy may stand before it; None if clients find it by themselves.
    port: int | None

    async def up(self) -> None: ...
    async def down(self) -> None: ...
    def url(self, db: int) -> str: ...
    async def kill(self) -> None: ...
    async def start(self) -> None: ...
    async def pause(self) -> None: ...
    async def unpause(self) -> None: ...


async def docker(*command: str) -> None:
    await asyncio.to_thread(subprocess.run, ["docker", *command], check=True, capture_output=True)


@dataclass(slots=True)
class RealPbxs:
    """The lab's Asterisks and their carrier."""

    lab: Lab
    secret: str = AMI_SECRET

    async def up(self) -> None:
        await asyncio.to_thread(self.lab.up)
        for version in VERSION.values():
            await asyncio.to_thread(self.lab.hang_up_everything, version)

    async def down(self) -> None:
        """They stay."""

    def port(self, pbx: str) -> int:
        return self.lab.ami_port(VERSION[pbx])

    async def kill(self, pbx: str) -> None:
        await asyncio.to_thread(self.lab.restart_asterisk, VERSION[pbx])

    async def pause(self, pbx: str) -> None:
        await docker("pause", f"{PROJECT}-asterisk{VERSION[pbx]}-1")

    async def unpause(self, pbx: str) -> None:
        await docker("unpause", f"{PROJECT}-asterisk{VERSION[pbx]}-1")

    def rings(self) -> Counter[str]:
        return self.lab.rings()

    def cut_off(self) -> set[str]:
        """Numbers whose call was answered and then cleared by the PBX too early."""
        rings = self.lab.ring_log()
        return {ring.number for ring in rings if was_cut_off(ring.number, ring.talked_s)}


@dataclass(slots=True)
class SimulatedPbxs:
    """Simulated PBXs; what a customer hears is not simulated, so nobody is seen cut off."""

    secret: str = "secret"
    pbxs: dict[str, SimulatedPbx] = field(default_factory=dict)

    async def up(self) -> None:
        for name, version in VERSION.items():
            quick = {"ring_time": (0.2, 1.0), "talk_time": (0.2, 5.0)}
            self.pbxs[name] = SimulatedPbx(name=name, version=version, **quick)  # type: ignore[arg-type]
            await self.pbxs[name].start()

    async def down(self) -> None:
        for pbx in self.pbxs.values():
            await pbx.stop()

    def port(self, pbx: str) -> int:
        return self.pbxs[pbx].port

    async def kill(self, pbx: str) -> None:
        self.pbxs[pbx].restart()

    async def pause(self, pbx: str) -> None:
        self.pbxs[pbx].hang()

    async def unpause(self, pbx: str) -> None:
        self.pbxs[pbx].unhang()

    def rings(self) -> Counter[str]:
        return sum((pbx.rings for pbx in self.pbxs.values()), Counter())

    def cut_off(self) -> set[str]:
        return set()


@dataclass(slots=True)
class RealRedis:
    """The lab's Redis."""

    lab: Lab
    port: int | None = None

    async def up(self) -> None:
        self.port = self.lab.redis_port()

    async def down(self) -> None:
        """It stays."""

    def url(self, db: int) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    async def kill(self) -> None:
        await docker("kill", "--signal", "KILL", f"{PROJECT}-redis-1")

    async def start(self) -> None:
        await docker("start", f"{PROJECT}-redis-1")

    async def pause(self) -> None:
        await docker("pause", f"{PROJECT}-redis-1")

    async def unpause(self) -> None:
        await docker("unpause", f"{PROJECT}-redis-1")


@dataclass(slots=True)
class LocalValkey:
    """An embedded Valkey."""

    port: int | None = None
    server: EmbeddedValkey = field(default_factory=lambda: EmbeddedValkey(appendonly=True))

    async def up(self) -> None:
        await self.start()
        self.port = self.server.port

    async def down(self) -> None:
        await asyncio.to_thread(self.server.close)

    def url(self, db: int) -> str:
        return self.server.url(db)

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def pause(self) -> None:
        _signal(self.server, signal.SIGSTOP)

    async def unpause(self) -> None:
        _signal(self.server, signal.SIGCONT)


@dataclass(slots=True)
class Sentinels:
    """A master, its replica and three sentinels; `kill` and `start` make a failover."""

    folder: Path
    port: int | None = None
    programs: list[Program] = field(default_factory=list)
    watched: Watched | None = None

    async def up(self) -> None:
        self.watched = await asyncio.to_thread(Watched.prepared)
        self.watched.down_after_s = DOWN_AFTER_S
        await self.watched.watch(self)

    async def run(self, name: str, command: list[str], /) -> Program:
        program = Program(name, command, self.folder / "sentinel.conf", self.folder / f"{name}.log")
        program.start()
        self.programs.append(program)
        return program

    async def down(self) -> None:
        for program in self.programs:
            program.kill()
        if self.watched is not None:
            await asyncio.to_thread(self.watched.close)

    def url(self, db: int) -> str:
        assert self.watched is not None
        return self.watched.url(db)

    async def kill(self) -> None:
        assert self.watched is not None
        await self.watched.kill_master()

    async def start(self) -> None:
        """Wait until the replica is the master, and start the old one as its replica."""
        assert self.watched is not None
        async with connect(self.url(0)) as redis:
            await self.watched.until_promoted(redis, within_s=PROMOTED_WITHIN_S)
        await self.watched.repair()

    async def pause(self) -> None:
        assert self.watched is not None
        _signal(self.watched.master, signal.SIGSTOP)

    async def unpause(self) -> None:
        assert self.watched is not None
        _signal(self.watched.master, signal.SIGCONT)


def _signal(server: EmbeddedValkey, signum: signal.Signals) -> None:
    if server.pid is not None:
        os.kill(server.pid, signum)
