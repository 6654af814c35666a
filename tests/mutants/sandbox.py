"""A copy of the project in which tests run: a run that is cut off leaves no mutated file behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.mutants.mutant import Edit, apply

ROOT: Final = Path(__file__).resolve().parents[2]
LEFT_OUT: Final = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*cache", ".mutants")

#: Plugins that take a second to import and that no test here needs.
NOT_NEEDED: Final = ("celery", "docker_tools", "xdist", "xdist.looponfail")

#: The program was ended because it took too long.
TOO_LONG: Final = -1

#: How long pytest may take to stop its fixtures, in seconds.
STOPS_WITHIN_S: Final = 10.0


class Sandbox:
    """One copy of the project. Belongs to one thread."""

    def __init__(self, source: Path, folder: Path) -> None:
        """Copy the project at `source` to `folder`, which must not exist."""
        self.folder = folder.resolve()
        shutil.copytree(source, self.folder, ignore=LEFT_OUT)
        self._changes = 0

    @contextlib.contextmanager
    def planted(self, path: str, edit: Edit) -> Iterator[None]:
        """Plant a fault in the copy, for the time of the `with` block."""
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        try:
            self._write(file, apply(text, edit))
            yield
        finally:
            self._write(file, text)

    def _write(self, file: Path, text: str) -> None:
        """Write the file with a time of its own, by which Python knows that a .pyc is stale."""
        file.write_text(text, encoding="utf-8")
        self._changes += 1
        os.utime(file, (self._changes, self._changes))

    def pytest(self, arguments: Sequence[str], *, within_s: float) -> int:
        """Run pytest in the copy; return its exit code, or TOO_LONG.

        Generated examples are the same each time, and none is kept for the next run.
        """
        shutil.rmtree(self.folder / ".hypothesis", ignore_errors=True)
        plugins = [
            option for name in ("cacheprovider", *NOT_NEEDED) for option in ("-p", f"no:{name}")
        ]
        options = ["-q", "--hypothesis-seed=0", *plugins]
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=_environment() | {"PYTHONPATH": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            return TOO_LONG
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    """Return the environment without what pytest and coverage set for their own children."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COV_", "COVERAGE_", "PYTEST_"))
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End pytest and what it started: first so that its fixtures stop their servers."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOPS_WITHIN_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
