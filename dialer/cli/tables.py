"""Plain tables of commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Return a text that may come from Redis as one line without control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Yield lines of left-aligned columns, two spaces apart."""
    lines = [[printable(text) for text in line] for line in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield "  ".join(
            f"{text:<{width}}" for text, width in zip(line, widths, strict=True)
        ).rstrip()
