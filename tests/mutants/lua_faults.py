"""The faults that are planted in Lua steps.

They are found by patterns, in a text whose comments and strings are blanked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tests.mutants.mutant import Edit

COMMENT_OR_STRING: Final = re.compile(r"--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"")

#: What stands before a binary operator: the end of an operand. A minus sign has none before it.
OPERAND: Final = r"(?<=[\w\])'\"])"
SWAPS: Final[tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]] = tuple(
    (re.compile(pattern), afters)
    for pattern, afters in (
        (r"==", ("~=",)),
        (r"~=", ("==",)),
        (r"<(?!=)", ("<=", ">=")),
        (r"<=", ("<", ">")),
        (r">(?!=)", (">=", "<=")),
        (r">=", (">", "<")),
        (r"\band\b", ("or",)),
        (r"\bor\b", ("and",)),
        (r"\bnot ", ("",)),
        (OPERAND + r" \+ ", (" - ",)),
        (OPERAND + r" - ", (" + ",)),
        (OPERAND + r" \* ", (" / ",)),
        (OPERAND + r" / ", (" * ",)),
        (r"\btrue\b", ("false",)),
        (r"\bfalse\b", ("true",)),
    )
)
#: Which end of a list an element goes to or comes from.
ENDS: Final = {
    "'RPUSH'": "'LPUSH'",
    "'LPUSH'": "'RPUSH'",
    "'LEFT'": "'RIGHT'",
    "'RIGHT'": "'LEFT'",
}
#: A command whose name is an argument, which says what end of a list Multcall uses.
GIVEN_COMMAND: Final = re.compile(r"\bredis\.call\(([^',]+),")
NUMBER: Final = re.compile(r"(?<![\w.'])\d+(?![\w.'])")
CONDITION: Final = re.compile(r"\b(?:if|elseif)\b(.*?)\bthen\b|\bwhile\b(.*?)\bdo\b", re.DOTALL)
STATEMENT: Final = r"(?:^|\bthen\b|\bdo\b|\belse\b)[ \t]*"
CALL: Final = re.compile(STATEMENT + r"([\w.]+)\(", re.MULTILINE)
ASSIGNMENT: Final = re.compile(
    STATEMENT + r"([\w.]+(?:\[[^\]\n]*\])? = [^\n;]*?)(?=[ \t]*(?:\bend\b|$))", re.MULTILINE
)


def edits_of(text: str) -> Iterator[Edit]:
    """Find every fault of one step."""
    code = COMMENT_OR_STRING.sub(lambda found: "'" + " " * (len(found[0]) - 2) + "'", text)
    yield from _operators(code)
    yield from _ends_of_lists(text, code)
    for found in NUMBER.finditer(code):
        yield from _edits(found, 0, _other_numbers(int(found[0]), code[: found.start()]))
    for found in CONDITION.finditer(code):
        afters = (" true ", " false ") if found[1] is not None else (" false ",)
        yield from _edits(found, 1 if found[1] is not None else 2, afters)
    yield from _dropped(code)


def _operators(code: str) -> Iterator[Edit]:
    for pattern, afters in SWAPS:
        for found in pattern.finditer(code):
            yield from _edits(found, 0, afters)


def _ends_of_lists(text: str, code: str) -> Iterator[Edit]:
    for found in COMMENT_OR_STRING.finditer(text):
        if found[0] in ENDS:
            yield from _edits(found, 0, (ENDS[found[0]],))
    for found in GIVEN_COMMAND.finditer(code):
        yield from _edits(found, 1, ("'RPUSH'", "'LPUSH'"))


def _dropped(code: str) -> Iterator[Edit]:
    """Drop a call or an assignment that is a statement."""
    for found in CALL.finditer(code):
        if not _is_balanced(code[: found.start()]):
            continue  # an argument of a call, on a line of its own
        yield _edit(found.start(1), _after_bracket(code, found.end()), "")
    for found in ASSIGNMENT.finditer(code):
        if _is_balanced(found[1]):
            yield from _edits(found, 1, ("",))


def _other_numbers(number: int, before: str) -> tuple[str, ...]:
    """Return an index one higher, a factor of units doubled, any other number one up and down."""
    if before.endswith("["):
        return (str(number + 1),)
    if number >= 100:
        return (str(number * 2),)
    return str(number + 1), str(number - 1)


def _edits(found: re.Match[str], group: int, afters: tuple[str, ...]) -> Iterator[Edit]:
    for after in afters:
        yield _edit(found.start(group), found.end(group), after)


def _edit(start: int, end: int, after: str) -> Edit:
    return Edit(start=start, end=end, after=after, statement=start)


def _is_balanced(code: str) -> bool:
    return code.count("(") == code.count(")")


def _after_bracket(code: str, start: int) -> int:
    """Return the offset after the bracket that closes the one opened just before `start`."""
    depth = 1
    for offset in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[offset], 0)
        if depth == 0:
            return offset + 1
    raise ValueError("a bracket is not closed")
