"""docs/install.md, followed to the letter on a fresh Debian with a real systemd and Asterisk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.acceptance.lab.install_page import sections
from tests.acceptance.lab.lab import docker_available
from tests.acceptance.lab.systemd_host import SystemdCannotRun, SystemdHost, systemd_host
from tests.conftest import require_service

SECTIONS = sections()
HAND, SERVICES, UPGRADE, REMOVAL = "By hand first", "Services", "Upgrade", "Removal"
BRIDGE, WORKER = "dialer-bridge", "dialer-worker@pbx01"
SECRET = "/etc/dialer/credentials/DIALER_PBX01_SECRET"
TOML = "/etc/dialer/dialer.toml"
#: Of 10, as `systemd-analyze security` counts; versions differ by a tenth or two.
EXPOSURE = 1.5

Shown = list[tuple[str, list[str], str]]


@pytest.fixture(scope="module")
def bare_host() -> Iterator[SystemdHost]:
    require_service("Docker", docker_available())
    with ExitStack() as stack:
        try:
            host = stack.enter_context(systemd_host())
        except SystemdCannotRun as error:
            require_service("systemd in a container", str(error))
            raise
        yield host


@pytest.fixture(scope="module")
def shown(bare_host: SystemdHost) -> Shown:
    """The page, followed up to its first answered call: section, lines not seen, output."""
    shown: Shown = []
    for title, steps in SECTIONS.items():
        if title == UPGRADE:
            break
        for step in steps:
            output = bare_host.follow(step)
            shown.append((title, step.missing(output), output))
        if title == HAND:
            bare_host.interrupt_terminals()
    return shown


@pytest.fixture
def host(bare_host: SystemdHost, shown: Shown) -> SystemdHost:
    """The host as the page leaves it."""
    return bare_host


@contextmanager
def drop_in(host: SystemdHost, units: tuple[str, ...], *lines: str) -> Iterator[None]:
    """These units with more lines in their [Service], restarted with them and without them."""
    folders = " ".join(f"/etc/systemd/system/{unit}.service.d" for unit in units)
    text = "\n".join(["[Service]", *lines])
    restart = f"systemctl daemon-reload; systemctl restart {' '.join(units)}"
    host.run(f"for d in {folders}; do mkdir $d; echo '{text}' >$d/test.conf; done; {restart}")
    try:
        yield
    finally:
        host.run(f"rm -r {folders}; {restart}")


def test_every_command_of_the_page_shows_what_it_says(shown: Shown) -> None:
    assert [one for one in shown if one[1]] == []
    assert {HAND, SERVICES, "The first answered call"} <= {title for title, _, _ in shown}


def doctor(host: SystemdHost) -> tuple[int, list[str]]:
    """Exit code of `dialer doctor`, and the codes of what is not good."""
    said = host.run(f"{host.shell}\ndialer doctor --json || true").partition("{")[2]
    found = json.loads("{" + said)
    return found["exit_code"], [f["code"] for f in found["findings"] if f["level"] != "good"]


def test_the_doctor_finds_the_finished_installation_sound(host: SystemdHost) -> None:
    assert doctor(host) == (0, [])


AMI_USER, EXTENSIONS = "/etc/asterisk/manager.d/dialer.conf", "/etc/asterisk/extensions.conf"


@pytest.mark.parametrize(
    ("file", "mistake", "reload", "found"),
    [
        (AMI_USER, "s/^secret *=.*/secret = secret/", "manager reload", (2, ["ami.login"])),
        (AMI_USER, "$ a eventfilter = !Event: Hangup", "manager reload", (2, ["ami.events"])),
        (EXTENSIONS, "/#include dialer.conf/d", "dialplan reload", (2, ["ami.include"])),
        (TOML, 's/^exten = .*/exten = "answerd"/', "core show uptime", (2, ["ami.context"])),
    ],
)
def test_the_doctor_names_a_newcomers_mistake(
    host: SystemdHost, file: str, mistake: str, reload: str, found: tuple[int, list[str]]
) -> None:
    host.run(f"cp -p {file} /tmp/right; sed -i '{mistake}' {file}; asterisk -rx '{reload}'")
    try:
        host.wait_for(f"the doctor finds {found}", lambda: doctor(host) == found)
    finally:
        host.run(f"cp /tmp/right {file}; asterisk -rx '{reload}'")
    host.wait_for("the doctor finds nothing", lambda: doctor(host) == (0, []))


def test_the_doctor_names_a_secret_that_all_can_read(host: SystemdHost) -> None:
    folder = "/etc/dialer/credentials"
    host.run(f"chmod 755 {folder}; chmod 644 {SECRET}")
    try:
        assert doctor(host) == (1, ["host.secret"])
    finally:
        host.run(f"chmod 700 {folder}; chmod 600 {SECRET}")


def test_the_units_have_no_fault_and_little_exposure(host: SystemdHost) -> None:
    for unit in (BRIDGE, WORKER):
        assert host.run(f"systemd-analyze verify {unit}.service") == ""
        verdict = host.run(f"systemd-analyze security --no-pager {unit}.service").splitlines()[-1]
        assert float(verdict.partition(": ")[2].split()[0]) <= EXPOSURE, verdict


def test_only_root_and_the_service_can_read_a_secret(host: SystemdHost) -> None:
    secret = host.run(f"cat {SECRET}").strip()
    handed = f"/run/credentials/{WORKER}.service/dialer_DIALER_PBX01_SECRET"
    for user, path in (
        ("dialer", SECRET),
        ("redis", handed),
        ("redis", "/etc/dialer/dialer.toml"),
        ("redis", "/etc/asterisk/manager.d/dialer.conf"),
    ):
        host.run(f"cat {path} >/dev/null")  # it is there
        assert "Permission denied" in host.run(f"runuser -u {user} -- cat {path} || true")
    for unit in (BRIDGE, WORKER):
        assert secret not in host.journal(unit)
        assert secret not in host.run(f"systemctl show {unit}; systemctl cat {unit}")
        assert secret not in host.run(f"tr '\\0' '\\n' </proc/{host.main_pid(unit)}/environ")
    assert secret not in host.run("ps axww; cat /etc/dialer/dialer.toml")


def test_a_killed_worker_restarts_and_follows_its_call(host: SystemdHost) -> None:
    killed = host.main_pid(WORKER)
    host.place("killed")
    host.run(f"kill -KILL {killed}")
    host.wait_for("a new worker", lambda: host.main_pid(WORKER) not in (0, killed))
    host.wait_for("the adoption", lambda: "adopted=1" in host.journal(WORKER))
    assert host.response()["Resultado"] == "ANSWERED"


def test_a_killed_bridge_restarts_and_places_calls(host: SystemdHost) -> None:
    killed = host.main_pid(BRIDGE)
    host.run(f"kill -KILL {killed}")
    host.wait_for("a new bridge", lambda: host.main_pid(BRIDGE) not in (0, killed))
    host.place("bridge-killed")
    assert host.response()["Resultado"] == "ANSWERED"


def test_a_worker_reload_keeps_process_and_call(host: SystemdHost) -> None:
    pid, adopted = host.main_pid(WORKER), host.journal(WORKER).count("adopted=1")
    host.place("worker-reloaded")
    host.run(f"systemctl reload {WORKER}")
    host.wait_for("the adoption", lambda: host.journal(WORKER).count("adopted=1") > adopted)
    assert host.main_pid(WORKER) == pid
    assert host.show(WORKER, "ActiveState") == "active"
    assert host.response()["Resultado"] == "ANSWERED"


def test_systemd_shows_the_workers_status(host: SystemdHost) -> None:
    for unit in (BRIDGE, WORKER):
        assert host.show(unit, "Type") == "notify"
        assert host.show(unit, "ActiveState") == "active"
        assert host.show(unit, "WatchdogUSec") == "1min"
    host.wait_for("the link", lambda: host.show(WORKER, "StatusText").startswith("AMI link up"))


def test_a_worker_whose_event_loop_hangs_is_restarted(host: SystemdHost) -> None:
    hangs = "Environment=DIALER_FAILPOINTS=heartbeat.before:hang@8"
    with drop_in(host, (WORKER,), "WatchdogSec=8", hangs):
        hung = host.main_pid(WORKER)
        host.wait_for("a new worker", lambda: host.main_pid(WORKER) not in (0, hung))
        journal = host.journal(WORKER)
    assert "Process hangs and ends now" in journal
    assert "in failpoint" in journal  # the stack
    assert "status=70/SOFTWARE" in journal


@pytest.fixture(scope="class")
def watchdog_of_5_s(bare_host: SystemdHost, shown: Shown) -> Iterator[None]:
    """The units with a watchdog of 5 s in place of 60 s."""
    with drop_in(bare_host, (BRIDGE, WORKER), "WatchdogSec=5", "TimeoutStopSec=2"):
        yield


@pytest.mark.usefixtures("watchdog_of_5_s")
class TestWatchdogOf5s:
    def test_a_longer_redis_outage_restarts_nothing(self, host: SystemdHost) -> None:
        pids = host.main_pid(BRIDGE), host.main_pid(WORKER)
        began_s = host.uptime_s()
        host.run("systemctl stop redis-server")
        try:
            host.wait_for(
                "late heartbeats",
                lambda: min(host.fed_s(unit) for unit in (BRIDGE, WORKER)) > began_s + 7,
            )
        finally:
            host.run("systemctl start redis-server")
        host.place("after-the-outage")
        assert host.response()["Resultado"] == "ANSWERED"
        assert (host.main_pid(BRIDGE), host.main_pid(WORKER)) == pids

    def test_systemd_ends_a_worker_that_stands_still(self, host: SystemdHost) -> None:
        adopted = host.journal(WORKER).count("adopted=1")
        host.place("stands-still")
        stopped = host.main_pid(WORKER)
        host.run(f"kill -STOP {stopped}")
        host.wait_for("a new worker", lambda: host.main_pid(WORKER) not in (0, stopped))
        host.wait_for("the adoption", lambda: host.journal(WORKER).count("adopted=1") > adopted)
        assert host.response()["Resultado"] == "ANSWERED"
        assert "Watchdog timeout" in host.journal(WORKER)


def test_a_wrong_configuration_is_not_tried_every_second(host: SystemdHost) -> None:
    host.run(f"cp -p {TOML} /tmp/right; echo nonsense >>{TOML}")
    try:
        host.run(f"systemctl restart --no-block {BRIDGE}")
        host.wait_for("ExecStopPost= waits", lambda: host.run("pgrep -x sleep || true"))
        assert host.show(BRIDGE, "SubState") == "stop-post"
    finally:
        host.run(f"cp -p /tmp/right {TOML}; pkill -x sleep || true")
    host.wait_for("the next start", lambda: host.show(BRIDGE, "SubState") == "running")


def test_an_upgrade_keeps_the_call_up_and_followed(host: SystemdHost) -> None:
    adopted = host.journal(WORKER).count("adopted=1")
    host.place("upgraded")
    (step,) = SECTIONS[UPGRADE]
    assert step.missing(host.follow(step)) == []
    host.wait_for("the adoption", lambda: host.journal(WORKER).count("adopted=1") > adopted)
    assert "/opt/dialer-2/" in host.run(f"tr '\\0' ' ' </proc/{host.main_pid(WORKER)}/cmdline")
    response = host.response()
    assert (response["Resultado"], response["CodLigacao"]) == ("ANSWERED", 7)


def test_a_reload_of_the_bridge_interrupts_nothing(host: SystemdHost) -> None:
    host.run(f"systemctl reload {BRIDGE}")
    host.place("reloaded")
    assert host.response()["Resultado"] == "ANSWERED"
    assert host.run(f"systemctl is-active {BRIDGE}").strip() == "active"


def test_a_start_without_the_secrets_folder_says_so(host: SystemdHost) -> None:
    folder = "/etc/dialer/credentials"
    host.run(f"mv {folder} {folder}.away; systemctl restart {BRIDGE} || true")
    host.run(f"mv {folder}.away {folder}")
    assert "243/CREDENTIALS" in host.journal(BRIDGE)
    host.wait_for("the next start", lambda: host.main_pid(BRIDGE))


def test_the_removal_leaves_nothing_behind(host: SystemdHost) -> None:
    for step in SECTIONS[REMOVAL]:
        host.follow(step)
    found = "find / -xdev -name '*dialer*' -not -path '/proc/*' -not -path '/var/log/journal/*'"
    assert host.run(f"{found}; grep -r dialer /etc/passwd /etc/asterisk || true") == ""
