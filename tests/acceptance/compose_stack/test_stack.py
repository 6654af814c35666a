"""`docker compose --profile demo up`: what it is made of, and what an operator does with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from dialer.domain.call import Result
from dialer.simulation.multcall.checker import Summary
from dialer.simulation.multcall.player import play, report
from tests.acceptance.compose_stack.compose import (
    FLOWER_PORT,
    REDIS_PORT,
    SHIPPED_SECRETS,
    THIRD_PBX,
    WEB_PORT,
    ComposeSite,
)
from tests.acceptance.compose_stack.conftest import Shown
from tests.acceptance.test_dial_path import prefix

#: A cell whose calls ring for a second and are cleared when they are answered.
SHORT = "SHORT"
ALL_SERVICES = {
    "bridge", "carrier", "flower", "host-pbx01", "host-pbx02", "multcall", "pbx01", "pbx02",
    "redis", "web", "worker-pbx01", "worker-pbx02",
}  # fmt: skip
ANSWERED = {"answered": 1.0}

QUEUE_ON_THIRD = """
[[cells]]
nome = "QUEUE03"
threads = 10
pbxs = ["pbx03"]
queue = "COBRANCA"
"""

#: What is promised of `docker compose --profile demo up`, its builds included, in seconds.
WITHIN_S = 180.0


def played(
    stack: ComposeSite, calls: int, rate: float, mix: Mapping[str, float], cell: str = SHORT
) -> Summary:
    """Plays Multcall against the stack; every promise must be kept."""
    summary = asyncio.run(
        play(stack.redis_url, [cell], calls, rate, number_prefix=prefix(), mix=mix)
    )
    assert summary.is_right, "\n".join([*report(summary), stack.logs()])
    assert summary.responses == calls
    return summary


def wait_calls_on(stack: ComposeSite, pbxs: set[str]) -> Mapping[str, int]:
    """Play 100 calls until they went to all these PBXs; how many each took.

    A PBX whose link is up may not take tasks yet: after a restart of Redis its worker comes
    back to the broker some time after its first heartbeat. Until then the others dial.
    """
    taken: list[Mapping[str, int]] = []

    def all_take_calls() -> bool:
        taken.append(played(stack, 100, 30.0, ANSWERED).pbxs)
        return set(taken[-1]) == pbxs

    stack.wait_until(all_take_calls, f"{', '.join(sorted(pbxs))} take calls")
    return taken[-1]


def started(stack: ComposeSite) -> dict[str, str]:
    """When each service's container last started."""
    return {name: str(c["State"]["StartedAt"]) for name, c in stack.containers().items()}


# --- one command ------------------------------------------------------------------------


def test_one_command_shows_calls_on_two_real_pbxs(shown: Shown, stack: ComposeSite) -> None:
    print(
        f"docker compose up with its builds took {shown.up_s:.0f} s; "
        f"after {shown.calls_s:.0f} s in all: {shown.said}"
    )
    assert {"pbx01", "pbx02"} <= shown.pbxs
    assert shown.calls_s < WITHIN_S
    assert stack.asterisk("pbx01", "core show version").startswith("Asterisk 22.")
    assert stack.asterisk("pbx02", "core show version").startswith("Asterisk 16.")


def test_services_run_confined_and_on_loopback_only(
    stack: ComposeSite,
) -> None:
    containers = stack.containers()
    assert set(containers) >= ALL_SERVICES
    published = {}
    for service, container in containers.items():
        host = container["HostConfig"]
        assert container["Config"].get("Healthcheck", {}).get("Test"), service
        assert container["Config"]["User"] not in ("", "0", "root"), service
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert not host["Privileged"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert (host["NanoCpus"] > 0) == (service in {"flower", "web"}), (
            "who dials is not held back"
        )
        assert host["LogConfig"]["Config"] == {"max-size": "20m", "max-file": "5"}, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        for ports in (host["PortBindings"] or {}).values():
            published[service] = [(port["HostIp"], int(port["HostPort"])) for port in ports]
    assert published == {
        "redis": [("127.0.0.1", REDIS_PORT)],
        "flower": [("127.0.0.1", FLOWER_PORT)],
        "web": [("127.0.0.1", WEB_PORT)],
    }


def test_all_are_healthy_and_one_that_is_not_is_seen(stack: ComposeSite) -> None:
    stack.wait_healthy(*(ALL_SERVICES - {"multcall"}))
    check = ("python", "/opt/dialer/healthcheck.py", "pbx", "pbx09")
    with pytest.raises(AssertionError, match="healthcheck"):
        stack.exec("worker-pbx01", *check)


def test_the_processes_themselves_are_nobodys_root(stack: ComposeSite) -> None:
    for service in ("redis", "bridge", "worker-pbx01", "flower", "web", "pbx01", "pbx02"):
        status = stack.exec(service, "cat", "/proc/1/status")
        (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
        assert "0" not in uids, service


def test_secrets_are_in_no_containers_settings(stack: ComposeSite) -> None:
    told = stack.docker("inspect", *(c["Id"] for c in stack.containers().values()))
    for file in SHIPPED_SECRETS.iterdir():
        assert file.read_text().strip() not in told, file.name
        assert file.name in told


def test_two_bridges_share_the_work(stack: ComposeSite) -> None:
    before = started(stack)
    stack.compose("up", "--detach", "--scale", "bridge=2")
    try:
        with stack.redis() as redis:
            stack.wait_until(
                lambda: redis.zcard(f"dialer:bridges:{SHORT}") == 2, "two bridges are at work"
            )
        played(stack, 50, 30.0, ANSWERED)
        assert started(stack) == before
    finally:
        stack.compose("up", "--detach", "--scale", "bridge=1")


# --- the load -----------------------------------------------------------------------------


def test_calls_are_shared_by_the_pbxs_that_are_up(
    stack: ComposeSite,
) -> None:
    pbxs = {p["name"]: p["max_calls"] for p in tomllib.loads(stack.toml.read_text())["pbxs"]}
    assert pbxs["pbx01"] == 2 * pbxs["pbx02"]

    both = played(stack, 1000, 50.0, ANSWERED)
    share = both.pbxs["pbx01"] / 1000
    print(f"1,000 calls over capacities 2:1: {dict(both.pbxs)}, {share:.1%} on the bigger")
    assert both.results == {Result.ANSWERED: 1000}
    assert share == pytest.approx(2 / 3, rel=0.05)

    stack.compose("kill", "pbx02")
    stack.wait_link("pbx02", "down")
    assert played(stack, 100, 40.0, ANSWERED).pbxs == {"pbx01": 100}

    stack.compose("up", "--detach", "--no-recreate", "pbx02")
    stack.wait_link("pbx02", "up")
    again = played(stack, 200, 50.0, ANSWERED)
    print(f"200 calls after its return: {dict(again.pbxs)}")
    assert again.pbxs["pbx01"] / 200 == pytest.approx(2 / 3, rel=0.1)  # of so few


@pytest.mark.parametrize("service", ["pbx02", "worker-pbx02", "bridge", "redis"])
def test_a_process_that_dies_is_started_again_and_calls_go_on(
    service: str, stack: ComposeSite
) -> None:
    before = stack.containers()[service]
    instance = stack.instance("pbx02")
    # The process itself: a container that an operator kills stays down, as they wish.
    os.kill(int(before["State"]["Pid"]), signal.SIGKILL)

    def is_back() -> bool:
        now = stack.containers()[service]["State"]
        return bool(now["Running"]) and now["StartedAt"] != before["State"]["StartedAt"]

    stack.wait_until(is_back, f"{service} is back")
    if service.endswith("pbx02"):
        stack.wait_until(lambda: stack.instance("pbx02") != instance, "pbx02 begins anew")
    for pbx in ("pbx01", "pbx02"):
        stack.wait_link(pbx, "up")
    wait_calls_on(stack, {"pbx01", "pbx02"})


def test_a_third_pbx_takes_load_and_nothing_else_is_restarted(stack: ComposeSite) -> None:
    before = started(stack)
    settings = stack.toml.read_text()
    third = settings.split("[[pbxs]]")[1].replace('name = "pbx01"', 'name = "pbx03"')
    more = settings.replace("[[cells]]", f"[[pbxs]]{third}[[cells]]", 1)
    more = more.replace('pbxs = ["pbx01", "pbx02"]', 'pbxs = ["pbx01", "pbx02", "pbx03"]')
    (stack.folder / "secrets" / "DIALER_PBX03_SECRET").write_text("third")
    stack.toml.write_text(more + QUEUE_ON_THIRD)
    stack.files.append(THIRD_PBX)
    try:
        stack.compose("up", "--detach", "--no-recreate", "worker-pbx03", timeout_s=300)
        stack.wait_link("pbx03", "up")
        stack.reread()
        pbxs = wait_calls_on(stack, {"pbx01", "pbx02", "pbx03"})
        print(f"100 calls over capacities 2:1:2: {pbxs}")
        stack.wait_until(
            lambda: stack.asterisk("pbx03", "pjsip show contacts").count("sip:100") == 4,
            "the operators are registered there too",
        )
        queued = played(stack, 1, 1.0, ANSWERED, cell="QUEUE03")
        assert sum(queued.agents.values()) == 1, "an operator takes its call"
        assert started(stack).items() >= before.items()
    finally:
        stack.compose("rm", "--stop", "--force", "worker-pbx03", "pbx03", "host-pbx03")
        stack.files.pop()
        stack.toml.write_text(settings)
        stack.reread()


def test_dialer_monitor_runs_in_it(stack: ComposeSite) -> None:
    shows = stack.compose("run", "--rm", "--no-TTY", "monitor")
    assert "pbx01" in shows
    assert SHORT in shows


def test_the_python_image_is_one_and_small(stack: ComposeSite) -> None:
    images: dict[str, Any] = {s: c["Image"] for s, c in stack.containers().items()}
    python = ("bridge", "worker-pbx01", "worker-pbx02", "flower", "multcall", "web")
    ours = {images[s] for s in python}
    assert len(ours) == 1
    (image,) = json.loads(stack.docker("image", "inspect", "multcall-dialer"))
    (base,) = json.loads(stack.docker("image", "inspect", "python:3.13-slim"))
    own_mb = (image["Size"] - base["Size"]) / 1e6
    print(f"multcall-dialer is {image['Size'] / 1e6:.0f} MB, {own_mb:.0f} MB on top of its base")
    assert own_mb < 120
