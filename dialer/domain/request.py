"""One validated call request of Multcall, the call id, and the masked form of its number.

`call_id` identifies the call in ledger, Celery task and log. In Asterisk its channel is named
after a hash of it (`dialer.domain.channel.channel_id`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

#: Kinds of characters in `_kinds`.
_DIGIT: Final = "0"
_BETWEEN: Final = "-"
_OTHER: Final = "a"

#: Seven digits or more, with up to four signs between two of them, as `_kinds` writes them.
_RUN: Final = re.compile(r"0(?:-{0,4}0){6,}")

#: An ISO 8601 time. Nothing stands before or behind it that could make a number of it.
_TIME: Final = re.compile(
    r"(?<![\w.+/-])(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
    r"(?:Z|[+-](?:0[0-9]|1[0-4]):?[0-5][0-9])?(?!\w)(?![.:+/-][0-9])"
)

#: JSON escapes: UTF-16 units, or one sign.
_ESCAPE: Final = re.compile(r'\\u[0-9a-fA-F]{4}(?:\\u[0-9a-fA-F]{4})*|\\(?P<sign>["\\/bfnrt])')

#: JSON in a JSON string has escapes of escapes; so many levels are undone.
_ESCAPE_LEVELS: Final = 5


def call_id(cell: str, request_id: str) -> str:
    """Return the call id: the cell's name, a colon and Multcall's request id. Never used twice.

    At most 129 characters. A cell's name contains no colon, so the first colon separates the two.
    """
    return f"{cell}:{request_id}"


def cell_of(call_id: str) -> str:
    """Return the cell's name in a call id."""
    return call_id.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """A request as Multcall sent it. A field is None if the cell's default applies.

    `request_id_json`, `created_at_json` and `data_json` are unchanged JSON text, because they go
    back in the Response; `"null"` if the field was missing. `valid_for_s` counts from
    `created_at`, or from the admission if that is None.
    """

    cell: str
    request_id: str
    request_id_json: str
    number: str
    caller_id: str | None = None
    context: str | None = None
    exten: str | None = None
    priority: int | None = None
    trunk: str | None = None
    ring_timeout_s: int | None = None
    created_at: datetime | None = None
    created_at_json: str = "null"
    valid_for_s: float | None = None
    variables: tuple[tuple[str, str], ...] = ()
    data_json: str = "null"

    @property
    def call_id(self) -> str:
        """See the function `call_id`."""
        return call_id(self.cell, self.request_id)


def mask(number: str) -> str:
    """Return the number for logs and screens: all but the last four digits are hidden."""
    return "*" * (len(number) - 4) + number[-4:]


def mask_in(text: str) -> str:
    """Return the text without JSON escapes, and with the digits masked that may be a number.

    That are seven or more, in any script, with up to four signs between two of them; the last
    four stay. A `T` is such a sign. ISO 8601 times stay.
    """
    for _ in range(_ESCAPE_LEVELS):
        text = _ESCAPE.sub(_unescaped, text)
    kinds, shown = _kinds(text), list(text)
    for run in _RUN.finditer(kinds):
        digits = [at for at in range(*run.span()) if kinds[at] == _DIGIT]
        for at in digits[:-4]:
            shown[at] = "*"
    return "".join(shown)


def _unescaped(found: re.Match[str]) -> str:
    if (sign := found["sign"]) is not None:
        return sign if sign in '"\\/' else " "
    return bytes.fromhex(found[0].replace("\\u", "")).decode("utf-16-be", "replace")


def _kinds(text: str) -> str:
    """Return a character for each one of the text: digit, between digits, or other."""
    kinds = [
        _DIGIT if one.isdigit() else _OTHER if one.isalnum() and one not in "Tt" else _BETWEEN
        for one in text
    ]
    for time in _TIME.finditer(text):
        kinds[time.start() : time.end()] = _OTHER * len(time[0])
    return "".join(kinds)
