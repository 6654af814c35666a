"""Remote control of a worker: each command does what its name says, or replies why not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.utils.collections import LimitedSet
from celery.worker import state as celery_state
from celery.worker.control import Panel
from redis.exceptions import ResponseError

from dialer.celery import ORIGINATE
from dialer.domain.call import State
from dialer.domain.followed import Followed
from dialer.domain.parameters import Edit, Subject
from dialer.errors import DialerError
from dialer.steering import Made
from tests.unit.lives import T0, claimed
from workers import bootsteps, control

NO_POOL = "a worker has no pool, its calls share one event loop"
HANG_UP = "celery -A dialer control hangup <call id>"


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

    async def hang_up(call_id: str) -> str | None:
        found = [one for one in listed() if one.call.call_id == call_id]
        return ("" if found[0].channel else "No such channel") if found else None

    worker = SimpleNamespace(followed=listed, hang_up=hang_up)
    monkeypatch.setattr(bootsteps, "_serving", SimpleNamespace(loop=loop, pbx_worker=worker))
    monkeypatch.setattr(celery_state, "revoked", LimitedSet())
    yield calls
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert set(in_thread) <= {thread.ident}, "the calls belong to the event loop"


class Steered:
    """Replaces a worker whose PBX is drained and resumed. `refusal`: nothing can be changed."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal, self.asked = refusal, [("", "", "")]

    async def _made(self, name: str, why: str, by: str, *, is_live: bool) -> Made:
        if self.refusal is not None:
            raise self.refusal
        is_new = self.asked[-1][0] != name
        self.asked.append((name, why, by))
        edit = Edit(name="drained", old=not is_live, new=is_live, was_live=True, is_live=is_live)
        number = len(self.asked) - 1 if is_new else 0
        return Made(number=number, subject=Subject("pbx", "pbx01"), edits=(edit,))

    async def drain(self, *, why: str, by: str) -> Made:
        return await self._made("drain", why, by, is_live=True)

    async def resume(self, *, why: str, by: str) -> Made:
        return await self._made("resume", why, by, is_live=False)


@pytest.fixture
def steer(followed: list[Followed], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Steered]:
    def replaced(refusal: Exception | None = None) -> Steered:
        worker = Steered(refusal)
        monkeypatch.setattr(bootsteps.serving(), "pbx_worker", worker)
        return worker

    return replaced


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


def test_a_command_without_effect_takes_celerys_arguments(state: Any) -> None:
    def arguments(name: str) -> tuple[Any, Any, Any]:
        return Panel.meta[name].args, Panel.meta[name].variadic, Panel.meta[name].signature

    limit = [("task_name", str), ("soft", str)]
    assert arguments("time_limit") == (limit, "hard", "<task_name> <soft> <hard>")
    assert arguments("pool_grow") == ([], "n", "<n>")
    assert arguments("pool_restart") == ([], None, None)


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


def test_a_call_that_is_dialed_is_hung_up(state: Any, followed: list[Followed]) -> None:
    followed.append(up("r-1"))
    assert run("hangup", state, task_id="ASR_TIM:r-1") == {"ok": "ASR_TIM:r-1 is being hung up"}
    followed.append(replace(up("r-2"), channel=None))
    reply = run("hangup", state, task_id="ASR_TIM:r-2")
    assert reply == {"error": "ASR_TIM:r-2 goes on: No such channel"}
    reply = run("hangup", state, task_id="ASR_TIM:r-3")
    assert "ASR_TIM:r-3 is not dialed here now" in reply["error"]


def test_an_asterisk_that_hangs_is_not_waited_for(
    state: Any, followed: list[Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forever(_: str) -> str:
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(bootsteps.serving().pbx_worker, "hang_up", forever)
    monkeypatch.setattr(control, "HUNG_UP_WITHIN_S", 0.3)
    reply = run("hangup", state, task_id="ASR_TIM:r-1")
    assert "Asterisk does not answer; ASR_TIM:r-1 may be hung up all the same" in reply["error"]


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
    followed += [up(f"s-{n}", n + 20) for n in range(20)]
    assert len(run("calls", state)["oldest"]) == control.CALLS_NAMED == 20


def test_a_call_whose_beginning_is_unknown_is_shown(state: Any, followed: list[Followed]) -> None:
    one = up("r-1")
    object.__setattr__(one.call, "dialed_at", None)
    followed.append(one)
    assert [call["since"] for call in run("calls", state)["oldest"]] == [""]
    assert [task["time_start"] for task in run("active", state)] == [None]


def test_active_tasks_are_the_calls_that_are_up(state: Any, followed: list[Followed]) -> None:
    assert run("active", state, safe=True) == []
    followed.append(up("r-1", 3))
    (task,) = run("active", state)
    assert task == {
        "id": "ASR_TIM:r-1",
        "name": ORIGINATE,
        "type": ORIGINATE,
        "args": ["ASR_TIM", "r-1"],
        "kwargs": {},
        "hostname": "pbx01@host",
        "time_start": (T0 + timedelta(seconds=3)).timestamp(),
        "acknowledged": True,
        "worker_pid": os.getpid(),
    }
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


def test_a_pbx_is_drained_and_resumed(state: Any, steer: Callable[..., Steered]) -> None:
    worker = steer()
    assert run("drain", state, why="kernel") == {"ok": "change 1: PBX pbx01 is drained"}
    assert run("drain", state) == {"ok": "nothing changed: PBX pbx01 is drained already"}
    assert run("resume", state) == {"ok": "change 3: PBX pbx01 is no longer drained"}
    assert run("resume", state) == {"ok": "nothing changed: PBX pbx01 is not drained"}
    assert worker.asked[1] == ("drain", "kernel", "celery control on pbx01@host")


def test_a_drain_that_fails_says_why(
    state: Any, steer: Callable[..., Steered], monkeypatch: pytest.MonkeyPatch
) -> None:
    for refusal in (DialerError("the reason is too long"), ResponseError("NOPERM")):
        steer(refusal)
        assert run("drain", state) == {"error": str(refusal)}
    hangs = steer()
    monkeypatch.setattr(hangs, "_made", lambda *_, **__: asyncio.sleep(60))
    monkeypatch.setattr(control, "CHANGED_WITHIN_S", 0.05)
    assert "Redis does not answer" in run("drain", state)["error"]
