"""Hand-over of an answered call: what the dialplan include reports of it, and what it means.

The include (`deploy/asterisk/dialer.conf`) reports `yes` or why it could not; the other values
are conclusions from what was not reported. Asterisk's QUEUESTATUS gives the queue's reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dialer.domain.call import CallError

#: The call reached its target, or the machine that answered got what the cell's `amd` says.
YES: Final = "yes"

#: Nothing took the call within `Timeouts.hand_over_s` of the answer.
LATE: Final = "LATE"

#: The call ended by no hangup of the customer, and never entered the dialplan.
CUT_OFF: Final = "CUT_OFF"

#: The call entered the include and was ended there, by no hangup of the customer.
ENDED: Final = "ENDED"

#: The carrier forwarded the call, Asterisk dialed on, and somebody answered there.
FORWARDED: Final = "FORWARDED"

_SEEN_AND_CURE: Final[Mapping[str, str]] = {
    "JOINEMPTY": (
        "the queue did not take the customer, because it had no operator (JOINEMPTY): have an "
        "operator log in, and see joinempty in queues.conf"
    ),
    "JOINUNAVAIL": (
        "the queue did not take the customer, because no operator could be reached (JOINUNAVAIL): "
        "have an operator log in or end a pause, and see joinempty in queues.conf"
    ),
    "FULL": (
        "the queue did not take the customer, because it is full: raise its maxlen in queues.conf, "
        "or lower threads of the cell"
    ),
    "UNKNOWN": "the queue does not exist any longer: add it to queues.conf and load it",
    "NOEXTEN": (
        "the dialplan does not have the call's context, extension and priority: add it, or correct "
        "context, exten and priority of the cell or request"
    ),
    "NOTARGET": (
        "the call came into the dialplan without its target: look for what removes its DIALER_ "
        "variables"
    ),
    LATE: (
        "nothing took the customer within 2 s of the answer: see what Asterisk's log says of that "
        "time, and how busy its host was"
    ),
    CUT_OFF: (
        "the call ended before it entered the dialplan, and the customer had not hung up: if "
        "Asterisk was not being stopped, see maxcalls, maxload and minmemfree in asterisk.conf, "
        "and Asterisk's log"
    ),
    ENDED: (
        "Asterisk ended the call before it reached its target, and the customer had not hung up: "
        "if it was not being stopped, see its log"
    ),
    FORWARDED: (
        "the carrier forwarded the call, Asterisk dialed the other number, and whoever answered "
        "there was cut off: set redirect_method = user at the trunk's endpoint in pjsip.conf "
        "(chan_sip: promiscredir = no)"
    ),
}


def not_handed_over(handed: str) -> CallError | None:
    """Return the error of an answered call by what is known of its hand-over; None if it is none.

    An empty `handed` means that nothing is known.
    """
    if handed in ("", YES):
        return None
    seen = _SEEN_AND_CURE.get(handed)
    message = seen or f"the dialplan did not hand the call over ({handed}): see Asterisk's log"
    return CallError(code="not_handed_over", message=message)
