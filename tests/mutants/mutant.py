"""One small fault in one file, and the text it is planted in. Knows no language and no test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: Longest piece of code in a report, in characters.
SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Replace the characters from `start` up to, not including, `end` with `after`.

    `statement` is the offset at which the enclosing statement begins.
    """

    start: int
    end: int
    after: str
    statement: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """An edit of the file `path` (relative to the project, with `/`).

    `first_line` to `last_line` are the lines that run if the mutated code runs. `source` is the
    text of the line where the edit begins: it stays the same when lines are added above. `change`
    is `before -> after`, or `before#2 -> after` for the second such text of the line.
    """

    path: str
    edit: Edit
    first_line: int
    last_line: int
    source: str
    change: str

    @property
    def where(self) -> str:
        """`file:line` for a report."""
        return f"{self.path}:{self.last_line}"


def mutants_of(path: str, text: str, edits: Iterator[Edit]) -> list[Mutant]:
    """Describe the edits of one file. An edit that another one repeats is left out."""
    unique = {(edit.start, edit.end, edit.after): edit for edit in edits}
    return [_described(path, text, unique[key]) for key in sorted(unique)]


def apply(text: str, edit: Edit) -> str:
    """Return the text with the fault in it."""
    return text[: edit.start] + edit.after + text[edit.end :]


def _described(path: str, text: str, edit: Edit) -> Mutant:
    before = text[edit.start : edit.end]
    line_start = text.rfind("\n", 0, edit.start) + 1
    line = text[line_start:].partition("\n")[0]
    nth = text.count(before, line_start, edit.start) + 1
    which = f"#{nth}" if line.count(before) > 1 else ""
    return Mutant(
        path=path,
        edit=edit,
        first_line=text.count("\n", 0, edit.statement) + 1,
        last_line=text.count("\n", 0, edit.start) + 1,
        source=line.strip(),
        change=f"{_short(before)}{which} -> {_short(edit.after) or 'nothing'}",
    )


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
