"""Orders to the worker of a call, by Celery's remote control."""

from __future__ import annotations

from typing import Any, Final

from dialer.celery import BROKER_ERRORS, app
from dialer.errors import DialerError

#: Longest wait for the reply of the worker, in seconds; it waits for Asterisk.
ANSWER_WITHIN_S: Final = 6.0


def hang_up(call_id: str, pbx: str) -> str:
    """Hang up a call that the worker of this PBX follows; return what the worker says.

    Raises:
        DialerError: the broker or the worker does not answer, or the call is not hung up.
    """
    try:
        replies: list[dict[str, Any]] | None = app.control.broadcast(
            "hangup",
            arguments={"task_id": call_id},
            pattern=f"{pbx}@*",
            matcher="glob",  # type: ignore[arg-type]  # kombu takes its name
            reply=True,
            timeout=ANSWER_WITHIN_S,
            limit=1,
        )
    except BROKER_ERRORS as error:
        raise DialerError(f"the broker does not take the order: {error}") from error
    said = [reply for one in replies or () for reply in one.values() if isinstance(reply, dict)]
    if done := [reply["ok"] for reply in said if "ok" in reply]:
        return str(done[0])
    if refused := [reply["error"] for reply in said if "error" in reply]:
        raise DialerError(str(refused[0]))
    raise DialerError(
        f"the worker of {pbx} does not answer; the order may still be carried out: see that it "
        f"runs and reaches the broker, and look at the call: dialer call {call_id}"
    )
