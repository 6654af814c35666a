"""Celery's events as Flower hears them over the broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from celery.events.receiver import EventReceiver
from kombu import Connection

from tests.waiting import PATIENCE_S


@dataclass(slots=True)
class Heard:
    """Every event since the listening began."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, call_id: str) -> list[dict[str, Any]]:
        """The events of one call."""
        return [event for event in self.events if event.get("uuid") == call_id]

    def workers(self, event_type: str) -> Mapping[str, str]:
        """Which worker told this event of which call (by its id)."""
        told = (event for event in tuple(self.events) if event["type"] == event_type)
        return {event["uuid"]: event["hostname"].partition("@")[0] for event in told}


class _Listener(EventReceiver):
    """Consumes from the first event to the last: what comes while nobody consumes is lost."""

    def __init__(self, app: Celery, connection: Connection, heard: Heard) -> None:
        super().__init__(connection, handlers={"*": heard.events.append}, app=app)
        self.listens = threading.Event()

    def on_consume_ready(self, *_: object, **__: object) -> None:
        self.listens.set()


@contextmanager
def heard_events(app: Celery) -> Iterator[Heard]:
    """Hears all events while the context lasts."""
    heard = Heard()
    with app.connection_for_read() as connection:
        listener = _Listener(app, connection, heard)
        thread = threading.Thread(target=listener.capture)
        thread.start()
        try:
            assert listener.listens.wait(PATIENCE_S)
            yield heard
        finally:
            listener.should_stop = True
            thread.join()
