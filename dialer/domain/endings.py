"""Ending of a followed call: from its events, from its record, or unknown."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.causes import result_of
from dialer.domain.channel import HungUp, Record
from dialer.domain.followed import Followed
from dialer.domain.hand_over import not_handed_over

_FORWARDED: Final = CallError(
    code="forwarded",
    message=(
        "the carrier forwarded the call to another number (SIP 302), and the dialer calls only the "
        "number that it was given: correct the number, or ask the carrier why it forwards"
    ),
)


def ending_by_events(f: Followed, hangup: HungUp | None, over_at: datetime) -> Ending:
    """Return the ending of a call whose events arrived; it was over at `over_at`."""
    error = not_handed_over(f.handed) if f.is_answered else None
    if f.is_forwarded and not f.is_answered:
        result, error = Result.FAILED, _FORWARDED
    else:
        result = result_of(
            answered=f.is_answered,
            cause=hangup.cause if hangup else None,
            reason=f.originate.reason if f.originate else None,
            dial_status=f.dial_status,
        )
    if error is None and result is Result.FAILED:
        error = _failure(f, hangup)
    return Ending(
        result=result,
        # The answer time of an adopted call is an estimate and may be later than `over_at`.
        ended_at=max(over_at, f.call.answered_at or over_at),
        cause=hangup.cause if hangup else None,
        cause_text=hangup.cause_text if hangup else None,
        error=error,
    )


def _failure(f: Followed, hangup: HungUp | None) -> CallError:
    if f.channel is None:
        return CallError(
            code="no_channel",
            message="Asterisk could not create a channel for the trunk; does the trunk exist?",
        )
    cause = hangup.cause if hangup else None
    return CallError(code="call_failed", message=f"Asterisk ended the call with cause {cause}")


def ending_unseen(
    f: Followed, record: Record | None, *, has_include: bool, now: datetime
) -> Ending:
    """Return the ending of a call whose Hangup was missed.

    `has_include`: the dialplan include is loaded, so that every answered call has a record.
    """
    if record is not None and record.ended_at is not None:
        return record.ending(fallback_end=now)
    if f.restarted:
        error = CallError(code="pbx_restarted", message="Asterisk restarted while the call was up")
    else:
        error = CallError(
            code="end_not_seen",
            message="the call ended while its worker or its AMI link was down",
        )
    if record is not None:
        answered_at = record.answered_at
        return Ending(result=Result.ANSWERED, ended_at=now, answered_at=answered_at, error=error)
    if has_include and not f.restarted and not f.is_answered:
        # An answered call would have a record: this one was not answered.
        return Ending(result=Result.FAILED, ended_at=now, error=error)
    return Ending(result=Result.UNKNOWN, ended_at=now, error=error)
