"""A call's channel in Asterisk: its id, the AMI events about it, its record in AstDB.

Does not know AMI headers; `workers.ami.events` converts them.
"""

from __future__ import annotations

import re
from base64 import b32encode
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from dialer.domain.call import Ending
from dialer.domain.causes import result_of
from dialer.domain.hand_over import not_handed_over
from dialer.domain.request import cell_of

#: Characters of the cell's name and of the hash in a ChannelId. Base32 has 5 bits a character, so
#: the hash has 100: among 10^9 calls the chance that two share one is 4 in 10^13.
CELL_CHARS: Final = 9
HASH_CHARS: Final = 20

#: ChannelIds kept, 0.3 kB each: of each call it is asked for five times in its first second.
IDS_KEPT: Final = 1024

_CHANNEL_ID: Final = re.compile(rf"[a-z0-9-]{{1,{CELL_CHARS}}}\.[a-z2-7]{{{HASH_CHARS}}}")


@lru_cache(maxsize=IDS_KEPT)
def channel_id(call_id: str) -> str:
    """Return the ChannelId of a call, which is its Uniqueid: `asr-tim.` and a hash of the call id.

    At most 30 characters of `a-z0-9.-`. Asterisk 16 and 22 compare ids without regard to case, so
    `aB1` and `Ab1` must not differ in case alone. CDR tables hold 32 characters, and the second
    half of a Local channel adds `;2`. Files are named after it: no folder, nothing a shell reads.
    """
    readable = re.sub("[^a-z0-9]", "-", cell_of(call_id).lower())[:CELL_CHARS] or "-"
    hashed = b32encode(sha256(call_id.encode()).digest()).decode().lower()[:HASH_CHARS]
    return f"{readable}.{hashed}"


def is_channel_id(uniqueid: str) -> bool:
    """True if the Uniqueid looks like a ChannelId of ours, of whatever call."""
    return _CHANNEL_ID.fullmatch(uniqueid) is not None


def uniqueids_of(call_id: str) -> tuple[str, str]:
    """Return the Uniqueids that the call's channel may have, the present form first.

    Earlier workers used the call id. Their calls may be up when a new worker starts.
    """
    return channel_id(call_id), call_id


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
    """DialEnd: how dialing went, in upper case, such as `BUSY`.

    `forward` is where Asterisk dials on, because the carrier forwarded the call (SIP 302); empty
    if it did not. The channel's own life is then over.
    """

    uniqueid: str
    status: str
    forward: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateEnded:
    """OriginateResponse: matched by ActionID; its Uniqueid may be that of another call."""

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
class AmdReported:
    """UserEvent DialerAmd: AMDSTATUS; None if answering machine detection does not run."""

    uniqueid: str
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentJoined:
    """AgentConnect of a queue, or UserEvent DialerAgent: who took the call.

    `wait_s` is how long the customer waited, in seconds; None if Asterisk does not report it. A
    queue reports whole seconds.
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
    """QueueCallerLeave: the wait is over, with or without an agent."""

    uniqueid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOverReported:
    """UserEvent DialerHanded: `yes`, or why the include could not hand the call over."""

    uniqueid: str
    handed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FarEndCleared:
    """HangupRequest: the far end hung up; Asterisk did not end the call by itself."""

    uniqueid: str


AmiEvent = (
    ChannelCreated
    | ChannelUp
    | DialEnded
    | OriginateEnded
    | HungUp
    | AmdReported
    | AgentJoined
    | QueueJoined
    | QueueLeft
    | HandOverReported
    | FarEndCleared
)


def uniqueid_of(event: AmiEvent) -> str:
    """Return the Uniqueid of the channel that the event is about; it may not be ours."""
    if isinstance(event, OriginateEnded):
        return event.action_id.rpartition("#")[0]
    return event.uniqueid


def action_id(uniqueid: str, attempt: int) -> str:
    """Return the ActionID of an Originate; `attempt` counts from 1."""
    return f"{uniqueid}#{attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A call's record in AstDB, written by the dialplan include. `ended_at` is None while up.

    `handed` is as in `HandOverReported`; empty while the call is on its way to its target, and in
    records of an older include.
    """

    answered_at: datetime
    ended_at: datetime | None
    cause: int | None
    amd: str | None
    agent: str | None
    wait_s: float | None
    handed: str = ""

    def within(self, start: datetime, end: datetime) -> Record:
        """Return the record with its times between these two.

        The clock of the PBX's host gave them. It may be wrong, or be set while the call is up.
        """
        ended_at = None if self.ended_at is None else min(max(self.ended_at, start), end)
        return replace(self, answered_at=min(max(self.answered_at, start), end), ended_at=ended_at)

    def ending(self, *, fallback_end: datetime) -> Ending:
        """Return how the call ended; `fallback_end` is the end if the record has none."""
        return Ending(
            result=result_of(answered=True, cause=self.cause, reason=None, dial_status=None),
            ended_at=self.ended_at or fallback_end,
            answered_at=self.answered_at,
            cause=self.cause,
            amd=self.amd,
            agent=self.agent,
            wait_s=self.wait_s,
            error=not_handed_over(self.handed),
        )
