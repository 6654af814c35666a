"""Numbers out of text and CSV files, as people and spreadsheets write them."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.cli.number_file import LINE_MAX_CHARS, Layout, Line, numbers_in
from dialer.errors import DialerError


def read(content: bytes | str, **layout: str) -> list[Line]:
    raw = content.encode() if isinstance(content, str) else content
    return list(numbers_in(io.BytesIO(raw), "list.csv", Layout(**layout)))


def numbers(content: bytes | str, **layout: str) -> list[str]:
    lines = read(content, **layout)
    assert [line.problem for line in lines if line.number is None] == []
    return [line.number for line in lines if line.number is not None]


ONE = ["11900000010", "+5511900000020"]
TEXT = "11900000010\n+5511900000020\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        f"\ufeff{TEXT}",
        f"# do not call; by law, since 2020\n\n{TEXT}",
        f"Telefone\n{TEXT}",
        "(11) 90000-0010  # a comment, with a comma\n +55 11 90000.0020",
        '"11900000010"\n"+5511900000020"\n',
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-be").join([b"\xfe\xff", b""]),
    ],
)
def test_one_number_a_line_is_read(content: bytes | str) -> None:
    assert numbers(content) == ONE


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        ("nome;telefone\nAna;11900000010\nJo\u00e3o;+5511900000020\n", {}),
        ("nome,telefone\nAna,11900000010\nJo\u00e3o,+5511900000020\n", {"column": "telefone"}),
        ("NOME\tTELEFONE\nAna\t11900000010\nB\t+5511900000020\n", {"column": "Telefone"}),
        ("a|b\nAna|11900000010\nB|+5511900000020\n", {"column": "2"}),
        ("Ana;11900000010\nB;+5511900000020\n", {"column": "2"}),
        ("n\u00famero;nome\n11900000010;Jo\u00e3o\n+5511900000020;B\n".encode("latin-1"), {}),
        ("n\u00famero;nome\n11900000010;Jo\u00e3o\n+5511900000020;B\n".encode("utf-16"), {}),
        ('nome;fone\n"Ana; M.";"(11) 90000-0010"\n"x\ny";+5511900000020\n', {}),
        ("11900000010:x\n+5511900000020:y\n", {"delimiter": ":", "column": "1"}),
        ("nome;fone\n#x;1\n;\n\nAna;11900000010\nB;+5511900000020\n", {}),
    ],
)
def test_a_column_of_csv_is_read(content: bytes | str, layout: dict[str, str]) -> None:
    assert numbers(content, **layout) == ONE


def test_lines_without_a_number_are_named() -> None:
    content = "nome;fone\nA;11900000010\nB;5,51199E+12\nC\nD;\nE;+55 (0)11 1\nF;abc\n"
    assert [(line.at, line.problem) for line in read(content) if line.number is None] == [
        (
            3,
            "'5,51199E+12' was rounded by a spreadsheet; format its column as text and write the "
            "file again",
        ),
        (4, "has only 1 columns, and the number is in column 2"),
        (5, "has no number"),
        (6, "'+55 (0)11 1' has (0) after the country code; write the number without it"),
        (7, "'abc' is not a telephone number: 3 to 20 digits with an optional leading +"),
    ]


def test_quotes_that_never_close_hide_no_line() -> None:
    content = 'nome;fone\nA;11900000010\n"B;1\nC;2\nD;3\n'
    good, bad = read(content)
    assert (good.number, good.at) == ("11900000010", 2)
    assert (bad.at, bad.lines, bad.number) == (3, 3, None)
    assert "is not CSV up to line 5" in bad.problem


def test_an_empty_file_has_no_numbers() -> None:
    for content in (b"", b"\n\n", b"# nothing\n", b"\xef\xbb\xbf"):
        assert read(content) == []


@pytest.mark.parametrize(
    ("content", "layout", "said"),
    [
        ("a;b\n1;2\n", {}, r"list.csv has 2 columns \(a;b\); say which .* --column 2"),
        ("190;191\n", {}, r"has 2 columns \(no header\); say which"),
        ("a;b\n", {"column": "c"}, r"list.csv has no column 'c' \(a;b\); say which"),
        ("x" * (LINE_MAX_CHARS + 1), {}, r"list.csv line 1 is longer than 65536 characters"),
        (b"\xff\xfe1\x00\n\x00\x00\xd8", {}, r"list.csv is not text after line [01]; save it as"),
    ],
)
def test_a_file_of_another_form_is_refused(
    content: bytes | str, layout: dict[str, str], said: str
) -> None:
    with pytest.raises(DialerError, match=said):
        read(content, **layout)


@given(raw=st.binary(max_size=200), column=st.sampled_from(["", "1", "9999", "fone", "\x00"]))
def test_any_bytes_give_numbers_or_sentences(raw: bytes, column: str) -> None:
    try:
        lines = read(raw, column=column)
    except DialerError:
        return
    assert all(line.number is not None or line.problem for line in lines)


#: Lines of a long file. Memory and coverage are traced, which takes 20 times as long.
LONG = 40_000


class Endless(io.RawIOBase):
    """A file of many lines that is never in memory as a whole."""

    def __init__(self) -> None:
        self._lines = self._made()
        self._rest = b""

    def _made(self) -> Iterator[bytes]:
        for start in range(0, LONG, 100):
            yield b"".join(b"x;119%08d\n" % n for n in range(start, start + 100))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._lines, self._rest = self._made(), b""
        return 0

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        self._rest = self._rest or next(self._lines, b"")
        part = self._rest[: len(buffer)]
        self._rest = self._rest[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def test_a_long_file_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        with io.BufferedReader(Endless()) as file:  # type: ignore[type-var]
            layout = Layout(column="2", delimiter=";")
            count = sum(1 for line in numbers_in(file, "long", layout) if line.number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == LONG
    assert peak < 10 * LONG  # bytes; one number in a list takes ten times that
