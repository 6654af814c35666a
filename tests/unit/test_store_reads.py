"""What goes through `Steps.read` may be repeated, so it must not write; and how it is read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dialer.store.ledger import LedgerReads
from dialer.store.steps import Steps
from tests.unit.stand_ins import a

ROOT = Path(__file__).parents[2]

READING = {
    "GET", "HGET", "HGETALL", "HMGET", "LLEN", "LRANGE", "SCARD", "SMEMBERS", "SMISMEMBER",
    "SRANDMEMBER", "TIME", "ZCARD", "ZRANGE", "ZRANGEBYSCORE",
    "BYSCORE", "LIMIT", "REV", "WITHSCORES",
}  # fmt: skip


def test_commands_given_to_read_do_not_write() -> None:
    found = {command for file in python_files() for command in commands(file)}
    assert {"HGETALL", "LLEN"} <= found
    assert found <= READING


BOTH = {"a": 3.5, "\N{REPLACEMENT CHARACTER}": 1.0}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ([b"a", b"7000", b"\xff", b"9500"], BOTH),
        ([[b"a", 7000.0], [b"\xff", 9500.0]], BOTH),
        ([[b"a", 7000.0]], {"a": 3.5}),
        ([], {}),
    ],
)
async def test_scores_are_read_by_both_protocols(
    reply: list[Any], expected: dict[str, float]
) -> None:
    """RESP2 sends members and scores in one row; `protocol` in the URL chooses."""

    async def read(command: str, *_: Any) -> list[Any]:
        return [10, 500_000] if command == "TIME" else reply

    served = await LedgerReads(cast(Steps, a(read=read)), "ASR").served_by()
    assert served == expected


def python_files() -> Iterator[Path]:
    for folder in ("dialer", "workers"):
        yield from (ROOT / folder).rglob("*.py")


def commands(file: Path) -> Iterator[str]:
    """The command names in calls of `read` and `read_many`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in ("read", "read_many"):
            for leaf in (leaf for arg in node.args for leaf in ast.walk(arg)):
                match leaf:
                    case ast.Constant(value=str(text)) if text.isupper():
                        yield text
