"""What Multcall asks for: one call request, validated.

`call_id` is the call's name everywhere: ledger, Celery task, Asterisk channel
(its Uniqueid), AstDB key and log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


def call_id(cell: str, request_id: str) -> str:
    """The call's own id, unique for ever: the cell's name and Multcall's request id.

    At most 129 characters; Asterisk takes a ChannelId of up to 149. A cell's name
    holds no colon, so the first colon parts the two.
    """
    return f"{cell}:{request_id}"


def cell_of(call_id: str) -> str:
    """The cell's name in a call id."""
    return call_id.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """A request as Multcall made it; None where Multcall left the cell's default.

    `request_id_json`, `created_at_json` and `data_json` are JSON text as it came, for
    they go back untouched; `"null"` where the field was missing.
    `valid_for_s` counts from `created_at`, or from admission where that is None.
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
        """See `call_id`."""
        return call_id(self.cell, self.request_id)


def digits(number: str) -> str:
    """The form in which numbers are compared: `+5511…` and `5511…` are the same telephone.

    It knows no country: with and without a country code they are two telephones.
    """
    return number.removeprefix("+")


def mask(number: str) -> str:
    """A telephone number fit for logs and screens: all but the last four digits hidden."""
    return "*" * max(0, len(number) - 4) + number[-4:]
