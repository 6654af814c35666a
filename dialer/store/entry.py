"""One call as it stands in the ledger's hash, read back into the domain's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dialer.domain.call import Call, CodeState, State
from dialer.domain.request import CallRequest, cell_of
from dialer.multcall.request import parse_request


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970, the ledger's form of a time."""
    return round(at.timestamp() * 1000)


def from_ms(ms: bytes | str | int | None) -> datetime | None:
    """A time from the ledger's form, None where there is none."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A call that is not done, with what its worker needs.

    `boot` names the Asterisk start under which it was claimed; `expires_at` is when it
    may no longer be dialed, None for never.
    """

    call: Call
    request: CallRequest
    boot: str
    expires_at: datetime | None

    @classmethod
    def from_hash(cls, call_id: str, fields: Mapping[bytes, bytes]) -> Entry:
        """Reads an entry that has its `request` (a done one has none any more)."""
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
    """A Lua step's flat list of names and values as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
