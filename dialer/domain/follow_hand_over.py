"""Hand-over and forwarding of a followed call: what is concluded from what was seen.

Part of `follow`, which calls these functions.
"""

from __future__ import annotations

from dialer.domain.causes import INTERWORKING
from dialer.domain.channel import Record
from dialer.domain.follow_events import FollowEffect, HandOverTimedOut, NoteHandOver, StartTimer
from dialer.domain.followed import Followed, changed
from dialer.domain.hand_over import CUT_OFF, ENDED, LATE

Step = tuple[Followed, tuple[FollowEffect, ...]]


def awaits_originate(f: Followed) -> bool:
    """True if OriginateResponse will tell how the call ended."""
    return not f.is_answered and f.originate is None


def may_be_forwarded(f: Followed) -> bool:
    """True if Asterisk may dial another number, although the call's channel hung up.

    Asterisk 16 gives a forwarded channel cause 127 or none, 22 gives 23.
    """
    return f.is_forwarded or (f.hangup is not None and f.hangup.cause == INTERWORKING)


def hand_over_timer(f: Followed) -> tuple[FollowEffect, ...]:
    """Return the timer that ends the wait for the hand-over, if there is one to wait for."""
    is_waiting = f.awaits_hand_over and f.hangup is None
    return (StartTimer(timer=HandOverTimedOut()),) if is_waiting else ()


def note_hand_over(f: Followed, handed: str) -> Step:
    """Store what is known of the hand-over, once; what was late may still come."""
    if not f.confirms or handed == f.handed or f.handed not in ("", LATE):
        return f, ()
    return changed(f, handed=handed), (NoteHandOver(handed=handed),)


def judge_hand_over(f: Followed, record: Record | None) -> Step:
    """Conclude from the record what became of a hand-over that no event reported."""
    if record is not None and record.handed:
        return note_hand_over(f, record.handed)
    if not f.awaits_hand_over:
        return f, ()
    if f.hangup is None:
        is_detecting = record is not None and f.wants_amd and not f.has_amd_event
        return (f, ()) if is_detecting else note_hand_over(f, LATE)
    if f.cleared:
        return f, ()
    return note_hand_over(f, CUT_OFF if record is None else ENDED)
