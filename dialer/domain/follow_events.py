"""Events of a followed call, and the effects that `follow` returns to its caller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from dialer.domain.call import CallError, Ending, Result, State
from dialer.domain.channel import AmiEvent, Record

# --- events: the Originate ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateSent:
    """The Originate may have been sent from now on; `attempt` counts from 1."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateNotSent:
    """Asterisk refused the Originate, or it was not sent: nothing was dialed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateAccepted:
    """Asterisk accepted the Originate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateUnclear:
    """The Originate was sent and no reply arrived within `within_s` seconds."""

    within_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """The call will not be dialed (again). `tried`: an Originate of it was sent."""

    result: Result
    error: CallError
    tried: bool


# --- events: after a gap, in which events may have been missed ------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFound:
    """The AMI link was lost and is back: events of the call may have been missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelListed:
    """Asterisk's channel list has the call's channel. `is_up`: it is answered."""

    uniqueid: str = ""
    channel: str
    is_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelNotListed:
    """The channel list does not have the call's channel. `boot` is Asterisk's present start."""

    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDue:
    """A long call must be checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMissing:
    """Asterisk no longer has the channel, although the link was not lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelThere:
    """Asterisk has a channel with the call's Uniqueid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelUnavailable:
    """Asterisk could not be asked for the channel: the link is down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRead:
    """The call's AstDB record, None if there is none. `has_include`: the include is loaded."""

    record: Record | None
    has_include: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordUnavailable:
    """The record could not be read: the link is down, or Asterisk did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRead:
    """The call's state in the ledger after an outage of Redis. `token` is that of a new claim."""

    state: State
    epoch: int
    token: str | None


# --- events: operators ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUpAsked:
    """An operator wants the call to be hung up. Until its channel is seen, that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUpRefused:
    """Asterisk did not hang the call up, or could not be asked."""


# --- events: timers ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingTimedOut:
    """The second of Hangup and OriginateResponse did not arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelWaitTimedOut:
    """An Originate from before this gap, or without a reply, creates no channel any longer."""

    gap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDue:
    """The record must be read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOverTimedOut:
    """The answered call should have been handed over by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardTimedOut:
    """Asterisk no longer dials the number that the carrier forwarded the call to."""

    after_s: float


Timer = PairingTimedOut | ChannelWaitTimedOut | RecordDue | HandOverTimedOut | ForwardTimedOut

FollowEvent = (
    AmiEvent
    | OriginateSent
    | OriginateNotSent
    | OriginateAccepted
    | OriginateUnclear
    | GivenUp
    | GapFound
    | ChannelListed
    | ChannelNotListed
    | CheckDue
    | ChannelMissing
    | ChannelThere
    | ChannelUnavailable
    | RecordRead
    | RecordUnavailable
    | LedgerRead
    | HangUpAsked
    | HangUpRefused
    | Timer
)


# --- effects -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteAck:
    """Write to the ledger that Asterisk accepted the call; sends the ACK."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteAnswered:
    """Write to the ledger that the customer answered."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteEnd:
    """Write the end to the ledger; the call is no longer followed."""

    ending: Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimer:
    """Feed `timer` to the call after its timeout (`Timeouts`)."""

    timer: Timer


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRecord:
    """Read the call's AstDB record; answer with RecordRead or RecordUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskList:
    """Read Asterisk's channel list; answer with ChannelListed or ChannelNotListed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskChannel:
    """Ask for this call's channel alone; answer ChannelMissing, ChannelThere or -Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAmd:
    """AMD was requested for the call; `works` is true if Asterisk ran it."""

    works: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteHandOver:
    """What is known of an answered call's hand-over: `yes`, or why there was none."""

    handed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEndMissed:
    """Log that a call's end was missed although the link was up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUp:
    """Hang up the channel of one of these Uniqueids; answer with HangUpRefused if there is none.

    Not by its name: after a restart of Asterisk that may be the name of another call.
    """

    uniqueids: tuple[str, ...]


FollowEffect = (
    WriteAck
    | WriteAnswered
    | WriteEnd
    | StartTimer
    | AskRecord
    | AskList
    | AskChannel
    | NoteAmd
    | NoteHandOver
    | LogEndMissed
    | HangUp
)


# --- times ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each timer runs, in seconds.

    `pairing_s`: Hangup and OriginateResponse arrive in any order, or only one of them; wait this
    long for the second. Up to 6 ms were measured under load.
    `channel_wait_s`: an Originate from before a gap, or without a reply, may still create its
    channel for this long.
    `record_s`: a hangup handler may write its record this long after the channel is gone.
    `hand_over_s`: an answered call that nothing has taken after this time is a silent call. The
    include takes some milliseconds, without answering machine detection.
    """

    pairing_s: float = 1.0
    channel_wait_s: float = 3.0
    record_s: float = 1.0
    hand_over_s: float = 2.0

    def of(self, timer: Timer) -> float:
        """Return the timeout of a timer, in seconds."""
        match timer:
            case PairingTimedOut():
                return self.pairing_s
            case ChannelWaitTimedOut():
                return self.channel_wait_s
            case RecordDue():
                return self.record_s
            case HandOverTimedOut():
                return self.hand_over_s
            case ForwardTimedOut(after_s=after_s):
                return after_s
            case _:
                assert_never(timer)
