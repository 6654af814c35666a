"""Remote control of a worker: each command does what its name says, or replies why not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.utils.collections import LimitedSet
from celery.worker import state as celery_state
from celery.worker.control import Panel

from dialer.celery import ORIGINATE
from dialer.domain.call import State
from dialer.domain.followed import Followed
from tests.unit.lives import T0, claimed
from workers import bootsteps, control

NO_POOL = "a worker has no pool, its calls share one event loop"
HANG_UP = "hang it up in Asterisk"


class Queue:
    """Replaces Celery's consumer: `later` has the calls of `call_soon`."""

    def __init__(self) -> None:
        self.later: list[tuple[Any, ...]] = []
        self.controller = SimpleNamespace(pbx=SimpleNamespace(name="pbx01"))
        self.add_task_queue, self.cancel_task_queue = "add", "cancel"

    def call_soon(self, *do: Any) -> None:
        self.later.append(do)


@pytest.fixture
def state() -> Any:
    return SimpleNamespace(consumer=Queue(), hostname="pbx01@host")


def up(name: str, after_s: float = 0.0, of: State = State.ACCEPTED) -> Followed:
    one = claimed()
    call = replace(one.call, call_id=f"ASR_TIM:{name}", state=of)
    object.__setattr__(call, "dialed_at", T0 + timedelta(seconds=after_s))
    return replace(one, call=call, channel=f"PJSIP/tim-{name}")


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Followed]]:
    """The calls of a worker whose event loop runs in a thread."""
    calls: list[Followed] = []
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    in_thread: list[int] = []

    def listed() -> list[Followed]:
        in_thread.append(threading.get_ident())
        return [*calls]

    worker = SimpleNamespace(followed=listed)
    monkeypatch.setattr(bootsteps, "_serving", SimpleNamespace(loop=loop, pbx_worker=worker))
    monkeypatch.setattr(celery_state, "revoked", LimitedSet())
    yield calls
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert set(in_thread) <= {thread.ident}, "the calls belong to the event loop"


def run(name: str, state: Any, **arguments: Any) -> Any:
    """A command, as Celery runs it."""
    return Panel.data[name](state, **arguments)


# --- the queue ----------------------------------------------------------------------------


def test_a_cancelled_queue_can_be_consumed_again(state: Any) -> None:
    assert run("cancel_consumer", state, queue="pbx01") == {"ok": "no longer consuming from pbx01"}
    assert run("add_consumer", state, queue="pbx01") == {"ok": "add consumer pbx01"}
    assert state.consumer.later == [("cancel", "pbx01"), ("add", "pbx01")]


def test_the_queue_of_another_pbx_is_refused(state: Any, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cancel_consumer", "add_consumer"):
        assert "this is the worker of pbx01" in run(name, state, queue="pbx02")["error"]
    assert state.consumer.later == []
    assert caplog.messages == [
        "Refused to consume the queue of another PBX; a worker serves its own only"
    ]


# --- commands without a meaning -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("rate_limit", {"task_name": ORIGINATE, "rate_limit": "1/m"}, "cps of the PBX"),
        ("time_limit", {"task_name": ORIGINATE, "hard": 1.0, "soft": 1.0}, "ring_timeout"),
        ("terminate", {"signal": "KILL", "task_id": ["ASR_TIM:r-1"]}, HANG_UP),
        ("revoke_by_stamped_headers", {"headers": {"a": ["b"]}}, "control revoke <call id>"),
        ("pool_grow", {"n": 1}, NO_POOL),
        ("pool_shrink", {"n": 1}, NO_POOL),
        ("pool_restart", {"modules": None, "reload": False, "reloader": None}, NO_POOL),
        ("autoscale", {"max": 9, "min": 1}, NO_POOL),
    ],
)
def test_a_command_without_effect_says_why(
    state: Any, name: str, arguments: dict[str, Any], said: str
) -> None:
    reply = run(name, state, **arguments)
    assert [*reply] == ["error"]
    assert reply["error"].startswith("nothing ")
    assert said in reply["error"]
    assert "Has no effect" in str(Panel.meta[name].help)


def test_no_command_of_celerys_changes_the_task(state: Any) -> None:
    """A new Celery may bring more commands; each needs a decision here."""
    ours = {name for name, do in Panel.data.items() if do.__module__ == control.__name__}
    celerys = {name for name, of in Panel.meta.items() if of.type == "control"} - ours
    assert celerys == {"disable_events", "enable_events", "election", "heartbeat", "shutdown"}


# --- revoke -------------------------------------------------------------------------------


def test_a_waiting_call_is_revoked(state: Any, followed: list[Followed]) -> None:
    reply = run("revoke", state, task_id=["ASR_TIM:r-1", "ASR_TIM:r-2"])
    assert reply == {"ok": "not to be dialed any more, if not dialed yet: ASR_TIM:r-1, ASR_TIM:r-2"}
    assert set(celery_state.revoked) == {"ASR_TIM:r-1", "ASR_TIM:r-2"}


def test_one_call_is_revoked_by_its_id_alone(state: Any, followed: list[Followed]) -> None:
    assert "ASR_TIM:r-1" in run("revoke", state, task_id="ASR_TIM:r-1")["ok"]
    assert set(celery_state.revoked) == {"ASR_TIM:r-1"}


def test_a_call_that_is_up_is_not_revoked(state: Any, followed: list[Followed]) -> None:
    followed.append(up("r-1"))
    reply = run("revoke", state, task_id=["ASR_TIM:r-1", "ASR_TIM:r-2"])
    assert "too late for ASR_TIM:r-1, which is dialed already" in reply["error"]
    assert HANG_UP in reply["error"]
    assert "ASR_TIM:r-2" in celery_state.revoked


def test_a_revoke_terminates_nothing(state: Any, followed: list[Followed]) -> None:
    reply = run("revoke", state, task_id="ASR_TIM:r-1", terminate=True, signal="KILL")
    assert HANG_UP in reply["error"]
    assert "ASR_TIM:r-1" in celery_state.revoked


# --- inspect ------------------------------------------------------------------------------


def test_calls_are_counted_and_the_oldest_named(state: Any, followed: list[Followed]) -> None:
    assert run("calls", state) == {"total": 0, "states": {}, "oldest": []}
    followed += [up("r-2", 5), up("r-1", 1, State.ANSWERED), up("r-3", 9)]
    reply = run("calls", state, n=2)
    assert (reply["total"], reply["states"]) == (3, {"accepted": 2, "answered": 1})
    assert [one["id"] for one in reply["oldest"]] == ["ASR_TIM:r-1", "ASR_TIM:r-2"]
    assert reply["oldest"][0] == {
        "id": "ASR_TIM:r-1",
        "state": "answered",
        "since": (T0 + timedelta(seconds=1)).isoformat(),
        "channel": "PJSIP/tim-r-1",
    }
    assert run("calls", state, n=-1)["oldest"] == []


def test_active_tasks_are_the_calls_that_are_up(state: Any, followed: list[Followed]) -> None:
    assert run("active", state, safe=True) == []
    followed.append(up("r-1", 3))
    (task,) = run("active", state)
    assert (task["id"], task["name"]) == ("ASR_TIM:r-1", ORIGINATE)
    assert (task["args"], task["kwargs"]) == (["ASR_TIM", "r-1"], {})
    assert task["time_start"] == (T0 + timedelta(seconds=3)).timestamp()
    assert task["hostname"] == "pbx01@host"
    assert followed[0].request.number not in str(task)


@pytest.mark.parametrize("ids", ["ASR_TIM:r-1", ["ASR_TIM:r-1", "ASR_TIM:r-9"]])
def test_one_call_is_found_by_its_id(state: Any, followed: list[Followed], ids: Any) -> None:
    followed += [up("r-1"), up("r-2")]
    found = run("query_task", state, ids=ids)
    assert {call_id: word for call_id, (word, _) in found.items()} == {"ASR_TIM:r-1": "active"}


def test_a_loop_that_hangs_is_not_waited_for(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = SimpleNamespace(call_soon_threadsafe=lambda _: None)
    monkeypatch.setattr(bootsteps, "_serving", SimpleNamespace(loop=hanging, pbx_worker=None))
    monkeypatch.setattr(control, "LIST_WITHIN_S", 0.01)
    with pytest.raises(TimeoutError):
        run("active", state)
