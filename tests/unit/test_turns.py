"""Turns: calls of a limited PBX wait before they are claimed."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

import pytest

from tests.unit.captured import CALL_ID
from tests.unit.parts import Parts, entry, parts
from tests.waiting import wait_until
from workers.pbx import turns as turns_module
from workers.pbx.turns import Turns


@dataclass(slots=True)
class Room:
    """How many more calls Asterisk may get."""

    room: float = 0.0

    def __call__(self) -> float:
        return self.room


@pytest.fixture(autouse=True)
def turns_take_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a test may take longer than a turn takes room."""
    monkeypatch.setattr(turns_module, "TAKES_ROOM_S", 1000.0)


def turns_of(room: Room, cps: float = 1000) -> Turns:
    return Turns(cps, room)


def waiters(turns: Turns, n: int, at: int = 0) -> list[asyncio.Task[bool]]:
    return [asyncio.create_task(turns.take((f"c{at + i}", 1))) for i in range(n)]


def done(tasks: list[asyncio.Task[bool]]) -> int:
    return sum(task.done() for task in tasks)


async def test_while_there_is_room_no_call_waits() -> None:
    turns = turns_of(Room(math.inf), cps=1)
    await asyncio.gather(*waiters(turns, 50))
    assert len(turns) == 0


async def test_calls_wait_until_there_is_room() -> None:
    room = Room(3)
    turns = turns_of(room)
    tasks = waiters(turns, 5)
    await wait_until(lambda: len(turns) == 2, "three have their turn")
    turns.give()
    assert len(turns) == 2, "a turn takes room until it ends"
    room.room = 4
    turns.give()
    await wait_until(lambda: done(tasks) == 4, "one more has its turn")
    assert len(turns) == 1
    room.room = 5
    turns.give()
    await asyncio.gather(*tasks)


async def test_a_turn_that_lasts_too_long_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(Room(1))
    tasks = waiters(turns, 2)
    await tasks[0]
    turns.give()
    assert len(turns) == 1
    monkeypatch.setattr(turns_module, "TAKES_ROOM_S", -1.0)
    turns.give()
    await tasks[1]


async def test_a_call_that_has_a_turn_gets_no_other() -> None:
    turns = turns_of(Room(9))
    assert await turns.take(("c1", 1)) is True
    assert await turns.take(("c1", 1)) is False
    turns.end(("c1", 1))
    assert await turns.take(("c1", 1)) is True


async def test_a_turn_that_ends_lets_the_next_go() -> None:
    turns = turns_of(Room(1))
    tasks = waiters(turns, 3)
    for i in range(3):
        assert await tasks[i] is True
        assert done(tasks) == i + 1
        turns.end((f"c{i}", 1))


async def test_a_call_that_is_sent_lets_no_other_go() -> None:
    room = Room(1)
    turns = turns_of(room)
    tasks = waiters(turns, 2)
    await tasks[0]
    turns.end(("c0", 1))
    room.room = 0  # it was sent before anything else ran
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done(tasks) == 1
    turns.open()
    await tasks[1]


async def test_calls_that_waited_get_turns_at_cps() -> None:
    room = Room(0)
    turns = turns_of(room, cps=20)
    tasks = waiters(turns, 10)
    await wait_until(lambda: len(turns) == 10, "all wait")
    began = time.monotonic()
    room.room = math.inf
    turns.give()
    await asyncio.gather(*tasks)
    assert time.monotonic() - began >= (10 - 4) / 20
    assert len(turns) == 0


async def test_a_call_that_must_wait_costs_nothing() -> None:
    turns = turns_of(Room(2), cps=0.01)
    tasks = waiters(turns, 5)
    await wait_until(lambda: len(turns) == 3, "two had their turn")
    turns.room = Room(100)
    turns.give()
    await wait_until(lambda: len(turns) == 1, "four had their turn")
    timer = turns._timer
    tasks += waiters(turns, 9, at=5)
    await wait_until(lambda: len(turns) >= 7, "more wait")
    assert turns._timer is timer, "nobody looked at all that wait"
    turns.open()
    await asyncio.gather(*tasks)


async def test_turns_come_in_the_order_of_the_calls() -> None:
    turns, order = turns_of(Room(4)), []

    async def call(i: int) -> None:
        await turns.take((f"c{i}", 1))
        order.append(i)
        turns.end((f"c{i}", 1))

    await asyncio.gather(*(call(i) for i in range(30)))
    assert order == list(range(30))


async def test_the_same_call_waits_only_once() -> None:
    turns = turns_of(Room(2))
    tasks = waiters(turns, 3)
    await wait_until(lambda: len(turns) == 1, "two had their turn")
    assert await turns.take(("c2", 1)) is False
    assert [key in turns for key in (("c0", 1), ("c2", 1), ("c2", 2))] == [False, True, False]
    again = asyncio.create_task(turns.take(("c2", 2)))  # moved away and back
    await wait_until(lambda: len(turns) == 2, "another epoch waits too")
    turns.open()
    assert await asyncio.gather(*tasks, again) == [True] * 4


async def test_a_stopping_worker_lets_nobody_wait() -> None:
    turns = turns_of(Room(2), cps=0.01)
    tasks = waiters(turns, 10)
    await wait_until(lambda: len(turns) == 8, "the others wait")
    turns.open()
    await asyncio.gather(*tasks)
    assert await turns.take(("late", 1)) is True


@pytest.mark.parametrize("has_turn", [False, True])
async def test_a_cancelled_call_takes_no_turn(has_turn: bool) -> None:
    turns = turns_of(Room(2))
    tasks = waiters(turns, 4)
    await wait_until(lambda: len(turns) == 2, "two wait")
    if has_turn:
        turns.room = Room(3)
        turns.give()
    tasks[2].cancel()
    await wait_until(tasks[2].done, "it is cancelled")
    turns.room = Room(3)
    turns.give()
    assert await tasks[3] is True
    assert tasks[2].cancelled()


# --- in the originator -----------------------------------------------------------------


async def waits_to_be_dialed() -> tuple[Parts, asyncio.Task[None]]:
    """A call that waits for its turn, and its dialing."""
    made = parts()
    made.written.to_claim = entry()
    made.governor.turns.room = Room(0)
    dialing = asyncio.create_task(made.originator.dial(CALL_ID, 1))
    await wait_until(lambda: len(made.governor.turns) == 1, "it waits")
    return made, dialing


async def test_a_call_without_a_turn_is_not_claimed() -> None:
    made, dialing = await waits_to_be_dialed()
    await made.originator.dial(CALL_ID, 1)  # a second nudge of it
    assert (made.written.claims, made.asterisk.sent) == ([], [])
    made.governor.turns.room = Room(1)
    made.governor.turns.give()
    await dialing
    assert made.written.claims == [(CALL_ID, 1)]
    assert len(made.asterisk.sent) == 1


async def test_a_call_that_waited_is_not_dialed_at_the_stop() -> None:
    made, dialing = await waits_to_be_dialed()
    made.state.is_stopping = True
    made.governor.turns.open()
    await dialing
    assert (made.written.claims, made.asterisk.sent) == ([], [])
