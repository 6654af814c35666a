"""The faults that are planted in Python code.

Left alone, because no test can or should notice them: log calls, docstrings, annotations,
decorators, `__repr__`, f-strings, `if TYPE_CHECKING`, `__all__` (mypy reads it), and numbers that
are a duration (`*_S`, `*_MS`, also two of them): a test that notices one second more is slow. For
the same reason a factor of units is doubled, not made 1,001.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from tests.mutants.mutant import Edit

COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, tuple[str, ...]]]] = {
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: (r"is\s+not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: (r"not\s+in", ("in",)),
}
OPERATORS: Final[dict[type[ast.operator], tuple[str, str]]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.BitAnd: ("&", "|"),
}
LOGGERS: Final = frozenset({"logger", "logging"})
DURATION: Final = re.compile(r"_(s|ms|us)$", re.IGNORECASE)


def edits_of(text: str) -> Iterator[Edit]:
    """Find every fault that leaves Python code that compiles."""
    finder = _Finder(_Positions(text))
    finder.visit(ast.parse(text))
    for edit in finder.found:
        try:
            compile(text[: edit.start] + edit.after + text[edit.end :], "mutant", "exec")
        except SyntaxError:
            continue
        yield edit


class _Positions:
    """Turns the positions of the syntax tree (line, UTF-8 bytes) into offsets of characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = text.splitlines(keepends=True)
        self._offsets = [0]
        for line in self._lines:
            self._offsets.append(self._offsets[-1] + len(line))

    def _offset(self, line: int, column: int) -> int:
        in_line = self._lines[line - 1].encode()[:column].decode() if column else ""
        return self._offsets[line - 1] + len(in_line)

    def start(self, node: Any) -> int:
        return self._offset(node.lineno, node.col_offset)

    def end(self, node: Any) -> int:
        return self._offset(node.end_lineno, node.end_col_offset)

    def code(self, node: ast.AST) -> str:
        return self.text[self.start(node) : self.end(node)]


@dataclass
class _Finder(ast.NodeVisitor):
    at: _Positions
    found: list[Edit] = field(default_factory=list)
    statement: int = 0

    def visit(self, node: ast.AST) -> None:
        if _is_left_alone(node):
            return
        outer = self.statement
        if isinstance(node, ast.stmt):
            self.statement = self.at.start(node)
        find = FINDERS.get(type(node))
        if find is not None:
            find(self, node)
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        self.visit(child)
        self.statement = outer

    def replace(self, node: ast.AST, after: str) -> None:
        self.between(self.at.start(node), self.at.end(node), after)

    def between(self, start: int, end: int, after: str) -> None:
        edit = Edit(start=start, end=end, after=after, statement=self.statement)
        self.found.append(edit)

    def operator(
        self, left: ast.AST, right: ast.AST, pattern: str, afters: tuple[str, ...]
    ) -> None:
        """Replace the operator that stands between two operands."""
        start = self.at.end(left)
        found = re.search(pattern, self.at.text[start : self.at.start(right)])
        if found is not None:
            for after in afters:
                self.between(start + found.start(), start + found.end(), after)

    def condition(self, test: ast.expr) -> None:
        self.replace(test, "True")
        self.replace(test, "False")

    def elements(self, elements: list[tuple[ast.AST, ast.AST]]) -> None:
        """Drop each element but an only one; each is given as its first and its last node."""
        for (first, _), (following, _) in pairwise(elements):
            self.between(self.at.start(first), self.at.start(following), "")
        if len(elements) > 1:
            self.between(self.at.end(elements[-2][1]), self.at.end(elements[-1][1]), "")


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
        case ast.FunctionDef(name="__repr__") | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in LOGGERS:
            return True
        case ast.Expr(value=ast.Constant() | ast.JoinedStr()):
            return True
        case ast.Expr(value=ast.Call() as call):
            return _is_left_alone(call)
        case ast.Call(func=ast.Name(id="assert_never" | "TypeVar")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return _is_duration(name, value)
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return _is_duration(name, value)
        case _:
            return False


def _is_duration(name: str, value: ast.expr | None) -> bool:
    if DURATION.search(name) is None:
        return False
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    return all(isinstance(part, ast.Constant) for part in parts)


def _compare(finder: _Finder, node: ast.Compare) -> None:
    left = node.left
    for op, right in zip(node.ops, node.comparators, strict=True):
        pattern, afters = COMPARISONS[type(op)]
        finder.operator(left, right, pattern, afters)
        if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Tuple):
            finder.elements([(element, element) for element in right.elts])
        left = right


def _bool_op(finder: _Finder, node: ast.BoolOp) -> None:
    before, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for left, right in pairwise(node.values):
        finder.operator(left, right, rf"\b{before}\b", (after,))
    for operand in node.values:
        if isinstance(operand, ast.Name | ast.Attribute | ast.Call):
            finder.replace(operand, f"not {finder.at.code(operand)}")


def _bin_op(finder: _Finder, node: ast.BinOp) -> None:
    is_text = isinstance(node.left, ast.JoinedStr) or (
        isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
    )
    if type(node.op) in OPERATORS and not is_text:
        before, after = OPERATORS[type(node.op)]
        finder.operator(node.left, node.right, re.escape(before), (after,))


def _not(finder: _Finder, node: ast.UnaryOp) -> None:
    if isinstance(node.op, ast.Not):
        finder.between(finder.at.start(node), finder.at.start(node.operand), "")


def _constant(finder: _Finder, node: ast.Constant) -> None:
    if isinstance(node.value, bool):
        finder.replace(node, str(not node.value))
    elif isinstance(node.value, int | float):
        for other in _other_numbers(node.value):
            finder.replace(node, str(other))


def _other_numbers(number: float) -> tuple[float, ...]:
    """Return a factor of units or a size doubled, any other number one up and down."""
    return (number * 2,) if number >= 100 else (number + 1, number - 1)


def _tested(finder: _Finder, node: ast.If | ast.IfExp) -> None:
    finder.condition(node.test)


def _while(finder: _Finder, node: ast.While) -> None:
    if not isinstance(node.test, ast.Constant):
        finder.replace(node.test, "False")


def _comprehension(finder: _Finder, node: ast.comprehension) -> None:
    for test in node.ifs:
        finder.condition(test)


def _guard(finder: _Finder, node: ast.match_case) -> None:
    if node.guard is not None:
        finder.condition(node.guard)


def _dropped(finder: _Finder, node: ast.stmt) -> None:
    finder.replace(node, "pass")


def _call_dropped(finder: _Finder, node: ast.Expr) -> None:
    if isinstance(node.value, ast.Call | ast.Await):
        _dropped(finder, node)


def _assignment(finder: _Finder, node: ast.Assign | ast.AnnAssign) -> None:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if node.value is not None and isinstance(targets[0], ast.Attribute | ast.Subscript):
        _dropped(finder, node)


def _return(finder: _Finder, node: ast.Return) -> None:
    if node.value is not None and not isinstance(node.value, ast.Constant):
        finder.replace(node.value, "None")


def _display(finder: _Finder, node: ast.List | ast.Set) -> None:
    finder.elements([(element, element) for element in node.elts])


def _dict(finder: _Finder, node: ast.Dict) -> None:
    keyed = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k is not None]
    if len(keyed) == len(node.keys):  # no `**other` in it, which has no position of its own
        finder.elements(list(keyed))


def _handler(finder: _Finder, node: ast.ExceptHandler) -> None:
    if isinstance(node.type, ast.Tuple):
        finder.elements([(element, element) for element in node.type.elts])


FINDERS: Final[dict[type[ast.AST], Callable[[_Finder, Any], None]]] = {
    ast.Compare: _compare,
    ast.BoolOp: _bool_op,
    ast.BinOp: _bin_op,
    ast.UnaryOp: _not,
    ast.Constant: _constant,
    ast.If: _tested,
    ast.IfExp: _tested,
    ast.While: _while,
    ast.comprehension: _comprehension,
    ast.match_case: _guard,
    ast.Expr: _call_dropped,
    ast.Assign: _assignment,
    ast.AnnAssign: _assignment,
    ast.AugAssign: _dropped,
    ast.Raise: _dropped,
    ast.Delete: _dropped,
    ast.Continue: _dropped,
    ast.Break: _dropped,
    ast.Return: _return,
    ast.List: _display,
    ast.Set: _display,
    ast.Dict: _dict,
    ast.ExceptHandler: _handler,
}
