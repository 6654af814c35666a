"""The machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def described() -> dict[str, str]:
    """Return what a reader needs to compare figures, by name."""
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processors": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{_memory_gib():.0f} GiB",
        "system": f"Linux {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(
            f"{name} {metadata.version(name)}" for name in ("celery", "redis", "panoramisk")
        ),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    first = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()[0]
    return int(first.split()[1]) / 1024**2
