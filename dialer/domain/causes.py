"""Conversion of hangup cause, Reason and DialStatus to `Resultado`.

Sources: ITU-T Q.850 for the causes. Which cause, reason and dial status Asterisk 16 and 22 give
for each answer of a carrier was captured on PJSIP and Local channels (tests/captures).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dialer.domain.call import Result

#: Q.850 causes that are sufficient to know the result.
BY_CAUSE: Final[Mapping[int, Result]] = {
    17: Result.BUSY,
    21: Result.REJECTED,
    **dict.fromkeys((1, 2, 3, 22, 28), Result.INVALID_NUMBER),
    **dict.fromkeys((34, 38, 41, 42, 43, 44), Result.CONGESTION),
    **dict.fromkeys((18, 19, 20), Result.NO_ANSWER),
}

#: OriginateResponse `Reason` (AST_CONTROL_*). Less precise: used only if the cause is unclear.
BY_REASON: Final[Mapping[int, Result]] = {
    3: Result.NO_ANSWER,
    5: Result.BUSY,
    8: Result.CONGESTION,
}

#: DialEnd `DialStatus`, used if cause and reason are unclear.
BY_DIAL_STATUS: Final[Mapping[str, Result]] = {
    "BUSY": Result.BUSY,
    "NOANSWER": Result.NO_ANSWER,
    "CONGESTION": Result.CONGESTION,
    "CHANUNAVAIL": Result.CONGESTION,
    "CANCEL": Result.CANCELLED,
}

#: Q.850 cause of a call that the carrier forwarded. Asterisk 22 gives it after a SIP 302.
REDIRECTED: Final = 23

#: Q.850 cause "interworking": the network beyond did not say.
INTERWORKING: Final = 127

#: Causes that fit several results: none given, normal clearing, interworking.
UNCLEAR_CAUSES: Final = frozenset({0, 16, INTERWORKING})


def result_of(
    *, answered: bool, cause: int | None, reason: int | None, dial_status: str | None
) -> Result:
    """Return the result of a call that is over, from the most precise value that is known.

    Args:
        answered: true if the call was ever answered; the other values are then ignored.
        cause: Q.850 hangup cause (0-127), None if there was no Hangup.
        reason: OriginateResponse `Reason`, None if there was none.
        dial_status: DialEnd `DialStatus`, None if there was none.
    """
    if answered:
        return Result.ANSWERED
    if cause is not None and cause not in UNCLEAR_CAUSES:
        return BY_CAUSE.get(cause, Result.FAILED)
    if reason is not None and reason in BY_REASON:
        return BY_REASON[reason]
    return BY_DIAL_STATUS.get(dial_status or "", Result.FAILED)
