"""Publishing of tasks to a broker that does as the test says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from dialer.bridge import dispatch
from dialer.bridge.dispatch import CONFIRMED, Dispatcher, Nudge
from tests.waiting import wait_until

FIRST, SECOND, THIRD = (
    Nudge(call_id=f"ASR_TIM:r-{n}", pbx=f"pbx0{n}", epoch=n, shown="shown" if n == 1 else "")
    for n in (1, 2, 3)
)
REACH = "see that the server of [broker] url runs and that this host reaches it"
DOWN = "Broker unavailable; retrying, the calls stay in the ledger"


class Broker:
    """Stands where Celery does. `errors`: what each attempt to send raises, None for nothing."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.refusals: list[Exception | None] = []  # what each attempt to connect raises
        self.asked = 0  # for a channel
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.connections: list[SimpleNamespace] = []
        self.collected: list[SimpleNamespace] = []
        self.batches: list[list[str]] = []
        self.amqp = SimpleNamespace(
            Producer=lambda made: LazyProducer(made, self),
            create_task_message=lambda task_id, name, **options: {"task_id": task_id, **options},
            send_task_message=self.send,
        )

    def connection_for_write(self, transport_options: Any) -> SimpleNamespace:
        made = SimpleNamespace(options=transport_options)
        made.collect = lambda: self._collect(made)
        self.connections.append(made)
        return made

    def connect(self) -> None:
        self.asked += 1
        if self.refusals and (error := self.refusals.pop(0)) is not None:
            raise error

    def _collect(self, connection: SimpleNamespace) -> None:
        self.collected.append(connection)
        raise OSError("it hangs")

    def send(self, producer: Any, name: str, message: dict[str, Any], **options: Any) -> None:
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        self.sent.append((name, {"producer": producer, **message, **options}))
        self.batches[-1].append(message["task_id"])

    @property
    def ids(self) -> list[str]:
        return [options["task_id"] for _, options in self.sent]


@dataclass
class LazyProducer:
    """It connects when its channel is asked for."""

    connection: SimpleNamespace
    broker: Broker

    @property
    def channel(self) -> None:
        self.broker.connect()

    def batch(self) -> contextlib.AbstractContextManager[None]:
        self.broker.batches.append([])
        return contextlib.nullcontext()


@pytest.fixture(autouse=True)
def passed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The failure points that were passed."""
    points: list[str] = []
    monkeypatch.setattr(dispatch, "failpoint", points.append)
    monkeypatch.setattr(dispatch, "RETRY_PAUSE_S", 0.0)
    return points


async def sent(dispatcher: Dispatcher, nudges: Sequence[Nudge]) -> None:
    """Publish, and wait for the broker as nobody else does."""
    await dispatcher.publish(nudges)
    await dispatcher.flush()


async def publish(broker: Broker, *nudges: Nudge) -> Dispatcher:
    dispatcher = Dispatcher(cast(Celery, broker))
    try:
        await sent(dispatcher, nudges)
    finally:
        dispatcher.close()
    return dispatcher


async def test_tasks_are_sent_in_order_to_their_pbx(passed: list[str]) -> None:
    broker = Broker()
    await publish(broker, FIRST, SECOND)
    (name, first), (_, second) = broker.sent
    assert name == "dialer.originate"
    assert (first["args"], first["task_id"]) == (("ASR_TIM:r-1", "ASR_TIM", 1), "ASR_TIM:r-1")
    assert (first["queue"], second["queue"]) == ("pbx01", "pbx02")
    assert (first["argsrepr"], first["kwargsrepr"]) == ("shown", "")
    assert second["argsrepr"] == "('ASR_TIM:r-2', 2)"
    assert (first["retry"], first["ignore_result"]) == (False, True)
    assert passed == ["publish.before", "publish.after"]


async def test_one_connection_with_confirmations_serves_all_tasks() -> None:
    broker = Broker()
    dispatcher = await publish(broker, FIRST, SECOND)
    await sent(dispatcher, [])
    dispatcher = Dispatcher(cast(Celery, broker))
    dispatcher._send([FIRST])
    dispatcher._send([SECOND])
    first, *rest = [options["producer"].connection for _, options in broker.sent]
    assert first is rest[0] is broker.connections.pop(0)
    assert rest[1] is rest[2] is broker.connections[0]
    assert [made.options for made in broker.connections] == [CONFIRMED]
    assert CONFIRMED["confirm_publish"] is True
    assert CONFIRMED.keys() == {"confirm_publish", "read_timeout", "write_timeout"}


async def test_nothing_to_publish_needs_no_broker(passed: list[str]) -> None:
    dispatcher = await publish(Broker())
    assert dispatcher._thread is None
    assert passed == []


async def test_an_outage_drops_a_batch_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = OperationalError("the broker is down")
    broker = Broker(None, lost, lost)
    dispatcher = Dispatcher(cast(Celery, broker))
    await sent(dispatcher, [FIRST, SECOND, THIRD])
    assert (broker.ids, dispatcher.is_down) == (["ASR_TIM:r-1"], True)
    await sent(dispatcher, [SECOND])
    assert (caplog.messages, dispatcher.problem) == ([DOWN], f"the broker is down; {REACH}")
    await sent(dispatcher, [THIRD])
    dispatcher.close()
    assert broker.ids == ["ASR_TIM:r-1", "ASR_TIM:r-3"], "the worker finds the others by itself"
    assert caplog.messages == [DOWN, "Broker available again"]
    assert vars(caplog.records[0])["error"] == f"the broker is down; {REACH}"
    assert not dispatcher.is_down
    assert len(broker.connections) == 3, "one for each loss, and the first"
    assert broker.collected == broker.connections[:2]


async def test_a_broker_that_was_just_lost_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(OperationalError("the broker is down"))
    dispatcher = Dispatcher(cast(Celery, broker))
    await sent(dispatcher, [FIRST])
    monkeypatch.setattr(dispatch, "RETRY_PAUSE_S", 60.0)
    await sent(dispatcher, [SECOND])
    assert broker.ids == []
    monkeypatch.setattr(dispatch, "RETRY_PAUSE_S", 0.0)
    await sent(dispatcher, [THIRD])
    dispatcher.close()
    assert broker.ids == ["ASR_TIM:r-3"]


async def test_a_broker_that_hangs_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on, broker = threading.Event(), Broker()
    connect = broker.connection_for_write

    def hang(transport_options: Any) -> SimpleNamespace:
        goes_on.wait(5)
        return connect(transport_options)

    broker.connection_for_write = hang  # type: ignore[method-assign]
    monkeypatch.setattr(dispatch, "PUBLISH_WITHIN_S", 0.01)
    dispatcher = Dispatcher(cast(Celery, broker))
    await sent(dispatcher, [FIRST])
    assert dispatcher.problem == f"no answer in time; {REACH}"
    await sent(dispatcher, [SECOND])
    goes_on.set()
    await wait_until(lambda: not dispatcher.is_down, "the broker goes on")
    dispatcher.close()
    assert broker.ids == ["ASR_TIM:r-1"], "nothing was queued behind the one that hung"
    assert caplog.messages == [DOWN, "Broker available again"]


async def test_a_silent_broker_gave_no_answer_in_time(caplog: pytest.LogCaptureFixture) -> None:
    await publish(Broker(OSError()), FIRST)
    assert vars(caplog.records[0])["error"] == f"no answer in time; {REACH}"


async def test_a_working_broker_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    await publish(Broker(), FIRST, SECOND)
    assert caplog.messages == []


async def test_a_broker_that_was_never_reached_is_tried_again() -> None:
    broker = Broker()
    connect, refused = broker.connection_for_write, [OSError("refused")]

    def once(transport_options: Any) -> SimpleNamespace:
        if refused:
            raise refused.pop()
        return connect(transport_options)

    broker.connection_for_write = once  # type: ignore[method-assign]
    dispatcher = Dispatcher(cast(Celery, broker))
    await sent(dispatcher, [FIRST])
    await sent(dispatcher, [SECOND])
    dispatcher.close()
    assert broker.ids == ["ASR_TIM:r-2"]


async def test_an_error_of_ours_is_raised_and_ends_no_thread() -> None:
    broker = Broker(ValueError("a defect of ours"))
    dispatcher = Dispatcher(cast(Celery, broker))
    with pytest.raises(ValueError, match="a defect of ours"):
        await sent(dispatcher, [FIRST])
    thread = dispatcher._thread
    await sent(dispatcher, [SECOND])
    assert dispatcher._thread is thread
    assert broker.ids == ["ASR_TIM:r-2"]
    dispatcher.close()


async def test_the_thread_ends_with_the_dispatcher_or_the_program() -> None:
    dispatcher = await publish(Broker(), FIRST)
    thread = dispatcher._thread
    assert thread is not None
    assert thread.daemon
    thread.join(5)
    assert not thread.is_alive()


async def test_nothing_waits_for_the_broker() -> None:
    goes_on, broker = threading.Event(), Broker()
    broker.connect = goes_on.wait  # type: ignore[method-assign,assignment]
    dispatcher = Dispatcher(cast(Celery, broker))
    for nudge in (FIRST, SECOND, THIRD):
        await dispatcher.publish([nudge])
    assert broker.ids == []
    goes_on.set()
    await dispatcher.flush()
    dispatcher.close()
    assert broker.ids == [nudge.call_id for nudge in (FIRST, SECOND, THIRD)]
    assert len(broker.batches) < 3, "what came while the broker was busy is one batch"


async def test_a_batch_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BATCH", 2)
    broker = Broker()
    await publish(broker, FIRST, SECOND, THIRD)
    assert [len(batch) for batch in broker.batches] == [2, 1]


async def test_too_many_tasks_wait_for_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WAITING_MAX", 2)
    broker = Broker()
    dispatcher = Dispatcher(cast(Celery, broker))
    for nudge in (FIRST, SECOND, THIRD):
        await dispatcher.publish([nudge] * 2)
        assert len(dispatcher._waiting) <= 2
    await dispatcher.flush()
    dispatcher.close()
    assert len(broker.sent) == 6


async def test_a_broker_that_hangs_keeps_no_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, broker = threading.Event(), Broker()
    broker.connect = goes_on.wait  # type: ignore[method-assign,assignment]
    monkeypatch.setattr(dispatch, "PUBLISH_WITHIN_S", 0.01)
    dispatcher = Dispatcher(cast(Celery, broker))
    await sent(dispatcher, [FIRST])
    for _ in range(3):
        await dispatcher.publish([SECOND])
    assert (dispatcher.problem, dispatcher._waiting) == (f"no answer in time; {REACH}", [])
    goes_on.set()
    await wait_until(lambda: not dispatcher.is_down, "the broker goes on")
    dispatcher.close()
    assert broker.ids == [FIRST.call_id]


async def test_a_refusal_is_known_before_the_first_call(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    broker.refusals = [OperationalError("ACCESS_REFUSED"), None]
    dispatcher = Dispatcher(cast(Celery, broker))
    try:
        dispatcher.look()
        await wait_until(lambda: "refuses the login" in dispatcher.problem, "it is refused")

        def looked_until_let_in() -> bool:
            dispatcher.look()
            return not dispatcher.is_down

        await wait_until(looked_until_let_in, "it is let in")
        assert [r.getMessage() for r in caplog.records] == [DOWN, "Broker available again"]
        for _ in range(3):
            dispatcher.look()  # it is connected
        await sent(dispatcher, [FIRST])
    finally:
        dispatcher.close()
    assert len(broker.connections) == 2
    assert broker.asked == 3
    assert broker.ids == [FIRST.call_id]


async def test_a_broker_that_hangs_is_looked_at_once() -> None:
    ends = threading.Event()
    broker = Broker()
    dispatcher = Dispatcher(cast(Celery, broker))
    broker.connect = ends.wait  # type: ignore[method-assign,assignment]
    try:
        for _ in range(3):
            dispatcher.look()
        assert broker.asked <= 1
        ends.set()
        await sent(dispatcher, [FIRST])
    finally:
        ends.set()
        dispatcher.close()
    assert broker.ids == [FIRST.call_id]


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        (
            "Command # 1 (LPUSH) …: command not allowed when used memory > 'maxmemory'.",
            "memory is full",
        ),
        ("HELLO must be called with the client already authenticated, …", "refuses the login"),
        ("invalid username-password pair or user is disabled.", "refuses the login"),
        ("ACCESS_REFUSED - Login was refused", "refuses the login"),
        ("Error 111 connecting to 127.0.0.1:6379. Connection refused.", REACH),
    ],
)
async def test_the_cure_fits_what_the_broker_said(
    said: str, cure: str, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(Broker(OperationalError(said)), FIRST)
    (error,) = [vars(r)["error"] for r in caplog.records if r.getMessage() == DOWN]
    assert error.startswith(f"{said}; ")
    assert cure in error


async def test_a_full_broker_that_lets_in_is_not_available(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = OperationalError("used memory > 'maxmemory'")
    monkeypatch.setattr(dispatch, "RETRY_PAUSE_S", 0.0)
    broker = Broker(full, full)
    dispatcher = Dispatcher(cast(Celery, broker))

    async def look() -> None:
        dispatcher.look()
        await dispatcher.flush()

    for nudge in (FIRST, SECOND):
        await sent(dispatcher, [nudge])
        for _ in range(3):
            await look()
        assert dispatcher.is_down
    monkeypatch.setattr(dispatch, "REFUSES_FOR_S", 0.0)
    await look()  # no call has come since
    assert not dispatcher.is_down
    dispatcher.close()
    assert caplog.messages == [DOWN, "Broker available again"]
