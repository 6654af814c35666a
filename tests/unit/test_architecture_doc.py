"""docs/architecture.md names files and folders that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def named_paths() -> set[str]:
    names = re.findall(
        r"`((?:dialer|workers|tests|deploy)/[\w./]+|\w+\.toml|celeryconfig\.py)`", PAGE
    )
    return set(names) - {"dialer.toml", "dialer/metrics.py"}


def test_every_named_file_exists() -> None:
    assert [name for name in sorted(named_paths()) if not (ROOT / name).exists()] == []


def test_twenty_changes_have_one_line_each() -> None:
    table = PAGE.split("## Where do I change")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    assert all(re.search(r"`[\w./]+`", row) for row in rows)


def test_every_lua_step_of_the_flow_is_a_step() -> None:
    steps = {path.stem for path in (ROOT / "dialer" / "store" / "lua").glob("*.lua")}
    assert set(re.findall(r"lua/(\w+)\.lua", PAGE)) <= steps
