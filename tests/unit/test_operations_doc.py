"""docs/operations.md quotes every log message of the programs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"info", "warning", "error", "exception", "critical"}


def sentences() -> Iterator[str]:
    """The constant message of every log call, simulation excluded."""
    for path in [*ROOT.glob("dialer/**/*.py"), *ROOT.glob("workers/**/*.py")]:
        if "simulation" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "logger"
            ):
                message = node.args[0]
                assert isinstance(message, ast.Constant), f"{path}:{node.lineno}"
                yield str(message.value)


def test_operations_manual_has_every_log_message() -> None:
    manual = " ".join((ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split())
    assert [sentence for sentence in sentences() if sentence not in manual] == []
