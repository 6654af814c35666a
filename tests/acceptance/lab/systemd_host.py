"""A Debian Asterisk host in a container, with systemd as its first process.

Owns the container; nothing of it is published. Knows of the dialer only how a request gets
into Redis and its answers out of it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.lab.install_page import Step
from tests.waiting import wait_blocking

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "dialer-lab-systemd"
CELL = "ASR_TIM"
BUILD_S = 900.0
READY_S = 60.0
COMMAND_S = 120.0
_UNCONFINED = ("seccomp", "apparmor")
_BUILD_ARGUMENTS = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


class HostError(Exception):
    """A command failed; the message holds what it printed."""


class SystemdCannotRun(HostError):
    """This machine's Docker gives a container too little for systemd."""


@dataclass(slots=True)
class SystemdHost:
    """The running container, with one root shell's working directory and variables."""

    container: str
    shell: str = ""
    terminals: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, script: str, *, timeout_s: float = COMMAND_S) -> str:
        """What a bash script prints, both streams. Raises HostError where a command fails."""
        done = subprocess.run(
            ["docker", "exec", self.container, "bash", "-c", f"set -eo pipefail\n{script}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise HostError(f"exit code {done.returncode} of:\n{script}\n{done.stdout}")
        return done.stdout

    def follow(self, step: Step) -> str:
        """Give a block of the page in the shell; return what it prints.

        A block for a terminal of its own goes on; what is returned is what was to be seen there.
        """
        if step.is_terminal:
            return self._open_terminal(step)
        script = f"{self.shell}\n{step.script}"
        if step.only_looks:
            self.wait_for(step.script, lambda: not step.missing(self.run(script)))
        output = self.run(script)
        self.shell += f"\n{step.lasting}"
        return output

    def interrupt_terminals(self) -> None:
        """Ctrl-C in every terminal, and waits until its program has ended."""
        self.run("pkill -INT -u dialer")
        for terminal in self.terminals:
            terminal.wait(timeout=READY_S)
        self.terminals.clear()

    def is_up(self) -> bool:
        """Whether systemd has started all that it is to start."""
        # A failed service is no hindrance (exit code 1 of is-system-running): the tests see it.
        return self.run("systemctl is-system-running || true").strip() in ("running", "degraded")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` prints it."""
        return self.run(f"systemctl show --property {name} --value {unit}").strip()

    def main_pid(self, unit: str) -> int:
        """The process of a unit; 0 while there is none."""
        return int(self.show(unit, "MainPID"))

    def fed_s(self, unit: str) -> float:
        """When systemd last got a heartbeat of a unit, in seconds of `uptime_s`."""
        return int(self.show(unit, "WatchdogTimestampMonotonic")) / 1e6

    def uptime_s(self) -> float:
        """The machine's monotonic clock, in seconds."""
        return float(self.run("cat /proc/uptime").split()[0])

    def journal(self, unit: str) -> str:
        """All that the unit has said."""
        return self.run(f"journalctl --unit {unit} --no-pager --output cat")

    def place(self, request_id: str) -> None:
        """One call that is answered and stays up, and its code; return once it has its ACK."""
        # The page lets an answered call end after two seconds; this one is to stay.
        stay = "dialplan add extension answered,1,Wait(60) into dialer-try replace"
        self.run(f"asterisk -rx '{stay}'")
        self._push("Request", {"IdRequisicao": request_id, "Telefone": "+5511900000000"})
        self._take("ACK")
        self._push("CODLIGACAO", {"IdRequisicao": request_id, "CodLigacao": 7})
        self.wait_for("the answer", self._is_answered)

    def response(self) -> dict[str, Any]:
        """The Response of the call that is up, which is hung up for it."""
        self.run("asterisk -rx 'channel request hangup all'")
        return self._take("Response")

    def wait_for(self, what: str, ready: Callable[[], object]) -> None:
        """Wait until `ready` says something true. Raises HostError after a minute."""
        try:
            wait_blocking(ready, what, within_s=READY_S, look_every_s=0.2)
        except AssertionError as error:
            raise HostError(str(error)) from error

    def _open_terminal(self, step: Step) -> str:
        log = f"/tmp/terminal{len(self.terminals)}.log"
        command = f"exec >{log} 2>&1\n{step.script}"
        self.terminals.append(
            subprocess.Popen(["docker", "exec", self.container, "bash", "-c", command])
        )
        self.wait_for(log, lambda: not step.missing(self.run(f"touch {log}; cat {log}")))
        return self.run(f"cat {log}")

    def _is_answered(self) -> bool:
        return "Up!Wait" in self.run("asterisk -rx 'core show channels concise'")

    def _push(self, key: str, element: dict[str, Any]) -> None:
        self.run(f"redis-cli RPUSH ZancURA2.0-{key}-{CELL} '{json.dumps(element)}'")

    def _take(self, key: str) -> dict[str, Any]:
        said = self.run(f"redis-cli BLPOP ZancURA2.0-{key}-{CELL} 30").splitlines()
        if len(said) < 2:
            raise HostError(f"no {key} came within 30 s")
        element: dict[str, Any] = json.loads(said[1])
        return element


@contextmanager
def systemd_host() -> Iterator[SystemdHost]:
    """The host, built of this tree, started, and removed in any case.

    Raises:
        HostError: it cannot be built.
        SystemdCannotRun: Docker here does not let systemd run.
    """
    arguments = [f"--build-arg={name}" for name in _BUILD_ARGUMENTS if name in os.environ]
    dockerfile = str(Path(__file__).parent / "systemd" / "Dockerfile")
    _docker("build", "--quiet", *arguments, "--file", dockerfile, "--tag", IMAGE, str(ROOT))
    # What systemd needs to mount and to sandbox; far less than --privileged.
    rights = ("--cap-add=SYS_ADMIN", *(f"--security-opt={x}=unconfined" for x in _UNCONFINED))
    folders = ("--tmpfs=/run", "--tmpfs=/tmp")
    options = ("--detach", "--hostname=pbx", "--workdir=/", *rights, *folders)
    try:
        container = _docker("run", *options, IMAGE).strip()
    except HostError as error:
        raise SystemdCannotRun(str(error)) from error
    host = SystemdHost(container=container)
    try:
        _wait_for_systemd(host)
        yield host
    finally:
        _docker("rm", "--force", "--volumes", container)


def _wait_for_systemd(host: SystemdHost) -> None:
    try:
        host.wait_for("systemd", host.is_up)
    except HostError as error:
        said = _docker("logs", host.container)
        raise SystemdCannotRun(f"{error}\n{said}") from error


def _docker(*command: str) -> str:
    # The classic builder unless somebody chose: it also builds on an image that is only local.
    done = subprocess.run(
        ["docker", *command],
        env={"DOCKER_BUILDKIT": "0", **os.environ},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode != 0:
        raise HostError(f"docker {command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
