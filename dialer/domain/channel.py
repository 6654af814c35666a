"""AMI events about a call's channel, and the call's record in AstDB, as types.

Does not know AMI headers; `workers.ami.events` converts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dialer.domain.call import Ending
from dialer.domain.causes import result_of
from dialer.domain.hand_over import not_handed_over


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


def call_id_of(event: AmiEvent) -> str:
    """Return the id of the call that the event is about; it may be a call that is not ours."""
    if isinstance(event, OriginateEnded):
        return event.action_id.rpartition("#")[0]
    return event.uniqueid


def action_id(call_id: str, attempt: int) -> str:
    """Return the ActionID of an Originate; `attempt` counts from 1."""
    return f"{call_id}#{attempt}"


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
