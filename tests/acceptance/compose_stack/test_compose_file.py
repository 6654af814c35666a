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
    "bridge", "flower", "host-pbx01", "host-pbx02", "pbx01", "pbx02", "redis", "worker-pbx01",
    "worker-pbx02",
}  # fmt: skip
OURS = {"REDIS_LISTEN", "FLOWER_LISTEN", "DIALER_ETC", "DIALER_SECRETS", "ASTERISK_SITE"}


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


def test_carrier_and_multcall_come_with_the_demo_and_the_monitor_when_asked_for() -> None:
    assert services().keys() == ALWAYS
    assert services("--profile", "demo").keys() == ALWAYS | {"carrier", "multcall"}
    assert services("--profile", "monitor").keys() == ALWAYS | {"monitor"}


def test_ports_are_published_on_loopback_only_where_nobody_says_otherwise(
    everything: dict[str, Any],
) -> None:
    ports = {
        (name, port["host_ip"], port["published"])
        for name, service in everything.items()
        for port in service.get("ports", [])
    }
    assert ports == {("redis", "127.0.0.1", "6379"), ("flower", "127.0.0.1", "5555")}


def test_each_waits_until_what_it_needs_is_healthy(everything: dict[str, Any]) -> None:
    for name, service in everything.items():
        assert service["healthcheck"]["test"], name
        needs = service.get("depends_on", {})
        assert bool(needs) == (name != "redis"), name
        assert {need["condition"] for need in needs.values()} <= {"service_healthy"}, name


def test_each_is_bounded_and_confined(everything: dict[str, Any]) -> None:
    for name, service in everything.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}, name


def test_the_python_image_is_built_by_one_service_for_all(everything: dict[str, Any]) -> None:
    ours = {name for name, s in everything.items() if s["image"] == "multcall-dialer"}
    assert ours >= {"bridge", "worker-pbx01", "worker-pbx03", "flower", "monitor", "multcall"}
    assert {name for name in ours if "build" in everything[name]} == {"bridge"}


def test_redis_keeps_what_it_was_told_and_flower_only_so_many_tasks(
    everything: dict[str, Any],
) -> None:
    redis = " ".join(everything["redis"]["command"])
    assert "--appendonly yes" in redis
    assert "--maxmemory-policy noeviction" in redis
    assert "--max_tasks=10000" in everything["flower"]["command"]
