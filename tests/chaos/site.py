"""The site of one run: its programs, and what stands between each worker and the rest."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos.clock import Clock
from tests.chaos.faults import BRIDGES, WORKERS
from tests.chaos.frames import Breaker
from tests.chaos.places import Pbxs, Store
from tests.chaos.proxy import Proxy
from tests.processes import PbxPlace, Program, Site, site_toml

CELL = "ASR_TIM"

#: No PBX is lost: a worker that is slow to come back must not have its calls given up. In seconds.
PBX_LOST_AFTER_S = 300.0


@dataclass(slots=True)
class Links:
    """What stands between one worker and the rest. With Sentinel it is `ami` only."""

    ami: Proxy
    frames: Breaker
    registry: Proxy | None = None
    cell: Proxy | None = None
    broker: Proxy | None = None

    def proxies(self) -> list[Proxy]:
        return [p for p in (self.ami, self.registry, self.cell, self.broker) if p is not None]


@dataclass(slots=True)
class Ground:
    """Two bridges, and the workers with a file, links and a clock of their own."""

    folder: Path
    seed: int
    pbxs: Pbxs
    store: Store
    links: dict[str, Links] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)

    async def made(self) -> Site:
        """Open the proxies, and write the files."""
        for name in WORKERS:
            self.links[name] = await self._linked(name)
        toml = self._toml({name: links.ami.port for name, links in self.links.items()})
        site = Site(self.folder, toml, self.store.url(0), WORKERS, bridges=len(BRIDGES))
        if self.store.port is not None:
            site.programs[BRIDGES[1]].config = self._two_step_config(toml)
        for name in WORKERS:
            program = site.programs[name]
            program.config = self._config(name, {name: self.links[name].ami.port})
            self.clocks[name] = Clock(self.folder, name)
            program.environment = self.clocks[name].environment()
        return site

    async def close(self) -> None:
        for links in self.links.values():
            for proxy in links.proxies():
                await proxy.stop()

    def copied_unit(self, program: Program) -> Program:
        """The program of a worker that has this one's PBX name and another Asterisk."""
        other = next(name for name in WORKERS if name != program.name)
        config = self._config(program.name, {program.name: self.pbxs.port(other)}, copy="-copy")
        return replace(program, config=config, process=None)

    async def _linked(self, name: str) -> Links:
        frames = Breaker(random.Random(f"{self.seed} frames {name}"))
        ami = Proxy(self.pbxs.port(name), rewriter=frames.connection)
        links = Links(ami=ami, frames=frames)
        if self.store.port is not None:
            links.registry, links.cell, links.broker = (Proxy(self.store.port) for _ in range(3))
        for proxy in links.proxies():
            await proxy.start()
        return links

    def _config(self, name: str, ports: dict[str, int], copy: str = "") -> Path:
        """Write the file of a worker, whose ways all lead over its own proxies."""
        path = self.folder / f"{name}{copy}.toml"
        all_ports = {pbx: links.ami.port for pbx, links in self.links.items()} | ports
        path.write_text(self._toml(all_ports, self.links[name]), encoding="utf-8")
        return path

    def _two_step_config(self, toml: str) -> Path:
        """Write the file of a bridge that takes the registry for a server of its own.

        So it leases and admits in two steps, and the other bridge in one.
        """
        url = f'[registry]\nredis_url = "{self.store.url(0)}"'
        assert url in toml
        path = self.folder / f"{BRIDGES[1]}.toml"
        path.write_text(toml.replace(url, url.replace("127.0.0.1", "localhost")), encoding="utf-8")
        return path

    def _toml(self, ports: dict[str, int], links: Links | None = None) -> str:
        def url(proxy: Proxy | None, db: int) -> str:
            return f"redis://127.0.0.1:{proxy.port}/{db}" if proxy else self.store.url(db)

        registry = url(links.registry if links else None, 0)
        return site_toml(
            url(links.cell if links else None, 0),
            url(links.broker if links else None, 1),
            [PbxPlace(name=n, port=port, secret=self.pbxs.secret) for n, port in ports.items()],
            cells={CELL: {"ring_timeout": 12, "timeout_command_ack": 8}},
            pbx_lost_after=PBX_LOST_AFTER_S,
            extra=f'[registry]\nredis_url = "{registry}"',
        )
