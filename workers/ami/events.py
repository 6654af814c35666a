"""From AMI messages to what they mean for a call. Pure; knows no connection.

Field names and their order of arrival are those of Asterisk 16 and 22
(tests/captures); other versions that keep these names work as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote

from dialer.domain.call import Ending
from dialer.domain.causes import result_of

#: The AST_STATE_UP of ChannelState.
CHANNEL_UP: Final = "6"

#: Highest of Q.850's causes.
CAUSE_MAX: Final = 127

# The dialplan can write what it likes into a note or a UserEvent: `inf`, `1e400`, 5,000 digits.
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")

#: Events that say something of a call; all others are dropped before they are parsed.
WANTED_EVENTS: Final = frozenset(
    {
        "Newchannel", "Newstate", "DialEnd", "OriginateResponse", "Hangup", "UserEvent",
        "QueueCallerJoin", "QueueCallerLeave", "AgentConnect", "FullyBooted",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCreated:
    """Newchannel: the call has a channel, so a Hangup will end it."""

    uniqueid: str
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelUp:
    """Newstate to Up: the far end answered."""

    uniqueid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialEnded:
    """DialEnd: Asterisk's word for how dialing went."""

    uniqueid: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateEnded:
    """OriginateResponse: known by ActionID, for its Uniqueid may be another call's."""

    action_id: str
    answered: bool
    reason: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HungUp:
    """Hangup: the channel is gone."""

    uniqueid: str
    cause: int | None
    cause_text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdHeard:
    """UserEvent DialerAmd: what answering machine detection heard; None where it does not run."""

    uniqueid: str
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentJoined:
    """AgentConnect of a queue, or UserEvent DialerAgent: who took the call.

    `wait_s` is how long the customer waited, in seconds, as far as Asterisk says it (a queue
    counts whole seconds).
    """

    uniqueid: str
    agent: str
    wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueJoined:
    """QueueCallerJoin: the customer begins to wait for an agent."""

    uniqueid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLeft:
    """QueueCallerLeave: the waiting is over, with an agent or without."""

    uniqueid: str


AmiEvent = (
    ChannelCreated
    | ChannelUp
    | DialEnded
    | OriginateEnded
    | HungUp
    | AmdHeard
    | AgentJoined
    | QueueJoined
    | QueueLeft
)


def translate(message: Mapping[str, str]) -> AmiEvent | None:
    """The meaning of an AMI event, None where it says nothing of a call.

    `message` holds the event's headers under Asterisk's own names.
    """
    get = message.get
    uniqueid = get("Uniqueid", "")
    match get("Event"):
        case "Newchannel":
            return ChannelCreated(uniqueid=uniqueid, channel=get("Channel", ""))
        case "Newstate" if get("ChannelState") == CHANNEL_UP:
            return ChannelUp(uniqueid=uniqueid)
        case "DialEnd":
            return DialEnded(uniqueid=get("DestUniqueid", ""), status=get("DialStatus", "").upper())
        case "OriginateResponse":
            return OriginateEnded(
                action_id=get("ActionID", ""),
                answered=get("Response") == "Success",
                reason=_number(get("Reason")),
            )
        case "Hangup":
            return HungUp(
                uniqueid=uniqueid,
                cause=_cause(get("Cause")),
                cause_text=get("Cause-txt") or None,
            )
        case "UserEvent":
            return _user_event(message, uniqueid)
        case "QueueCallerJoin":
            return QueueJoined(uniqueid=uniqueid)
        case "QueueCallerLeave":
            return QueueLeft(uniqueid=uniqueid)
        case "AgentConnect":
            agent = get("MemberName") or get("Interface", "")
            return AgentJoined(uniqueid=uniqueid, agent=agent, wait_s=_seconds(get("HoldTime")))
    return None


def _user_event(message: Mapping[str, str], uniqueid: str) -> AmiEvent | None:
    match message.get("UserEvent"):
        case "DialerAmd":
            return AmdHeard(uniqueid=uniqueid, status=unquote(message.get("Status", "")) or None)
        case "DialerAgent":
            return AgentJoined(
                uniqueid=uniqueid,
                agent=unquote(message.get("Agent", "")),
                wait_s=_seconds(message.get("Wait")),
            )
    return None


# --- what the shipped dialplan wrote down (deploy/asterisk/dialer.conf) ----------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A call's own record in AstDB. `ended_at` is None while it is up."""

    answered_at: datetime
    ended_at: datetime | None
    cause: int | None
    amd: str | None
    agent: str | None
    wait_s: float | None

    def ending(self, *, fallback_end: datetime) -> Ending:
        """How the call ended, by its own record."""
        return Ending(
            result=result_of(answered=True, cause=self.cause, reason=None, dial_status=None),
            ended_at=self.ended_at or fallback_end,
            answered_at=self.answered_at,
            cause=self.cause,
            amd=self.amd,
            agent=self.agent,
            wait_s=self.wait_s,
        )


def read_note(value: str) -> Note | None:
    """Reads an AstDB record, `answered=… ended=… cause=…`; None where it is not one."""
    fields: dict[str, str] = {}
    for part in value.split():
        key, _, text = part.partition("=")
        fields.setdefault(key, text)  # what the dialplan wrote first, it wrote itself
    answered_at = _moment(fields.get("answered"))
    if answered_at is None:
        return None
    return Note(
        answered_at=answered_at,
        ended_at=_moment(fields.get("ended")),
        cause=_cause(fields.get("cause")),
        amd=unquote(fields.get("amd", "")) or None,
        agent=unquote(fields.get("agent", "")) or None,
        wait_s=_seconds(fields.get("wait")),
    )


def _moment(text: str | None) -> datetime | None:
    seconds = _seconds(text)
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and _WHOLE.fullmatch(text) else None


def _cause(text: str | None) -> int | None:
    """A Q.850 cause, 0-127; None for anything else."""
    cause = _number(text)
    return cause if cause is not None and cause <= CAUSE_MAX else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and _SECONDS.fullmatch(text) else None
