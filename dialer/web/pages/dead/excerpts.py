"""What the list shows of an element: its beginning, from which nobody can read the number.

The value of the telephone field is hidden; in everything else what may be a number is masked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from dialer.domain.request import mask_in
from dialer.multcall.fields import Fields
from dialer.multcall.rawjson import ELEMENT_MAX_BYTES, text_of, value_of

#: Characters of an element that are shown.
EXCERPT_MAX: Final = 200

#: Stands for a telephone number.
HIDDEN: Final = '"***"'

#: What is nested deeper is not shown.
_DEPTH_MAX: Final = 20

#: Characters of the longest JSON escape of one character.
_ESCAPE_CHARS: Final = 12


def excerpt(raw: bytes, fields: Fields) -> str:
    """Return the beginning of an element as text. `fields` knows the name of the telephone field.

    It hides values of that name and of ours, also if capital and small letters differ, because an
    element is often refused for such a mistake.
    """
    inner = text_of(raw)
    text = (raw if inner is None else inner)[:ELEMENT_MAX_BYTES].decode(errors="replace")
    value = value_of(text.removeprefix("\ufeff"))
    if isinstance(value, dict | list):
        names = frozenset(name.casefold() for name in ("Telefone", fields.name("Telefone")))
        text = _beginning(_pieces(value, names))
    return masked(text, EXCERPT_MAX)


def masked(text: str, at_most: int) -> str:
    """Return the beginning of a text with its numbers masked, also one that goes on behind it."""
    beginning = text[: 2 * _ESCAPE_CHARS * at_most].encode("utf-8", "replace").decode()
    found = mask_in(beginning)
    return found if len(found) <= at_most else f"{found[:at_most]}…"


def _beginning(pieces: Iterator[str]) -> str:
    """Join pieces until they are longer than what is shown."""
    found, length = [], 0
    for piece in pieces:
        found.append(piece)
        length += len(piece)
        if length > 2 * _ESCAPE_CHARS * EXCERPT_MAX:
            break
    return "".join(found)


def _pieces(value: object, hidden: frozenset[str], depth: int = 0) -> Iterator[str]:
    """Yield the JSON text of a value; members whose names are in `hidden` have no value."""
    if not isinstance(value, dict | list):
        yield json.dumps(value, ensure_ascii=False)
    elif depth > _DEPTH_MAX:
        yield "…"
    elif isinstance(value, list):
        yield "["
        for n, one in enumerate(value):
            yield ", " if n else ""
            yield from _pieces(one, hidden, depth + 1)
        yield "]"
    else:
        yield "{"
        for n, (name, one) in enumerate(value.items()):
            yield f"{', ' if n else ''}{json.dumps(name, ensure_ascii=False)}: "
            if name.strip().casefold() in hidden:
                yield HIDDEN
            else:
                yield from _pieces(one, hidden, depth + 1)
        yield "}"
