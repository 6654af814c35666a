"""The bootsteps of a worker: the PBX it serves, its start and stop, what Flower is told."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import click
import pytest
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import state
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError

from dialer import watchdog
from dialer.domain.call import CallError, Ending, Result
from dialer.errors import AmiLoginRefused, ConfigError
from tests.unit.lives import T0, claimed
from tests.waiting import wait_until
from workers import bootsteps
from workers.bootsteps import CallEvents, EventsStep, PbxStep
from workers.worker import STOP_WITHIN_S

PBXS = {name: SimpleNamespace(name=name) for name in ("pbx01", "pbx02")}
NO_QUEUE = "no queue given"
QUIET = ("celery.worker.strategy", "celery.app.trace", "panoramisk")


class Process:
    """Stands where the watchdog of the process does."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self, status: str) -> None:
        self.told.append(status)

    def stopping(self) -> None:
        self.told.append("stopping")


class Worker:
    """Stands where the PBX worker does; its link never comes up unless the test says so."""

    refused: Exception | None = None
    is_ready = True
    may_stop = True
    closed = False

    def __init__(self, _settings: Any, pbx: Any, on_done: Any, *, broker_trouble: Any) -> None:
        self.pbx, self.on_done, self.broker_trouble = pbx, on_done, broker_trouble
        self.stopped = False
        self.given_up = threading.Event()

    async def start(self) -> asyncio.Task[None]:
        self.failure = asyncio.get_running_loop().create_future()
        return asyncio.create_task(self._link())

    async def _link(self) -> None:
        if self.refused is not None:
            raise self.refused
        await asyncio.Event().wait()

    async def until_ready(self) -> None:
        if not self.is_ready:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.set()

    async def close(self) -> None:
        type(self).closed = True

    async def stop(self) -> None:
        if not self.may_stop:
            await asyncio.Event().wait()
        self.stopped = True


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()
    monkeypatch.setattr(watchdog, "process", process)
    return process


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given = SimpleNamespace(pbxs=[*PBXS.values()], pbx=PBXS.__getitem__, log="the log table")
    monkeypatch.setattr(bootsteps, "settings", lambda: given)
    conf = SimpleNamespace(task_default_queue=NO_QUEUE)
    monkeypatch.setattr(bootsteps, "app", SimpleNamespace(conf=conf))
    monkeypatch.setattr(bootsteps, "_serving", None)
    monkeypatch.setattr(bootsteps, "_events", None)


# --- which PBX ----------------------------------------------------------------------------


def test_a_worker_serves_the_pbx_of_its_queue() -> None:
    assert bootsteps.pbx_of(["pbx02"]) is PBXS["pbx02"]  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("queues", "given"),
    [
        ([NO_QUEUE, "pbx01", "pbx02"], "no -Q was given"),
        (["pbx99"], "-Q pbx99 was given"),
        (["pbx01", "pbx02"], "-Q pbx01,pbx02 was given"),
    ],
)
def test_a_worker_of_other_queues_is_refused(queues: list[str], given: str) -> None:
    with pytest.raises(ConfigError, match=f"exactly one PBX, and {given}.*-Q pbx01'; known PBXs"):
        bootsteps.pbx_of(queues)


@pytest.mark.parametrize(
    ("hostname", "queues", "named"),
    [
        ("celery@host", ["pbx01"], "pbx01@host"),
        ("celery@host", ["pbx01", "pbx02"], "celery@host"),
        ("celery@host", None, "celery@host"),
        ("mine@host", ["pbx01"], "mine@host"),
    ],
)
def test_a_node_is_named_after_its_only_pbx(
    hostname: str, queues: list[str] | None, named: str
) -> None:
    instance = SimpleNamespace(hostname=hostname)
    bootsteps._check_options(instance=instance, options={"queues": queues})
    assert instance.hostname == named


@pytest.mark.parametrize(
    ("options", "args", "said"),
    [({"beat": True}, [], "remove -B"), ({}, ["broker.url=x"], "remove broker.url=x")],
)
def test_an_option_that_cannot_work_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    args: list[str],
    said: str,
) -> None:
    context = SimpleNamespace(args=args)
    monkeypatch.setattr(click, "get_current_context", lambda silent: context)
    with pytest.raises(SystemExit) as end:
        bootsteps._check_options(instance=SimpleNamespace(hostname="celery@h"), options=options)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_log_that_cannot_be_used_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def configure(_log: Any, program: str) -> None:
        raise ConfigError(f"{program} cannot log there")

    monkeypatch.setattr(bootsteps, "configure", configure)
    with pytest.raises(SystemExit):
        bootsteps._set_up_logging()
    assert capsys.readouterr().err == "dialer: worker cannot log there\n"


def consuming(*queues: str) -> Any:
    amqp = SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues)))
    return SimpleNamespace(app=SimpleNamespace(amqp=amqp))


def test_the_worker_knows_its_pbx_before_it_starts() -> None:
    instance = consuming("pbx01")
    with warnings.catch_warnings():
        bootsteps._check_queues(sender="w", instance=instance, conf=None)
        ignored = [kind for action, _, kind, *_ in warnings.filters if action == "ignore"]
        assert ignored[0] is CPendingDeprecationWarning
    assert instance.pbx is PBXS["pbx01"]


def test_a_wrong_queue_ends_the_worker_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    stderr = SimpleNamespace(write=said.append, flush=lambda: said.append("flushed"))
    monkeypatch.setattr(sys, "stderr", stderr)
    with pytest.raises(SystemExit) as end:
        bootsteps._check_queues(sender="w", instance=consuming("pbx99"), conf=None)
    sentence, flushed = said
    assert end.value.code == 2
    assert sentence.startswith("dialer: a worker serves exactly one PBX")
    assert flushed == "flushed"


def test_the_log_has_no_line_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[Any] = []
    monkeypatch.setattr(bootsteps, "configure", lambda log, program: configured.append(log))
    for name in QUIET:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.INFO)
    bootsteps._set_up_logging()
    assert configured == ["the log table"]
    assert {logging.getLogger(name).level for name in QUIET} == {logging.WARNING}


def test_a_shutdown_tells_the_service_manager(process: Process) -> None:
    bootsteps._begin_stop()
    assert process.told == ["stopping"]


# --- start and stop -------------------------------------------------------------------------


class Started:
    """A step with its own kind of worker, which `start` runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Own(Worker): ...

        self.kind = Own
        self.options: dict[str, Any] = {}
        self.parent = SimpleNamespace(options=self.options, pbx=PBXS["pbx01"], consumer=None)
        monkeypatch.setattr(bootsteps, "PbxWorker", Own)
        self.step = PbxStep(self.parent)

    def start(self) -> Any:
        self.step.start(self.parent)
        return bootsteps.serving().pbx_worker

    def end_loop(self) -> None:
        loop = self.step.loop
        if self.step.thread.is_alive():
            asyncio.run_coroutine_threadsafe(cancel_all(), loop).result(5)
            loop.call_soon_threadsafe(loop.stop)
            self.step.thread.join(5)
        loop.close()


async def cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, process: Process) -> Iterator[Started]:
    interval = sys.getswitchinterval()
    started = Started(monkeypatch)
    yield started
    sys.setswitchinterval(interval)
    started.end_loop()


def test_a_worker_is_ready_with_its_asterisk(started: Started, process: Process) -> None:
    worker = started.start()
    assert (worker.pbx, worker.on_done) == (PBXS["pbx01"], bootsteps._call_done)
    assert bootsteps.serving().loop is started.step.loop
    assert process.told == ["Serving pbx01"]
    assert started.step.thread.daemon, "a hanging loop keeps no process alive"
    assert sys.getswitchinterval() == pytest.approx(bootsteps.SWITCH_INTERVAL_S)
    assert started.options == {"without_gossip": True, "without_mingle": True}


def test_the_worker_asks_its_consumer_why_no_calls_come(started: Started) -> None:
    worker = started.start()
    assert worker.broker_trouble() == bootsteps.STARTING
    started.parent.consumer = SimpleNamespace(trouble=lambda pbx: f"{pbx} is cancelled")
    assert worker.broker_trouble() == "pbx01 is cancelled"


@pytest.mark.parametrize(
    ("ignored", "logged"), [(["CELERY_BROKER_URL"], [["CELERY_BROKER_URL"]]), ([], [])]
)
def test_variables_that_nobody_reads_are_logged(
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ignored: list[str],
    logged: list[list[str]],
) -> None:
    monkeypatch.setattr(bootsteps, "ignored_variables", lambda _environ: ignored)
    started.start()
    assert [vars(record)["variables"] for record in caplog.records] == logged


def test_a_refused_login_ends_the_worker(
    started: Started, process: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    started.kind.refused = AmiLoginRefused("pbx01 refused the login: correct it")
    started.kind.is_ready = False
    with pytest.raises(SystemExit) as end:
        started.start()
    assert end.value.code == 2
    assert capsys.readouterr().err == "dialer: pbx01 refused the login: correct it\n"
    assert process.told == []
    assert started.kind.closed, "nothing is left that asyncio could complain of"


def test_a_redis_that_refuses_at_the_start_is_one_sentence(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    started.kind.refused = NoPermissionError("this user has no permissions to run 'evalsha'")
    started.kind.is_ready = False
    with pytest.raises(SystemExit) as end:
        started.start()
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "dialer: Redis refuses: this user has no permissions to run 'evalsha'; "
        "`dialer doctor` says what is wrong\n"
    )


def test_a_worker_does_not_wait_for_asterisk_for_ever(
    started: Started,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bootsteps, "READY_WITHIN_S", 0.01)
    started.kind.is_ready = False
    assert started.start().given_up.wait(5), "nobody waits any longer"
    assert caplog.messages == ["Asterisk is not ready yet; calls wait in the ledger until it is"]
    assert process.told == ["Serving pbx01"]


def test_a_ready_worker_logs_no_delay(started: Started, caplog: pytest.LogCaptureFixture) -> None:
    started.start()
    assert caplog.messages == []


async def test_a_failed_part_ends_the_process(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[tuple[Any, ...]] = []

    class Timer:
        daemon = False

        def __init__(self, *given: Any) -> None:
            self.given = given

        def start(self) -> None:
            timers.append((*self.given, self.daemon))

    monkeypatch.setattr(state, "should_stop", None)
    worker = started.start()
    assert state.should_stop is None
    monkeypatch.setattr(threading, "Timer", Timer)
    started.step.loop.call_soon_threadsafe(worker.failure.set_result, None)
    await wait_until(lambda: timers, "the process is told to end")
    assert timers == [(bootsteps.END_WITHIN_S, os._exit, (1,), True)]
    assert state.should_stop == 1


def test_a_stop_waits_for_the_worker(started: Started, caplog: pytest.LogCaptureFixture) -> None:
    started.step.stop(started.parent)  # before the start there is nothing to stop
    worker = started.start()
    started.step.stop(started.parent)
    assert worker.stopped
    assert caplog.messages == []


def test_a_hanging_loop_does_not_delay_the_end(
    started: Started, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bootsteps, "LOOP_STOP_WITHIN_S", 0.01)
    started.kind.may_stop = False
    started.start()
    started.step.stop(started.parent)
    assert caplog.messages == ["The event loop did not stop in time; the process ends anyway"]


def test_each_limit_of_the_stop_has_room_for_the_one_inside() -> None:
    assert STOP_WITHIN_S < bootsteps.LOOP_STOP_WITHIN_S < bootsteps.END_WITHIN_S


# --- Flower ---------------------------------------------------------------------------------


class Dispatcher:
    """Stands where Celery's event dispatcher does; events with a name in `fail` raise its error."""

    def __init__(self, **fail: Exception) -> None:
        self.sent: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self.fail = fail

    def send(self, name: str, **fields: Any) -> None:
        if name in self.fail:
            raise self.fail[name]
        self.sent.put((name, fields))


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "call events"]


async def test_an_event_that_fails_stops_no_other() -> None:
    before = len(threads())
    closed = AttributeError("'NoneType' object has no attribute 'frame_writer'")
    dispatcher = Dispatcher(lost=OperationalError("the broker is down"), closed=closed)
    events = CallEvents(dispatcher)
    events.start()
    assert all(thread.daemon for thread in threads())
    events.put("lost", {})
    events.put("closed", {})
    events.put("task-failed", {"uuid": "r-1"})
    assert dispatcher.sent.get(timeout=5) == ("task-failed", {"uuid": "r-1"})
    events.stop()
    await wait_until(lambda: len(threads()) == before, "its thread ends")


async def test_events_go_to_the_newest_connection() -> None:
    before = len(threads())
    old, new = (SimpleNamespace(event_dispatcher=Dispatcher()) for _ in range(2))
    step = EventsStep(old)
    for parent in (old, new):
        step.start(parent)
    bootsteps._call_done(claimed().call, ending())
    assert new.event_dispatcher.sent.get(timeout=5)[0] == "task-succeeded"
    assert old.event_dispatcher.sent.empty()
    step.stop(new)
    assert bootsteps._events is None
    await wait_until(lambda: len(threads()) == before, "both threads end")


def ending(result: Result = Result.ANSWERED, **fields: Any) -> Ending:
    return Ending(result=result, ended_at=T0 + timedelta(seconds=30), cause=16, **fields)


def told(monkeypatch: pytest.MonkeyPatch, ending: Ending, **call: Any) -> tuple[str, Any]:
    """The event that Flower gets of a call dialed at T0."""
    sent: list[tuple[str, dict[str, Any]]] = []
    put = SimpleNamespace(put=lambda name, fields: sent.append((name, fields)))
    monkeypatch.setattr(bootsteps, "_events", put)
    made = claimed().call
    for name, value in call.items():
        object.__setattr__(made, name, value)
    bootsteps._call_done(made, ending)
    ((name, fields),) = sent
    assert fields.pop("uuid") == made.call_id
    return name, fields


def test_a_calls_end_without_flower_is_no_event() -> None:
    bootsteps._call_done(claimed().call, ending())


def test_flower_sees_a_calls_length(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = told(monkeypatch, ending(), answered_at=T0 + timedelta(seconds=10))
    outcome = "ANSWERED cause=16 talked=20.0s"
    assert answered == ("task-succeeded", {"result": outcome, "runtime": 30.0})


def test_flower_sees_an_answer_known_only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fields = told(monkeypatch, ending(answered_at=T0 + timedelta(seconds=25)))
    assert fields["result"].endswith("talked=5.0s")


def test_a_call_that_was_not_answered_did_not_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fields = told(monkeypatch, ending(Result.BUSY))
    assert fields["result"] == "BUSY cause=16 talked=0.0s"


@pytest.mark.parametrize("dialed_at", [None, T0 + timedelta(seconds=31)])
def test_flower_sees_no_negative_length(monkeypatch: pytest.MonkeyPatch, dialed_at: Any) -> None:
    _, fields = told(monkeypatch, ending(Result.BUSY), dialed_at=dialed_at)
    assert fields["runtime"] == 0.0


@pytest.mark.parametrize("result", [Result.FAILED, Result.UNKNOWN])
def test_flower_sees_why_a_call_failed(monkeypatch: pytest.MonkeyPatch, result: Result) -> None:
    error = CallError(code="no_trunk", message="no such trunk")
    name, fields = told(monkeypatch, ending(result, error=error))
    assert name == "task-failed"
    assert fields == {"exception": f"{result}: no such trunk", "traceback": ""}
    _, fields = told(monkeypatch, ending(result))
    assert fields["exception"] == f"{result}: {result} cause=16 talked=0.0s"
