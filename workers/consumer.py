"""Celery consumer of nudges only; it knows why none come, and waits 5 s after a refusal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from redis.exceptions import NoPermissionError

from dialer.celery import ORIGINATE

logger = logging.getLogger(__name__)

#: Pause after the broker refused the login or a queue, in seconds.
REFUSED_PAUSE_S: Final = 5

#: A consumer that was not refused for so long is accepted, in seconds.
SETTLED_S: Final = 3.0

#: Longest name of a foreign task in the log, in characters.
NAME_SHOWN: Final = 80

#: What kombu and Celery raise for a message whose envelope is not as they make it.
UNREADABLE: Final = (ValueError, TypeError, AttributeError, LookupError)

#: Logs two lines, which do not name the right that is missing, at every attempt.
_CELERY_LOG: Final = logging.getLogger("celery.worker.consumer.consumer")


class PatientConsumer(Consumer):
    """Consumer that waits after a refusal. Celery 5.7 would retry six times a second.

    It knows our task only, none of Celery's own. Other messages are logged in one sentence, without
    their content, which may have telephone numbers. They are not rejected: the queue is consumed
    without acknowledgements, and RabbitMQ would close the channel.

    Not used if the broker is down: kombu itself pauses before it reconnects. `missing` is the
    right of which the last refusal was for, '' if none is missing.
    """

    missing = ""
    _refused_at = 0.0
    _has_consumed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine: Any = self
        mine.loop = partial(self._reconnect_after_unreadable, mine.loop)

    def _reconnect_after_unreadable(self, loop: Callable[..., None], *args: Any) -> None:
        """Run Celery's loop. A message on which kombu or Celery fails must not end the worker.

        Celery knows only errors of the connection; it reconnects after them.
        """
        try:
            loop(*args)
        except self._recoverable():
            raise
        except UNREADABLE as error:
            _log_refused(f"it cannot be read ({type(error).__name__})")
            logger.debug("Message not read", exc_info=error)
            raise OSError("a message in the queue could not be read") from error

    def _recoverable(self) -> tuple[type[Exception], ...]:
        mine: Any = self
        return (*mine.connection_errors, *mine.channel_errors)

    def update_strategies(self) -> None:
        task = self.app.tasks[ORIGINATE]
        self.strategies[ORIGINATE] = task.start_strategy(self.app, self)  # type: ignore[attr-defined]

    def on_unknown_message(self, body: Any, message: Any) -> None:
        _log_refused("it is no message of Celery's")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        _log_refused(f"there is no task {str(exc)[:NAME_SHOWN]}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        _log_refused(str(exc))

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        _log_refused(f"its body is not the {message.content_type} that it says")

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._handle(exc, super().on_connection_error_before_connected)
        _pause()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self._handle(exc, super().on_connection_error_after_connected)
        if isinstance(exc, self.channel_errors):  # type: ignore[attr-defined]  # not in its types
            _pause()

    def _handle(self, exc: Exception, handle: Callable[[Exception], None]) -> None:
        """Let Celery handle the error; if a right is missing, log that once instead."""
        before, self.missing = self.missing, missing_right(exc)
        if not self.missing:
            handle(exc)
            return
        self._refused_at = time.monotonic()
        if self.missing != before:
            logger.error("Broker refuses the worker; trying again", extra={"reason": self.missing})
        _CELERY_LOG.disabled = True
        try:
            handle(exc)
        finally:
            _CELERY_LOG.disabled = False

    def trouble(self, pbx: str) -> str:
        """Return why no message of the PBX's queue comes, with the cure; '' if they come."""
        mine: Any = self
        connection, consumer = mine.connection, mine.task_consumer
        # A refused consumer consumes for a moment, until the broker's reply.
        if self.missing and time.monotonic() - self._refused_at < REFUSED_PAUSE_S + SETTLED_S:
            return f"the worker of {pbx} gets no messages: {self.missing}"
        if pbx not in mine.app.amqp.queues.consume_from:
            return (
                f"the worker of {pbx} does not consume its queue; its consumer was cancelled: run "
                f"'celery -A dialer control add_consumer {pbx}', or restart the worker"
            )
        if connection and connection.connected and consumer and consumer.consuming_from(pbx):
            self._has_consumed, self.missing = True, ""
            return ""
        if self._has_consumed:
            return (
                f"the worker of {pbx} is not connected to the broker: see that the server of "
                "[broker] url runs, that this host reaches it, and that user and password are right"
            )
        return (
            f"the worker of {pbx} does not consume its queue yet: it starts, or this host does not "
            "reach the server of [broker] url"
        )


def _log_refused(reason: str) -> None:
    logger.error(
        "Message in the PBX's queue is not from a bridge and is dropped; find out who sent it",
        extra={"reason": reason},
    )


def missing_right(exc: BaseException) -> str:
    """Return which right the broker's Redis user lacks, '' if it is another error."""
    if not isinstance(exc, NoPermissionError):
        return ""
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
