"""The lab: two real Asterisks, the carrier that they call, and Redis, in containers.

Owns the containers and what the tests may ask about them. Knows nothing of the dialer.
The addresses inside and the numbers' meaning are in README.md, compose.yml and
carrier/uas.xml. Standard library and `tests.waiting` only; everything is done with the docker
command.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, TextIO

from tests.waiting import wait_blocking

Version = Literal["16", "22"]
VERSIONS: tuple[Version, ...] = ("16", "22")
SERVICES: tuple[str, ...] = ("asterisk16", "asterisk22", "carrier", "redis")

HERE = Path(__file__).resolve().parent
#: Another name, and another compose file with other addresses, is a second lab beside the first.
PROJECT = os.environ.get("LAB_PROJECT", "dialer-lab")
NETWORK = f"{PROJECT}_bridge"
COMPOSE_FILE = os.environ.get("LAB_COMPOSE_FILE", str(HERE / "compose.yml"))
CONFIG = Path(COMPOSE_FILE).parent / "asterisk"
AMI_USERNAME = "dialer"
AMI_SECRET = "lab-secret"  # the lab's own, on loopback
RINGS_LOG = "/var/log/carrier/rings.log"
READY_S = 60.0
COMMAND_S = 60.0
BUILD_S = 900.0
_LOGIN = f"Action: Login\r\nUsername: {AMI_USERNAME}\r\nSecret: {AMI_SECRET}\r\n\r\n"
_LINE = re.compile(
    r"^(?P<what>RING|ANSWERED|CROSSED|CLEARED) \S+\s+\S+\s+(?P<epoch>\d+\.\d+) "
    r"(?P<number>\+?\d+) (?P<call>\S+)$"
)


class LabError(Exception):
    """The lab did not do what was asked; the message says which command and what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """One call that reached the carrier.

    `talked_s` is the time from its answer until the PBX cleared it; None if it was not answered,
    if the PBX cancelled it at that moment, or if the carrier cleared it.
    """

    at: float  # seconds since 1970 UTC, by the carrier's clock (the host's)
    number: str
    sip_call_id: str
    talked_s: float | None = None


@dataclass(frozen=True, slots=True)
class LimitedAsterisk:
    """An Asterisk beside the lab's two, which one test alone uses."""

    name: str
    ami_port: int  # on 127.0.0.1

    def is_ready(self) -> bool:
        """Whether a manager can log in and it is fully booted."""
        return _fully_booted(self.ami_port)

    def take_rooms(self, n: int) -> None:
        """Let it make n calls of its own, which stay: sooner than its console starts."""
        calls = "".join(
            f"Action: Originate\r\nActionID: {call}\r\nChannel: Local/90@local-trunk/n\r\n"
            "Application: Wait\r\nData: 600\r\nAsync: true\r\n\r\n"
            for call in range(1, n + 1)
        )
        said = f"Response: Success\r\nActionID: {n}\r\n"
        if not answers(self.ami_port, (_LOGIN + calls).encode(), said.encode()):
            raise LabError(f"{self.name} makes no calls")


@cache
def _reserve() -> TextIO:
    """Reserve the lab until this process ends. Another process would reset it during a test.

    Raises:
        LabError: another process uses it.
    """
    lock = Path(tempfile.gettempdir(), f"{PROJECT}.lock").open("w")  # noqa: SIM115  # held until the end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise LabError(
            f"another process uses the lab {PROJECT}: wait for its end, or set LAB_PROJECT"
        ) from None
    return lock


class Lab:
    """Starts, stops, kills and reads the lab. One lab a machine, unless LAB_PROJECT is set.

    `services` are those of compose.yml that it needs.
    """

    def __init__(self, services: Sequence[str] = SERVICES) -> None:
        self.services = services

    def up(self) -> None:
        """Build what is missing, start what is not running, wait until all of it answers.

        Idempotent; 3 s when everything is there, some minutes on the first run.
        """
        _reserve()
        _docker("compose", "build", "--quiet", *self.services, timeout_s=BUILD_S)
        _docker("compose", "up", "--detach", "--no-build", *self.services, timeout_s=COMMAND_S)
        for version in VERSIONS:
            if f"asterisk{version}" in self.services:
                self.wait_until_ready(version)
        wait_for("the carrier", self._carrier_listens)
        if "redis" in self.services:
            wait_for("Redis", lambda: answers(self.redis_port(), b"PING\r\n", b"+PONG"))

    def is_up(self) -> bool:
        """Whether all of it runs already."""
        running = _docker("ps", "--filter", f"name=^{PROJECT}-", "--format", "{{.Names}}").split()
        return {_container(service) for service in self.services} <= {*running}

    def down(self) -> None:
        """Remove the containers and all that was in them; the images stay."""
        _docker("compose", "down", "--volumes", "--timeout", "1", timeout_s=COMMAND_S)

    def ami_port(self, version: Version) -> int:
        """Port of that Asterisk's manager on 127.0.0.1."""
        return self._published(f"asterisk{version}", 5038)

    def ami_tls_port(self, version: Version) -> int:
        """Port of that Asterisk's manager over TLS; closed without a certificate."""
        return self._published(f"asterisk{version}", 5039)

    def use_certificate(self, version: Version, cert: Path, key: Path) -> None:
        """Give that Asterisk's manager a certificate for TLS, and have it read."""
        for source, target in ((cert, "/tmp/ami.pem"), (key, "/tmp/ami.key")):
            source.chmod(0o644)  # copied with its mode, and Asterisk is no root there
            _docker("cp", str(source), f"{_container(f'asterisk{version}')}:{target}")
        self.cli(version, "manager reload")
        listens = ":13AF "  # 5039
        wait_for(
            f"TLS on asterisk{version}",
            lambda: listens in self._exec(f"asterisk{version}", "cat", "/proc/net/tcp"),
        )

    def address(self, service: str) -> str:
        """Address of a container: without the proxy that publishes its ports on 127.0.0.1."""
        network = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return _docker("inspect", "--format", network, _container(service)).strip()

    def pid(self, service: str) -> int:
        """First process of a container, as this machine knows it."""
        return int(_docker("inspect", "--format", "{{.State.Pid}}", _container(service)))

    def redis_port(self) -> int:
        """Port of Redis on 127.0.0.1."""
        return self._published("redis", 6379)

    def rings(self) -> Counter[str]:
        """How often each number rang since the carrier was created.

        Retransmissions of one INVITE count once: they carry the same Call-ID.
        """
        return Counter(ring.number for ring in self.ring_log())

    def ring_log(self) -> list[Ring]:
        """Every call that reached the carrier, first to last."""
        by_call: dict[str, Ring] = {}
        answered: dict[str, float] = {}
        for line in self._exec("carrier", "cat", RINGS_LOG).splitlines():
            if (match := _LINE.match(line)) is None:
                continue
            at, number, call = float(match["epoch"]), match["number"], match["call"]
            if match["what"] == "RING":
                by_call.setdefault(call, Ring(at=at, number=number, sip_call_id=call))
            elif match["what"] == "ANSWERED":
                answered.setdefault(call, at)
            elif match["what"] == "CROSSED":
                answered.pop(call, None)
            elif call in by_call and call in answered and by_call[call].talked_s is None:
                by_call[call] = replace(by_call[call], talked_s=at - answered[call])
        return list(by_call.values())

    def live_channels(self, version: Version) -> int:
        """Channels that Asterisk holds now; a Local call has two."""
        said = self.cli(version, "core show channels count")
        match = re.search(r"^(\d+) active channel", said, re.MULTILINE)
        if match is None:
            raise LabError(f"asterisk{version} does not say how many channels it has: {said!r}")
        return int(match[1])

    def hang_up_everything(self, version: Version) -> None:
        """Hang up every channel of that Asterisk and wait until none is left."""
        self.cli(version, "channel request hangup all")
        wait_for(f"no channels on asterisk{version}", lambda: self.live_channels(version) == 0)

    @contextmanager
    def frozen(self, version: Version) -> Iterator[None]:
        """That Asterisk stands still meanwhile: it answers nothing, and nothing of it is lost."""
        _docker("pause", _container(f"asterisk{version}"))
        try:
            yield
        finally:
            _docker("unpause", _container(f"asterisk{version}"))

    @contextmanager
    def limited(self, version: Version, maxcalls: int) -> Iterator[LimitedAsterisk]:
        """One more Asterisk of that version, with `maxcalls` in its asterisk.conf."""
        name = f"{PROJECT}-limited{version}"
        config = "/tmp/asterisk.conf"
        limit = (
            f"sed 's/^.options.$/[options]\\nmaxcalls = {maxcalls}/' /etc/asterisk/asterisk.conf"
        )
        mounts = (
            f"{CONFIG}:/etc/asterisk:ro",
            f"{HERE.parents[2] / 'deploy' / 'asterisk'}:/opt/dialer:ro",
        )
        _docker(
            *("run", "--detach", "--rm", "--name", name, "--hostname", f"limited{version}"),
            *("--network", NETWORK, "--publish", "127.0.0.1:0:5038"),
            *(part for mount in mounts for part in ("--volume", mount)),
            *(f"multcall-asterisk:{version}", "sh", "-c"),
            f"{limit} >{config} && exec asterisk -f -n -C {config}",
        )
        try:
            port = _docker("port", name, "5038/tcp").splitlines()[0].rpartition(":")[2]
            asterisk = LimitedAsterisk(name, int(port))
            wait_for(name, asterisk.is_ready)
            yield asterisk
        finally:
            _docker("rm", "--force", name)

    def cli(self, version: Version, command: str) -> str:
        """What Asterisk's console says to a command."""
        return self._exec(f"asterisk{version}", "asterisk", "-rx", command)

    def files(self, version: Version, pattern: str) -> list[str]:
        """Paths of that Asterisk's files that match a shell pattern."""
        listed = self._exec(f"asterisk{version}", "sh", "-c", f"ls -1d {pattern} 2>/dev/null || :")
        return listed.splitlines()

    def remove(self, version: Version, pattern: str) -> None:
        """Remove files of that Asterisk."""
        self._exec(f"asterisk{version}", "sh", "-c", f"rm -rf {pattern}")

    def kill_asterisk(self, version: Version) -> None:
        """SIGKILL: no hangups are sent, AMI links break, the carrier is told nothing."""
        _docker("kill", "--signal", "KILL", _container(f"asterisk{version}"))

    def start_asterisk(self, version: Version) -> None:
        """Start a killed Asterisk and wait for AMI. AstDB is as it was; the calls are gone."""
        _docker("start", _container(f"asterisk{version}"))
        self.wait_until_ready(version)

    def restart_asterisk(self, version: Version) -> None:
        """Kill and start at once."""
        self.kill_asterisk(version)
        self.start_asterisk(version)

    def wait_until_ready(self, version: Version) -> None:
        """Wait until a manager can log in and Asterisk is fully booted."""
        wait_for(f"asterisk{version}", lambda: _fully_booted(self.ami_port(version)))

    def _carrier_listens(self) -> bool:
        return ":13C4 " in self._exec("carrier", "cat", "/proc/net/udp")  # 13C4 = 5060

    def _published(self, service: str, port: int) -> int:
        said = _docker("port", _container(service), f"{port}/tcp")
        return int(said.splitlines()[0].rpartition(":")[2])

    def _exec(self, service: str, *command: str) -> str:
        return _docker("exec", _container(service), *command)


def docker_available() -> str | None:
    """None where the lab can be started, else the sentence that says why not."""
    for command, lacking in (
        (("info", "--format", "{{.ServerVersion}}"), "No Docker engine answers"),
        (("compose", "version", "--short"), "Docker has no compose plugin"),
    ):
        try:
            _docker(*command)
        except LabError as error:
            return f"{lacking}: {error}"
    return None


def _fully_booted(port: int) -> bool:
    return answers(port, _LOGIN.encode(), b"Event: FullyBooted")


def _container(service: str) -> str:
    return f"{PROJECT}-{service}-1"


def _docker(*command: str, timeout_s: float = COMMAND_S) -> str:
    """Run docker and return what it printed. Raises LabError."""
    # The classic builder unless somebody chose: it also builds on an image that is only local.
    environment = {
        "DOCKER_BUILDKIT": "0",
        **os.environ,
        "COMPOSE_FILE": COMPOSE_FILE,
        "COMPOSE_PROJECT_NAME": PROJECT,
    }
    try:
        done = subprocess.run(
            ["docker", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError("there is no docker command") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"docker {' '.join(command)} took more than {timeout_s:.0f} s") from error
    if done.returncode != 0:
        raise LabError(f"docker {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def answers(port: int, say: bytes, expect: bytes) -> bool:
    """Whether a server on loopback says `expect` within a second of being told `say`."""
    heard = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as link:
            link.sendall(say)
            while expect not in heard:
                part = link.recv(4096)
                if not part:
                    return False
                heard += part
    except OSError:
        return False
    return True


def wait_for(what: str, ready: Callable[[], bool], timeout_s: float = READY_S) -> None:
    """Wait for a condition. Raises LabError."""
    try:
        wait_blocking(ready, what, within_s=timeout_s, look_every_s=0.05)
    except AssertionError as error:
        raise LabError(str(error)) from error
