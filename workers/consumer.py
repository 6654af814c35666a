"""Celery consumer that waits 5 s after the broker refuses login or queue access."""

from __future__ import annotations

import time
from typing import Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

#: Pause before the broker is asked again after it refused the login or a queue, in seconds.
REFUSED_PAUSE_S: Final = 5


class PatientConsumer(Consumer):
    """Celery 5.7 would retry at once after a refusal: six times a second, without end.

    A broker that is down does not come here: kombu pauses before it connects again.
    """

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        _pause()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, self.channel_errors):  # type: ignore[attr-defined]  # not in its types
            _pause()


def _pause() -> None:
    for _ in range(REFUSED_PAUSE_S):
        maybe_shutdown()
        time.sleep(1)
