"""The project's own image at work: workers in containers, on the lab's network.

A test has a Redis of its own (`own_redis`), a bridge on this machine, and as many worker
containers as it starts. Fixtures; conftest.py takes them up for the whole folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from pytest_celery import CeleryTestWorker, CeleryWorkerContainer, RedisContainer
from pytest_docker_tools import container, fxtr

from tests.acceptance.lab import redirector
from tests.acceptance.lab.lab import AMI_SECRET, NETWORK, Lab
from tests.processes import ROOT, PbxPlace, Program, Site, site_toml

IMAGE = "multcall-dialer"
CELL = "ASR_TIM"
TRUNKS = {
    "carrier": "PJSIP/{number}@carrier",
    "local": "Local/{number}@local-trunk/n",
    "redirector": f"PJSIP/carrier/sip:{{number}}@{redirector.HOST}:{redirector.PORT}",
}
ASTERISKS = {"pbx22": "asterisk22", "pbx16": "asterisk16"}
BUILD_S = 900.0
READY_S = 60
STOP_S = 20

StartWorker = Callable[..., "Worker"]


class BridgeSite(Site):
    """A site whose workers are somebody else's: here runs its bridge alone."""

    def __post_init__(self) -> None:
        config = self.folder / "dialer.toml"
        command = [sys.executable, "-m", "dialer.cli", "bridge"]
        config.write_text(self.toml, encoding="utf-8")
        log = self.folder / "bridge.log"
        self.programs["bridge"] = Program("bridge", command, config, log)


class Worker(CeleryTestWorker):  # type: ignore[misc]  # it has no types
    """`celery -A dialer worker` in a container, as docker-compose.yml starts it."""

    @property
    def box(self) -> Container:
        """The container as Docker knows it, fresh."""
        box: Container = self.container._container
        box.reload()
        return box

    @property
    def said(self) -> str:
        """Its log."""
        return str(self.logs())

    def stop(self) -> int:
        """SIGTERM, as `docker stop` sends it; return the exit code (137: it took too long)."""
        self.box.stop(timeout=STOP_S)
        return int(self.box.wait()["StatusCode"])

    def kill(self) -> None:
        """SIGKILL."""
        self.box.kill()
        self.box.wait()


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
    network=NETWORK,
    command=RedisContainer.command(),
    wrapper_class=RedisContainer,
    timeout=READY_S,
)


@pytest.fixture
def own_redis_url(own_redis: RedisContainer) -> str:
    """As this machine reaches it, without a database."""
    return f"redis://127.0.0.1:{own_redis.ports['6379/tcp'][0]}"


@pytest.fixture
def make_bridge(lab: Lab, own_redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make a site of these PBXs with a bridge; the test starts it. The lab is without calls."""
    sites: list[Site] = []

    def make(*pbxs: str, broker_url: str = "") -> Site:
        for version in ("22", "16"):
            lab.hang_up_everything("22" if version == "22" else "16")
        places = [PbxPlace(name=name, port=5038, secret=AMI_SECRET, trunks=TRUNKS) for name in pbxs]
        toml = site_toml(
            f"{own_redis_url}/0",
            broker_url or f"{own_redis_url}/1",
            places,
            cells={CELL: {"ring_timeout": 5, "variables": ["LAB_*"]}},
        )
        sites.append(BridgeSite(tmp_path, toml, f"{own_redis_url}/0", pbxs))
        return sites[-1]

    yield make
    for site in sites:
        site.stop()


@pytest.fixture
def start_worker(
    image: str,
    docker_client: docker.DockerClient,
    own_redis: RedisContainer,
    tmp_path: Path,
) -> Iterator[StartWorker]:
    """Start a worker container of a PBX of this site, and wait until it takes calls."""
    from dialer.celery import app

    boxes: list[Container] = []

    def start(site: Site, pbx: str, *, broker_host: str = "") -> Worker:
        # What differs in there, the environment says; the file is where the image looks for it.
        config = tmp_path / "container.toml"
        config.write_text(site.toml, encoding="utf-8")
        config.chmod(0o644)
        box = docker_client.containers.run(
            image,
            ["celery", "-A", "dialer", "worker", "-Q", pbx, "-n", f"{pbx}@%h"],
            detach=True,
            network=NETWORK,
            volumes={str(config): {"bind": "/etc/dialer/dialer.toml", "mode": "ro"}},
            environment={
                "DIALER_MULTCALL__REDIS_URL": f"redis://{own_redis.hostname}:6379/0",
                "DIALER_BROKER__URL": f"redis://{broker_host or own_redis.hostname}:6379/1",
                f"DIALER_{pbx.upper()}_HOST": ASTERISKS[pbx],
            },
        )
        boxes.append(box)
        worker = Worker(CeleryWorkerContainer(box), app)
        worker.wait_for_log("PBX ready")
        worker.wait_for_log(f"{pbx}@{box.short_id} ready.")
        return worker

    yield start
    for box in boxes:
        box.remove(force=True, v=True)
