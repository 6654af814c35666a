"""How findings look: a table for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialer.doctor.findings import Finding, Level, exit_code

MARKS = {Level.GOOD: ("✓", "green"), Level.DOUBTFUL: ("?", "yellow"), Level.WRONG: ("✗", "red")}


def as_json(findings: Sequence[Finding]) -> str:
    """Return all findings and the exit code as one JSON object."""
    rows = [
        {**dataclasses.asdict(finding), "level": finding.level.name.lower()} for finding in findings
    ]
    return json.dumps({"exit_code": exit_code(findings), "findings": rows}, indent=2)


def print_table(findings: Sequence[Finding], console: Console) -> None:
    """Print one row per finding, with the cure under it; then how many there are."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark, style = MARKS[finding.level]
        found = Text(f"{finding.where}: {finding.what}")
        if finding.cure:
            found.append(f"\n→ {finding.cure}", style="bold")
        table.add_row(Text(mark, style=style), finding.code, found)
    console.print(table)
    console.print(Text(summary(findings)))


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each kind."""
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    if counts[Level.WRONG] or counts[Level.DOUBTFUL]:
        return (
            f"{counts[Level.WRONG]} wrong, {counts[Level.DOUBTFUL]} doubtful, "
            f"{counts[Level.GOOD]} good"
        )
    return f"All {counts[Level.GOOD]} checks are good."
