"""Watchdog of a bridge or worker: ends a process that hangs, so that it is started again.

Each heartbeat task reports here after every heartbeat. If one is silent for too long, because the
event loop is blocked or the task is dead, a thread logs its name, writes the stack of every
thread to standard error and ends the process; systemd or Docker starts it again. systemd gets the
same heartbeats for its own watchdog, which also ends a process whose threads all hang.
A Redis outage does not count as silence: the task waits, and the event loop runs.

Owns the messages to systemd, see sd_notify(3). Must not know what the heartbeats write.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

logger = logging.getLogger(__name__)

#: Exit code of a process that its watchdog ended: EX_SOFTWARE of sysexits.h.
EXIT_HUNG: Final = 70

#: Longest silence of a heartbeat if systemd does not set its own limit, in seconds.
LIMIT_S: Final = 30.0

#: The thread checks the heartbeats this often within the limit. It counts checks and not seconds,
#: so that a process that was stopped (SIGSTOP, a paused machine) does not count as hung.
CHECKS: Final = 10

#: If writing the log hangs too, the process ends this long after the watchdog's decision.
DUMP_WITHIN_S: Final = 5.0

_STDERR: Final = 2  # Celery replaces sys.stderr by an object without a file descriptor


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """systemd, if it started this process with `Type=notify`.

    `watchdog_s` is WatchdogSec= of the unit, None if it has none.
    """

    address: str | None = None
    watchdog_s: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ServiceManager:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which systemd sets."""
        usec = environment.get("WATCHDOG_USEC")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_s = int(usec) / 1e6 if usec and is_ours else None
        return cls(environment.get("NOTIFY_SOCKET") or None, watchdog_s)

    def send(self, **assignments: str) -> None:
        """Send one datagram of `NAME=value` lines. Never blocks; does nothing without systemd."""
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        message = "\n".join(f"{name}={value}" for name, value in assignments.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            try:
                datagrams.sendto(message.encode(), address)
            except OSError as error:
                logger.warning("systemd does not accept our message", extra={"error": str(error)})


@dataclass(slots=True)
class Watchdog:
    """Supervisor of the heartbeats of one process.

    `_checks` counts, for each heartbeat by its name, the checks since its last report.
    """

    systemd: ServiceManager
    _checks: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _fed_at: float = 0.0

    @property
    def limit_s(self) -> float:
        """Longest silence, in seconds; shorter than systemd's, so that we can log what hangs."""
        return min(LIMIT_S, (self.systemd.watchdog_s or 2 * LIMIT_S) / 2)

    def ready(self, status: str) -> None:
        """Report that this process is ready, and supervise it from now on."""
        faulthandler.enable(_STDERR)  # also for SIGABRT, which systemd sends to a hung process
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        self.systemd.send(READY="1", STATUS=status)

    def stopping(self) -> None:
        """Report that this process stops in order."""
        self.systemd.send(STOPPING="1", STATUS="Stopping")

    async def keep_beating(
        self,
        name: str,
        write: Callable[[], Awaitable[object]],
        *,
        every_s: float,
        is_down: Callable[[], bool],
        status: Callable[[], str] = str,
    ) -> None:
        """Run `write` every `every_s` seconds until cancelled, and count it as heartbeat `name`.

        A `write` that takes longer counts as silence, unless `is_down` returns true: its Redis is
        down. An error of `write` is raised. The heartbeat stays supervised then, so the caller
        must run it again within the limit; a cancelled heartbeat is no longer supervised.
        `status` returns the text for `systemctl status`.
        """
        waiting = asyncio.create_task(self._beat_while(is_down, name, status))
        try:
            while True:
                try:
                    await write()
                finally:
                    self.beat(name, status())
                await asyncio.sleep(every_s)
        except asyncio.CancelledError:
            self._forget(name)
            raise
        finally:
            waiting.cancel()

    async def _beat_while(
        self, is_down: Callable[[], bool], name: str, status: Callable[[], str]
    ) -> None:
        while True:
            await asyncio.sleep(self.limit_s / CHECKS)
            if is_down():
                self.beat(name, status())

    def beat(self, name: str, status: str = "") -> None:
        """Count one heartbeat; tell systemd if no other heartbeat is silent for too long."""
        with self._lock:
            self._checks[name] = 0
            if max(self._checks.values()) > CHECKS:
                return
        if time.monotonic() - self._fed_at >= self.limit_s / CHECKS:
            self._fed_at = time.monotonic()
            self.systemd.send(WATCHDOG="1", **({"STATUS": status} if status else {}))

    def check(self) -> list[str]:
        """Count one check; return the heartbeats that are silent for too long."""
        with self._lock:
            for name in self._checks:
                self._checks[name] += 1
            return [name for name, checks in self._checks.items() if checks > CHECKS]

    def _forget(self, name: str) -> None:
        with self._lock:
            self._checks.pop(name, None)

    def _watch(self) -> None:
        while not (silent := self.check()):
            time.sleep(self.limit_s / CHECKS)
        faulthandler.dump_traceback_later(DUMP_WITHIN_S, exit=True, file=_STDERR)
        logger.critical(
            "Process hangs and ends now, to be started again; its stacks are on standard error",
            extra={"silent": silent, "limit_s": self.limit_s},
        )
        faulthandler.dump_traceback(_STDERR)
        os._exit(EXIT_HUNG)


#: The watchdog of this process.
process: Final = Watchdog(ServiceManager.of(os.environ))
