"""A real Prometheus of one test: Debian's, in a container on this machine's network."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker

from tests.acceptance.lab.lab import HERE, wait_for
from tests.integration.test_flower import free_port

IMAGE: Final = "dialer-lab-prometheus"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One server on 127.0.0.1."""

    port: int

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers."""
        words = urllib.parse.urlencode(query)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{words}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The time series of an instant query."""
        return list(self.ask("query", query=expression)["result"])


def promtool(client: docker.DockerClient, folder: Path, *command: str) -> str:
    """What `promtool` says in that folder.

    Raises:
        ContainerError: it found something wrong.
    """
    build(client)
    said = client.containers.run(
        IMAGE,
        ["promtool", *command],
        remove=True,
        stderr=True,
        volumes={str(folder): {"bind": "/rules", "mode": "ro"}},
    )
    return bytes(said).decode()


def build(client: docker.DockerClient) -> None:
    """Build its image where that is missing."""
    client.images.build(path=str(HERE / "prometheus"), tag=IMAGE)


@contextmanager
def running(client: docker.DockerClient, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with the `prometheus.yml` of a folder."""
    build(client)
    port = free_port()
    container = client.containers.run(
        IMAGE,
        [
            "prometheus",
            "--config.file=/rules/prometheus.yml",
            "--storage.tsdb.path=/tmp/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        detach=True,
        network_mode="host",
        volumes={str(folder): {"bind": "/rules", "mode": "ro"}},
    )
    server = Prometheus(port)

    def is_ready() -> bool:
        try:
            server.ask("status/buildinfo")
        except OSError:
            return False
        return True

    try:
        wait_for("Prometheus", is_ready)
        yield server
    finally:
        container.remove(force=True, v=True)
