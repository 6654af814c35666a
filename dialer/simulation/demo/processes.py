"""Processes of the demo: start with a log file, watch, stop completely.

Each process has its own session, so that Ctrl-C in the terminal reaches only the demo, and a
guard process that kills it if the demo is killed. Does not know what the processes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dialer.errors import DialerError

#: Seconds between SIGTERM and SIGKILL.
STOP_WITHIN_S: Final = 8.0

#: Log lines shown if a process fails.
LAST_LINES: Final = 20

#: Shell script that waits on its standard input. A line means that the process ended in order.
#: End of file means that the demo is dead: then kill the process and its children.
GUARD: Final = """
trap '' HUP INT TERM
if read -r _; then exit 0; fi
kill -9 -"$1" 2>/dev/null
"""


class PartFailed(DialerError):
    """A process of the demo ended by itself, or was not ready in time."""

    code = "part_failed"


@dataclass(slots=True)
class Part:
    """One process; its output goes to `<name>.log`."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _guard: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The process id; also the id of its session and process group."""
        assert self._process is not None, "started"
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The log file."""
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Start the process without waiting until it is ready."""
        with self.log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                cwd=self.folder,
                env=dict(self.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", GUARD, "guard", str(self.pid)),
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def watch(self) -> None:
        """Wait until the process ends by itself.

        Raises:
            PartFailed: always, with the last lines of its log.
        """
        assert self._process is not None, "started"
        code = await self._process.wait()
        raise PartFailed(f"{self.name} ended by itself (exit code {code}).\n{self.last_lines()}")

    def last_lines(self) -> str:
        """Return the last lines of the log, with a heading."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
        return "\n".join([f"The last lines of {self.name}'s log:", *(f"  {x}" for x in lines)])

    async def stop(self) -> None:
        """Terminate the process; kill its whole group if that takes too long."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the process, or its children
        await process.wait()
        await self._dismiss_guard()

    async def _dismiss_guard(self) -> None:
        if self._guard is not None:
            with contextlib.suppress(ConnectionError):
                await self._guard.communicate(b"\n")
            self._guard = None
