"""Ending of a followed call: from its events, from its record, or unknown."""

from __future__ import annotations

from dataclasses import replace
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

#: Code of a call that was sent to Asterisk and of which Asterisk said nothing.
NO_WORD: Final = "no_word"

#: Code of a call that somebody revoked before it was dialed (`celery control revoke`).
REVOKED: Final = "revoked"


#: What is said of a call that an operator hung up.
HUNG_UP_WORDS: Final = "an operator hung the call up"

#: Code of a call that an operator hung up (`dialer call ID --hangup`, `celery control hangup`).
HUNG_UP: Final = "hung_up"

#: Results that a call may have because it was hung up before it was answered, and the causes of
#: calls that ended by themselves at the same moment: nobody answered, no room.
_BY_HANG_UP: Final = frozenset({Result.FAILED, Result.NO_ANSWER, Result.UNKNOWN})
_BY_ITSELF: Final = frozenset({18, 19, 20, 34, 38, 41, 42, 43, 44})


def after_hang_up(ending: Ending) -> Ending:
    """Return the ending of a call that an operator hung up."""
    is_ours = ending.result in _BY_HANG_UP and ending.cause not in _BY_ITSELF
    result = Result.CANCELLED if is_ours else ending.result
    if result not in {Result.CANCELLED, Result.ANSWERED}:
        return ending
    return replace(ending, result=result, error=CallError(code=HUNG_UP, message=HUNG_UP_WORDS))


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
    if f.channel is None and f.missed:  # OriginateResponse may come before the channel's events
        return _unseen(f)
    if f.channel is None:
        return CallError(
            code="no_channel",
            message=(
                "Asterisk created no channel: see in its log why; often the endpoint of the trunk "
                "does not exist or cannot be reached"
            ),
        )
    return CallError(code="call_failed", message=f"Asterisk ended the call {_cause(hangup)}")


def _cause(hangup: HungUp | None) -> str:
    cause = hangup.cause if hangup else None
    return "without a cause" if cause is None else f"with cause {cause}"


def ending_unseen(
    f: Followed, record: Record | None, *, has_include: bool, now: datetime
) -> Ending:
    """Return the ending of a call of which something decisive was not seen.

    `has_include`: the dialplan include is loaded, so that every answered call has a record.
    """
    if record is not None and record.ended_at is not None:
        return record.ending(fallback_end=now)
    error = _unseen(f)
    if record is not None:
        answered_at = record.answered_at
        return Ending(result=Result.ANSWERED, ended_at=now, answered_at=answered_at, error=error)
    if has_include and not f.restarted and not f.is_answered:
        # An answered call would have a record: this one was not answered.
        return Ending(result=Result.FAILED, ended_at=now, error=error)
    return Ending(result=Result.UNKNOWN, ended_at=now, error=error)


def _unseen(f: Followed) -> CallError:
    """Return what was not seen of the call, and why."""
    if f.restarted:
        message = (
            "Asterisk restarted after the call was sent to it, or another Asterisk serves the PBX "
            "now"
        )
        return CallError(code="pbx_restarted", message=message)
    if f.hangup is not None:
        message = f"Asterisk ended the call {_cause(f.hangup)}; its OriginateResponse was not seen"
        return CallError(code="result_not_seen", message=message)
    if f.missed and not f.vanished:
        message = (
            "what became of the call was not seen: its worker was down, or had no AMI link or no "
            "ledger then"
        )
        return CallError(code="end_not_seen", message=message)
    return _unheard(f)


def _unheard(f: Followed) -> CallError:
    """Return what Asterisk did not say although its worker listened all the time."""
    if f.channel is not None or f.is_answered:
        message = (
            "Asterisk has no channel of the call any longer and sent no Hangup, although the AMI "
            "link was up: raise writetimeout in manager.conf"
        )
        return CallError(code="end_not_seen", message=message)
    did = f"gave no reply to the Originate within {f.unanswered_s:g} s"
    if f.is_accepted:
        did = "accepted the Originate, sent no event of the call"
    message = f"Asterisk {did} and has no channel of it: see in its log why, and look at its load"
    return CallError(code=NO_WORD, message=message)
