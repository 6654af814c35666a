"""Telephone numbers in a file: one a line, or a column of a CSV file.

Reads line by line, so that a file of millions of numbers takes no memory. Knows how spreadsheets
write files: delimiters, a byte order mark, UTF-16, Latin-1, quotes. Does not know what the numbers
are for.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from dialer.domain.numbers import without_separators
from dialer.errors import DialerError

#: Longest line, in characters: far above any row of numbers.
LINE_MAX_CHARS: Final = 65_536

#: Delimiters of columns; the first line decides, unless one is given.
DELIMITERS: Final = frozenset(";,\t|:")
_DELIMITERS: Final = ";,\t|"

#: Names of a column with numbers, without regard to case.
_NAMES: Final = frozenset(
    {
        *("telefone", "telefones", "telefon", "telephone", "tel", "fone", "phone"),
        *("phone_number", "numero", "número", "number", "celular", "msisdn", "rufnummer"),
    }
)

#: A spreadsheet's short form of a long number; digits are lost.
_ROUNDED: Final = re.compile(r"[0-9][.,][0-9]+[eE]\+?[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How to read the file. `column` is a name or a number from 1; '' finds it."""

    column: str = ""
    delimiter: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One number of the file; `number` is None if it is none, `problem` says why.

    `at` is the line, or the first of `lines` lines of one row.
    """

    at: int
    number: str | None
    problem: str = ""
    lines: int = 1


def numbers_in(file: BinaryIO, name: str, layout: Layout) -> Iterator[Line]:
    """Yield the number of each line; skip empty lines, comments and the header.

    Args:
        file: is read from its beginning to its end.
        name: what errors call the file.
        layout: the column and the delimiter.

    Raises:
        DialerError: the file is no text, or its column cannot be found.
    """
    lines = _lines(file, name)
    first = next((line for line in lines if _content(line[1])), None)
    if first is None:
        return
    head = _content(first[1])
    delimiter = layout.delimiter or _delimiter_of(head)
    if delimiter or layout.column or head.startswith('"'):
        yield from _rows(_chained(first, lines), name, layout, delimiter or ";")
        return
    for at, text in lines if head.casefold() in _NAMES else _chained(first, lines):
        if content := _content(text):
            yield _line(at, content)


def _rows(
    texts: Iterator[tuple[int, str]], name: str, layout: Layout, delimiter: str
) -> Iterator[Line]:
    index: int | None = None
    for at, lines, row, problem in _parsed(texts, delimiter):
        cells = [cell.strip() for cell in row]
        if problem:
            yield Line(at, None, problem, lines)
        elif not any(cells) or cells[0].startswith("#"):
            continue
        elif index is None:
            index, is_header = _column(cells, name, layout, delimiter)
            if not is_header:
                yield _of_row(at, cells, index)
        else:
            yield _of_row(at, cells, index)


def _of_row(at: int, cells: Sequence[str], index: int) -> Line:
    if index < len(cells):
        return _line(at, cells[index])
    problem = f"has only {len(cells)} columns, and the number is in column {index + 1}"
    return Line(at, None, problem)


def _parsed(
    lines: Iterator[tuple[int, str]], delimiter: str
) -> Iterator[tuple[int, int, list[str], str]]:
    """Yield the number of its first line, of its lines, its cells and what is wrong, for each row.

    A text in quotes may go on in the next line. One whose quotes are never closed would hide
    numbers, so it is wrong.
    """
    counted = _Counted(lines)
    rows = csv.reader(counted, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        counted.start = 0
        problem, row = "", None
        try:
            row = next(rows, None)
        except csv.Error as error:
            problem = f"is not CSV up to line {counted.at}: {error}"
        if row is None and not problem:
            return
        yield counted.start, counted.at - counted.start + 1, row or [], problem


def _column(cells: Sequence[str], name: str, layout: Layout, delimiter: str) -> tuple[int, bool]:
    """Return the index of the column, and true if this first row is a header."""
    is_header = not any(without_separators(cell) for cell in cells)
    folded = [cell.casefold() for cell in cells]
    wanted = layout.column.casefold()
    if wanted and wanted in folded:
        return folded.index(wanted), True
    if re.fullmatch(r"[1-9][0-9]{0,3}", wanted):
        return int(wanted) - 1, is_header
    if not wanted:
        named = [i for i, cell in enumerate(folded) if is_header and cell in _NAMES]
        if len(named) == 1 or len(cells) == 1:
            return (named or [0])[0], is_header
    there = delimiter.join(_shown(cell) for cell in cells) if is_header else "no header"
    what = f"has no column {layout.column!r}" if wanted else f"has {len(cells)} columns"
    raise DialerError(
        f"{name} {what} ({there}); say which has the numbers, by name or from 1 on: --column 2"
    )


def _line(at: int, text: str) -> Line:
    if number := without_separators(text):
        return Line(at, number)
    reason = "is not a telephone number: 3 to 20 digits with an optional leading +"
    if _ROUNDED.fullmatch(text):
        reason = "was rounded by a spreadsheet; format its column as text and write the file again"
    elif "(0)" in text:
        reason = "has (0) after the country code; write the number without it"
    return Line(at, None, f"{_shown(text)!r} {reason}" if text else "has no number")


def _shown(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def _content(text: str) -> str:
    return text.partition("#")[0].strip()


def _delimiter_of(line: str) -> str:
    """Return the most frequent delimiter of the first line; '' if it has none."""
    return max(_DELIMITERS, key=line.count) if any(d in line for d in _DELIMITERS) else ""


def _chained(first: tuple[int, str], lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from lines


class _Counted:
    """Lines for csv, with the numbers of the first line of a row and of the last one read."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self.at = self.start = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.at, text = next(self._lines)
        self.start = self.start or self.at
        return text


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers from 1.

    Text is UTF-16 if it begins with that byte order mark, else each line is UTF-8 if it can be,
    else Latin-1.
    """
    start = file.read(2)
    file.seek(0)
    is_utf16 = start in (b"\xff\xfe", b"\xfe\xff")
    # Latin-1 gives each byte as one character; `_decoded` takes it from there.
    text = io.TextIOWrapper(file, encoding="utf-16" if is_utf16 else "latin-1", newline=None)
    at = 0
    try:
        while line := text.readline(LINE_MAX_CHARS + 1):
            at += 1
            if len(line) > LINE_MAX_CHARS:
                raise DialerError(
                    f"{name} line {at} is longer than {LINE_MAX_CHARS} characters; "
                    "it takes text with one number a line, or CSV"
                )
            yield at, line if is_utf16 else _decoded(line)
    except UnicodeDecodeError:
        raise DialerError(
            f"{name} is not text after line {at}; save it as UTF-8 and try again"
        ) from None
    except OSError as error:
        raise DialerError(f"{name} cannot be read after line {at}: {error.strerror}") from None
    finally:
        if not file.closed:
            text.detach()


def _decoded(line: str) -> str:
    raw = line.encode("latin-1")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line
