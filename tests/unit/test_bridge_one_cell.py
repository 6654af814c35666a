"""One served cell: which parts run, how they end, and how a removed cell is drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dialer.bridge import served_cell
from dialer.bridge.codes import Codes
from dialer.bridge.intake import Intake
from dialer.bridge.parked import ParkedSweep
from dialer.bridge.reaper import Reaper
from dialer.bridge.recovery import Recovery
from dialer.bridge.served_cell import LEASED_WITHIN_S, ServedCell
from dialer.errors import StepsStopped
from dialer.store.cells import CellBook
from tests.unit.stand_ins import Notes, a
from tests.waiting import wait_until

REFUSED = "Redis refused a command; trying again"
STAYS = "Requests in hand could not be put back; another bridge will take them over"
ALWAYS = ["codes", "late codes", "recovery", "reaper", "kept settings"]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    assert [task.get_name() for task in left] == []


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch, notes: Notes) -> None:
    """No part does anything but note that it runs."""

    def running(name: str) -> Any:
        async def run(*_: Any) -> None:
            notes.append((name,))
            await asyncio.Event().wait()

        return run

    for part, method, name in (
        (Codes, "run", "codes"),
        (Codes, "run_late", "late codes"),
        (Recovery, "run", "recovery"),
        (Reaper, "run", "reaper"),
        (CellBook, "write", "kept settings"),
        (Intake, "run", "intake"),
        (ParkedSweep, "run", "parked requests"),
    ):
        monkeypatch.setattr(part, method, running(name))
    monkeypatch.setattr(Recovery, "take_over", notes.of("take over"))
    monkeypatch.setattr(Reaper, "release_leaked", notes.of("release"))
    monkeypatch.setattr(served_cell, "text_of", lambda cell: f"text of {cell.name}")
    for pause in ("REFUSED_PAUSE_S", "DRAIN_EVERY_S", "LEASED_WITHIN_S"):
        monkeypatch.setattr(served_cell, pause, 0.0)


def its_cell(notes: Notes, *, draining: bool = False, **ledger: Any) -> ServedCell:
    async def wait(task: asyncio.Task[None]) -> bool:
        await asyncio.wait([task])
        return True

    replies = {
        "steps": a(wait_done_or_down=wait),
        "return_hand": notes.of("return hand"),
        "return_parked": notes.of("return parked", 0),
        "has_requests": notes.of("look", False),
        "calls": notes.of("count", []),
    }
    cell = a(bridge="b", name="C", ledger=a(**(replies | ledger)))
    plan = a(cell=a(name="C"), draining=draining, pbx_lost_after_s=5.0)
    clients: Any = ("first", "second")
    return ServedCell(plan, cell, clients, lambda: False)


def test_the_parts_share_the_cell(notes: Notes) -> None:
    one: Any = its_cell(notes)
    assert (one.intake.blocking, one.codes.blocking) == ("first", "second")
    assert one.recovery.pbx_lost_after_s == 5.0
    assert one.reaper.recovery is one.recovery
    assert not one.reaper.is_alone()


async def test_a_cell_takes_over_then_starts_its_parts(notes: Notes) -> None:
    one = its_cell(notes)
    await one.start()
    names = [*ALWAYS, "intake", "parked requests"]
    await wait_until(lambda: len(notes) > len(names), "the parts run")
    assert notes.names[0] == "take over"
    assert sorted(notes.names[1:]) == sorted(names)
    assert [task.get_name() for task in one.tasks] == names
    was_ending = one.is_ending
    await one.stop()
    assert (was_ending, one.is_ending) == (False, True)
    assert notes[-1] == ("return hand", "b")


async def test_a_takeover_that_redis_refuses_is_logged(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Recovery, "take_over", notes.of("take over", ResponseError("no rights")))
    one = its_cell(notes)
    await one.start()
    await one.stop()
    assert caplog.messages == [REFUSED]
    said = vars(caplog.records[0])
    assert (said["cell"], said["part"], said["error"]) == ("C", "takeover", "no rights")


async def test_a_takeover_with_a_defect_ends_the_start(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recovery, "take_over", notes.of("take over", ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        await its_cell(notes).start()


async def test_a_redis_that_is_down_delays_no_start(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    async def down(_: Any) -> bool:
        await asyncio.sleep(0)
        return False

    monkeypatch.setattr(Recovery, "take_over", hang)
    one = its_cell(notes, steps=a(wait_done_or_down=down))
    await one.start()
    assert len(one.tasks) == 7
    await one.stop()


# --- a part that Redis refuses --------------------------------------------------------------


async def test_a_refused_part_runs_again_after_a_pause(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replies = [ResponseError("no rights"), None]
    monkeypatch.setattr(served_cell, "REFUSED_PAUSE_S", 5.0)
    monkeypatch.setattr(asyncio, "sleep", notes.of("sleep"))
    one = its_cell(notes)
    async with asyncio.timeout(10):
        await one._repeat_if_refused(notes.of("part", lambda: replies.pop(0)), "its name")
    assert notes == [("part",), ("sleep", 5.0), ("part",)]
    assert (caplog.messages, vars(caplog.records[0])["part"]) == ([REFUSED], "its name")


async def test_the_settings_are_stored_again_and_again(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = [None, None, ValueError("enough")]
    monkeypatch.setattr(CellBook, "write", notes.of("write", lambda *_: replies.pop(0)))
    monkeypatch.setattr(asyncio, "sleep", notes.of("sleep"))
    with pytest.raises(ValueError, match="enough"):
        await its_cell(notes)._store_settings()
    assert notes.names == ["write", "sleep", "write", "sleep", "write"]
    assert notes[0][2:] == ("C", "text of C")
    assert notes.given("sleep") == [served_cell.STORE_EVERY_S] * 2


# --- a removed cell -------------------------------------------------------------------------


async def test_a_removed_cell_ends_with_its_last_call(
    notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    requests, calls, parked = [True, False, False], [["C:1"], []], [2, 1, 0]
    one = its_cell(
        notes,
        draining=True,
        has_requests=notes.of("look", lambda _: requests.pop(0)),
        calls=notes.of("count", lambda: calls.pop(0)),
        return_parked=notes.of("return parked", lambda _: parked.pop(0)),
    )
    await one.start()
    *names, last = [task.get_name() for task in one.tasks]
    assert (names, last) == (ALWAYS, "last calls")
    await wait_until(lambda: one.tasks[-1].done(), "the cell has no calls left")
    drained = [n for n in notes if n[0] not in (*ALWAYS, "take over")]
    assert [n[0] for n in drained] == [
        *("look", "return hand", *["return parked"] * 3),
        *("look", "count", "look", "count"),
        *("return hand", "release"),
    ]
    assert all(n[1] == "b" for n in drained if n[0] in ("look", "return hand", "return parked"))
    assert drained[-1][2] == {"older_than_s": 0.0}
    assert (one.is_ending, one.is_over) == (True, True)
    assert all(task.cancelled() for task in one.tasks[:-1])
    assert caplog.messages == ["Removed cell has no calls left"]
    await one.stop()
    assert notes.names.count("return hand") == 2, "not again at the stop"


async def test_a_draining_cell_pauses_between_its_looks(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [True, False]
    one = its_cell(notes, has_requests=notes.of("look", lambda _: requests.pop(0)))
    monkeypatch.setattr(served_cell, "DRAIN_EVERY_S", 0.5)
    monkeypatch.setattr(served_cell, "LEASED_WITHIN_S", LEASED_WITHIN_S)
    monkeypatch.setattr(asyncio, "sleep", notes.of("sleep"))
    await one._drain([])
    assert notes.given("sleep") == [0.5, LEASED_WITHIN_S]
    assert notes.names[-2:] == ["sleep", "release"], "a slot may be leased until then"


# --- the stop -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["intake", "recovery"])
async def test_a_stop_waits_for_the_end_of_a_round(notes: Notes, part: str) -> None:
    one = its_cell(notes)
    await one.start()
    lock = one.intake.admitting if part == "intake" else one.recovery.moving
    await lock.acquire()
    stopping = asyncio.create_task(one.stop())
    for _ in range(20):
        await asyncio.sleep(0)
    assert "return hand" not in notes.names
    assert not any(task.done() for task in one.tasks)
    lock.release()
    await stopping
    assert all(task.done() for task in one.tasks)
    assert notes.names[-1] == "return hand"


async def test_a_round_that_hangs_does_not_hold_up_a_stop(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_cell, "ROUND_WITHIN_S", 0.0)
    one = its_cell(notes)
    await one.start()
    await one.intake.admitting.acquire()
    await one.stop()
    assert all(task.done() for task in one.tasks)
    assert notes.names[-1] == "return hand"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ResponseError("no rights"), "no rights"),
        (StepsStopped("stopped"), "stopped"),
        (TimeoutError(), "Redis does not answer"),
    ],
)
async def test_a_hand_that_stays_is_logged(
    notes: Notes, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    await its_cell(notes, return_hand=notes.of("return hand", error)).stop()
    assert caplog.messages == [STAYS]
    assert (vars(caplog.records[0])["cell"], vars(caplog.records[0])["error"]) == ("C", said)


async def test_a_hand_is_not_waited_for_without_end(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(_: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(served_cell, "RETURN_HAND_WITHIN_S", 0.0)
    await its_cell(notes, return_hand=hang).stop()
    assert caplog.messages == [STAYS]
