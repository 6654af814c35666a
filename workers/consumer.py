"""Celery's consumer, made to knock at a broker that refuses us no oftener than it has to."""

from __future__ import annotations

import time
from typing import Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

#: Pause after a broker refused the login or a queue, before it is asked anew, in seconds.
REFUSED_PAUSE_S: Final = 5


class PatientConsumer(Consumer):
    """Celery itself (5.7) tries again at once where it is refused: six times a second, for ever.

    A broker that is away does not come here: kombu pauses before it connects anew.
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
