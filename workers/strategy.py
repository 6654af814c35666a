"""What Celery's consumer does with a nudge: it gives the call to the event loop.

Celery's default would make a Request, take a pool thread and trace the task's function, for a
function that only passes the call on. The messages are not acknowledged (`celeryconfig.py`): the
ledger is the truth, and a lost message costs a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from celery.exceptions import InvalidTaskError
from celery.worker import state

from dialer.celery import ORIGINATE
from workers.bootsteps import serving

UNREADABLE: Final = f"its body is not [[call id, cell, epoch], …], the arguments of {ORIGINATE}"


@dataclass(slots=True)
class Nudges:
    """Nudges on their way from Celery's thread to the event loop; a burst wakes it once."""

    _waiting: deque[tuple[str, int]] = field(default_factory=deque)

    def put(self, call_id: str, epoch: int) -> None:
        """Give a call to the event loop; called in Celery's thread."""
        self._waiting.append((call_id, epoch))
        if len(self._waiting) == 1:  # otherwise the loop is awake, and comes to this one too
            serving().loop.call_soon_threadsafe(self._take_all)

    def _take_all(self) -> None:
        nudges = []
        while self._waiting:
            nudges.append(self._waiting.popleft())
        worker = serving().pbx_worker
        for call_id, epoch in nudges:
            worker.take(call_id, epoch)


def to_event_loop(_task: Any, _app: Any, _consumer: Any, **_: Any) -> Callable[..., None]:
    """Return the handler of our task's messages. Celery makes one after each connect.

    The handler raises InvalidTaskError for a message that it cannot read.
    """
    nudges = Nudges()

    def on_message(message: Any, _body: Any, *_ack_reject_callbacks: Any) -> None:
        call_id, epoch = _arguments(message)
        state.total_count[ORIGINATE] += 1  # what `inspect stats` and Flower show as processed
        state.all_total_count[0] += 1
        serving().events.taken(call_id, str(message.headers.get("argsrepr", "")))
        nudges.put(call_id, epoch)

    return on_message


def _arguments(message: Any) -> tuple[str, int]:
    """Return call id and epoch.

    Raises:
        InvalidTaskError: the message does not have them.
        ContentDisallowed, DecodeError: its content is not JSON, as it says.
    """
    match message.decode():
        case [[str(call_id), str(), int(epoch)], *_]:
            return call_id, epoch
    raise InvalidTaskError(UNREADABLE)
