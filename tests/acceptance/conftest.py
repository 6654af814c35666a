"""Real Asterisk 22 and 16, a SIP carrier and Redis in Docker; bridges and workers as processes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.acceptance.compose import ComposeSite
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
from tests.site import PbxPlace, Site, site_toml

PBXS: Mapping[str, str] = {"pbx22": "22", "pbx16": "16"}

MakeSite = Callable[..., Site]


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
    """Makes and starts a site on both Asterisks; more fields are the cell's."""
    with ExitStack() as stack:

        def make(
            *, bridges: int = 1, max_calls: int = 400, broker_url: str = "", **cell: object
        ) -> Site:
            for version in ("16", "22"):
                lab.hang_up_everything(version)
            places = [
                PbxPlace(
                    name=name,
                    port=lab.ami_port("22" if version == "22" else "16"),
                    secret=AMI_SECRET,
                    max_calls=max_calls,
                    trunks=TRUNKS,
                )
                for name, version in PBXS.items()
            ]
            toml = site_toml(
                redis_url,
                broker_url or redis_url.removesuffix("/0") + "/1",
                places,
                cells={CELL: {"ring_timeout": 5, **cell}},
            )
            site = Site(tmp_path, toml, redis_url, list(PBXS), bridges=bridges)
            return stack.enter_context(running(site))

        yield make


# --- docker-compose.yml -----------------------------------------------------------------

#: What the tests add to the settings that we ship: room for a load, and a cell of each kind.
MORE_CELLS = """
[[cells]]
nome = "SHORT"
threads = 400
pbxs = ["pbx01", "pbx02"]
context = "ura-aviso"
exten = "t"

[[cells]]
nome = "QUEUE22"
threads = 10
pbxs = ["pbx01"]
queue = "COBRANCA"
amd = "hangup"

[[cells]]
nome = "QUEUE16"
threads = 10
pbxs = ["pbx02"]
queue = "COBRANCA"
amd = "hangup"

[[cells]]
nome = "PASS22"
threads = 10
pbxs = ["pbx01"]
queue = "COBRANCA"
amd = "pass"

[[cells]]
nome = "NOTICE22"
threads = 10
pbxs = ["pbx01"]
context = "ura-aviso"
amd = "message"
amd_message = "/etc/asterisk/site/sounds/recado"

[[cells]]
nome = "NOTICE16"
threads = 10
pbxs = ["pbx02"]
context = "ura-aviso"
amd = "message"
amd_message = "/etc/asterisk/site/sounds/recado"
"""
MORE_ROOM = {
    "max_calls = 40\ncps = 10\n": "max_calls = 200\ncps = 60\n",
    "max_calls = 20\ncps = 5\n": "max_calls = 100\ncps = 30\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What `docker compose --profile demo up` showed, as it is shipped. Times in seconds."""

    up_s: float
    calls_s: float
    said: str

    @property
    def pbxs(self) -> set[str]:
        """The PBXs that Multcall heard of."""
        return {pbx for pbx, calls in re.findall(r"(pbx\d+) (\d+)", self.said) if int(calls)}


@pytest.fixture(scope="session")
def shown_stack(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shown, ComposeSite]]:
    """The stack as it is shipped, started, until calls have come back from both PBXs."""
    stack = ComposeSite(tmp_path_factory.mktemp("compose"))
    began = time.monotonic()
    try:
        up_s = stack.up()
        said = ""

        def both_pbxs_answered() -> bool:
            nonlocal said
            said = stack.logs("multcall", lines=1).strip().rpartition("| ")[2]
            return "pbx01" in said and "pbx02" in said

        stack.wait_until(both_pbxs_answered, "calls have come back from both PBXs", 120.0)
        yield Shown(up_s=up_s, calls_s=time.monotonic() - began, said=said), stack
    finally:
        stack.down()


@pytest.fixture(scope="session")
def shown(shown_stack: tuple[Shown, ComposeSite]) -> Shown:
    """What was seen when the stack came up."""
    return shown_stack[0]


@pytest.fixture(scope="session")
def stack(shown_stack: tuple[Shown, ComposeSite]) -> ComposeSite:
    """The stack without its own Multcall, with the tests' cells and more room."""
    _, stack = shown_stack
    stack.compose("--profile", "demo", "stop", "multcall")
    settings = stack.toml.read_text(encoding="utf-8")
    for shipped, roomy in MORE_ROOM.items():
        assert shipped in settings
        settings = settings.replace(shipped, roomy)
    stack.toml.write_text(settings + MORE_CELLS, encoding="utf-8")
    stack.reread()
    stack.compose("restart", "worker-pbx01", "worker-pbx02")
    stack.wait_healthy("bridge", "worker-pbx01", "worker-pbx02")
    for pbx in ("pbx01", "pbx02"):
        stack.wait_link(pbx, "up")
    return stack
