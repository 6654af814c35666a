"""Tables of figures: what every benchmark returns, what is printed, stored and documented. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Value = str | int | float | None
Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of figures under a title. `columns` are keys of the rows; `note` explains them."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    note: str = ""

    def markdown(self) -> str:
        """Return it as a Markdown table."""
        head = "| " + " | ".join(self.columns) + " |"
        rule = "|" + "---|" * len(self.columns)
        lines = [
            "| " + " | ".join(cell(row.get(c)) for c in self.columns) + " |" for row in self.rows
        ]
        return "\n".join([head, rule, *lines])

    def text(self) -> str:
        """Return it with aligned columns, for a terminal."""
        cells = [[*self.columns], *([cell(row.get(c)) for c in self.columns] for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(self.columns))]
        lines = ["  ".join(w.rjust(n) for w, n in zip(line, widths, strict=True)) for line in cells]
        return "\n".join([self.title, *lines])

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-compatible dictionary; NaN becomes null."""
        document = asdict(self)
        document["rows"] = [{k: _plain(v) for k, v in row.items()} for row in self.rows]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Table:
        """Return the table that `to_json` stored."""
        return cls(**document)


def cell(value: Value) -> str:
    """Return a figure with as many digits as are meaningful; empty for what was not measured."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:.{digits}f}"


def _plain(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
