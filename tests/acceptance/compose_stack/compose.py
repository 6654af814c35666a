"""The whole system started by docker-compose.yml, with its own project name and ports.

Owns the containers and the questions that tests ask about them. Starts with the shipped settings;
a test may write others and reload the bridge. Uses only the docker command, like an operator.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.processes import ROOT
from tests.waiting import wait_blocking

PROJECT = "dialer-compose"
REDIS_PORT = 26379
FLOWER_PORT = 25555
WEB_PORT = 28080
FLOWER_LOGIN = ("supervisor", "demo")  # deploy/compose/secrets/FLOWER_BASIC_AUTH
SHIPPED_ETC = ROOT / "deploy" / "compose" / "etc"
SHIPPED_SECRETS = ROOT / "deploy" / "compose" / "secrets"
THIRD_PBX = ROOT / "deploy" / "compose" / "pbx03.yml"

UP_WITHIN_S = 900.0
READY_WITHIN_S = 60.0


@dataclass(slots=True)
class ComposeSite:
    """The stack. `folder` holds its settings and secrets, as a site's own would."""

    folder: Path
    files: list[Path] = field(default_factory=lambda: [ROOT / "docker-compose.yml"])
    project: str = PROJECT
    redis_port: int = REDIS_PORT
    flower_port: int = FLOWER_PORT
    web_port: int = WEB_PORT

    def __post_init__(self) -> None:
        for shipped, name in ((SHIPPED_ETC, "etc"), (SHIPPED_SECRETS, "secrets")):
            shutil.copytree(shipped, self.folder / name)

    # --- what an operator does ---------------------------------------------------------

    def up(self, *services: str, options: tuple[str, ...] = ()) -> float:
        """`docker compose --profile demo up`, builds included; return the seconds it took."""
        began = time.monotonic()
        self.compose(
            "--profile", "demo", "up", "--detach", "--build", *options, *services,
            timeout_s=UP_WITHIN_S,
        )  # fmt: skip
        return time.monotonic() - began

    def reread(self) -> None:
        """Has the bridge read its settings again, as the documentation says.

        Not `docker compose kill -s HUP`: Docker takes any signal for a wish to stop, and would not
        start the container again when it dies one day.
        """
        self.compose("exec", "-T", "bridge", "sh", "-c", "kill -HUP 1")

    def down(self) -> None:
        """Removes containers, network and volumes; the images stay."""
        self.compose("--profile", "demo", "down", "--volumes", "--timeout", "2")

    def compose(self, *command: str, timeout_s: float = 120.0) -> str:
        """`docker compose …`; fails with what it said."""
        files = [part for file in self.files for part in ("--file", str(file))]
        return self.docker("compose", "--progress", "plain", *files, *command, timeout_s=timeout_s)

    def docker(self, *command: str, timeout_s: float = 60.0) -> str:
        """`docker …` with the site's variables; fails with what it said."""
        done = subprocess.run(
            ["docker", *command],
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"docker {' '.join(command)}: {said[-3000:]}"
        return done.stdout.decode(errors="replace")

    def _environment(self) -> dict[str, str]:
        return {
            "DOCKER_BUILDKIT": "0",  # unless somebody chose: it also builds on a local image
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "DIALER_ETC": str(self.folder / "etc"),
            "DIALER_SECRETS": str(self.folder / "secrets"),
            "REDIS_LISTEN": f"127.0.0.1:{self.redis_port}",
            "FLOWER_LISTEN": f"127.0.0.1:{self.flower_port}",
            "WEB_LISTEN": f"127.0.0.1:{self.web_port}",
        }

    # --- what it is --------------------------------------------------------------------

    @property
    def redis_url(self) -> str:
        """Multcall's Redis, as this machine reaches it."""
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def toml(self) -> Path:
        """The settings that bridge and workers read."""
        return self.folder / "etc" / "dialer.toml"

    def redis(self) -> Redis:
        """A client of it."""
        return Redis.from_url(self.redis_url)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker knows of every container of the stack, by service (the first of each)."""
        ids = self.docker(
            "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}"
        )
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids.split()))
        by_service: dict[str, dict[str, Any]] = {}
        for one in sorted(found, key=lambda c: str(c["Name"])):
            by_service.setdefault(one["Config"]["Labels"]["com.docker.compose.service"], one)
        return by_service

    def exec(self, service: str, *command: str) -> str:
        """Run a command in a service's container."""
        return self.docker("exec", f"{self.project}-{service}-1", *command)

    def asterisk(self, service: str, command: str) -> str:
        """What an Asterisk's console says."""
        return self.exec(service, "asterisk", "-rx", command)

    def read_file(self, service: str, path: str) -> bytes:
        """A file in a service's container, its temporary file systems included."""
        name = f"{self.project}-{service}-1"
        return subprocess.run(
            ["docker", "exec", name, "cat", path], capture_output=True, check=True, timeout=60
        ).stdout

    def logs(self, *services: str, lines: int = 15) -> str:
        """The last lines of the services."""
        return self.compose("logs", "--no-color", "--tail", str(lines), *services)

    # --- waiting -----------------------------------------------------------------------

    def wait_until(
        self, true: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S
    ) -> None:
        """Wait for a condition; fail with the logs if it stays false."""
        wait_blocking(true, what, within_s=within_s, look_every_s=0.1, logs=self.logs)

    def wait_healthy(self, *services: str) -> None:
        """Wait until Docker calls these services healthy."""

        def all_healthy() -> bool:
            states = self.containers()
            return all(_health(states[service]) == "healthy" for service in services)

        self.wait_until(all_healthy, f"{', '.join(services)} are healthy", 120.0)

    def instance(self, pbx: str) -> bytes | None:
        """Changes with every start of the PBX's worker and every return of its AMI link."""
        return self._told(pbx, "instance")

    def wait_link(self, pbx: str, link: str) -> None:
        """Wait until a PBX's worker says this of its AMI link, in a heartbeat from now on.

        An older one counts for nothing: Redis keeps it through a crash of its own.
        """
        before = self._told(pbx, "seen_ms")

        def says() -> bool:
            is_new = self._told(pbx, "seen_ms") not in {before, None}
            return is_new and self._told(pbx, "link") == link.encode()

        self.wait_until(says, f"{pbx} {link}")

    def _told(self, pbx: str, field: str) -> bytes | None:
        """What a worker's heartbeat says; None while Redis is away."""
        with self.redis() as redis:
            try:
                told: bytes | None = redis.hget(f"dialer:pbx:{pbx}", field)
            except RedisError:
                return None
        return told


def _health(container: Mapping[str, Any]) -> str:
    return str(container["State"].get("Health", {}).get("Status"))
