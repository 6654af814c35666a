"""Turns: calls of a limited PBX wait before they are claimed."""

from __future__ import annotations

import asyncio
import time

from tests.unit.captured import CALL_ID
from tests.unit.parts import Parts, entry, parts
from tests.waiting import wait_until
from workers.pbx.turns import Turns


def waiters(turns: Turns, n: int) -> list[asyncio.Task[bool]]:
    return [asyncio.create_task(turns.take((f"c{i}", 1))) for i in range(n)]


def done(tasks: list[asyncio.Task[bool]]) -> int:
    return sum(task.done() for task in tasks)


async def test_without_a_limit_no_call_waits() -> None:
    turns = Turns()
    tasks = waiters(turns, 50)
    await asyncio.gather(*tasks)
    assert len(turns) == 0


async def test_a_burst_gets_turns_at_the_limit() -> None:
    turns = Turns(rate=20)
    began = time.monotonic()
    tasks = waiters(turns, 10)
    await asyncio.gather(*tasks)
    assert time.monotonic() - began >= (10 - 4) / 20
    assert len(turns) == 0


async def test_a_call_that_must_wait_costs_nothing() -> None:
    turns = Turns(rate=0.01)
    tasks = waiters(turns, 3)
    await wait_until(lambda: len(turns) == 1, "two had their turn")
    timer = turns._timer
    tasks += waiters(turns, 9)
    await wait_until(lambda: len(turns) >= 7, "more wait")
    assert turns._timer is timer, "nobody looked at all that wait"
    turns.open()
    await asyncio.gather(*tasks)


async def test_turns_come_in_the_order_of_the_calls() -> None:
    turns, order = Turns(rate=100), []

    async def call(i: int) -> None:
        await turns.take((f"c{i}", 1))
        order.append(i)

    await asyncio.gather(*(call(i) for i in range(30)))
    assert order == list(range(30))


async def test_the_same_call_waits_only_once() -> None:
    turns = Turns(rate=0.01)
    tasks = waiters(turns, 3)
    await wait_until(lambda: len(turns) == 1, "two had their turn")
    assert await turns.take(("c2", 1)) is False
    assert [key in turns for key in (("c0", 1), ("c2", 1), ("c2", 2))] == [False, True, False]
    again = asyncio.create_task(turns.take(("c2", 2)))  # moved away and back
    await wait_until(lambda: len(turns) == 2, "another epoch waits too")
    turns.open()
    assert await asyncio.gather(*tasks, again) == [True] * 4


async def test_a_higher_limit_gives_turns_earlier() -> None:
    turns = Turns(rate=0.01)
    tasks = waiters(turns, 10)
    await wait_until(lambda: done(tasks) == 2, "the burst had its turn")
    turns.limit(1000)
    await wait_until(lambda: done(tasks) == 10, "all had their turn")


async def test_without_a_limit_any_longer_all_go() -> None:
    turns = Turns(rate=0.01)
    tasks = waiters(turns, 10)
    await wait_until(lambda: done(tasks) == 2, "the burst had its turn")
    turns.limit(None)
    await asyncio.gather(*tasks)


async def test_a_stopping_worker_lets_nobody_wait() -> None:
    turns = Turns(rate=0.01)
    tasks = waiters(turns, 10)
    await wait_until(lambda: len(turns) == 8, "the others wait")
    turns.open()
    await asyncio.gather(*tasks)
    turns.limit(0.01)
    assert await turns.take(("late", 1)) is True


async def test_a_cancelled_call_takes_no_turn() -> None:
    turns = Turns(rate=0.01)
    tasks = waiters(turns, 4)
    await wait_until(lambda: len(turns) == 2, "two wait")
    tasks[2].cancel()
    await wait_until(lambda: len(turns) == 1, "one waits")
    turns.limit(None)
    assert await tasks[3] is True
    assert tasks[2].cancelled()


# --- in the originator -----------------------------------------------------------------


async def waits_to_be_dialed() -> tuple[Parts, asyncio.Task[None]]:
    """A call that waits for its turn, and its dialing."""
    made = parts()
    made.written.to_claim = entry()
    turns = made.governor.turns
    turns.limit(0.01)
    await asyncio.gather(*waiters(turns, 2))
    dialing = asyncio.create_task(made.originator.dial(CALL_ID, 1))
    await wait_until(lambda: len(turns) == 1, "it waits")
    return made, dialing


async def test_a_call_without_a_turn_is_not_claimed() -> None:
    made, dialing = await waits_to_be_dialed()
    await made.originator.dial(CALL_ID, 1)  # a second nudge of it
    assert (made.written.claims, made.asterisk.sent) == ([], [])
    made.governor.turns.limit(None)
    await dialing
    assert made.written.claims == [(CALL_ID, 1)]
    assert len(made.asterisk.sent) == 1


async def test_a_call_that_waited_is_not_dialed_at_the_stop() -> None:
    made, dialing = await waits_to_be_dialed()
    made.state.is_stopping = True
    made.governor.turns.open()
    await dialing
    assert (made.written.claims, made.asterisk.sent) == ([], [])
