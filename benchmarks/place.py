"""Where the real benchmark takes place: Asterisk 22, a SIP carrier and Redis, all on this machine.

Asterisk and carrier are the containers of tests/acceptance/lab, reached at their own addresses:
the proxy that publishes a container's ports would use CPU too. Redis and broker are in stores.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.bare import Manager
from benchmarks.stores import Stores, stores
from benchmarks.verdict import NotMeasured
from tests.acceptance.lab.lab import AMI_SECRET, AMI_USERNAME, Lab, docker_available
from tests.processes import PbxPlace, Site, site_toml
from tests.tls import certificate

VERSION: Final = "22"
ASTERISK: Final = f"asterisk{VERSION}"
CARRIER: Final = "carrier"
AMI_PORT: Final = 5038
AMI_TLS_PORT: Final = 5039
CELL: Final = "ASR_TIM"
PBX: Final = "pbx22"
TRUNK: Final = "PJSIP/{number}@carrier"

#: Last two digits: the carrier answers after 0.2 s and clears after another 0.2 s (lab/README.md).
LAST_TWO: Final = 0


@dataclass(slots=True)
class Place:
    """The place while it is up. `at_once` bounds the calls of every way to dial."""

    lab: Lab
    stores: Stores
    folder: Path
    at_once: int
    ami_port: int = AMI_PORT
    ami_tls: Mapping[str, object] = field(default_factory=dict)
    sites: int = 0
    manager: Manager = field(init=False)

    def __post_init__(self) -> None:
        address = self.lab.address(ASTERISK)
        self.manager = Manager(
            host=address, port=AMI_PORT, username=AMI_USERNAME, secret=AMI_SECRET
        )

    def use_tls(self, folder: Path) -> None:
        """Let the worker speak to AMI over TLS."""
        folder.mkdir()
        cert, key = asyncio.run(certificate(folder, f"IP:{self.manager.host}"))
        self.lab.use_certificate(VERSION, cert, key)
        self.ami_port, self.ami_tls = AMI_TLS_PORT, {"tls": True, "tls_ca_file": str(cert)}

    @property
    def asterisk_pid(self) -> int:
        return self.lab.pid(ASTERISK)

    @property
    def carrier_pid(self) -> int:
        return self.lab.pid(CARRIER)

    def clear(self) -> None:
        """End all calls of Asterisk and remove their records."""
        self.lab.hang_up_everything(VERSION)
        self.lab.cli(VERSION, "database deltree dialer")

    @contextmanager
    def site(self, bridges: int = 1) -> Iterator[Site]:
        """A started site of ours on an empty Redis, stopped in any case."""
        pbx = PbxPlace(
            name=PBX,
            port=self.ami_port,
            secret=self.manager.secret,
            max_calls=self.at_once,
            cps=1000.0,
            more={"host": self.manager.host, **self.ami_tls},
        )
        toml = site_toml(
            self.stores.redis_url,
            self.stores.broker_url,
            [pbx],
            cells={CELL: {"threads": self.at_once}},
        )
        self.sites += 1
        folder = self.folder / f"site-{self.sites}"
        folder.mkdir()
        site = Site(folder, toml, self.stores.caller_url, [PBX], bridges=bridges)
        try:
            site.start()
            yield site
        finally:
            site.stop()

    def invited_at(self) -> dict[str, float]:
        """When each number reached the carrier, in seconds since 1970."""
        return {ring.number: ring.at for ring in self.lab.ring_log()}


@contextmanager
def place(folder: Path, at_once: int, variant: str = "plain") -> Iterator[Place]:
    """Start Asterisk, carrier and Redis; take down what was not up before.

    `variant` is one of `stores.VARIANTS`; with `tls` AMI uses it too.

    Raises:
        NotMeasured: there is no Docker.
    """
    if (problem := docker_available()) is not None:
        raise NotMeasured(f"no Docker: {problem}")
    lab = Lab((ASTERISK, CARRIER))
    was_up = lab.is_up()
    lab.up()
    try:
        with stores(variant, folder / "stores") as started:
            here = Place(lab, started, folder, at_once)
            if variant == "tls":
                here.use_tls(folder / "ami")
            yield here
    finally:
        if not was_up:
            lab.down()
