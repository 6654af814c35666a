"""Background work of a worker: what fails is logged, and the stop waits for the rest."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from workers.calls.journal import Journal


async def test_background_work_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError("a fault")

    journal = Journal("pbx01")
    journal.start(fails())
    journal.start(asyncio.sleep(0))
    journal.start(asyncio.sleep(60)).cancel()
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

        async def step(replies: list[Exception | None] = replies) -> None:
            if (error := replies.pop(0)) is not None:
                raise error

        await journal.write("ASR_TIM", "end", step)
    assert [vars(record)["step"] for record in caplog.records] == ["end", "end"]


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
