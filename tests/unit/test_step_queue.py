"""Which steps may be written, in which order, and which are forgotten."""

from __future__ import annotations

import asyncio

import pytest

from dialer.store.step_queue import Step, StepQueue

ERROR = ValueError("refused")


def step(name: str = "claim", call: str = "") -> Step:
    return Step(name, tuple(call), name.encode(), asyncio.get_running_loop().create_future())


def queue_of(*steps: Step) -> StepQueue:
    queue = StepQueue()
    for one in steps:
        queue.add(one)
    return queue


def take(queue: StepQueue, n: int = 100) -> list[Step]:
    steps = queue.first(n)
    queue.remove_first(len(steps))
    return steps


async def test_steps_leave_in_the_order_they_came() -> None:
    steps = [step(), step(call="a"), step(), step(call="b")]
    queue = queue_of(*steps)
    assert queue.first(2) == steps[:2]
    assert take(queue, 3) == steps[:3]
    assert queue
    assert take(queue) == steps[3:]
    assert not queue


async def test_second_step_of_a_call_waits_until_the_first_is_finished() -> None:
    first, second, third, other = step(call="a"), step(call="a"), step(call="a"), step(call="b")
    queue = queue_of(first, second, third, other)
    assert take(queue) == [first, other]
    queue.finish(first, "one")
    assert first.done.result() == "one"
    assert take(queue) == [second]
    queue.finish(second, ERROR)
    with pytest.raises(ValueError, match="refused"):
        second.done.result()
    assert take(queue) == [third]
    queue.finish(third, None)
    queue.add(again := step(call="a"))
    assert take(queue) == [again]


async def test_call_stays_blocked_while_its_step_runs_again() -> None:
    first, second = step(call="a"), step(call="a")
    queue = queue_of(first, second)
    take(queue)
    queue.put_back([first])
    assert queue
    assert take(queue) == [first]
    queue.finish(first, 1)
    assert take(queue) == [second]


async def test_steps_that_run_again_come_before_new_ones_and_count() -> None:
    old, new = step(), step()
    queue = queue_of(old)
    take(queue)
    queue.add(new)
    queue.put_back([old])
    assert queue.first(2) == [old, new]
    assert queue.retries == 1
    assert take(queue, 1) == [old]
    queue.put_back([old])
    assert queue.retries == 1
    queue.finish(take(queue, 1)[0], 1)
    assert queue.retries == 0


async def test_reply_to_a_cancelled_caller_is_dropped() -> None:
    gone, next_one = step(call="a"), step(call="a")
    queue = queue_of(gone, next_one)
    take(queue)
    gone.done.cancel()
    queue.finish(gone, 1)
    assert take(queue) == [next_one]


async def test_one_abandoned_step_of_each_name_remains() -> None:
    beats, loads, waited_for = [step("beat") for _ in range(3)], step("loads"), step("beat")
    of_call = step("end", call="a")
    queue = queue_of(beats[0], beats[1])
    queue.put_back(take(queue))
    for one in (beats[2], loads, waited_for, of_call):
        queue.add(one)
    for one in (*beats, loads, of_call):
        one.done.cancel()
    queue.drop_abandoned()
    assert take(queue) == [beats[0], loads, waited_for, of_call]
    assert queue.retries == 1


async def test_a_timely_step_nobody_waits_for_is_not_run() -> None:
    refused, next_of_call = step("dead_send", call="a"), step("claim", call="a")
    unsent, wanted = step("change"), step("change")
    queue = queue_of(refused, next_of_call)
    queue.put_back(take(queue))
    queue.add(unsent)
    queue.add(wanted)
    refused.done.cancel()
    unsent.done.cancel()
    assert take(queue) == [wanted, next_of_call]
    assert queue.retries == 0
    queue.finish(wanted, 7)
    assert (wanted.done.result(), queue.timely) == (7, 0)


async def test_taking_all_returns_what_has_no_result() -> None:
    again, new, behind, gone = step(call="a"), step(), step(call="a"), step()
    queue = queue_of(again, behind)
    queue.put_back(take(queue))
    queue.add(new)
    queue.add(gone)
    gone.done.cancel()
    assert queue.take_all() == [again, new, behind]
    assert not queue
    queue.add(late := step(call="a"))
    assert take(queue) == [late]


async def test_step_of_many_calls_waits_for_each_of_them() -> None:
    of_a, of_b, many = step(call="a"), step(call="b"), step("admit_many", "abc")
    later_b, later_c, other = step(call="b"), step(call="c"), step(call="d")
    queue = queue_of(of_a, of_b, many, later_b, later_c, other)
    assert take(queue) == [of_a, of_b, other]
    queue.finish(of_b, 1)
    assert take(queue) == []
    queue.finish(of_a, 1)
    assert take(queue) == [many]
    queue.put_back([many])
    assert take(queue) == [many], "its calls stay blocked while it runs again"
    queue.finish(many, 1)
    assert take(queue) == [later_b, later_c]


async def test_a_step_behind_two_calls_is_taken_once() -> None:
    first, many = step(call="ab"), step(call="ab")
    queue = queue_of(first, many)
    assert queue.take_all() == [first, many]
