"""How a message of Celery's becomes a call that the event loop dials."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery.exceptions import InvalidTaskError
from celery.worker import state
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.message import Message

from dialer.celery import ORIGINATE
from tests.waiting import wait_until
from workers import bootsteps, strategy
from workers.call_events import CallEvents
from workers.strategy import Nudges, to_event_loop
from workers.worker import PbxWorker


class Worker:
    """Stands where the PBX worker does."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []

    def take(self, call_id: str, epoch: int) -> None:
        self.taken.append((call_id, epoch))


class Loop:
    """Counts how often the event loop is woken; runs nothing until the test says so."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def call_soon_threadsafe(self, callback: Any) -> None:
        self.due.append(callback)

    def run(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    return serve(monkeypatch, Worker(), Loop())


def serve(monkeypatch: pytest.MonkeyPatch, worker: Worker, loop: Any) -> Worker:
    serving = bootsteps.Serving(loop, cast(PbxWorker, worker), CallEvents())
    monkeypatch.setattr(bootsteps, "_serving", serving)
    return worker


def loop_of() -> Any:
    return bootsteps.serving().loop


def message(body: Any, content_type: str = "application/json", **headers: Any) -> Message:
    """A message as kombu gives it to the consumer; a body of bytes is sent as it is."""
    made: Any = Message  # its types know no body of bytes
    return cast(
        Message,
        made(
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            content_type=content_type,
            content_encoding="utf-8",
            headers={"task": ORIGINATE, **headers},
            accept={"application/json"},
        ),
    )


def nudge(n: int, epoch: int = 1) -> Message:
    call_id = f"ASR_TIM:r-{n}"
    shown = f"('ASR_TIM', 'r-{n}', '*******0001')"
    return message([[call_id, "ASR_TIM", epoch], {}, {}], argsrepr=shown)


def hear(handler: Any, *messages: Message) -> None:
    """Give messages to a strategy, as Celery's consumer does."""
    for one in messages:
        handler(one, None, None, None, ())


def made() -> Any:
    return to_event_loop(None, None, None)


def test_a_burst_wakes_the_event_loop_once(worker: Worker) -> None:
    hear(made(), *(nudge(n, epoch=n) for n in range(5)))
    assert len(loop_of().due) == 1
    assert worker.taken == []
    loop_of().run()
    assert worker.taken == [(f"ASR_TIM:r-{n}", n) for n in range(5)]


def test_a_nudge_after_a_burst_wakes_it_again(worker: Worker) -> None:
    handler = made()
    for n in range(3):
        hear(handler, nudge(n))
        loop_of().run()
    assert [call_id for call_id, _ in worker.taken] == [f"ASR_TIM:r-{n}" for n in range(3)]


def test_a_fault_of_one_call_stops_no_later_nudge(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudges = Nudges()

    def fail(*_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(worker, "take", fail)
        nudges.put("ASR_TIM:r-1", 1)
        with pytest.raises(RuntimeError):
            loop_of().run()
    nudges.put("ASR_TIM:r-2", 1)
    loop_of().run()
    assert worker.taken == [("ASR_TIM:r-2", 1)]


class Interrupted(deque[tuple[str, int]]):
    """The event loop takes all that waits just before one more is added."""

    def append(self, nudge: tuple[str, int]) -> None:
        loop_of().run()
        super().append(nudge)


def test_a_nudge_added_while_the_loop_takes_others_is_taken(worker: Worker) -> None:
    nudges = Nudges(Interrupted())
    for n in range(3):
        nudges.put(f"ASR_TIM:r-{n}", 1)
    loop_of().run()
    assert [call_id for call_id, _ in worker.taken] == [f"ASR_TIM:r-{n}" for n in range(3)]


async def test_no_nudge_is_lost_between_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = serve(monkeypatch, Worker(), asyncio.get_running_loop())
    nudges, calls = Nudges(), 20_000

    def put_all() -> None:
        for n in range(calls):
            nudges.put("ASR_TIM:r", n)

    thread = threading.Thread(target=put_all)
    thread.start()
    await wait_until(lambda: len(worker.taken) == calls, "every nudge is taken")
    thread.join()
    assert [epoch for _, epoch in worker.taken] == [*range(calls)]


def test_flower_is_told_of_a_nudge_with_its_shown_arguments(worker: Worker) -> None:
    hear(made(), nudge(1))
    received, started = bootsteps.serving().events._waiting
    assert (received["type"], started["type"]) == ("task-received", "task-started")
    assert {received["uuid"], started["uuid"]} == {"ASR_TIM:r-1"}
    assert received["name"] == ORIGINATE
    assert received["args"] == "('ASR_TIM', 'r-1', '*******0001')"


def test_a_taken_nudge_counts_as_processed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "all_total_count", [7, 5])
    monkeypatch.setattr(state, "total_count", type(state.total_count)())
    hear(made(), nudge(1), nudge(2))
    assert (state.all_total_count, state.total_count) == ([9, 5], {ORIGINATE: 2})


def test_a_new_strategy_serves_the_worker_of_today(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = made()  # of an older connection to the broker
    newer = serve(monkeypatch, Worker(), Loop())
    hear(handler, nudge(1))
    loop_of().run()
    assert (worker.taken, len(newer.taken)) == ([], 1)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        "text",
        [[], {}, {}],
        [["ASR_TIM:r-1", "ASR_TIM"], {}, {}],
        [["ASR_TIM:r-1", "ASR_TIM", "1"], {}, {}],
        [[7, "ASR_TIM", 1], {}, {}],
        [[None, None, None], {}, {}],
        [["ASR_TIM:r-1", "ASR_TIM", 1, 2], {}, {}],
        {"task": ORIGINATE, "args": ["ASR_TIM:r-1", "ASR_TIM", 1]},
    ],
    ids=str,
)
def test_a_message_without_our_arguments_is_refused(worker: Worker, body: Any) -> None:
    with pytest.raises(InvalidTaskError, match="its body is not"):
        hear(made(), message(body))
    assert (loop_of().due, list(bootsteps.serving().events._waiting)) == ([], [])
    assert strategy.UNREADABLE.endswith(ORIGINATE)


def test_a_body_that_is_no_json_is_refused(worker: Worker) -> None:
    with pytest.raises(DecodeError):
        hear(made(), message(b"\xff{"))


def test_a_pickled_body_is_not_opened(worker: Worker) -> None:
    with pytest.raises(ContentDisallowed):
        hear(made(), message(b"cos\nsystem\n", "application/x-python-serialize"))


def test_hostile_headers_reach_flower_as_text(worker: Worker) -> None:
    one = message([["ASR_TIM:r-1", "ASR_TIM", 1], {}, {}], argsrepr={"a": SimpleNamespace})
    hear(made(), one)
    received, _ = bootsteps.serving().events._waiting
    assert isinstance(received["args"], str)
