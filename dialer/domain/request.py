"""One validated call request of Multcall, the call id, and the masked form of its number.

`call_id` identifies the call in ledger, Celery task and log. In Asterisk its channel is named
after a hash of it (`dialer.domain.channel.channel_id`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

#: Seven digits or more, also with the signs that people write between them. An ISO 8601 time is
#: none of them.
_LIKE_A_NUMBER: Final = re.compile(
    r"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(?![0-9]))"
    r"|\d(?:[ ().\-/]{0,3}\d){6,}"
)


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
    """Return the text with everything masked that may be a telephone number."""
    return _LIKE_A_NUMBER.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    return found[0] if found["time"] else mask(found[0])
