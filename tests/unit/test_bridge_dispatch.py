"""Publishing of tasks to a broker that does as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from amqp.exceptions import AccessRefused, PreconditionFailed
from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]
from redis.exceptions import NoPermissionError, ResponseError

from dialer.bridge import dispatch
from dialer.bridge.dispatch import CONFIRMED, Dispatcher
from dialer.bridge.nudges import Nudge
from tests.waiting import wait_until

FIRST, SECOND, THIRD = (
    Nudge(call_id=f"ASR_TIM:r-{n}", pbx=f"pbx0{n}", epoch=n, shown="shown" if n == 1 else "")
    for n in (1, 2, 3)
)


def nudges(count: int, pbx: str = "pbx01") -> list[Nudge]:
    """Nudges of one PBX."""
    return [Nudge(call_id=f"ASR_TIM:{pbx}-{n}", pbx=pbx, epoch=1) for n in range(count)]


REACH = "see that the server of [broker] url runs and that this host reaches it"
DOWN = "Broker unavailable; retrying, the calls stay in the ledger"


class Broker:
    """Stands where Celery does. `errors`: what each attempt to send raises, None for nothing."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.refused: dict[str, Exception] = {}  # what a task for this queue raises
        self.before_each: Callable[[], object] = lambda: None  # the thread waits for it
        self.refusals: list[Exception | None] = []  # what each attempt to connect raises
        self.driver_type = "amqp"
        self.asked = 0  # for a channel
        self.answers: list[Exception | None] = []  # what each probe raises
        self.probes = 0  # that were answered
        self.refusals_of_queues = 0
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
        made = SimpleNamespace(
            options=transport_options,
            channel=self.open_second_channel,
            transport=SimpleNamespace(driver_type=self.driver_type),
        )
        made.collect = lambda: self._collect(made)
        self.connections.append(made)
        return made

    def connect(self) -> None:
        self.asked += 1
        if self.refusals and (error := self.refusals.pop(0)) is not None:
            raise error

    @contextlib.contextmanager
    def open_second_channel(self) -> Iterator[None]:
        assert self.driver_type == "amqp"  # with Redis it is a new connection, which proves less
        self._answer()
        yield
        self.probes += 1

    def ping(self) -> None:
        assert self.driver_type == "redis"
        self._answer()
        self.probes += 1

    def _answer(self) -> None:
        if self.answers and (error := self.answers.pop(0)) is not None:
            raise error

    def _collect(self, connection: SimpleNamespace) -> None:
        self.collected.append(connection)
        raise OSError("it hangs")

    def send(self, producer: Any, name: str, message: dict[str, Any], **options: Any) -> None:
        self.before_each()
        if (error := self.refused.get(options["queue"])) is not None:
            self.refusals_of_queues += 1
            raise error
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
    def channel(self) -> SimpleNamespace:
        self.broker.connect()
        return SimpleNamespace(client=SimpleNamespace(ping=self.broker.ping))

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
    monkeypatch.setattr(dispatch, "PUBLISH_WITHIN_S", 0.3)  # its thread must begin until then
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
    for nudge in nudges(3):
        await dispatcher.publish([nudge])
    assert broker.ids == []
    goes_on.set()
    await dispatcher.flush()
    dispatcher.close()
    assert broker.ids == [nudge.call_id for nudge in nudges(3)]
    assert len(broker.batches) < 3, "what came while the broker was busy is one batch"


async def test_a_batch_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BATCH", 2)
    broker = Broker()
    await publish(broker, *nudges(3))
    assert [len(batch) for batch in broker.batches] == [2, 1]


async def test_too_many_tasks_wait_for_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WAITING_MAX", 3)
    monkeypatch.setattr(dispatch, "BATCH", 2)
    monkeypatch.setattr(dispatch, "LOOK_EVERY_S", 0.0)
    broker, waiting, cells = Broker(), [0], [f"pbx{n:02}" for n in range(10)]
    dispatcher = Dispatcher(cast(Celery, broker))

    def slow() -> None:
        time.sleep(0.001)
        waiting.append(len(dispatcher._waiting))

    broker.before_each = slow
    await asyncio.gather(*(dispatcher.publish(nudges(7, cell)) for cell in cells))
    await dispatcher.flush()
    dispatcher.close()
    assert max(waiting) == 3
    for cell in cells:
        sent_to_cell = [one for one in broker.ids if cell in one]
        assert sent_to_cell == [nudge.call_id for nudge in nudges(7, cell)]


async def test_who_waits_for_room_occupies_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WAITING_MAX", 2)
    monkeypatch.setattr(dispatch, "PUBLISH_WITHIN_S", 30.0)
    goes_on, broker = threading.Event(), Broker()
    broker.before_each = lambda: goes_on.wait(30)
    dispatcher = Dispatcher(cast(Celery, broker))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    try:
        async with asyncio.TaskGroup() as group:
            for cell in ("pbx01", "pbx02"):
                group.create_task(dispatcher.publish(nudges(5, cell)))
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                assert await asyncio.to_thread(int) == 0, "the settings are loaded this way"
            goes_on.set()
        await dispatcher.flush()
    finally:
        goes_on.set()
        dispatcher.close()
    assert len(broker.sent) == 10


async def test_a_slow_broker_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each task takes 0.6 s of a clock that the test moves; all together take 6 s."""
    now, may_send, broker = [1_000.0], threading.Semaphore(0), Broker()

    def slow() -> None:
        may_send.acquire(timeout=30)
        now[0] += 0.6

    def is_sent(count: int) -> bool:
        return len(broker.sent) == count

    broker.before_each = slow
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    dispatcher = Dispatcher(cast(Celery, broker))
    for n, nudge in enumerate(nudges(10)):
        await dispatcher.publish([nudge])
        if n >= 4:
            may_send.release()
            await wait_until(partial(is_sent, n - 3), "one is published")
    may_send.release(4)
    await dispatcher.flush()
    dispatcher.close()
    assert broker.ids == [nudge.call_id for nudge in nudges(10)]
    assert caplog.messages == []


async def test_a_slow_broker_that_stops_the_bridge_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, may_send, broker = [1_000.0], threading.Semaphore(0), Broker()

    def is_sent(count: int) -> bool:
        return len(broker.sent) == count

    broker.before_each = lambda: bool(may_send.acquire(timeout=30))
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(dispatch, "WAITING_MAX", 2)
    monkeypatch.setattr(dispatch, "BATCH", 1)
    dispatcher = Dispatcher(cast(Celery, broker))
    publishing = asyncio.create_task(dispatcher.publish(nudges(9)))
    for n in range(9):
        now[0] += 0.4
        may_send.release()
        await wait_until(partial(is_sent, n + 1), "one more is published")
    await publishing
    await dispatcher.flush()
    dispatcher.close()
    assert broker.ids == [nudge.call_id for nudge in nudges(9)]
    said = [message.partition(",")[0] for message in caplog.messages]
    assert said == ["The broker is slow"]


async def test_flush_waits_for_a_slow_broker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "PUBLISH_WITHIN_S", 0.5)
    broker = Broker()
    broker.before_each = lambda: time.sleep(0.05)
    await publish(broker, *nudges(14))
    assert len(broker.sent) == 14
    assert caplog.messages == []


async def test_flush_ends_although_the_broker_is_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "FLUSH_WITHIN_S", 0.0)
    goes_on, broker = threading.Event(), Broker()
    broker.before_each = lambda: goes_on.wait(30)
    dispatcher = await publish(broker, *nudges(3))
    goes_on.set()
    await wait_until(lambda: len(broker.sent) == 3, "the thread goes on")
    assert (dispatcher.problem, caplog.messages) == ("", [])


async def test_flush_waits_for_a_batch_that_was_just_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread takes the batch, reads the clock, and gets no processor for a while."""
    takes, flushed, broker = threading.Event(), threading.Event(), Broker()

    def clock() -> float:
        if threading.current_thread().name == "dispatch" and not takes.is_set():
            takes.set()
            flushed.wait(0.5)
        return time.monotonic()

    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=clock))
    dispatcher = Dispatcher(cast(Celery, broker))
    await dispatcher.publish([FIRST])
    await wait_until(takes.is_set, "it takes the batch")
    await dispatcher.flush()
    sent_before = list(broker.ids)
    flushed.set()
    dispatcher.close()
    assert sent_before == [FIRST.call_id]


def in_pipeline(error: Exception) -> Exception:
    """The error as kombu raises it for a pipeline of Redis."""
    failed: Exception = BatchPublishError("Redis publish batch failed; delivery is uncertain")
    failed.__cause__ = error
    return failed


@pytest.mark.parametrize(
    "error",
    [
        PreconditionFailed("PRECONDITION_FAILED - inequivalent arg 'type' for queue 'pbx02'"),
        AccessRefused("ACCESS_REFUSED - access to queue 'pbx02' refused for user 'dialer'"),
        in_pipeline(
            ResponseError("Command # 1 (LPUSH pbx02 …): WRONGTYPE Operation against a key")
        ),
        in_pipeline(NoPermissionError("No permissions to access a key")),
    ],
)
async def test_a_refused_queue_stops_no_other(
    error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, bad = Broker(), nudges(1, "pbx02")
    broker.refused["pbx02"] = error
    dispatcher = Dispatcher(cast(Celery, broker))
    for _ in range(2):
        await sent(dispatcher, [*nudges(49), *bad, *nudges(49, "pbx03"), *bad])
    assert len(broker.sent) == 2 * 98
    assert (len(broker.connections), broker.refusals_of_queues) == (1, 2)
    assert not dispatcher.is_down
    monkeypatch.setattr(dispatch, "RETRY_PAUSE_S", 60.0)
    await sent(dispatcher, bad)
    assert broker.refusals_of_queues == 2, "not asked again at once"
    monkeypatch.setattr(dispatch, "RETRY_PAUSE_S", 0.0)
    broker.refused.clear()
    for _ in range(2):
        await sent(dispatcher, bad)
    dispatcher.close()
    assert broker.ids[2 * 98 :] == [bad[0].call_id] * 2
    refused, taken = caplog.records
    assert (refused.message, taken.message) == (
        "Broker refuses the queue of a PBX; its calls stay in the ledger",
        "Broker takes the tasks of a PBX again",
    )
    assert (vars(refused)["queue"], vars(taken)["queue"]) == ("pbx02", "pbx02")
    assert vars(refused)["error"].startswith(f"{error.__cause__ or error}; give the user of")


async def test_a_refused_queue_alone_ends_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(OperationalError("used memory > 'maxmemory'"))
    broker.refused["pbx02"] = PreconditionFailed("another type")
    dispatcher = Dispatcher(cast(Celery, broker))
    await sent(dispatcher, [FIRST])
    await sent(dispatcher, [SECOND])
    assert "maxmemory" in dispatcher.problem
    await sent(dispatcher, [SECOND, FIRST])
    dispatcher.close()
    assert not dispatcher.is_down


async def test_a_broker_that_is_down_is_not_tried_for_each_pbx() -> None:
    broker = Broker()
    tried: list[int] = []
    broker.before_each = lambda: tried.append(1)
    broker.refused = {pbx: ConnectionResetError() for pbx in ("pbx01", "pbx02", "pbx03")}
    dispatcher = await publish(broker, FIRST, SECOND, THIRD)
    assert dispatcher.is_down
    assert (len(tried), len(broker.connections)) == (1, 1)


async def test_a_broker_that_hangs_keeps_no_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, broker = threading.Event(), Broker()
    broker.connect = goes_on.wait  # type: ignore[method-assign,assignment]
    monkeypatch.setattr(dispatch, "PUBLISH_WITHIN_S", 0.3)  # its thread must begin until then
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


@pytest.mark.parametrize("driver_type", ["redis", "amqp"])
async def test_an_idle_broker_that_dies_is_missed_without_a_call(
    driver_type: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker()
    broker.driver_type = driver_type
    dispatcher = Dispatcher(cast(Celery, broker))

    async def look() -> None:
        dispatcher.look()
        await dispatcher.flush()

    try:
        await sent(dispatcher, [FIRST])
        await look()  # it took a task a moment ago
        assert broker.probes == 0
        monkeypatch.setattr(dispatch, "PROBE_AFTER_S", 0.0)
        await look()
        assert (broker.probes, dispatcher.is_down) == (1, False)
        broker.answers = [ConnectionResetError("Connection reset by peer")]
        await look()
        assert dispatcher.problem == f"Connection reset by peer; {REACH}"
        await look()  # it is there again, and no call has come
        assert not dispatcher.is_down
    finally:
        dispatcher.close()
    assert caplog.messages == [DOWN, "Broker available again"]
    assert len(broker.connections) == 2


async def test_a_probe_proves_the_broker_for_a_while() -> None:
    broker = Broker()
    dispatcher = Dispatcher(cast(Celery, broker))
    await sent(dispatcher, [FIRST])
    dispatcher._proved_at -= dispatch.PROBE_AFTER_S
    for _ in range(3):
        dispatcher.look()
        await dispatcher.flush()
    dispatcher.close()
    assert broker.probes == 1


async def test_a_first_look_connects_although_the_thread_starts_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goes_on, broker = threading.Event(), Broker()

    class Late(threading.Thread):
        def run(self) -> None:
            goes_on.wait(30)
            super().run()

    monkeypatch.setattr(dispatch, "threading", SimpleNamespace(Thread=Late))
    dispatcher = Dispatcher(cast(Celery, broker))
    dispatcher.look()
    goes_on.set()
    await dispatcher.flush()
    dispatcher.close()
    assert broker.asked == 1


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
