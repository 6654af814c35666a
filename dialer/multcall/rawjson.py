"""JSON reader that keeps the raw text of every top-level field of a list element.

`Dados`, ids and codes go back to Multcall unchanged, so their text is cut out of the element;
parsing and dumping would turn 1.10 into 1.1. `read_object` never raises: if the text is wrong,
`fault` is the reason and the fields before the fault are kept. Does not know what fields mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import Final, NoReturn

#: Longest element of any list, in bytes.
ELEMENT_MAX_BYTES: Final = 64 * 1024

#: Python refuses to parse integers of more than 4,300 digits. Longer ones than this are
#: replaced by `HUGE`, which every rule of the wire rejects as too large.
_INTEGER_MAX_CHARS: Final = 4000
HUGE: Final = 10**_INTEGER_MAX_CHARS

_BOM: Final = b"\xef\xbb\xbf"
_BLANKS: Final = " \t\n\r"
_OPENING: Final = re.compile(r"[ \t\n\r]*\{(?:[ \t\n\r]*(\}))?")
_NAME: Final = re.compile(
    r'[ \t\n\r]*"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"[ \t\n\r]*:[ \t\n\r]*'
)
_FOLLOWING: Final = re.compile(r"[ \t\n\r]*([,}])")
#: Names that are safe to print.
PLAIN_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


@dataclass(slots=True)
class RawObject:
    """A JSON object: its top-level fields, parsed and as text. The last of repeated fields counts.

    `fault` is None if the object is complete, else one sentence. `fault_field` is then the name
    of the field with the faulty value, if that name is safe to print. `unknown` has the names that
    are no fields of ours (`Fields.ours` fills it).
    """

    text: str
    values: dict[str, object] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    fault: str | None = None
    fault_field: str | None = None
    unknown: tuple[str, ...] = ()

    def json(self, name: str) -> str:
        """Return the unchanged JSON text of the field, `null` if it is missing."""
        span = self.spans.get(name)
        return self.text[span[0] : span[1]] if span else "null"


class _Fault(Exception):
    """The text is not a JSON object; the message is the reason."""


def read_object(raw: bytes) -> RawObject:
    """Parse `raw`, at most 64 KiB of UTF-8; a byte order mark is skipped."""
    fault = None
    if len(raw) > ELEMENT_MAX_BYTES:
        fault = f"The element has {len(raw)} bytes; at most {ELEMENT_MAX_BYTES} are allowed"
        raw = raw[:ELEMENT_MAX_BYTES]
    body = raw.removeprefix(_BOM)
    try:
        found = RawObject(body.decode())
    except UnicodeDecodeError as error:
        found = RawObject(body[: error.start].decode())
        fault = fault or f"The element must be UTF-8; byte {error.start + 1} is not"
    try:
        _walk(found)
    except _Fault as stop:
        found.fault = str(stop)
    if fault is not None:
        found.fault, found.fault_field = fault, None
    return found


def text_of(raw: bytes) -> bytes | None:
    """Return the text of an element that is one JSON string, in UTF-8; None if it is none.

    A lone surrogate becomes bytes that are no UTF-8.
    """
    if len(raw) > ELEMENT_MAX_BYTES or not raw.removeprefix(_BOM).lstrip().startswith(b'"'):
        return None
    try:
        text = value_of(raw.removeprefix(_BOM).decode())
    except UnicodeDecodeError:
        return None
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None


def value_of(text: str, *, numbers_as_text: bool = False) -> object:
    """Return the value of a whole JSON text, None also if it is not JSON.

    With `numbers_as_text`, numbers become their unchanged text.
    """
    decoder = _TEXT_DECODER if numbers_as_text else _DECODER
    text = text.strip(_BLANKS)
    try:
        value, end = decoder.raw_decode(text)
    except (JSONDecodeError, RecursionError, _Fault):
        return None
    return value if end == len(text) else None


def _walk(found: RawObject) -> None:
    """Parse the top-level fields into `found`; a field counts if it is followed by `,` or `}`."""
    text = found.text
    opening = _OPENING.match(text)
    if opening is None:
        is_text = text.lstrip(_BLANKS).startswith('"')
        cure = "; it is text: push the object itself, not JSON in a JSON string" if is_text else ""
        raise _Fault(f"The element must be one JSON object{cure}")
    at, closed = opening.end(), opening[1] is not None
    while not closed:
        name, start = _name(text, at)
        found.fault_field = name if PLAIN_NAME.fullmatch(name) else None
        value, end = _value(text, start)
        found.fault_field = None
        following = _FOLLOWING.match(text, end)
        if following is None:
            raise _Fault(f"The element is not valid JSON: expecting , or }} at {end + 1}")
        at, closed = following.end(), following[1] == "}"
        found.values[name] = value
        found.spans[name] = (start, end)
    if text[at:].strip(_BLANKS):
        raise _Fault(f"There is text after the JSON object, from character {at + 1} on")


def _name(text: str, at: int) -> tuple[str, int]:
    """Return the field name at `at` and the position of its value."""
    match = _NAME.match(text, at)
    if match is None:
        raise _Fault(f"The element is not valid JSON: expecting a field name at {at + 1}")
    name = match[1]
    if "\\" in name:
        name = str(_value(text, match.start(1) - 1)[0])
    return name, match.end()


def _value(text: str, at: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except JSONDecodeError as error:
        reason = f"{error.msg[0].lower()}{error.msg[1:]} at {error.pos + 1}"
        raise _Fault(f"The element is not valid JSON: {reason}") from None
    except RecursionError:
        raise _Fault("The element is nested too deeply") from None


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= _INTEGER_MAX_CHARS else HUGE


def _refuse_constant(name: str) -> NoReturn:
    raise _Fault(f"The element is not valid JSON: {name} is not a JSON value")


_DECODER: Final = JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)
_TEXT_DECODER: Final = JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)
