"""Conversion of the ledger's hash of one call to the types of the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dialer.domain.call import Call, CodeState, State
from dialer.domain.request import CallRequest, cell_of
from dialer.multcall.request import parse_request


def to_ms(at: datetime) -> int:
    """Return a time in the ledger's format: milliseconds since 1970."""
    return round(at.timestamp() * 1000)


def from_ms(ms: bytes | str | int | None) -> datetime | None:
    """Return a time of the ledger, None if the field is missing or empty."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A call that is not done, with the fields that its worker needs.

    `boot` identifies the start of Asterisk during which it was claimed. After `expires_at` it may
    no longer be dialed; None: it does not expire.
    """

    call: Call
    request: CallRequest
    boot: str
    expires_at: datetime | None

    @classmethod
    def from_hash(cls, call_id: str, fields: Mapping[bytes, bytes]) -> Entry:
        """Convert the hash of a call that is not done; a done call has no `request`."""
        text = {
            name.decode(): value.decode() for name, value in fields.items() if name != b"request"
        }
        call = Call(
            call_id=call_id,
            state=State(text["state"]),
            epoch=int(text["epoch"]),
            pbx=text.get("pbx"),
            attempts=int(text.get("attempts", 0)),
            uniqueid=text.get("uniqueid"),
            code_state=CodeState(text["code_state"]),
            code_json=text.get("code", "null"),
            dialed_at=from_ms(text.get("dialed_ms")),
            accepted_at=from_ms(text.get("accepted_ms")),
            answered_at=from_ms(text.get("answered_ms")),
        )
        return cls(
            call=call,
            request=parse_request(fields[b"request"], cell=cell_of(call_id)),
            boot=text.get("boot", ""),
            expires_at=from_ms(text.get("expires_ms")),
        )


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the flat list of names and values of a Lua step as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
