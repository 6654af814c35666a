"""A claimed call as its worker follows it: received events, sent actions, possible gaps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from dialer.domain.call import Call, State
from dialer.domain.causes import REDIRECTED
from dialer.domain.channel import AmiEvent, HungUp, OriginateEnded, uniqueids_of
from dialer.domain.request import CallRequest

__all__ = ["Followed", "changed"]

_UP: Final = frozenset({State.ORIGINATING, State.ACCEPTED, State.ANSWERED})


@dataclass(frozen=True, kw_only=True)  # no slots: see `changed`
class Followed:
    """A claimed call.

    `boot` identifies the start of Asterisk during which it was claimed; `token` is the token of
    its claim. `uniqueid` is its channel's, empty while it may be either of `uniqueids_of`. `sent`:
    its Originate may have been sent. `missed`: some of its events may have been missed. `gaps`
    counts the reconnects since the claim. After the last reconnect: `appeared`: its channel was
    created or listed; `waited`: the time limit of its Originate has passed. `is_gone`: Asterisk
    has no channel of it; `restarted`: because Asterisk restarted; `vanished`: it was found while
    the link was up. `unanswered_s` is how long Asterisk gave no reply to the Originate, 0 if it
    replied. `asking`: its record is being read; `asked_again`: for the second time, because the
    end was missing. `waiting_since` is when the customer joined a queue; `wait_s` is how long the
    customer waited for an agent, in seconds. `over_at` is when the channel hung up, or when the
    Originate failed without a channel. `confirms`: the include reports the hand-over; `handed` is
    what is known of it (`dialer.domain.hand_over`), empty for nothing. `cleared`: the far end hung
    up. `forward` is where Asterisk dialed on, because the carrier forwarded the call. `hang_up`: an
    operator asked for its end, and then that was sent to Asterisk.
    """

    call: Call
    request: CallRequest
    boot: str
    token: str = ""
    uniqueid: str = ""
    wants_amd: bool = False
    confirms: bool = False
    ring_timeout_s: float = 30.0
    sent: bool = False
    missed: bool = False
    gaps: int = 0
    appeared: bool = False
    waited: bool = False
    is_gone: bool = False
    restarted: bool = False
    vanished: bool = False
    unanswered_s: float = 0.0
    asking: bool = False
    asked_again: bool = False
    channel: str | None = None
    hangup: HungUp | None = None
    originate: OriginateEnded | None = None
    over_at: datetime | None = None
    seen_up_at: datetime | None = None
    dial_status: str | None = None
    amd: str | None = None
    has_amd_event: bool = False
    agent: str | None = None
    waiting_since: datetime | None = None
    wait_s: float | None = None
    handed: str = ""
    cleared: bool = False
    forward: str = ""
    hang_up: Literal["", "asked", "sent"] = ""
    early: tuple[tuple[AmiEvent, datetime], ...] = ()

    @property
    def uniqueids(self) -> tuple[str, ...]:
        """The Uniqueids that its channel may have; the most probable one is the first."""
        return (self.uniqueid,) if self.uniqueid else uniqueids_of(self.call.call_id)

    @property
    def is_up(self) -> bool:
        """True until the call has ended."""
        return self.call.state in _UP

    @property
    def is_accepted(self) -> bool:
        """True after Asterisk accepted the Originate."""
        return self.call.state is not State.ORIGINATING

    @property
    def is_answered(self) -> bool:
        """True after the customer answered."""
        return self.call.state is State.ANSWERED

    @property
    def has_failed_without_channel(self) -> bool:
        """True if the Originate failed and its channel has not been seen yet."""
        return self.originate is not None and not self.originate.answered and self.channel is None

    @property
    def needs_amd_from_record(self) -> bool:
        """True if AMD was requested but no event came.

        Asterisk sends none when the customer hangs up during detection; the record may have it.
        """
        return self.is_answered and self.wants_amd and not self.has_amd_event

    @property
    def awaits_hand_over(self) -> bool:
        """True if the answered call must still be reported as handed over.

        After a gap the report may have been missed; the record then has it.
        """
        return self.is_answered and self.confirms and not self.handed and not self.missed

    @property
    def is_forwarded(self) -> bool:
        """True if the carrier forwarded the call to another number (Q.850 cause 23)."""
        return bool(self.forward) or (self.hangup is not None and self.hangup.cause == REDIRECTED)


if TYPE_CHECKING:
    from dataclasses import replace as changed  # so that names and types are checked
else:

    def changed(followed: Followed, **changes: Any) -> Followed:
        """Return a copy with these changes. `replace` takes ten times as long, for each event."""
        copy = object.__new__(Followed)
        object.__setattr__(copy, "__dict__", followed.__dict__ | changes)
        return copy
