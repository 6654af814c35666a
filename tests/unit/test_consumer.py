"""Celery's consumer: why it gets no messages, and which ones it refuses."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, Final

import pytest
from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer
from redis.exceptions import NoPermissionError

from dialer.celery import ORIGINATE
from workers import consumer as module
from workers.consumer import PatientConsumer, missing_right

CHANNELS: Final = NoPermissionError("No permissions to access a channel")
CELERY_LOG: Final = logging.getLogger("celery.worker.consumer.consumer")


class Time:
    """A clock that the test sets; nobody waits by it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None: ...


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(module, "time", time)
    return time


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch, time: Time) -> list[tuple[Exception, bool]]:
    """The errors that Celery handled, and if it could log then."""
    handled: list[tuple[Exception, bool]] = []
    monkeypatch.setattr(module, "maybe_shutdown", lambda: None)
    for when in ("before", "after"):
        monkeypatch.setattr(
            Consumer,
            f"on_connection_error_{when}_connected",
            lambda _self, exc: handled.append((exc, not CELERY_LOG.disabled)),
        )
    return handled


def consumer(*, connected: bool = True, queues: tuple[str, ...] = ("pbx01",)) -> Any:
    made: Any = object.__new__(PatientConsumer)
    made.channel_errors = ()
    made.connection = SimpleNamespace(connected=connected)
    made.task_consumer = SimpleNamespace(consuming_from=queues.__contains__)
    made.app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=queues)))
    made._has_consumed = True  # since its start
    return made


# --- what a refusal was for ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("No permissions to access a channel", "pub/sub channels: give it '&*'"),
        ("No permissions to access a key", "the keys of Celery's queues: give it '~*'"),
        ("no permissions to run 'brpop'", "a command (no permissions to run 'brpop'): give"),
    ],
)
def test_the_missing_right_is_named(text: str, right: str) -> None:
    said = missing_right(NoPermissionError(text))
    assert said.startswith("the Redis user of [broker] url may not use ")
    assert right in said


def test_another_error_is_no_missing_right() -> None:
    assert missing_right(OSError("key")) == ""


def test_a_refusal_is_logged_once_and_in_one_line(
    handled: list[tuple[Exception, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    one = consumer()
    one.on_connection_error_before_connected(CHANNELS)
    one.on_connection_error_after_connected(CHANNELS)
    assert caplog.messages == ["Broker refuses the worker; trying again"]
    assert vars(caplog.records[0])["reason"] == missing_right(CHANNELS)
    assert handled == [(CHANNELS, False), (CHANNELS, False)]
    assert not CELERY_LOG.disabled
    one.on_connection_error_after_connected(NoPermissionError("a key"))
    assert len(caplog.messages) == 2


def test_celery_logs_other_errors_itself(
    handled: list[tuple[Exception, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    one, error = consumer(), OSError("down")
    one.on_connection_error_before_connected(error)
    assert (handled, caplog.messages, one.missing) == ([(error, True)], [], "")


# --- why no messages come -----------------------------------------------------------------


def test_a_consumer_that_consumes_has_no_trouble(time: Time) -> None:
    assert consumer().trouble("pbx01") == ""


@pytest.mark.parametrize("lacks", ["connection", "task_consumer"])
def test_a_consumer_without_a_connection_is_a_trouble(time: Time, lacks: str) -> None:
    one = consumer()
    setattr(one, lacks, None)
    assert "the worker of pbx01 is not connected to the broker" in one.trouble("pbx01")


def test_a_lost_connection_is_a_trouble(time: Time) -> None:
    said = consumer(connected=False).trouble("pbx01")
    assert "the worker of pbx01 is not connected to the broker" in said


def test_a_cancelled_queue_is_a_trouble(time: Time) -> None:
    said = consumer(queues=("pbx02",)).trouble("pbx01")
    assert "'celery -A dialer control add_consumer pbx01'" in said


def test_a_refusal_counts_until_the_next_attempt_has_settled(
    handled: list[tuple[Exception, bool]], time: Time
) -> None:
    one = consumer()
    one.on_connection_error_after_connected(CHANNELS)
    time.now = 107.9
    assert (
        one.trouble("pbx01") == f"the worker of pbx01 gets no messages: {missing_right(CHANNELS)}"
    )
    time.now = 108.0
    assert (one.trouble("pbx01"), one.missing) == ("", "")


def test_a_right_that_was_given_leaves_other_troubles(
    handled: list[tuple[Exception, bool]], time: Time
) -> None:
    one = consumer(connected=False)
    one.on_connection_error_after_connected(CHANNELS)
    time.now += 8
    assert "is not connected to the broker" in one.trouble("pbx01")


# --- messages that are no nudges ----------------------------------------------------------

REFUSED: Final = (
    "Message in the PBX's queue is not from a bridge and is dropped; find out who sent it"
)


def test_a_consumer_serves_our_task_only() -> None:
    task = SimpleNamespace(start_strategy=lambda *given: given)
    one, app = consumer(), SimpleNamespace(tasks={ORIGINATE: task, "celery.group": None})
    one.app, one.strategies = app, {}
    one.update_strategies()
    assert one.strategies == {ORIGINATE: (app, one)}


@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        (lambda one: one.on_unknown_message(None, None), "it is no message of Celery's"),
        (
            lambda one: one.on_unknown_task(None, None, KeyError("celery." + 500 * "x")),
            "there is no task 'celery." + 72 * "x",
        ),
        (
            lambda one: one.on_invalid_task(None, None, InvalidTaskError("it is empty")),
            "it is empty",
        ),
        (
            lambda one: one.on_decode_error(
                SimpleNamespace(content_type="application/json"), OSError()
            ),
            "its body is not the application/json that it says",
        ),
    ],
    ids=["unknown message", "unknown task", "invalid task", "wrong body"],
)
def test_a_foreign_message_is_one_sentence(
    caplog: pytest.LogCaptureFixture, refuse: Any, reason: str
) -> None:
    refuse(consumer())  # and acknowledges nothing: RabbitMQ would close the channel
    assert caplog.messages == [REFUSED]
    assert vars(caplog.records[0])["reason"] == reason
