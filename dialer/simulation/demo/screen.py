"""Output of the demo: live on a terminal, else plain lines; and a report at the end."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from dialer.domain.call import Result
from dialer.simulation.multcall.checker import Checker, Summary
from dialer.simulation.pbx.server import SimulatedPbx

#: Seconds between two plain lines.
LINE_EVERY_S: Final = 2.0

#: Violations listed one by one.
VIOLATIONS_SHOWN: Final = 20


@dataclass(slots=True)
class Screen:
    """Display of the progress of the calls. The caller updates `counters` (Multcall's)."""

    console: Console
    pbxs: list[SimulatedPbx]
    calls: int
    counters: Mapping[str, int] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _said: float = 0.0
    _is_over: bool = False
    _live: Live | None = None
    _bar: Progress | None = None
    _task: TaskID | None = None

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show the progress while the context is open."""
        if not self.console.is_terminal:
            yield
            return
        self._bar = Progress(TextColumn("answered to Multcall"), BarColumn(), MofNCompleteColumn())
        self._task = self._bar.add_task("", total=self.calls)
        with Live(console=self.console, refresh_per_second=8) as self._live:
            yield

    def show(self, checker: Checker) -> None:
        """Show the current state."""
        if self._live is not None and self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=checker.responses)
            self._live.update(self._picture(checker))
        elif self._is_due(checker):
            self.console.print(self._line(checker), soft_wrap=True, highlight=False)

    def _is_due(self, checker: Checker) -> bool:
        """True every `LINE_EVERY_S` seconds, and once when all calls are over."""
        now, was_over = time.monotonic(), self._is_over
        self._is_over = checker.is_over and len(checker.calls) >= self.calls
        if now - self._said < LINE_EVERY_S and (was_over or not self._is_over):
            return False
        self._said = now
        return not was_over

    def _picture(self, checker: Checker) -> RenderableType:
        table = Table("PBX", "Asterisk", "up now", "most at once", "rang", "answered", "ended")
        for pbx in self.pbxs:
            stats = pbx.stats()
            table.add_row(
                pbx.name,
                str(stats["version"]),
                f"{pbx.live:3d} {'█' * min(pbx.live, 40)}",
                str(pbx.peak_live),
                str(pbx.rings.total()),
                str(stats["answered"]),
                str(stats["ended"]),
            )
        pushed = f"pushed {len(checker.calls)}, ACKs {checker.acks}, codes {checker.codes}"
        counters = ", ".join(f"{name} {value}" for name, value in self.counters.items())
        bar = [self._bar] if self._bar is not None else []
        return Group(*bar, table, f"{pushed}   {counters}")

    def _line(self, checker: Checker) -> str:
        up = ", ".join(f"{pbx.name} {pbx.live} up" for pbx in self.pbxs)
        counters = ", ".join(f"{name} {value}" for name, value in self.counters.items())
        return (
            f"{time.monotonic() - self._began:5.1f} s  pushed {len(checker.calls)}, "
            f"ACKs {checker.acks}, Responses {checker.responses}  |  {up}  |  {counters}"
        )


def report(console: Console, summary: Summary, checker: Checker, pbxs: list[SimulatedPbx]) -> None:
    """Print the outcomes per PBX, the latency and the violations."""
    console.print(_outcomes(checker, pbxs))
    rows = [
        f"{summary.calls} requests in {summary.pushing_s:.1f} s, "
        f"{summary.responses} Responses in {summary.duration_s:.1f} s"
    ]
    if summary.ack_p50_s is not None and summary.ack_p99_s is not None:
        p50_ms, p99_ms = summary.ack_p50_s * 1000, summary.ack_p99_s * 1000
        rows.append(f"Request to ACK: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms")
    rows.append(f"violations: {len(summary.violations) or 'none'}")
    rows += [f"  {violation}" for violation in summary.violations[:VIOLATIONS_SHOWN]]
    for row in rows:
        console.print(row, soft_wrap=True, highlight=False, markup=False)


def _outcomes(checker: Checker, pbxs: list[SimulatedPbx]) -> Table:
    by_pbx: Counter[tuple[str | None, Result]] = Counter(
        (played.response.pbx, played.response.result)
        for played in checker.calls.values()
        if played.response is not None
    )
    names = {pbx.name: f"{pbx.name} (Asterisk {pbx.stats()['version']})" for pbx in pbxs}
    results = [result for result in Result if any(by_pbx[name, result] for name in names)]
    table = Table("outcome", *names.values(), "all")
    for result in results:
        each = [by_pbx[name, result] for name in names]
        table.add_row(result, *map(str, each), str(sum(each)))
    rung = [len(pbx.rings) for pbx in pbxs]
    times = [pbx.rings.total() for pbx in pbxs]
    table.add_section()
    table.add_row("numbers rung", *map(str, rung), str(sum(rung)))
    table.add_row("times rung", *map(str, times), str(sum(times)))
    return table
