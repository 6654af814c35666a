"""Celery consumer that knows why it gets no messages, and waits 5 s after the broker's refusal."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from redis.exceptions import NoPermissionError

logger = logging.getLogger(__name__)

#: Pause after the broker refused the login or a queue, in seconds.
REFUSED_PAUSE_S: Final = 5

#: Logs two lines, which do not name the right that is missing, at every attempt.
_CELERY_LOG: Final = logging.getLogger("celery.worker.consumer.consumer")


class PatientConsumer(Consumer):
    """Consumer that waits after a refusal. Celery 5.7 would retry six times a second.

    Not used if the broker is down: kombu itself pauses before it reconnects. `problem` is why the
    last attempt to consume failed.
    """

    problem = ""

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._note(exc)
        self._without_log(exc, super().on_connection_error_before_connected)
        _pause()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self._note(exc)
        self._without_log(exc, super().on_connection_error_after_connected)
        if isinstance(exc, self.channel_errors):  # type: ignore[attr-defined]  # not in its types
            _pause()

    def _note(self, exc: Exception) -> None:
        before, self.problem = self.problem, missing_right(exc) or str(exc) or repr(exc)
        if missing_right(exc) and self.problem != before:
            logger.error("Broker refuses the worker; trying again", extra={"reason": self.problem})

    @staticmethod
    def _without_log(exc: Exception, handle: Any) -> None:
        """Handle the error; for a missing right without Celery's log lines."""
        _CELERY_LOG.disabled = missing_right(exc) is not None
        try:
            handle(exc)
        finally:
            _CELERY_LOG.disabled = False

    def trouble(self, pbx: str) -> str:
        """Return why no message of the PBX's queue comes, with the cure; '' if they come."""
        mine: Any = self
        connection, consumer = mine.connection, mine.task_consumer
        if connection is None or consumer is None or not connection.connected:
            why = f" ({self.problem})" if self.problem else ""
            return (
                f"the worker of {pbx} is not connected to the broker{why}: see that the server of "
                "[broker] url runs and that this host reaches it"
            )
        if not consumer.consuming_from(pbx):
            return (
                f"the worker of {pbx} does not consume its queue; its consumer was cancelled: run "
                f"'celery -A dialer control add_consumer {pbx}', or restart the worker"
            )
        self.problem = ""
        return ""


def missing_right(exc: BaseException) -> str | None:
    """Return which right the broker's Redis user lacks, None if it is another error."""
    if not isinstance(exc, NoPermissionError):
        return None
    text = str(exc)
    if "channel" in text:
        right = "pub/sub channels: give it '&*'"
    elif "key" in text:
        right = "the keys of Celery's queues: give it '~*'"
    else:
        right = f"a command ({text}): give it the commands listed in docs/operations.md"
    return f"the Redis user of [broker] url may not use {right} (ACL SETUSER)"


def _pause() -> None:
    for _ in range(REFUSED_PAUSE_S):
        maybe_shutdown()
        time.sleep(1)
