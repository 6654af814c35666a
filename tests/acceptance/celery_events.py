"""Celery's events as Flower hears them over the broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from celery import Celery
from celery.events.receiver import EventReceiver
from kombu import Connection

from tests.waiting import PATIENCE_S


class _Listener(EventReceiver):
    def __init__(self, app: Celery, connection: Connection, event: str) -> None:
        super().__init__(connection, handlers={event: self._heard}, app=app)
        self.workers: dict[str, str] = {}
        self.listens = threading.Event()

    def on_consume_ready(self, *_: object, **__: object) -> None:
        self.listens.set()

    def _heard(self, event: Mapping[str, str]) -> None:
        self.workers[event["uuid"]] = event["hostname"].partition("@")[0]


@contextmanager
def heard_events(app: Celery, event: str) -> Iterator[Mapping[str, str]]:
    """Which worker told this event of which call (by its id), while the context lasts."""
    with app.connection_for_read() as connection:
        listener = _Listener(app, connection, event)
        thread = threading.Thread(target=listener.capture)
        thread.start()
        try:
            assert listener.listens.wait(PATIENCE_S)
            yield listener.workers
        finally:
            listener.should_stop = True
            thread.join()
