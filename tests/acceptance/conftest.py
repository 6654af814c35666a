"""Real Asterisk 22 and 16, a SIP carrier and Redis in Docker; bridges and workers as processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from tests.acceptance.containers import CELL as CELL
from tests.acceptance.containers import TRUNKS as TRUNKS
from tests.acceptance.containers import docker_client as docker_client
from tests.acceptance.containers import image as image
from tests.acceptance.containers import make_bridge as make_bridge
from tests.acceptance.containers import own_redis as own_redis
from tests.acceptance.containers import own_redis_ports as own_redis_ports
from tests.acceptance.containers import own_redis_url as own_redis_url
from tests.acceptance.containers import start_worker as start_worker
from tests.acceptance.lab.lab import AMI_SECRET, Lab, docker_available
from tests.conftest import require_service
from tests.processes import PbxPlace, Site, site_toml

PBXS: Mapping[str, str] = {"pbx22": "22", "pbx16": "16"}

MakeSite = Callable[..., Site]

#: It takes some minutes of a whole machine, so it runs only if it is asked for.
collect_ignore = [] if "DIALER_SATURATE" in os.environ else ["test_governor_real.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an acceptance test."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, up; what was not up before is taken down again."""
    require_service("Docker", docker_available())
    lab = Lab()
    was_up = lab.is_up()
    lab.up()
    yield lab
    if not was_up:
        lab.down()


@pytest.fixture
def redis_url(lab: Lab) -> Iterator[str]:
    """The lab's Redis, emptied."""
    url = f"redis://127.0.0.1:{lab.redis_port()}/0"
    with Redis.from_url(url) as redis:
        redis.flushall()
        yield url


@contextmanager
def running(site: Site) -> Iterator[Site]:
    """A started site, stopped in any case."""
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def make_site(lab: Lab, redis_url: str, tmp_path: Path) -> Iterator[MakeSite]:
    """Make and start a site on these Asterisks; more fields are the cell's."""
    with ExitStack() as stack:

        def make(
            *,
            pbxs: Sequence[str] = tuple(PBXS),
            bridges: int = 1,
            max_calls: int = 400,
            cps: float = 200.0,
            governor: bool = True,
            broker_url: str = "",
            trunks: Mapping[str, str] = TRUNKS,
            ports: Mapping[str, int] | None = None,
            more_cells: Mapping[str, Mapping[str, object]] | None = None,
            **cell: object,
        ) -> Site:
            for version in ("16", "22"):
                lab.hang_up_everything(version)
            places = [
                PbxPlace(
                    name=name,
                    port=(ports or {}).get(name) or lab.ami_port("22" if version == "22" else "16"),
                    secret=AMI_SECRET,
                    max_calls=max_calls,
                    cps=cps,
                    more={"governor": governor},
                    trunks=trunks,
                )
                for name, version in PBXS.items()
                if name in pbxs
            ]
            toml = site_toml(
                redis_url,
                broker_url or redis_url.removesuffix("/0") + "/1",
                places,
                cells={
                    CELL: {"ring_timeout": 5, "variables": ["LAB_*"], **cell},
                    **(more_cells or {}),
                },
            )
            site = Site(tmp_path, toml, redis_url, pbxs, bridges=bridges)
            return stack.enter_context(running(site))

        yield make
