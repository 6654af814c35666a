"""Conversion of AMI messages and AstDB records to the domain's types. Pure.

Header names are those of Asterisk 16 and 22 (tests/captures); other versions that keep these
names work as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote

from dialer.domain.channel import (
    AgentJoined,
    AmdReported,
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    DialEnded,
    HungUp,
    OriginateEnded,
    QueueJoined,
    QueueLeft,
    Record,
)
from dialer.domain.follow_events import ChannelListed, ChannelNotListed

#: ChannelState AST_STATE_UP.
CHANNEL_UP: Final = "6"

#: The highest Q.850 cause.
CAUSE_MAX: Final = 127

# A dialplan can write anything into a record or a UserEvent: `inf`, `1e400`, 5,000 digits.
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")

#: Events that `translate` uses; all others are dropped before they are parsed.
WANTED_EVENTS: Final = frozenset(
    {
        "Newchannel", "Newstate", "DialEnd", "OriginateResponse", "Hangup", "UserEvent",
        "QueueCallerJoin", "QueueCallerLeave", "AgentConnect", "FullyBooted",
    }
)  # fmt: skip


def translate(message: Mapping[str, str]) -> AmiEvent | None:
    """Return the event of the domain, None if the AMI event is not about a call.

    `message` has the event's headers by Asterisk's names.
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
    if not _is_of_channel(message):
        return None
    match message.get("UserEvent"):
        case "DialerAmd":
            return AmdReported(uniqueid=uniqueid, status=unquote(message.get("Status", "")) or None)
        case "DialerAgent":
            return AgentJoined(
                uniqueid=uniqueid,
                agent=unquote(message.get("Agent", "")),
                wait_s=_seconds(message.get("Wait")),
            )
    return None


def _is_of_channel(user_event: Mapping[str, str]) -> bool:
    """True if the dialplan of a channel sent the UserEvent, false if an AMI user did.

    Asterisk 16 and 22 put the channel's headers before `UserEvent`; what an AMI user or the
    dialplan writes comes after it.
    """
    names = list(user_event)
    return "Uniqueid" in names[: names.index("UserEvent")] if "UserEvent" in names else False


def channel_found(
    live: Mapping[str, Mapping[str, str]], uniqueids: Iterable[str], boot: str
) -> ChannelListed | ChannelNotListed:
    """Return the result of a channel list for a call whose channel has one of these Uniqueids."""
    for uniqueid in uniqueids:
        if (channel := live.get(uniqueid)) is not None:
            is_up = channel.get("ChannelState") == CHANNEL_UP
            name = channel.get("Channel", "")
            return ChannelListed(uniqueid=uniqueid, channel=name, is_up=is_up)
    return ChannelNotListed(boot=boot)


# --- records written by the dialplan include (deploy/asterisk/dialer.conf) ---------------


def read_record(value: str) -> Record | None:
    """Parse an AstDB record, `answered=… ended=… cause=…`; None if it is not one."""
    fields: dict[str, str] = {}
    for part in value.split():
        key, _, text = part.partition("=")
        fields.setdefault(
            key, text
        )  # the first of repeated keys counts; later ones may be injected
    answered_at = _moment(fields.get("answered"))
    if answered_at is None:
        return None
    return Record(
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
    except (OverflowError, ValueError, OSError):  # outside the years of datetime
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and _WHOLE.fullmatch(text) else None


def _cause(text: str | None) -> int | None:
    """Return a Q.850 cause, 0-127; None for anything else."""
    cause = _number(text)
    return cause if cause is not None and cause <= CAUSE_MAX else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and _SECONDS.fullmatch(text) else None
