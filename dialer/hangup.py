"""Orders to the worker of a call, by Celery's remote control."""

from __future__ import annotations

from typing import Any, Final

from dialer.celery import BROKER_ERRORS, app
from dialer.errors import DialerError

#: Longest wait for the replies of workers, in seconds.
ANSWER_WITHIN_S: Final = 1.5


def hang_up(call_id: str, pbx: str) -> str:
    """Hang up a call that the worker of this PBX follows; return what the worker says.

    Raises:
        DialerError: the broker or the worker does not answer, or the worker does not have the call.
    """
    try:
        replies: list[dict[str, Any]] | None = app.control.broadcast(
            "hangup",
            arguments={"task_id": call_id},
            reply=True,
            timeout=ANSWER_WITHIN_S,
            limit=None,
        )
    except BROKER_ERRORS as error:
        raise DialerError(f"the broker does not take the order: {error}") from error
    said = [reply for one in replies or () for reply in one.values() if isinstance(reply, dict)]
    if done := [reply["ok"] for reply in said if "ok" in reply]:
        return str(done[0])
    if not said:
        raise DialerError(
            f"no worker answers; see that the worker of {pbx} runs and reaches the broker"
        )
    raise DialerError(f"no worker has {call_id} now; it may have ended: dialer call {call_id}")
