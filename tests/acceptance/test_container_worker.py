"""The project's own image: a Celery worker in a container places calls on real Asterisk 22."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
from pytest_celery import CeleryTestWorker, CeleryWorkerContainer, RedisContainer
from pytest_docker_tools import container, fxtr

from dialer.domain.call import Result
from dialer.simulation.multcall import play, report
from tests.acceptance.conftest import CELL, LAB_NETWORK, TRUNKS
from tests.acceptance.lab.lab import AMI_SECRET, Lab
from tests.acceptance.test_dial_path import prefix
from tests.site import ROOT, PbxPlace, Program, Site, site_toml

IMAGE = "multcall-dialer"
CALLS = 20
BUILD_S = 900.0
READY_S = 60
STOP_S = 20


class ContainerSite(Site):
    """A site whose worker is somebody else's: here runs its bridge alone."""

    def __post_init__(self) -> None:
        config = self.folder / "dialer.toml"
        command = [sys.executable, "-m", "dialer.cli", "bridge"]
        config.write_text(self.toml, encoding="utf-8")
        log = self.folder / "bridge.log"
        self.programs["bridge"] = Program("bridge", command, config, log)


class Worker(CeleryWorkerContainer):  # type: ignore[misc]  # it has no types
    """`celery -A dialer worker` as docker-compose.yml starts it."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        return ["celery", "-A", "dialer", "worker", "-Q", "pbx22", "-n", "pbx22@%h", *args]


@pytest.fixture(scope="session")
def image(lab: Lab) -> str:
    """The image, built of this tree."""
    # The classic builder unless somebody chose: it also builds on an image that is only local.
    environment = {"DOCKER_BUILDKIT": "0", **os.environ}
    built = subprocess.run(
        ["make", "--silent", "image"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert built.returncode == 0, f"make image: {built.stdout[-2000:]}{built.stderr[-2000:]}"
    return IMAGE


@pytest.fixture(scope="session")
def docker_client(lab: Lab) -> Iterator[docker.DockerClient]:
    """Asked for only once the lab has found an engine."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def own_redis_ports() -> Mapping[str, Any]:
    return {"6379/tcp": ("127.0.0.1", None)}


own_redis = container(
    image="redis:8",
    ports=fxtr("own_redis_ports"),
    network=LAB_NETWORK,
    command=RedisContainer.command(),
    wrapper_class=RedisContainer,
    timeout=READY_S,
)


@pytest.fixture
def own_redis_url(own_redis: RedisContainer) -> str:
    """As this machine reaches it."""
    return f"redis://127.0.0.1:{own_redis.ports['6379/tcp'][0]}"


@pytest.fixture
def toml(lab: Lab, own_redis_url: str) -> str:
    place = PbxPlace(name="pbx22", port=lab.ami_port("22"), secret=AMI_SECRET, trunks=TRUNKS)
    cells = {CELL: {"ring_timeout": 5}}
    return site_toml(f"{own_redis_url}/0", f"{own_redis_url}/1", [place], cells=cells)


@pytest.fixture
def worker_volumes(tmp_path: Path, toml: str) -> Mapping[str, Mapping[str, str]]:
    """dialer.toml, where the image looks for it; what differs in there, the environment says."""
    path = tmp_path / "container.toml"
    path.write_text(toml, encoding="utf-8")
    path.chmod(0o644)
    return {str(path): {"bind": "/etc/dialer/dialer.toml", "mode": "ro"}}


@pytest.fixture
def worker_environment(own_redis: RedisContainer) -> Mapping[str, str]:
    return {
        "DIALER_MULTCALL__REDIS_URL": f"redis://{own_redis.hostname}:6379/0",
        "DIALER_BROKER__URL": f"redis://{own_redis.hostname}:6379/1",
        "DIALER_PBX22_HOST": "asterisk22",
        "DIALER_PBX22_PORT": "5038",
    }


worker_container = container(
    image="{image}",
    network=LAB_NETWORK,
    environment=fxtr("worker_environment"),
    volumes=fxtr("worker_volumes"),
    command=Worker.command(),
    wrapper_class=Worker,
    timeout=READY_S,
)


@pytest.fixture
def worker(worker_container: Worker) -> CeleryTestWorker:
    from dialer.celery import app

    return CeleryTestWorker(worker_container, app)


def test_a_worker_in_a_container_places_calls_on_real_asterisk(
    lab: Lab,
    worker: CeleryTestWorker,
    toml: str,
    own_redis_url: str,
    docker_client: docker.DockerClient,
    tmp_path: Path,
) -> None:
    worker.wait_for_log("PBX ready")
    site = ContainerSite(tmp_path, toml, f"{own_redis_url}/0", ["pbx22"])
    start = prefix()

    def rings() -> Mapping[str, int]:
        return Counter({n: c for n, c in lab.rings().items() if n.startswith(start)})

    try:
        site.start()
        summary = asyncio.run(
            play(
                f"{own_redis_url}/0",
                [CELL],
                CALLS,
                10.0,
                number_prefix=start,
                mix={"answered": 3, "busy": 1},
                rings=rings,
                answered_within_s=60.0,
            )
        )
    finally:
        site.stop()
    logs = f"{site.logs()}\n{worker.logs()}"
    assert summary.is_right, "\n".join([*report(summary), logs])
    assert summary.calls == summary.responses == CALLS
    assert set(summary.results) == {Result.ANSWERED, Result.BUSY}
    assert set(summary.pbxs) == {"pbx22"}
    # Celery is the container's first process: SIGTERM must reach it.
    stopping = docker_client.containers.get(worker.container.id)
    stopping.stop(timeout=STOP_S)
    assert stopping.wait()["StatusCode"] == 0
