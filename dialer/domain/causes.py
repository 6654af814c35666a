"""From Asterisk's words for an ending to `Resultado`.

Sources: ITU-T Q.850 for the causes; which cause, reason and dial status Asterisk 16
and 22 give for what a carrier says was seen over PJSIP and Local channels
(tests/captures).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dialer.domain.call import Result

#: Q.850 causes that say by themselves how the call ended.
BY_CAUSE: Final[Mapping[int, Result]] = {
    17: Result.BUSY,
    21: Result.REJECTED,
    **dict.fromkeys((1, 2, 3, 22, 28), Result.INVALID_NUMBER),
    **dict.fromkeys((34, 38, 41, 42, 43, 44), Result.CONGESTION),
    **dict.fromkeys((18, 19, 20), Result.NO_ANSWER),
}

#: OriginateResponse `Reason` (AST_CONTROL_*), coarse: asked only where the cause is mute.
BY_REASON: Final[Mapping[int, Result]] = {
    3: Result.NO_ANSWER,
    5: Result.BUSY,
    8: Result.CONGESTION,
}

#: DialEnd `DialStatus`, asked last.
BY_DIAL_STATUS: Final[Mapping[str, Result]] = {
    "BUSY": Result.BUSY,
    "NOANSWER": Result.NO_ANSWER,
    "CONGESTION": Result.CONGESTION,
    "CHANUNAVAIL": Result.CONGESTION,
    "CANCEL": Result.CANCELLED,
}

#: Causes that say nothing: none given, normal clearing, interworking.
MUTE_CAUSES: Final = frozenset({0, 16, 127})


def result_of(
    *, answered: bool, cause: int | None, reason: int | None, dial_status: str | None
) -> Result:
    """How a call ended, from the most telling of Asterisk's words.

    Args:
        answered: whether the call was ever answered; then nothing else counts.
        cause: Q.850 hangup cause (0-127), None where there was no Hangup.
        reason: OriginateResponse `Reason`, None where there was none.
        dial_status: DialEnd `DialStatus`, None where there was none.
    """
    if answered:
        return Result.ANSWERED
    if cause is not None and cause not in MUTE_CAUSES:
        return BY_CAUSE.get(cause, Result.FAILED)
    if reason is not None and reason in BY_REASON:
        return BY_REASON[reason]
    return BY_DIAL_STATUS.get(dial_status or "", Result.FAILED)
