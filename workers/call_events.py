"""Celery's task events of the calls, for Flower: kept in a buffer, sent in batches.

One message for each event would cost more than the rest of Celery. Celery's own buffer loses what
it holds when the broker goes down, and has no bound for what it cannot send; hence this one.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from celery.events.event import Event
from celery.utils.time import utcoffset

from dialer.celery import BROKER_ERRORS, ORIGINATE
from dialer.domain.call import Call, Ending, Result
from dialer.domain.endings import REVOKED

logger = logging.getLogger(__name__)

#: Pause between two batches, in seconds.
SEND_EVERY_S: Final = 0.1

#: Most events in one message.
BATCH: Final = 1000

#: Most events that wait while the broker is down: 3,300 calls, about 10 MB. The oldest are dropped.
MOST_EVENTS: Final = 10_000


@dataclass(slots=True)
class CallEvents:
    """Buffer of task events. Any thread may add some; Celery's thread sends them.

    `dispatcher` is Celery's event dispatcher, which is new after each reconnect.
    """

    most: int = MOST_EVENTS
    dispatcher: Any = None
    _waiting: deque[dict[str, Any]] = field(init=False)
    _batch: list[dict[str, Any]] = field(default_factory=list)
    _is_logged: bool = False

    def __post_init__(self) -> None:
        self._waiting = deque(maxlen=self.most)

    def taken(self, call_id: str, shown: str) -> None:
        """Add `received` and `started` of a call. `shown`: its arguments, with masked numbers."""
        self._add(
            "task-received",
            call_id,
            name=ORIGINATE,
            args=shown,
            kwargs="",
            root_id=call_id,
            parent_id=None,
            retries=0,
            eta=None,
            expires=None,
        )
        self._add("task-started", call_id)

    def ended(self, call: Call, ending: Ending) -> None:
        """Add the end of a call, with its outcome."""
        outcome = f"{ending.result} cause={ending.cause} talked={_talked_s(call, ending):.1f}s"
        if ending.error is not None and ending.error.code == REVOKED:
            revoked = {"terminated": False, "signum": None, "expired": False}
            self._add("task-revoked", call.call_id, **revoked)
        elif ending.result in (Result.FAILED, Result.UNKNOWN):
            reason = ending.error.message if ending.error else outcome
            exception = f"{ending.result}: {reason}"
            self._add("task-failed", call.call_id, exception=exception, traceback="")
        else:
            started = call.dialed_at or ending.ended_at
            length_s = max(0.0, (ending.ended_at - started).total_seconds())
            self._add("task-succeeded", call.call_id, result=outcome, runtime=length_s)

    def _add(self, kind: str, call_id: str, **fields: Any) -> None:
        if len(self._waiting) == self.most:
            self._log_missed("they no longer fit the buffer")
        self._waiting.append(Event(kind, uuid=call_id, timestamp=time.time(), **fields))

    def send(self) -> None:
        """Send what waits, in order. What the broker does not take is sent with the next batch."""
        dispatcher = self.dispatcher
        if dispatcher is None or dispatcher.producer is None:
            return  # not connected
        if dispatcher.groups and "task" not in dispatcher.groups:
            self._waiting.clear()  # somebody switched them off: `control disable_events`
            return
        try:
            while batch := self._next_batch():
                self._publish(batch)
                self._batch = []
                self._is_logged = False
        except BROKER_ERRORS as error:
            logger.debug("Task events not sent", extra={"error": str(error)})

    def send_last(self) -> None:
        """Send what waits at the stop; log it if the broker does not take it."""
        self.send()
        if self._batch or self._waiting:
            self._log_missed("the worker stopped")

    def _log_missed(self, reason: str) -> None:
        """Log once for each outage of the broker that events get lost."""
        if not self._is_logged:
            self._is_logged = True
            logger.warning(
                "Flower misses calls, because the broker did not take their events",
                extra={"reason": reason},
            )

    def _next_batch(self) -> list[dict[str, Any]]:
        """Return the batch that was not sent, or the next one."""
        if self._batch:
            return self._batch
        of_worker = {
            "hostname": self.dispatcher.hostname,
            "pid": self.dispatcher.pid,
            "utcoffset": utcoffset(),
        }
        for _ in range(min(len(self._waiting), BATCH)):
            event = self._waiting.popleft()
            # Here, because Celery's logical clock belongs to its thread.
            self._batch.append(event | of_worker | {"clock": self.dispatcher.clock.forward()})
        return self._batch

    def _publish(self, batch: list[dict[str, Any]]) -> None:
        dispatcher = self.dispatcher
        dispatcher.producer.publish(
            batch,
            routing_key="task.multi",
            exchange=dispatcher.exchange.name,
            declare=[dispatcher.exchange],
            retry=False,
            serializer=dispatcher.serializer,
            headers=dispatcher.headers,
            delivery_mode=dispatcher.delivery_mode,
        )


def _talked_s(call: Call, ending: Ending) -> float:
    answered_at = call.answered_at or ending.answered_at
    return (ending.ended_at - answered_at).total_seconds() if answered_at else 0.0
