"""The task of a worker and its Celery consumer."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer import Consumer
from redis.exceptions import NoPermissionError

from dialer.celery import ORIGINATE, app
from workers import consumer
from workers.consumer import PatientConsumer
from workers.tasks import originate


def test_the_tasks_messages_go_to_the_event_loop() -> None:
    handler = originate.start_strategy(app, None)
    assert handler.__module__ == "workers.strategy"
    assert originate.name == ORIGINATE


class Refused(Exception): ...


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the consumer does about an error, in order."""
    done: list[Any] = []
    for name in ("before", "after"):
        method = f"on_connection_error_{name}_connected"
        monkeypatch.setattr(Consumer, method, lambda _self, _exc, name=name: done.append(name))
    monkeypatch.setattr(consumer, "maybe_shutdown", lambda: done.append("may end"))
    clock = SimpleNamespace(sleep=done.append, monotonic=lambda: 100.0)
    monkeypatch.setattr(consumer, "time", clock)
    return done


@pytest.mark.parametrize(
    ("name", "error", "seconds"),
    [("before", OSError(), 5), ("after", Refused(), 5), ("after", OSError(), 0)],
)
def test_a_consumer_pauses_after_a_refusal(
    paused: list[Any], name: str, error: Exception, seconds: int
) -> None:
    one = object.__new__(PatientConsumer)
    one.channel_errors = (Refused,)  # type: ignore[attr-defined]  # not in its types
    getattr(one, f"on_connection_error_{name}_connected")(error)
    assert paused == [name, *["may end", 1] * seconds]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("No permissions to access a key", "'~*'"),
        ("No permissions to access a channel", "'&*'"),
        ("this user has no permissions to run the 'brpop' command", "'brpop'"),
    ],
)
def test_a_missing_right_is_logged_once_instead_of_celery(
    paused: list[Any], caplog: pytest.LogCaptureFixture, text: str, right: str
) -> None:
    one = object.__new__(PatientConsumer)
    one.channel_errors = (Refused,)  # type: ignore[attr-defined]  # not in its types
    celery = logging.getLogger("celery.worker.consumer.consumer")
    for name in ("before", "after"):
        getattr(one, f"on_connection_error_{name}_connected")(NoPermissionError(text))
    assert [name for name in paused if name in ("before", "after")] == ["before", "after"]
    (record,) = caplog.records
    assert right in vars(record)["reason"]
    assert "ACL SETUSER" in one.missing
    assert not celery.disabled
    one.on_connection_error_before_connected(OSError())
    assert one.missing == ""


class Broker:
    """What Celery's consumer has of the broker; `consumes` false: it has yet to begin."""

    def __init__(self, *, connected: bool = True, consumes: bool = True) -> None:
        self.connected, self.consumes = connected, consumes

    def consuming_from(self, queue: str) -> bool:
        return self.consumes and queue == "pbx01"


def trouble(one: Any, broker: Broker | None, *selected: str) -> str:
    """What the consumer says of its queue; `selected` are the queues that Celery is to consume."""
    one.connection = one.task_consumer = broker
    queues = SimpleNamespace(consume_from=selected)
    one.app = SimpleNamespace(amqp=SimpleNamespace(queues=queues))
    return str(one.trouble("pbx01"))


def test_a_consumer_says_why_no_message_comes() -> None:
    one = object.__new__(PatientConsumer)
    starting = "does not consume its queue yet: it starts"
    assert starting in trouble(one, None, "pbx01")
    assert starting in trouble(one, Broker(consumes=False), "pbx01")
    assert trouble(one, Broker(), "pbx01") == ""
    lost = "is not connected to the broker: see that the server"
    assert lost in trouble(one, Broker(connected=False), "pbx01")
    assert "its consumer was cancelled" in trouble(one, Broker(consumes=False))


@pytest.mark.parametrize(("ago_s", "lasts"), [(7.9, True), (8.0, False)])
def test_a_refusal_is_a_trouble_until_it_is_settled(
    monkeypatch: pytest.MonkeyPatch, ago_s: float, lasts: bool
) -> None:
    monkeypatch.setattr(consumer, "time", SimpleNamespace(monotonic=lambda: 100.0))
    one = object.__new__(PatientConsumer)
    one.missing, one._refused_at = "the right to read", 100.0 - ago_s
    said = "the worker of pbx01 gets no messages: the right to read"
    assert trouble(one, Broker(), "pbx01") == (said if lasts else "")
