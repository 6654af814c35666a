"""Reads one element of a list as a JSON object and keeps the raw text of every field.

What has to go back to Multcall untouched (`Dados`, ids, codes) is cut out of the text
as it came, for a parse and a dump would turn 1.10 into 1.1. Nothing here raises: where
reading stops, `fault` says why, and the fields read up to there are kept.
Knows nothing of the fields' meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import Final, NoReturn

#: Longest element of any list, in bytes.
ELEMENT_MAX_BYTES: Final = 64 * 1024

#: Python refuses to read integers of more than 4,300 digits, so longer ones than this
#: are read as `HUGE`, which every rule of the wire finds too large.
_INTEGER_MAX_CHARS: Final = 4000
HUGE: Final = 10**_INTEGER_MAX_CHARS

_BOM: Final = b"\xef\xbb\xbf"
_OPENING: Final = re.compile(r"[ \t\n\r]*\{(?:[ \t\n\r]*(\}))?")
_NAME: Final = re.compile(
    r'[ \t\n\r]*"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"[ \t\n\r]*:[ \t\n\r]*'
)
_FOLLOWING: Final = re.compile(r"[ \t\n\r]*([,}])")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


@dataclass(slots=True)
class RawObject:
    """A JSON object: its top-level fields, parsed and as text; of a repeated one the last.

    `fault` is None where the object is whole, else one sentence; then `fault_field`
    names the field in whose value reading stopped, if that name can be shown.
    """

    text: str
    values: dict[str, object] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    fault: str | None = None
    fault_field: str | None = None

    def json(self, name: str) -> str:
        """The field's value as it came, `null` where there is none."""
        span = self.spans.get(name)
        return self.text[span[0] : span[1]] if span else "null"


class _Fault(Exception):
    """Reading stopped; the text is the reason."""


def read_object(raw: bytes) -> RawObject:
    """Reads `raw`, at most 64 KiB of UTF-8 (a byte order mark is passed over)."""
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


def _walk(found: RawObject) -> None:
    """Reads the top-level fields into `found`; a field counts when its end was seen."""
    text = found.text
    opening = _OPENING.match(text)
    if opening is None:
        raise _Fault("The element must be one JSON object")
    at, closed = opening.end(), opening[1] is not None
    while not closed:
        name, start = _name(text, at)
        found.fault_field = name if _PLAIN_NAME.fullmatch(name) else None
        value, end = _value(text, start)
        found.fault_field = None
        following = _FOLLOWING.match(text, end)
        if following is None:
            raise _Fault(f"The element is not valid JSON: expecting , or }} at {end + 1}")
        at, closed = following.end(), following[1] == "}"
        found.values[name] = value
        found.spans[name] = (start, end)
    if text[at:].strip(" \t\n\r"):
        raise _Fault(f"There is more text after the JSON object, from character {at + 1} on")


def _name(text: str, at: int) -> tuple[str, int]:
    """The field name at `at`, and where its value begins."""
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
    raise _Fault(f"The element is not valid JSON: {name} is no JSON value")


_DECODER: Final = JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)
