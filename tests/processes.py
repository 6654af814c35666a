"""The dialer's real processes on this machine: bridges and Celery workers, as in production.

The caller provides Redis and Asterisk. Used by acceptance tests, chaos tests and benchmarks.
Every process has its own session and is stopped by its pid.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from tests.waiting import wait_blocking

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 30.0
STOP_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxPlace:
    """Where a PBX's manager is, and how its trunks are dialed."""

    name: str
    port: int
    secret: str
    username: str = "dialer"
    max_calls: int = 400
    cps: float = 200.0
    trunks: Mapping[str, str] = field(default_factory=lambda: {"carrier": "PJSIP/{number}@carrier"})
    more: Mapping[str, object] = field(default_factory=dict)


def site_toml(
    redis_url: str,
    broker_url: str,
    pbxs: Sequence[PbxPlace],
    *,
    cells: Mapping[str, Mapping[str, object]],
    pbx_lost_after: float = 120.0,
    extra: str = "",
) -> str:
    """A `dialer.toml`; `cells` gives each cell's fields other than `nome`."""
    lines = ["[multcall]", f'redis_url = "{redis_url}"', "[broker]", f'url = "{broker_url}"']
    lines += ["[recovery]", f"pbx_lost_after = {pbx_lost_after}", extra]
    for pbx in pbxs:
        trunks = ", ".join(f'{name} = "{dial}"' for name, dial in pbx.trunks.items())
        lines += ["[[pbxs]]", f'name = "{pbx.name}"', f"port = {pbx.port}"]
        lines += [f'username = "{pbx.username}"', f'secret = "{pbx.secret}"']
        lines += [f"max_calls = {pbx.max_calls}", f"cps = {pbx.cps}", f"trunks = {{ {trunks} }}"]
        lines += [f"{key} = {_toml(value)}" for key, value in pbx.more.items()]
    for name, fields in cells.items():
        fields = {"threads": 800, "pbxs": [pbx.name for pbx in pbxs], **fields}
        lines += ["[[cells]]", f'nome = "{name}"']
        lines += [f"{key} = {_toml(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


@dataclass(slots=True)
class Program:
    """One process that can be started again and again. Its output goes to one log file.

    `environment` is added to this process's own at every start.
    """

    name: str
    command: Sequence[str]
    config: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, **environment: str) -> None:
        """Start it; `environment` is added to its own."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.config.parent,
                env={
                    **os.environ,
                    "DIALER_CONFIG": str(self.config),
                    **self.environment,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_stopped(self) -> bool:
        """True while it stands still (SIGSTOP)."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.is_running:
            os.kill(self.pid, signum)

    def stop(self) -> int:
        """SIGTERM, and SIGKILL when that takes too long; return the exit code."""
        if self.process is None:
            return 0
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def said(self) -> str:
        """All that it has written."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


@dataclass(slots=True)
class Site:
    """Bridges and workers of one configuration, in one folder."""

    folder: Path
    toml: str
    redis_url: str
    pbxs: Sequence[str]
    bridges: int = 1
    programs: dict[str, Program] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.folder / "dialer.toml"
        config.write_text(self.toml, encoding="utf-8")
        for n in range(1, self.bridges + 1):
            self._add(f"bridge{n}", [sys.executable, "-m", "dialer.cli", "bridge"], config)
        for pbx in self.pbxs:
            celery = [sys.executable, "-m", "celery", "-A", "dialer", "worker"]
            self._add(pbx, [*celery, "-Q", pbx, "-n", f"{pbx}@%h"], config)

    def _add(self, name: str, command: Sequence[str], config: Path) -> None:
        log = self.folder / f"{name}.log"
        self.programs[name] = Program(name, command, config, log)

    def start(self) -> None:
        """Start everything and wait until every PBX takes calls."""
        for program in self.programs.values():
            program.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every PBX's worker says that its link is up."""
        with Redis.from_url(self.redis_url) as redis:

            def all_up() -> bool:
                links = [redis.hget(f"dialer:pbx:{pbx}", "link") for pbx in self.pbxs]
                return all(link == b"up" for link in links)

            self.wait_until(all_up, "every PBX is up")

    def wait_until(
        self, true: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S
    ) -> None:
        """Wait for a condition; fail with the logs if it stays false."""
        wait_blocking(true, what, within_s=within_s, logs=self.logs)

    def stop(self) -> dict[str, int]:
        """Stop everything gracefully; return the exit codes."""
        for program in self.programs.values():
            program.send(signal.SIGCONT)
            program.send(signal.SIGTERM)
        return {name: program.stop() for name, program in self.programs.items()}

    def logs(self, lines: int = 15) -> str:
        """The last lines of every program."""
        return "\n".join(
            f"--- {name}\n" + "\n".join(program.said().splitlines()[-lines:])
            for name, program in self.programs.items()
        )
