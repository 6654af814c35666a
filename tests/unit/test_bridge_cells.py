"""The cells of a bridge: their connections, their supervision, and cells that nobody serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dialer.bridge import cells
from dialer.bridge.cells import Served
from dialer.bridge.life import BLOCK_QUIET_S
from dialer.domain.parameters import Parameters
from dialer.errors import StoreUnavailable, StoreUnfit, TaskEnded
from dialer.store.parameters import Watch
from dialer.store.servers import Servers
from tests.unit.stand_ins import Notes, a

ENDED = "Background task ended unexpectedly; the bridge ends"


class Steps:
    def __init__(self, url: str, *, is_down: bool = False) -> None:
        self.where, self.is_down = f"at {url}", is_down

    async def or_none_if_down(self, asked: Any) -> Any:
        found = await asked
        return None if self.is_down else found


class Stand:
    """Its methods stand where those of the servers do. `broken`: those that do not answer."""

    notes = Notes()
    broken: frozenset[str] = frozenset()
    _steps: dict[str, Steps]

    async def at(self, url: str, what: str, *, must_answer: bool = True) -> Steps:
        Stand.notes.append(("at", url, what, must_answer))
        if must_answer and url in Stand.broken:
            raise StoreUnavailable(f"{what} is down")
        return self._steps.setdefault(url, Steps(url))

    async def of_cells(self, urls: dict[str, str]) -> None:
        Stand.notes.append(("of cells", dict(urls)))

    async def watch(self) -> None:
        Stand.notes.append(("watch",))
        await asyncio.Event().wait()

    async def close(self) -> None:
        Stand.notes.append(("servers close",))


class Beats:
    """Stands where `Pulse` does."""

    def __init__(self, bridge: str, steps: Steps, clock: Any) -> None:
        self.bridge, self.steps, self.clock = bridge, steps, clock
        self.cells: list[Any] = []

    async def run(self) -> None:
        Stand.notes.append(("pulse", self.steps.where))
        await asyncio.Event().wait()


class Log:
    """Stands where `Decisions` does."""

    def __init__(self, bridge: str, steps: Steps, registry: Steps) -> None:
        self.bridge, self.steps, self.registry = bridge, steps, registry
        self.cells: list[Any] = []

    async def run(self) -> None:
        Stand.notes.append(("log", self.steps.where, self.registry.where))
        await asyncio.Event().wait()


class Told:
    """Stands where `Operators` does."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.cells: list[Any] = []

    async def run(self) -> None:
        Stand.notes.append(("operators", self.steps.where))
        await asyncio.Event().wait()


class Looking:
    """Stands where `Watch` does, for live parameters. `refusal`: Redis refuses to tell them."""

    refusal: Exception | None = None
    begin = Watch.begin  # the real one, with the look below

    def __init__(self, store: Any) -> None:
        self.parameters = Parameters(version=7)

    async def look(self) -> bool:
        Stand.notes.append(("parameters",))
        if Looking.refusal is not None:
            raise Looking.refusal
        return True

    async def run(self, on_change: Any) -> None:
        Stand.notes.append(("watch parameters", on_change))
        await asyncio.Event().wait()


class Cell:
    """Stands where `ServedCell` does."""

    def __init__(self, plan: Any, cell: Any, clients: Any, is_alone: Any) -> None:
        self.plan, self.cell, self.clients, self.is_alone = plan, cell, clients, is_alone
        self.tasks: list[asyncio.Task[None]] = []
        self.is_ending = self.is_over = False
        self.intake = f"intake of {plan.cell.name}"
        self.life, self.recovery = f"life of {plan.cell.name}", f"recovery of {plan.cell.name}"
        self.end = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        async def part() -> None:
            await self.end

        self.tasks = [asyncio.create_task(part(), name="a part")]

    async def stop(self) -> None:
        Stand.notes.append(("stop", self.plan.cell.name))
        for task in self.tasks:
            task.cancel()


@pytest.fixture(autouse=True)
async def notes(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notes]:
    noted = Notes()
    monkeypatch.setattr(Stand, "notes", noted)
    for name in ("at", "of_cells", "watch", "close"):
        monkeypatch.setattr(Servers, name, getattr(Stand, name))
    monkeypatch.setattr(cells, "ServedCell", Cell)
    monkeypatch.setattr(cells, "Pulse", Beats)
    monkeypatch.setattr(cells, "Decisions", Log)
    monkeypatch.setattr(cells, "Operators", Told)
    monkeypatch.setattr(cells, "Registry", lambda steps, *_: f"registry {steps.where}")
    monkeypatch.setattr(
        cells, "BridgeLedger", lambda steps, name, *more: (steps.where, name, *more)
    )

    async def state(_: Any) -> None:
        noted.append(("own state",))
        await asyncio.Event().wait()

    monkeypatch.setattr(cells, "Watch", Looking)
    monkeypatch.setattr(cells, "OwnState", lambda *given: a(given=given, run=lambda: state(given)))
    monkeypatch.setattr(
        cells,
        "connect",
        lambda url, *, waits_s: a(
            url=url, waits_s=waits_s, aclose=noted.of(f"client {url} closes")
        ),
    )
    monkeypatch.setattr(cells, "reply_timeout_s", lambda url: len(url))
    before = asyncio.all_tasks()
    yield noted
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    assert [task.get_name() for task in left] == []


def plan(name: str, *, draining: bool = False, redis: str = "") -> Any:
    url = redis or f"redis of {name}"
    return a(
        cell=a(name=name),
        redis_url=url,
        draining=draining,
        limits=("its PBX",),
        all_pbxs=("pbx01",),
        push="left",
        numbering="numbers",
        wire=a(fields="its fields"),
        ledger_id=(name, url),
    )


async def connect(*plans: Any, known: Any = frozenset()) -> Served:
    broker: Any = "its dispatcher"
    return await Served.connect(plans, "registry", bridge="b", dispatcher=broker, known=known)


# --- connecting -----------------------------------------------------------------------------


async def test_every_cell_gets_its_redis_and_clients(notes: Notes) -> None:
    served = await connect(plan("TIM"), plan("OI", draining=True))
    assert notes == [
        ("at", "registry", "the registry's Redis", True),
        ("parameters",),
        ("of cells", {"TIM": "redis of TIM"}),
        ("at", "redis of TIM", "the Redis of cell TIM", False),
        ("at", "redis of OI", "the Redis of cell OI", False),
    ]
    tim, _ = its_cells(served)
    assert [client.url for client in tim.clients] == ["redis of TIM"] * 2
    assert [client.waits_s for client in tim.clients] == [BLOCK_QUIET_S] * 2
    assert tim.cell.reply_within_s == len("redis of TIM")
    its = tim.cell
    assert (its.bridge, its.settings.name, its.pbxs) == ("b", "TIM", ("its PBX",))
    assert its.ledger == ("at redis of TIM", "TIM", "left", "its fields", "numbers")
    assert (its.registry, its.dispatcher) == ("registry at registry", "its dispatcher")
    own: Any = served._own_state
    assert own.given == ("b", "registry at registry", "its dispatcher")
    await served.close()
    assert notes.names[5:] == [
        *["client redis of OI closes"] * 2,
        *["client redis of TIM closes"] * 2,
        "servers close",
    ]


def its_cells(served: Served) -> list[Any]:
    return list(served.cells)


async def test_a_new_redis_must_answer_a_reload(notes: Notes) -> None:
    plans = plan("TIM"), plan("VIVO"), plan("OI", draining=True)
    await (await connect(*plans, known={"redis of TIM"})).close()
    must = [note[1] for note in notes if note[0] == "at" and note[3]]
    assert must == ["registry", "redis of VIVO"]
    assert ("at", "redis of VIVO", "the Redis of cell VIVO", True) in notes


async def test_what_was_connected_is_closed_after_a_failure(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stand, "broken", {"registry"})
    with pytest.raises(StoreUnavailable, match="the registry's Redis is down"):
        await connect(plan("TIM"))
    assert notes.names == ["at", "servers close"]


async def test_a_cell_with_one_redis_is_alone() -> None:
    served = await connect(plan("TIM"), plan("TIM", redis="other"), plan("VIVO"))
    one, two, vivo = its_cells(served)
    assert [cell.is_alone() for cell in (one, two, vivo)] == [False, False, True]
    two.is_over = True
    assert [p.redis_url for p in served.plans] == ["redis of TIM", "redis of VIVO"]
    assert one.is_alone()
    await served.close()


async def test_cells_of_one_server_share_pulse_clock_and_readings() -> None:
    served = await connect(plan("TIM", redis="one"), plan("OI", redis="one"), plan("VIVO"))
    tim, oi, vivo = its_cells(served)
    assert tim.cell.clock is oi.cell.clock is not vivo.cell.clock
    assert tim.cell.registry is oi.cell.registry is vivo.cell.registry
    one, two = served._pulses.values()
    assert [str(beating.life) for beating in one.cells] == ["life of TIM", "life of OI"]
    assert (two.bridge, two.steps.where) == ("b", "at redis of VIVO")
    assert two.clock is vivo.cell.clock
    (beating,) = two.cells
    assert beating.is_served()
    vivo.is_ending = True
    assert not beating.is_served()
    await served.close()


async def test_cells_of_one_server_share_a_decision_log() -> None:
    gone = plan("GONE", redis="one", draining=True)
    served = await connect(plan("TIM", redis="one"), plan("OI", redis="one"), gone, plan("VIVO"))
    one, two = served._decisions.values()
    assert [str(deciding.intake).split()[-1] for deciding in one.cells] == ["TIM", "OI", "GONE"]
    assert (one.steps.where, one.registry.where) == ("at one", "at registry")
    (deciding,) = two.cells
    assert deciding.is_served()
    its_cells(served)[-1].is_ending = True
    assert not deciding.is_served()
    await served.close()


# --- supervision ----------------------------------------------------------------------------


async def started(*plans: Any) -> Served:
    served = await connect(*(plans or [plan("TIM")]))
    await served.start(print)
    await asyncio.sleep(0)
    return served


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_started_bridge_watches_its_servers(notes: Notes) -> None:
    served = await started()
    assert notes.names[-6:] == [
        *("watch", "watch parameters", "own state", "pulse", "operators", "log")
    ]
    assert notes.given("watch parameters") == [print]
    assert [task.get_name() for task in served._own] == [
        *("Redis steps", "live parameters", "own state", "heartbeat", "operators of Multcall"),
        "decision log",
    ]
    assert not served.failure.done()
    await served.stop()
    await turns()
    await served.close()
    assert ("stop", "TIM") in notes
    assert not served.failure.done()


async def test_parameters_that_redis_refuses_end_the_start(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Looking, "refusal", ResponseError("NOPERM"))
    with pytest.raises(StoreUnfit, match="the registry's Redis refuses a command: NOPERM"):
        await connect(plan("TIM"))
    assert notes.names[-1] == "servers close"


async def test_a_bridge_may_have_no_own_state(notes: Notes) -> None:
    served = await connect(plan("TIM"))
    served._own_state = None
    await served.start(print)
    await turns()
    assert "own state" not in notes.names
    await served.stop()
    await served.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a defect"), "a defect"),
        (None, "the background task 'a part' ended: it returned"),
    ],
)
async def test_a_part_that_ends_is_a_failure(
    caplog: pytest.LogCaptureFixture, error: Exception | None, said: str
) -> None:
    served = await started()
    end = its_cells(served)[0].end
    end.set_result(None) if error is None else end.set_exception(error)
    await turns()
    failure = served.failure.exception()
    assert str(failure) == said
    assert isinstance(failure, ValueError if error else TaskEnded)
    assert caplog.messages == [ENDED]
    (record,) = map(vars, caplog.records)
    assert (record["cell"], record["task"], record["reason"]) == ("TIM", "a part", repr(failure))
    await served.stop()
    await served.close()


async def test_a_part_that_is_cancelled_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    served = await started(plan("TIM"), plan("VIVO"))
    first, second = its_cells(served)
    first.tasks[0].cancel()
    await turns()
    second.end.set_exception(ValueError("a later one"))
    await turns()
    said = "the background task 'a part' ended: it was cancelled"
    assert str(served.failure.exception()) == said
    assert caplog.messages == [ENDED]
    await served.stop()
    await served.close()


async def test_servers_that_stop_are_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    served = await started()
    served._own[0].cancel()
    await turns()
    assert "'Redis steps' ended" in str(served.failure.exception())
    assert vars(caplog.records[0])["cell"] is None
    await served.stop()
    await served.close()


async def test_the_end_of_a_drained_cell_is_no_failure() -> None:
    served = await started(plan("TIM"), plan("VIVO"))
    cell, other = its_cells(served)
    cell.is_ending = other.is_ending = True
    cell.end.set_result(None)
    await turns()
    assert not served.failure.done()
    other.end.set_exception(ValueError("a defect"))
    await turns()
    assert isinstance(served.failure.exception(), ValueError)
    await served.stop()
    await served.close()


async def test_a_closed_bridge_has_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    served = await started()
    await served.close()
    assert served._own[0].cancelled()
    assert not served.failure.done()
    its_cells(served)[0].end.set_result(None)
    await turns()
    assert caplog.messages == []


# --- cells that nobody serves ---------------------------------------------------------------


async def test_unserved_cells_are_found_on_every_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts: dict[str, Any] = {
        "at refuses": ResponseError("no rights"),
        "at one": ["TIM", "OI"],
        "at two": ["OI", "VIVO"],
        "at down": ["CLARO"],
        "at empty": None,
    }

    class Book:
        def __init__(self, steps: Steps) -> None:
            self.where = steps.where

        async def unserved(self) -> Any:
            found = texts[self.where]
            if isinstance(found, Exception):
                raise found
            return found

    planned = Notes()

    def plan_of(settings: Any, cell: Any, url: str, *, draining: bool) -> Any:
        planned.append((settings, cell.name, url, draining))
        return plan(cell.name, redis=url)

    monkeypatch.setattr(cells, "CellBook", Book)
    monkeypatch.setattr(cells, "plan_of", plan_of)
    monkeypatch.setattr(cells, "cells_of", lambda found: [a(name=name) for name in found])
    served = await connect(plan("TIM", redis="one"))
    names = ("refuses", "one", "two", "down", "empty")
    known: Any = {name: Steps(name, is_down=name == "down") for name in names}
    served._servers._steps = known
    its: Any = "settings"
    found = await served.unserved(its)
    assert [one.ledger_id for one in found] == [("OI", "one"), ("VIVO", "two")]
    assert planned[0] == ("settings", "TIM", "one", True)
    assert caplog.messages == ["Redis refused a command; trying again"]
    said = vars(caplog.records[0])
    assert (said["redis"], said["part"]) == ("at refuses", "unserved cells")
    await served.close()
