"""docker-compose.yml as Compose reads it where nobody has set a variable: what is shipped."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.acceptance.compose_stack.compose import THIRD_PBX
from tests.acceptance.lab.lab import docker_available
from tests.conftest import require_service
from tests.processes import ROOT

ALWAYS = {
    "bridge", "flower", "host-pbx01", "host-pbx02", "pbx01", "pbx02", "redis", "web",
    "worker-pbx01", "worker-pbx02",
}  # fmt: skip
OURS = {
    "REDIS_LISTEN", "FLOWER_LISTEN", "WEB_LISTEN", "DIALER_ETC", "DIALER_SECRETS", "ASTERISK_SITE",
}  # fmt: skip


def services(*options: str, files: tuple[str, ...] = ("docker-compose.yml",)) -> dict[str, Any]:
    """The services that Compose makes of the files, with its defaults filled in."""
    require_service("Docker", docker_available())
    named = [part for file in files for part in ("--file", file)]
    said = subprocess.run(
        ["docker", "compose", *named, *options, "config", "--format", "json"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in OURS},
        check=True,
        capture_output=True,
    )
    found: dict[str, Any] = json.loads(said.stdout)["services"]
    return found


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    third = str(THIRD_PBX.relative_to(ROOT))
    return services(
        "--profile", "demo", "--profile", "monitor", files=("docker-compose.yml", third)
    )


def test_demo_and_monitor_start_only_with_their_profile() -> None:
    assert services().keys() == ALWAYS
    assert services("--profile", "demo").keys() == ALWAYS | {"carrier", "multcall"}
    assert services("--profile", "monitor").keys() == ALWAYS | {"monitor"}


def test_ports_are_published_on_loopback_by_default(
    everything: dict[str, Any],
) -> None:
    ports = {
        (name, port["host_ip"], port["published"])
        for name, service in everything.items()
        for port in service.get("ports", [])
    }
    assert ports == {
        (name, "127.0.0.1", port)
        for name, port in (("redis", "6379"), ("flower", "5555"), ("web", "8080"))
    }


def test_services_wait_until_their_dependencies_are_healthy(everything: dict[str, Any]) -> None:
    for name, service in everything.items():
        assert service["healthcheck"]["test"], name
        needs = service.get("depends_on", {})
        assert bool(needs) == (name != "redis"), name
        assert {need["condition"] for need in needs.values()} <= {"service_healthy"}, name


def test_services_have_limits_and_no_needless_rights(everything: dict[str, Any]) -> None:
    for name, service in everything.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}, name


def test_one_service_builds_the_python_image_for_all(everything: dict[str, Any]) -> None:
    ours = {name for name, s in everything.items() if s["image"] == "multcall-dialer"}
    assert ours >= {
        "bridge",
        "worker-pbx01",
        "worker-pbx03",
        "flower",
        "monitor",
        "multcall",
        "web",
    }
    assert {name for name in ours if "build" in everything[name]} == {"bridge"}


def test_redis_refuses_writes_before_docker_kills_it(everything: dict[str, Any]) -> None:
    redis = everything["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    limit_bytes = int(options["--maxmemory"].removesuffix("mb")) * 2**20
    # A rewrite of the append-only file forks: while it runs, changed pages exist twice.
    assert 0 < 2 * limit_bytes <= int(redis["mem_limit"])


def test_flower_keeps_a_bounded_number_of_tasks(everything: dict[str, Any]) -> None:
    assert "--max_tasks=10000" in everything["flower"]["command"]
