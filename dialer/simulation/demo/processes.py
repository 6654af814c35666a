"""The demo's processes: started with a log of their own, watched, and ended without a trace.

Each runs in a session of its own, so that Ctrl-C in the terminal reaches the demo alone, and
under a guard that ends it should the demo be killed. Knows nothing of what the processes do.
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

#: A part that was asked to stop has this long before it is killed, in seconds.
STOP_WITHIN_S: Final = 8.0

#: Lines of its log that are shown of a part that failed.
LAST_LINES: Final = 20

#: Waits on its standard input. A line means that the part ended in order; end of file means
#: that the demo is gone: then the part and whatever it started go too.
GUARD: Final = """
trap '' HUP INT TERM
if read -r _; then exit 0; fi
kill -9 -"$1" 2>/dev/null
"""


class PartFailed(DialerError):
    """A process of the demo ended by itself, or did not get ready in time."""

    code = "part_failed"


@dataclass(slots=True)
class Part:
    """One process. `name` is what people call it; its output goes to `<name>.log`."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _guard: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The process's number; it leads a session and a group of the same number."""
        assert self._process is not None, "started"
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Where the process writes what it has to say."""
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Starts the process; it gets ready later."""
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
        """Waits until the process ends by itself.

        Raises:
            PartFailed: it did; with the last lines of its log.
        """
        assert self._process is not None, "started"
        code = await self._process.wait()
        raise PartFailed(f"{self.name} ended by itself (exit code {code}).\n{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of its log."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
        return "\n".join([f"The last lines of {self.name}'s log:", *(f"  {x}" for x in lines)])

    async def stop(self) -> None:
        """Ends the process: asked first, killed with its whole group if that takes too long."""
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
                os.killpg(process.pid, signal.SIGKILL)  # the process, or children it left
        await process.wait()
        await self._dismiss_guard()

    async def _dismiss_guard(self) -> None:
        if self._guard is not None:
            with contextlib.suppress(ConnectionError):
                await self._guard.communicate(b"\n")
            self._guard = None
