"""Where the real benchmark takes place: Asterisk 22, a SIP carrier and Redis, all on this machine.

Asterisk and carrier are the containers of tests/acceptance/lab, reached at their own addresses:
the proxy that publishes a container's ports would use CPU too. Redis is an embedded Valkey with
the durability that the manual recommends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.bare import Manager
from benchmarks.verdict import NotMeasured
from dialer.simulation.valkey import EmbeddedValkey
from tests.acceptance.lab.lab import AMI_SECRET, AMI_USERNAME, Lab, docker_available
from tests.processes import PbxPlace, Site, site_toml

VERSION: Final = "22"
ASTERISK: Final = f"asterisk{VERSION}"
CARRIER: Final = "carrier"
CELL: Final = "ASR_TIM"
PBX: Final = "pbx22"
TRUNK: Final = "PJSIP/{number}@carrier"

#: Last two digits: the carrier answers after 0.2 s and clears after another 0.2 s (lab/README.md).
LAST_TWO: Final = 0

#: As the manual recommends: nothing that Redis has answered is lost.
DURABLE: Final = {"appendfsync": "always"}


@dataclass(slots=True)
class Place:
    """The place while it is up. `at_once` bounds the calls of every way to dial."""

    lab: Lab
    redis: EmbeddedValkey
    folder: Path
    at_once: int
    sites: int = 0
    manager: Manager = field(init=False)

    def __post_init__(self) -> None:
        address = self.lab.address(ASTERISK)
        self.manager = Manager(host=address, port=5038, username=AMI_USERNAME, secret=AMI_SECRET)

    @property
    def asterisk_pid(self) -> int:
        return self.lab.pid(ASTERISK)

    @property
    def carrier_pid(self) -> int:
        return self.lab.pid(CARRIER)

    @property
    def redis_pid(self) -> int:
        assert self.redis.pid is not None
        return self.redis.pid

    def clear(self) -> None:
        """End all calls of Asterisk and remove their records."""
        self.lab.hang_up_everything(VERSION)
        self.lab.cli(VERSION, "database deltree dialer")

    @contextmanager
    def site(self, bridges: int = 1) -> Iterator[Site]:
        """A started site of ours on an empty Redis, stopped in any case."""
        pbx = PbxPlace(
            name=PBX,
            port=self.manager.port,
            secret=self.manager.secret,
            max_calls=self.at_once,
            cps=1000.0,
            more={"host": self.manager.host},
        )
        toml = site_toml(
            self.redis.url(0), self.redis.url(1), [pbx], cells={CELL: {"threads": self.at_once}}
        )
        self.sites += 1
        folder = self.folder / f"site-{self.sites}"
        folder.mkdir()
        site = Site(folder, toml, self.redis.url(0), [PBX], bridges=bridges)
        try:
            site.start()
            yield site
        finally:
            site.stop()

    def invited_at(self) -> dict[str, float]:
        """When each number reached the carrier, in seconds since 1970."""
        return {ring.number: ring.at for ring in self.lab.ring_log()}


@contextmanager
def place(folder: Path, at_once: int) -> Iterator[Place]:
    """Start Asterisk, carrier and Redis; take down what was not up before.

    Raises:
        NotMeasured: there is no Docker.
    """
    if (problem := docker_available()) is not None:
        raise NotMeasured(f"no Docker: {problem}")
    lab = Lab((ASTERISK, CARRIER))
    was_up = lab.is_up()
    lab.up()
    try:
        with EmbeddedValkey(appendonly=True, config=DURABLE) as redis:
            yield Place(lab, redis, folder, at_once)
    finally:
        if not was_up:
            lab.down()
