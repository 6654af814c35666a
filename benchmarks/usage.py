"""What processes and a Redis server used: CPU, context switches, memory, commands, bytes.

Reads /proc and INFO only, so it depends on no internals of what is measured. Differences of two
readings are the use between them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

#: Commands that run a Lua step.
_STEPS: Final = ("eval", "evalsha", "fcall")


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """CPU time and context switches of one or more processes, since they started."""

    cpu_s: float = 0.0
    switches: int = 0

    @classmethod
    def by(cls, *pids: int) -> Self:
        """Read the use of these processes; of others than this one, with their descendants.

        Switches of a thread that has ended are not counted; its CPU time is.
        """
        others = [pid for root in pids if root != os.getpid() for pid in _descendants(root)]
        everyone = [*pids, *others]
        return cls(
            cpu_s=sum(_cpu_s(pid) for pid in everyone),
            switches=sum(_switches(pid) for pid in everyone),
        )

    def __add__(self, other: Used) -> Used:
        return Used(cpu_s=self.cpu_s + other.cpu_s, switches=self.switches + other.switches)

    def __sub__(self, other: Used) -> Used:
        return Used(cpu_s=self.cpu_s - other.cpu_s, switches=self.switches - other.switches)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(_read(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(pid: int) -> float:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _switches(pid: int) -> int:
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:  # the thread has just ended
            continue
        count += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return count


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text(encoding="ascii").split()
        except OSError:
            continue
        for child in map(int, found):
            yield child
            yield from _descendants(child)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="ascii", errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a Redis server did, since it started.

    `commands` include those inside Lua steps. `reads` is how often it read from a connection: a
    round trip is one read, and so is a pipeline.
    """

    commands: float = 0
    steps: float = 0
    reads: float = 0
    net_bytes: float = 0
    cpu_s: float = 0.0

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """Read it from the reply to `INFO everything`."""
        return cls(
            commands=int(info["total_commands_processed"]),
            steps=sum(info.get(f"cmdstat_{name}", {}).get("calls", 0) for name in _STEPS),
            reads=int(info["total_reads_processed"]),
            net_bytes=int(info["total_net_input_bytes"]) + int(info["total_net_output_bytes"]),
            cpu_s=float(info["used_cpu_user"]) + float(info["used_cpu_sys"]),
        )

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(
            commands=self.commands - other.commands,
            steps=self.steps - other.steps,
            reads=self.reads - other.reads,
            net_bytes=self.net_bytes - other.net_bytes,
            cpu_s=self.cpu_s - other.cpu_s,
        )

    def __truediv__(self, divisor: float) -> Traffic:
        return Traffic(
            commands=self.commands / divisor,
            steps=self.steps / divisor,
            reads=self.reads / divisor,
            net_bytes=self.net_bytes / divisor,
            cpu_s=self.cpu_s / divisor,
        )
