"""Celery consumer that waits 5 s after the broker refuses login or queue access."""

from __future__ import annotations

import time
from typing import Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

#: Pause after the broker refused the login or a queue, in seconds.
REFUSED_PAUSE_S: Final = 5


class PatientConsumer(Consumer):
    """Consumer that waits after a refusal. Celery 5.7 would retry six times a second.

    Not used if the broker is down: kombu itself pauses before it reconnects.
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
