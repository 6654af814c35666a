"""What a list shows of a call: by its hash if it is not done, else by a line of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dialer.domain.call import Result, State
from dialer.domain.request import cell_of
from dialer.errors import InvalidRequest
from dialer.multcall.request import parse_request
from dialer.store.entry import from_ms
from dialer.store.ledger.outcomes import RESULTS

#: The fields that are read, in the order of `in_flight_of`.
FIELDS: Final = (
    "state", "pbx", "request", "admitted_ms", "dialed_ms", "accepted_ms", "answered_ms",
)  # fmt: skip

#: Times until the year 5138; what else is in a field is not ours.
_MS: Final = re.compile(rb"[0-9]{1,14}")

_STATES: Final = {state.value: state for state in State}


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A call that is not done. `number` is not masked.

    `state` is None, `pbx` and `number` are '', and times are None if they cannot be read.
    """

    call_id: str
    state: State | None
    pbx: str
    number: str
    admitted_at: datetime | None = None
    dialed_at: datetime | None = None
    accepted_at: datetime | None = None
    answered_at: datetime | None = None

    @property
    def since(self) -> datetime | None:
        """When the last thing happened to it that is known."""
        times = (self.admitted_at, self.dialed_at, self.accepted_at, self.answered_at)
        return max((at for at in times if at is not None), default=None)


def in_flight_of(call_id: str, row: Sequence[bytes | None]) -> InFlight:
    """Return a call by the values of `FIELDS`."""
    state, pbx, request, *times = row
    admitted_at, dialed_at, accepted_at, answered_at = map(_time, times)
    return InFlight(
        call_id=call_id,
        state=state_in(state),
        pbx=(pbx or b"").decode(errors="replace"),
        number=number_in(request, call_id),
        admitted_at=admitted_at,
        dialed_at=dialed_at,
        accepted_at=accepted_at,
        answered_at=answered_at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A call that is done. `pbx` is '' if none had it."""

    call_id: str
    result: Result
    pbx: str
    at: datetime


def ended_in(line: bytes, cell: str) -> Ended | None:
    """Return the call in a line of a cell's ended calls, None if the line is not ours."""
    at_ms, result, pbx, call_id = [*line.split(b" ", 3), b"", b"", b""][:4]
    known, at = RESULTS.get(result.decode(errors="replace")), _time(at_ms)
    name = call_id.decode(errors="replace")
    if known is None or at is None or not name.startswith(f"{cell}:"):
        return None
    where = pbx.decode(errors="replace")
    return Ended(call_id=name, result=known, pbx="" if where == "-" else where, at=at)


def number_in(request: bytes | None, call_id: str) -> str:
    """Return the number of a request as the ledger keeps it, '' if it cannot be read."""
    try:
        return parse_request(request, cell=cell_of(call_id)).number if request else ""
    except InvalidRequest:
        return ""


def state_in(field: bytes | None) -> State | None:
    """Return the state in a call's hash, None if it is missing or no state."""
    text = (field or b"").decode(errors="replace")
    return _STATES.get(text)


def _time(field: bytes | None) -> datetime | None:
    return from_ms(field) if field and _MS.fullmatch(field) else None
