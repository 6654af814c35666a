"""How a followed call ended: by its events, by its record, or as far as anybody can say."""

from __future__ import annotations

from datetime import datetime

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.causes import result_of
from dialer.domain.channel import HungUp, Record
from dialer.domain.followed import Followed


def ending_by_events(f: Followed, hangup: HungUp | None, over_at: datetime) -> Ending:
    """How a call ended by what its events said; it was over at `over_at`."""
    result = result_of(
        answered=f.is_answered,
        cause=hangup.cause if hangup else None,
        reason=f.originate.reason if f.originate else None,
        dial_status=f.dial_status,
    )
    return Ending(
        result=result,
        # The answer of an adopted call may be known only roughly, and too late.
        ended_at=max(over_at, f.call.answered_at or over_at),
        cause=hangup.cause if hangup else None,
        cause_text=hangup.cause_text if hangup else None,
        error=_failure(f, hangup) if result is Result.FAILED else None,
    )


def _failure(f: Followed, hangup: HungUp | None) -> CallError:
    if f.channel is None:
        return CallError(
            code="no_channel",
            message="Asterisk could not make a channel for the trunk; see that the trunk exists",
        )
    cause = hangup.cause if hangup else None
    return CallError(code="call_failed", message=f"Asterisk gave up the call (cause {cause})")


def ending_unseen(
    f: Followed, record: Record | None, *, has_include: bool, now: datetime
) -> Ending:
    """How a call ended that nobody saw end. `has_include`: answered calls have a record."""
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
        # With the include in place an answered call has its record: this one was not answered.
        return Ending(result=Result.FAILED, ended_at=now, error=error)
    return Ending(result=Result.UNKNOWN, ended_at=now, error=error)
