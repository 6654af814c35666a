"""Background work of a worker: what fails is logged, and the stop waits for the rest."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from dialer.errors import Fenced
from dialer.store.client import cancel
from tests.waiting import wait_until
from workers.calls.journal import Journal


async def test_background_work_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError("a fault")

    async def is_fenced() -> None:
        raise Fenced("a newer worker")

    journal = Journal("pbx01")
    journal.start(fails())
    journal.start(asyncio.sleep(0))
    journal.start(asyncio.sleep(60)).cancel()
    journal.start(is_fenced())  # the worker ends, and says why
    await journal.wait_done()
    (record,) = caplog.records
    assert record.getMessage() == "Background work failed"
    assert record.exc_info is not None
    assert vars(record)["pbx"] == "pbx01"


async def test_a_step_refused_after_it_succeeded_is_logged_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal("pbx01", refused_pause_s=0.0)
    for _ in range(2):
        replies: list[Exception | None] = [ResponseError("NOPERM"), ResponseError("NOPERM"), None]

        async def step(replies: list[Exception | None] = replies) -> str:
            if (error := replies.pop(0)) is not None:
                raise error
            return "done"

        assert await journal.write("ASR_TIM", "end", step) == "done"
    assert [vars(record)["step"] for record in caplog.records] == ["end", "end"]


async def test_each_refused_step_is_logged_for_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refused() -> None:
        raise ResponseError("NOPERM")

    journal = Journal("pbx01", refused_pause_s=0.0)
    for cell, step in (("ASR_TIM", "end"), ("ASR_TIM", "accept"), ("ASR_OI", "end")):
        journal.write(cell, step, refused)
        journal.write(cell, step, refused)
    await wait_until(lambda: len(caplog.records) >= 3, "three records")
    await cancel(list(journal._tasks))
    assert {(vars(r)["cell"], vars(r)["step"]) for r in caplog.records} == {
        ("ASR_TIM", "end"), ("ASR_TIM", "accept"), ("ASR_OI", "end"),
    }  # fmt: skip
    assert len(caplog.records) == 3


async def test_a_refused_step_is_tried_again_after_a_pause() -> None:
    tried: list[str] = []

    async def refused() -> None:
        tried.append("once")
        raise ResponseError("NOPERM")

    journal = Journal("pbx01", refused_pause_s=3_600)
    task = journal.write("ASR_TIM", "end", refused)
    for _ in range(10):
        await asyncio.sleep(0)
    assert tried == ["once"]
    await cancel([task])


async def test_the_end_of_the_work_includes_what_it_began() -> None:
    journal, done = Journal("pbx01"), asyncio.Event()

    async def second() -> None:
        await asyncio.sleep(0)
        done.set()

    async def first() -> None:
        await asyncio.sleep(0)
        journal.start(second())

    journal.start(first())
    async with asyncio.timeout(5):
        await journal.wait_done()
    assert done.is_set()
