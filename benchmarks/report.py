"""Results on disk, and the page that shows them.

Each benchmark's tables go to benchmarks/results/NAME.json, with the machine and the command.
docs/performance.md has, for each table, a pair of markers between which `write` puts it:

    <!-- bench real -->
    <!-- /bench -->

`machine NAME` is the machine of a benchmark, `plan` the table of benchmarks/plan.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks import plots
from benchmarks.machine import ROOT, described
from benchmarks.plan import plan
from benchmarks.tables import Table

RESULTS: Final = ROOT / "benchmarks" / "results"
PAGES: Final = (ROOT / "docs" / "performance.md", ROOT / "docs" / "scaling.md")

_MARKED: Final = re.compile(r"(<!-- bench ([\w -]+?) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def store(name: str, command: str, tables: Sequence[Table]) -> Path:
    """Write a benchmark's tables; return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "command": command,
        "machine": described(),
        "tables": [table.to_json() for table in tables],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def stored() -> dict[str, dict[str, Any]]:
    """Return the stored results by the benchmark's name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
    }


def all_tables(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Table]:
    """Return the tables of all results by name."""
    return {
        table.name: table
        for result in results.values()
        for table in map(Table.from_json, result["tables"])
    }


def blocks(results: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the text for each marker that the results can fill."""
    texts: dict[str, str] = {}
    for name, result in results.items():
        machine = result["machine"]
        for table in map(Table.from_json, result["tables"]):
            where = f"`{result['command']}` at {machine['commit']}, {machine['measured']}"
            parts = [f"{table.title}. {table.note}".strip(), table.markdown(), where]
            texts[table.name] = "\n\n".join(parts)
        texts[f"machine {name}"] = "\n".join(
            f"- {what}: {said}" for what, said in machine.items() if what != "measured"
        )
    return texts


def filled(page: str, texts: Mapping[str, str]) -> str:
    """Return the page with every marker's text; one without a result keeps what it has."""

    def replaced(match: re.Match[str]) -> str:
        text = texts.get(match[2])
        return match[0] if text is None else f"{match[1]}{text}\n{match[3]}"

    return _MARKED.sub(replaced, page)


def write() -> None:
    """Fill the pages from the stored results, and draw the plots if matplotlib is installed."""
    results = stored()
    tables = all_tables(results)
    texts = blocks(results) | {"plan": plan(tables).markdown()}
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), texts), encoding="utf-8")
    if find_spec("matplotlib") is not None:
        plots.draw(tables)
