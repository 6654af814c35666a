"""Outcome of a simulated call, determined by the last two digits of its number.

Owns the table of digits, the same as in the lab's SIP carrier, and the differences between
Asterisk versions. Pure: no clock, no channels, no sockets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

Version = Literal["16", "22"]

CAUSE_TEXT: Final = MappingProxyType(
    {
        0: "Unknown",
        1: "Unallocated (unassigned) number",
        16: "Normal Clearing",
        17: "User busy",
        19: "User alerting, no answer",
        21: "Call Rejected",
        34: "Circuit/channel congestion",
    }
)
"""Hangup cause (Q.850) -> Asterisk's text in `Cause-txt`."""


class Ending(StrEnum):
    """How an Originate ends."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    """The carrier rejects the call."""
    RINGS_OUT = "rings_out"
    """Nobody answers before the Originate's own timeout."""
    REFUSED = "refused"
    """Asterisk answers the action with an error."""
    NO_CHANNEL = "no_channel"
    """Accepted, but no channel is created: OriginateResponse is the only event."""
    UNANSWERED_ACTION = "unanswered_action"
    """Asterisk sends no response to the action and starts no call."""


class Clearing(StrEnum):
    """Who ends an answered call."""

    FAR_END = "far_end"
    PBX = "pbx"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """Differences between Asterisk versions on the wire."""

    banner: str
    release: str
    more_settings: str
    """Additional fields of CoreSettings."""
    has_processed_calls: bool
    has_tech_cause: bool
    ring_out_cause: int
    has_cause_if_bye_has_reason: bool
    """HangupRequest has a cause if the BYE has a Reason (Asterisk 16: if it has none)."""
    cause_of_silent_bye: int
    """Hangup's cause if the BYE has no Reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of one number; `Timing` draws the delays.

    `cause` is Q.850; `tech_cause` the SIP status; `reason` is OriginateResponse's Reason;
    `dial_status` is empty if Asterisk sends no DialEnd.
    """

    ending: Ending
    cause: int = 16
    tech_cause: int | None = None
    dial_status: str = ""
    reason: int = 0
    rings: bool = False
    """The carrier sends 180, even if it answers soon."""
    far_leg_cause: int = 0
    """On a Local channel, the cause in the far leg's Hangup after a rejection."""
    gives_reason: bool = True
    """The far end's BYE has a Reason."""
    clearing: Clearing = Clearing.FAR_END
    ring_s: float | None = None
    """Fixed seconds until the answer; None: drawn from the usual range."""
    is_long: bool = False


VERSIONS: Final = MappingProxyType(
    {
        "16": VersionFacts(
            banner="Asterisk Call Manager/5.0.4",
            release="16.28.0~dfsg-0+deb11u4",
            more_settings="",
            has_processed_calls=False,
            has_tech_cause=False,
            ring_out_cause=0,
            has_cause_if_bye_has_reason=False,
            cause_of_silent_bye=16,
        ),
        "22": VersionFacts(
            banner="Asterisk Call Manager/11.0.0",
            release="22.10.1+dfsg+~cs6.17.60671434-1",
            more_settings="SoundsSearchCustomDir: No\r\n",
            has_processed_calls=True,
            has_tech_cause=True,
            ring_out_cause=19,
            has_cause_if_bye_has_reason=True,
            cause_of_silent_bye=0,
        ),
    }
)

_TECHNOLOGIES: Final = frozenset({"pjsip", "sip", "local", "iax2", "dahdi"})
_WITHOUT_CALL: Final = {
    85: Ending.REFUSED,
    86: Ending.NO_CHANNEL,
    87: Ending.UNANSWERED_ACTION,
}
_PBX_CLEARS: Final = frozenset({*range(60, 70), *range(90, 96)})
_NUMBER = re.compile(r"\+?\d+")


def number_in(dial_string: str) -> str:
    """Return the dialed number: the first digits (optional plus) after the technology."""
    _, _, address = dial_string.partition("/")
    found = _NUMBER.search(address)
    return found.group() if found else ""


def outcome_for(dial_string: str, version: Version) -> Outcome:
    """Return the outcome of dialing `dial_string` on a PBX of that version.

    An unknown technology creates no channel. On a Local channel a rejection is visible in
    Reason, and the dialer's leg has no cause.
    """
    technology = dial_string.partition("/")[0].lower()
    if technology not in _TECHNOLOGIES:
        return Outcome(ending=Ending.NO_CHANNEL)
    digits = number_in(dial_string)[-2:]
    last_two = int(digits) if digits.isdigit() else 0
    outcome = _by_last_digits(last_two, version)
    if technology == "local":
        return _on_local(outcome)
    is_cleared_by_carrier = (
        outcome.ending is Ending.ANSWERED and outcome.clearing is Clearing.FAR_END
    )
    if is_cleared_by_carrier and last_two % 2:
        return replace(outcome, gives_reason=False, cause=VERSIONS[version].cause_of_silent_bye)
    return outcome


def starved(version: Version) -> Outcome:
    """Return the outcome of a call that a PBX of that version starts too late: nobody answers."""
    return _by_last_digits(81, version)


def _on_local(outcome: Outcome) -> Outcome:
    reason = {"BUSY": 5, "CONGESTION": 8}.get(outcome.dial_status)
    if outcome.ending is not Ending.REJECTED or reason is None:
        return replace(outcome, far_leg_cause=outcome.cause)
    return replace(outcome, cause=0, far_leg_cause=outcome.cause, reason=reason)


def _by_last_digits(last_two: int, version: Version) -> Outcome:
    if 70 <= last_two <= 80:
        return _rejection(last_two)
    if 81 <= last_two <= 84:
        return Outcome(
            ending=Ending.RINGS_OUT,
            cause=VERSIONS[version].ring_out_cause,
            tech_cause=480,
            reason=3,
            rings=True,
        )
    if last_two in _WITHOUT_CALL:
        return Outcome(ending=_WITHOUT_CALL[last_two])
    return Outcome(
        ending=Ending.ANSWERED,
        dial_status="ANSWER",
        reason=4,
        rings=last_two == 95,
        clearing=Clearing.PBX if last_two in _PBX_CLEARS else Clearing.FAR_END,
        ring_s=2.0 if last_two == 95 else None,
        is_long=90 <= last_two <= 94,
    )


def _rejection(last_two: int) -> Outcome:
    if last_two <= 74:
        cause, sip_status, dial_status = 17, 486, "BUSY"
    elif last_two <= 76:
        cause, sip_status, dial_status = 21, 403 if last_two == 75 else 603, "NOANSWER"
    elif last_two <= 78:
        cause, sip_status, dial_status = 1, 404, "NOANSWER"
    else:
        cause, sip_status, dial_status = 34, 503, "CONGESTION"
    return Outcome(
        ending=Ending.REJECTED, cause=cause, tech_cause=sip_status, dial_status=dial_status
    )
