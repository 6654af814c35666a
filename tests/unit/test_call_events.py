"""The events of calls that Flower gets, also while the broker is down."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.clocks import LamportClock
from kombu.exceptions import OperationalError

from dialer.domain.call import Call, CallError, Ending, Result
from dialer.domain.endings import REVOKED
from tests.unit.lives import T0, claimed
from workers.call_events import BATCH, CallEvents

MISSED = "Flower misses calls, because the broker did not take their events"


class Broker:
    """Takes batches of events, unless it is down."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.options: list[dict[str, Any]] = []
        self.is_down = False

    def publish(self, batch: list[dict[str, Any]], **options: Any) -> None:
        if self.is_down:
            raise OperationalError("the broker is down")
        self.batches.append([*batch])
        self.options.append(options)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for batch in self.batches for event in batch]


def dispatcher(broker: Broker, **fields: Any) -> Any:
    """Celery's event dispatcher, as the consumer makes it after each connect."""
    given = {
        "producer": broker,
        "groups": {"worker", "task"},
        "hostname": "pbx01@host",
        "pid": 7,
        "clock": LamportClock(),
        "exchange": SimpleNamespace(name="celeryev"),
        "serializer": "json",
        "headers": {"hostname": "pbx01@host"},
        "delivery_mode": 1,
    }
    return SimpleNamespace(**given | fields)


def connected(broker: Broker, most: int = 100) -> CallEvents:
    events = CallEvents(most)
    events.dispatcher = dispatcher(broker)
    return events


def ids(broker: Broker) -> list[str]:
    return [event["uuid"] for event in broker.events]


def take(events: CallEvents, *numbers: int) -> None:
    for n in numbers:
        events.taken(f"r-{n}", "shown")


# --- batches ------------------------------------------------------------------------------


def test_many_events_are_one_message() -> None:
    broker = Broker()
    events = connected(broker)
    take(events, *range(20))
    events.send()
    (batch,), (options,) = broker.batches, broker.options
    assert len(batch) == 40
    assert options["routing_key"] == "task.multi"
    assert (options["exchange"], options["serializer"]) == ("celeryev", "json")
    assert (options["headers"], options["delivery_mode"]) == ({"hostname": "pbx01@host"}, 1)


def test_nothing_is_sent_if_nothing_happened() -> None:
    broker = Broker()
    events = connected(broker)
    events.send()
    take(events, 1)
    events.send()
    events.send()
    assert len(broker.batches) == 1


def test_events_keep_their_order_and_time() -> None:
    broker = Broker()
    events = connected(broker)
    take(events, 1)
    events.ended(claimed().call, ending())
    events.send()
    types = [event["type"] for event in broker.events]
    assert types == ["task-received", "task-started", "task-succeeded"]
    assert [event["clock"] for event in broker.events] == [1, 2, 3]
    times = [event["timestamp"] for event in broker.events]
    assert times == sorted(times)
    for event in broker.events:
        assert (event["hostname"], event["pid"]) == ("pbx01@host", 7)
        assert "utcoffset" in event


def test_a_burst_is_several_messages() -> None:
    broker = Broker()
    events = connected(broker, most=3 * BATCH)
    take(events, *range(BATCH))
    events.send()
    assert [len(batch) for batch in broker.batches] == [BATCH, BATCH]


def test_events_that_another_thread_adds_are_all_sent() -> None:
    broker = Broker()
    events = connected(broker, most=100_000)
    thread = threading.Thread(target=take, args=(events, *range(5_000)))
    thread.start()
    while thread.is_alive():
        events.send()
    events.send()
    assert ids(broker) == [f"r-{n // 2}" for n in range(10_000)]


# --- a broker that is down ----------------------------------------------------------------


def test_events_wait_while_the_broker_is_down(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    events = connected(broker)
    broker.is_down = True
    for n in (1, 2):
        take(events, n)
        events.send()
    broker.is_down = False
    take(events, 3)
    events.send()
    assert ids(broker) == ["r-1", "r-1", "r-2", "r-2", "r-3", "r-3"]
    assert caplog.messages == []


def test_events_wait_for_the_first_connection() -> None:
    broker, events = Broker(), CallEvents(100)
    take(events, 1)
    events.send()
    events.dispatcher = dispatcher(broker, producer=None)  # Celery has closed it
    events.send()
    events.dispatcher = dispatcher(broker)
    events.send()
    assert ids(broker) == ["r-1", "r-1"]


def test_events_go_to_the_newest_connection() -> None:
    old, new = Broker(), Broker()
    events = connected(old)
    old.is_down = True
    take(events, 1)
    events.send()
    events.dispatcher = dispatcher(new, hostname="pbx01@host")
    events.send()
    assert (ids(old), ids(new)) == ([], ["r-1", "r-1"])


def test_the_oldest_events_are_dropped_first(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    events = connected(broker, most=4)
    broker.is_down = True
    take(events, 1)
    events.send()  # this batch is kept besides
    take(events, 2, 3, 4, 5)
    assert caplog.messages == [MISSED]
    broker.is_down = False
    events.send()
    assert ids(broker) == ["r-1", "r-1", "r-4", "r-4", "r-5", "r-5"]
    take(events, 6, 7, 8)
    assert caplog.messages == [MISSED, MISSED], "it is logged once for each outage"


def test_the_last_events_are_sent_at_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    events = connected(broker)
    take(events, 1)
    events.send_last()
    assert ids(broker) == ["r-1", "r-1"]
    assert caplog.messages == []


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_stop_without_broker_says_what_is_missed(
    caplog: pytest.LogCaptureFixture, is_connected: bool
) -> None:
    broker = Broker()
    broker.is_down = True
    events = connected(broker) if is_connected else CallEvents()
    take(events, 1)
    events.send_last()
    assert caplog.messages == [MISSED]
    assert vars(caplog.records[0])["reason"] == "the worker stopped"


def test_events_that_are_switched_off_are_not_kept() -> None:
    broker = Broker()
    events = connected(broker)
    take(events, 1)
    events.dispatcher.groups = {"worker"}
    events.send()
    events.dispatcher.groups = {"worker", "task"}
    events.send()
    assert broker.events == []
    take(events, 2)
    events.dispatcher.groups = set()  # Celery's word for all of them
    events.send()
    assert ids(broker) == ["r-2", "r-2"]


# --- the end of a call --------------------------------------------------------------------


def ending(result: Result = Result.ANSWERED, **fields: Any) -> Ending:
    return Ending(result=result, ended_at=T0 + timedelta(seconds=30), cause=16, **fields)


def told(ending: Ending, **call: Any) -> tuple[str, dict[str, Any]]:
    """The event that Flower gets of a call dialed at T0."""
    made: Call = claimed().call
    for name, value in call.items():
        object.__setattr__(made, name, value)
    events = CallEvents()
    events.ended(made, ending)
    (event,) = events._waiting
    assert event.pop("uuid") == made.call_id
    del event["timestamp"]
    return event.pop("type"), event


def test_flower_sees_a_calls_length() -> None:
    outcome = "ANSWERED cause=16 talked=20.0s"
    answered = told(ending(), answered_at=T0 + timedelta(seconds=10))
    assert answered == ("task-succeeded", {"result": outcome, "runtime": 30.0})


def test_flower_sees_an_answer_known_only_at_the_end() -> None:
    _, fields = told(ending(answered_at=T0 + timedelta(seconds=25)))
    assert fields["result"].endswith("talked=5.0s")


def test_a_call_that_was_not_answered_did_not_talk() -> None:
    _, fields = told(ending(Result.BUSY))
    assert fields["result"] == "BUSY cause=16 talked=0.0s"


@pytest.mark.parametrize("dialed_at", [None, T0 + timedelta(seconds=31)])
def test_flower_sees_no_negative_length(dialed_at: Any) -> None:
    _, fields = told(ending(Result.BUSY), dialed_at=dialed_at)
    assert fields["runtime"] == 0.0


@pytest.mark.parametrize("result", [Result.FAILED, Result.UNKNOWN])
def test_flower_sees_why_a_call_failed(result: Result) -> None:
    error = CallError(code="no_trunk", message="no such trunk")
    name, fields = told(ending(result, error=error))
    assert name == "task-failed"
    assert fields == {"exception": f"{result}: no such trunk", "traceback": ""}
    _, fields = told(ending(result))
    assert fields["exception"] == f"{result}: {result} cause=16 talked=0.0s"


def test_flower_sees_a_revoked_call_as_revoked() -> None:
    error = CallError(code=REVOKED, message="somebody revoked it")
    revoked = {"terminated": False, "signum": None, "expired": False}
    assert told(ending(Result.CANCELLED, error=error)) == ("task-revoked", revoked)
    other = CallError(code="another", message="a rule")
    assert told(ending(Result.CANCELLED, error=other))[0] == "task-succeeded"
