"""The bridge process: what ends it, when it drains cells, and how it takes new settings."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dialer import failpoints, watchdog
from dialer.bridge import service
from dialer.bridge.cells import Served
from dialer.bridge.service import _Bridge
from dialer.bridge.signals import Signals
from dialer.domain.parameters import Parameters
from dialer.errors import ConfigError, StoreUnavailable
from tests.unit.stand_ins import Notes, a


def settings(**changed: Any) -> Any:
    fields: dict[str, Any] = {
        "multcall": "m",
        "registry": "r",
        "recovery": "c",
        "broker": a(url="amqp://b"),
        "log": "l",
        "pbxs": [a(name="pbx01")],
        "cells": [a(name="TIM"), a(name="VIVO")],
        "registry_redis_url": "new registry",
    }
    return a(**(fields | changed))


def plan(name: str) -> Any:
    return a(cell=a(name=name), redis_url=f"redis of {name}", ledger_id=name)


def stand(notes: Notes, name: str, *plans: Any, unserved: Any = ()) -> Any:
    """Stands where `Served` does."""
    failure = asyncio.get_running_loop().create_future()
    methods = {what: notes.of(f"{name} {what}") for what in ("start", "stop", "close")}
    looks = notes.of("look", unserved)
    methods |= {
        "parameters": Parameters(),
        "news": (),
        "apply": lambda live: None,
        "take_over": lambda other: None,
    }
    return a(plans=list(plans), failure=failure, unserved=looks, **methods)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    noted = Notes()
    monkeypatch.setattr(service, "LOOK_FOR_UNSERVED_EVERY_S", 0.0)
    monkeypatch.setattr(service, "plans_of", lambda of, chosen: [*of.plans, *chosen])
    monkeypatch.setattr(
        service, "removed_cells", lambda old, new: [f"removed {len(old)} {len(new)}"]
    )
    return noted


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


def bridge(served: Any, *, chosen: Any = (), at: Any = None) -> _Bridge:
    at = at or settings(plans=["planned"], registry_redis_url="old registry")
    return _Bridge("its name", chosen, "its dispatcher", Signals(), at, at, served)  # type: ignore[arg-type]


# --- the process ----------------------------------------------------------------------------


def replaced(monkeypatch: pytest.MonkeyPatch, notes: Notes, served: Any, **celery: Any) -> None:
    """Replace everything around `_serve`."""
    names = celery.get("ignored", [])
    module = a(app="its app", ignored_variables=lambda _: names)
    monkeypatch.setitem(sys.modules, "dialer.celery", module)
    monkeypatch.setattr(Signals, "listen", Signals)
    monkeypatch.setattr(failpoints, "is_armed", lambda: celery.get("armed", False))
    monkeypatch.setattr(service, "check_broker", notes.of("check"))

    def dispatcher(app: Any, lane: Any) -> Any:
        notes.append(("dispatcher", app, lane and lane.broker))
        return a(close=notes.now_of("broker close"), flush=notes.of("flush"))

    monkeypatch.setattr(service, "Dispatcher", dispatcher)
    monkeypatch.setattr(
        service,
        "QuickLane",
        lambda app, redis: a(broker=redis, close=notes.of("lane close")),
    )
    monkeypatch.setattr(service, "connect", lambda url: f"client of {url}")
    monkeypatch.setattr(Served, "connect", notes.of("connect", served))
    process = a(ready=notes.now_of("ready"), stopping=notes.now_of("stopping"))
    monkeypatch.setattr(watchdog, "process", process)
    monkeypatch.setattr(_Bridge, "run", notes.of("run", celery.get("ends")))


async def test_a_bridge_starts_serves_and_closes(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replaced(monkeypatch, notes, stand(notes, "old"))
    await service._serve(settings(broker=a(url="redis://b")), (), [plan("TIM")])
    assert notes.names == [
        *("check", "dispatcher", "connect", "old start", "ready", "run"),
        *("stopping", "old stop", "flush", "old close", "broker close", "lane close"),
    ]
    assert notes.given("dispatcher") == [("its app", "client of redis://b")]
    assert caplog.messages == []


async def test_a_bridge_closes_when_it_fails(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, notes, stand(notes, "old"), ends=ValueError("a defect"))
    with pytest.raises(ValueError, match="a defect"):
        await service._serve(settings(), (), [])
    ended = ["old start", "ready", "run", "old close", "broker close"]
    assert notes.names == ["dispatcher", "connect", *ended], "rabbitmq is not checked"
    assert notes.given("dispatcher") == [("its app", None)], "and has no quick lane"


async def test_a_bridge_says_what_is_unusual(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replaced(monkeypatch, notes, stand(notes, "old"), ignored=["CELERY_X"], armed=True)
    await service._serve(settings(), (), [])
    assert [r.message.partition(" ")[0] for r in caplog.records] == ["Failure", "Celery's"]
    assert vars(caplog.records[1])["variables"] == ["CELERY_X"]


def test_the_named_cells_are_served(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_serve", notes.of("serve"))
    its = settings(plans=["planned"])
    service.run(its, ["TIM"])
    assert notes == [("serve", its, ["TIM"], ["planned", "TIM"])]


# --- until a signal -------------------------------------------------------------------------


async def run(one: _Bridge) -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(10):
        await one.run()
    assert asyncio.all_tasks() <= before


def steps(notes: Notes, monkeypatch: pytest.MonkeyPatch, one: _Bridge) -> None:
    """Replace what a bridge does for a signal; the second of it stops the bridge."""

    def done(*_: Any) -> None:
        if len([n for n in notes.names if n in ("reread", "drain")]) == 2:
            one.signals.stop.set()

    monkeypatch.setattr(_Bridge, "_reread", notes.of("reread", done))
    monkeypatch.setattr(_Bridge, "_drain", notes.of("drain", done))


async def test_a_bridge_runs_until_it_is_stopped(notes: Notes) -> None:
    one = bridge(stand(notes, "old"))
    running = asyncio.create_task(run(one))
    await asyncio.sleep(0.01)
    assert not running.done()
    one.signals.stop.set()
    await running
    assert set(notes.names) == {"look"}
    assert all(given == one.settings for given in notes.given("look"))


async def test_a_stopped_bridge_does_nothing_more(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bridge(stand(notes, "old"))
    steps(notes, monkeypatch, one)
    one.signals.stop.set()
    one.signals.reread.set()
    await run(one)
    assert notes == []


async def test_a_signal_that_comes_with_the_stop_is_ignored(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bridge(stand(notes, "old"))
    steps(notes, monkeypatch, one)

    async def both(_: _Bridge) -> list[Any]:
        one.signals.stop.set()
        one.signals.reread.set()
        return []

    monkeypatch.setattr(_Bridge, "_unserved", both)
    await run(one)
    assert notes == []


async def test_cells_found_with_the_stop_are_not_drained(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bridge(stand(notes, "old"))

    def found(_: Any) -> list[str]:
        one.signals.stop.set()
        return ["found"]

    one.served.unserved = notes.of("look", found)  # type: ignore[method-assign]
    steps(notes, monkeypatch, one)
    await run(one)
    assert notes.names == ["look"]


async def test_each_reread_signal_counts_once(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bridge(stand(notes, "old"), chosen=["TIM"])
    steps(notes, monkeypatch, one)
    running = asyncio.create_task(run(one))
    for n in (1, 2):
        one.signals.reread.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert notes.names == ["reread"] * n
    await running


async def test_found_cells_are_drained(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bridge(stand(notes, "old", unserved=lambda _: ["found"]))
    steps(notes, monkeypatch, one)
    await run(one)
    assert [n[2] for n in notes if n[0] == "drain"] == [["found"]] * 2


async def test_a_background_task_that_failed_ends_the_bridge(notes: Notes) -> None:
    one = bridge(stand(notes, "old"))
    one.served.failure.set_exception(ValueError("a defect"))
    with pytest.raises(ValueError, match="a defect"):
        await run(one)


async def test_a_bridge_of_named_cells_looks_for_no_other(notes: Notes) -> None:
    one = bridge(stand(notes, "old", unserved=lambda _: ["found"]), chosen=["TIM"])
    running = asyncio.create_task(run(one))
    for _ in range(50):
        await asyncio.sleep(0)
    assert notes == []
    one.signals.stop.set()
    await running


async def test_unserved_cells_are_looked_for_every_few_seconds(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [[], ["found"]]
    one: Any = bridge(stand(notes, "old", unserved=lambda _: looks.pop(0)))
    monkeypatch.setattr(service, "LOOK_FOR_UNSERVED_EVERY_S", 5.0)
    monkeypatch.setattr(asyncio, "sleep", notes.of("sleep"))
    assert await one._unserved() == ["found"]
    assert notes.names == ["sleep", "look"] * 2
    assert notes.given("sleep") == [5.0, 5.0]


# --- draining -------------------------------------------------------------------------------


async def test_a_drained_cell_is_served_with_the_others(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = bridge(stand(notes, "old", plan("TIM")), chosen=["chosen"])
    monkeypatch.setattr(Served, "connect", notes.of("connect", stand(notes, "new")))
    found = plan("OI")
    async with asyncio.timeout(10):
        await one._drain([found])
    plans = ["planned", "chosen", found, "removed 1 3"]
    more = {
        "bridge": "its name",
        "dispatcher": "its dispatcher",
        "known": {"redis of TIM", "old registry"},
    }
    assert notes[0] == ("connect", plans, "old registry", more)
    assert notes.names[1:] == ["old stop", "old close", "new start"]
    assert caplog.messages == ["Removed cells still have calls; finishing them"]
    assert vars(caplog.records[0])["cells"] == ["OI"]


async def test_a_problem_with_draining_is_logged_once(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = StoreUnavailable("first"), StoreUnavailable("second")
    replies = [first, first, second, stand(notes, "new"), second]
    monkeypatch.setattr(Served, "connect", notes.of("connect", lambda *_, **__: replies.pop(0)))
    one = bridge(stand(notes, "old"))
    for _ in range(5):
        await one._drain([plan("OI")])
    reasons = [vars(record).get("reason", "drained") for record in caplog.records]
    assert reasons == ["first", "second", "drained", "second"]
    assert vars(caplog.records[0])["cells"] == ["OI"]


@pytest.mark.parametrize("step", ["_drain", "_reread"])
async def test_a_stop_ends_the_connecting(
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    one = bridge(stand(notes, "old"))
    before = one.settings

    async def connect(*_: Any, **__: Any) -> None:
        one.signals.stop.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Served, "connect", connect)
    monkeypatch.setattr(service, "load", lambda: settings(plans=[], multcall="other"))
    async with asyncio.timeout(10):
        await (one._drain([plan("OI")]) if step == "_drain" else one._reread())
    assert (notes, caplog.messages) == ([], [])
    assert one.settings is before


# --- new settings ---------------------------------------------------------------------------


async def reread(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, new: Any, one: _Bridge | None = None
) -> _Bridge:
    one = one or bridge(stand(notes, "old", plan("TIM")))

    def load() -> Any:
        if isinstance(new, Exception):
            raise new
        return new

    monkeypatch.setattr(service, "load", load)
    monkeypatch.setattr(Served, "connect", notes.of("connect", stand(notes, "new")))
    async with asyncio.timeout(10):
        await one._reread()
    return one


async def test_new_settings_are_served_after_the_old_ones(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    new = settings(plans=[plan("TIM")], multcall="other")
    one = await reread(notes, monkeypatch, new)
    assert notes[0][1:3] == ([new.plans[0], "removed 1 1"], "new registry")
    assert notes[0][3]["known"] == {"redis of TIM", "old registry"}
    assert notes.names[1:] == ["old stop", "old close", "new start"]
    assert one.settings is new
    (record,) = caplog.records
    said = vars(record)
    assert said["message"] == "New settings are in force"
    assert (said["changed"], said["cells"]) == (["multcall"], ["TIM"])


async def test_settings_that_are_the_same_change_nothing(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await reread(notes, monkeypatch, settings(plans=[]))
    assert (notes, caplog.messages) == ([], ["Settings unchanged"])


async def test_wrong_settings_change_nothing(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = await reread(notes, monkeypatch, ConfigError("wrong"))
    assert notes == []
    assert one.settings is one.at_start
    assert caplog.messages == ["New settings refused; the old ones stay in force"]
    assert vars(caplog.records[0])["reason"] == "wrong"


@pytest.mark.parametrize("changed", [{"broker": a(url="amqp://other")}, {"log": "other"}])
async def test_the_broker_stays_until_a_restart(
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changed: dict[str, Any],
) -> None:
    await reread(notes, monkeypatch, settings(plans=[], **changed))
    assert caplog.messages == ["[broker] and [log] stay as they are until the bridge is restarted"]


@pytest.mark.parametrize(("registry", "taken"), [("old registry", 1), ("new registry", 0)])
async def test_new_cells_know_the_live_parameters_of_the_old_ones(
    notes: Notes, registry: str, taken: int
) -> None:
    """Connecting takes time, in which the old watch has looked again."""
    old, new = stand(notes, "old"), stand(notes, "new")
    new.take_over = notes.now_of("take over")
    one = bridge(old)
    await one._change(new, settings(plans=[], registry_redis_url=registry))
    assert notes.given("take over") == [old] * taken
    assert notes.names[-1] == "new start"


async def test_a_bridge_that_stops_starts_no_new_cells(notes: Notes) -> None:
    one = bridge(stand(notes, "old"))
    one.signals.stop.set()
    new = stand(notes, "new")
    await one._change(new, one.settings)
    assert notes.names == ["old stop", "old close"]
    assert one.served is new


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"multcall": 1}, ["multcall"]),
        ({"registry": 1, "recovery": 1}, ["registry", "recovery"]),
        ({"broker": 1, "log": 1}, ["broker", "log"]),
        ({"pbxs": [a(name="pbx01", cps=2), a(name="pbx02")]}, ["pbxs[pbx01]", "pbxs[pbx02]"]),
        ({"cells": [a(name="VIVO")]}, ["cells[TIM]"]),
        ({"pbxs": [], "cells": [a(name="TIM")]}, ["pbxs[pbx01]", "cells[VIVO]"]),
    ],
)
def test_changed_tables_are_named_once(changed: dict[str, Any], names: list[str]) -> None:
    assert list(service._changes(settings(), settings(**changed))) == names
