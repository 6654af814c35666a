"""A background task of the bridge that ends unexpectedly ends the process, with a reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from dialer.bridge.cells import Served
from dialer.bridge.codes import Codes
from dialer.bridge.recovery import Recovery
from dialer.errors import TaskEnded
from tests.integration.cell_rig import Site
from tests.integration.test_bridge_served import plan, serving_of
from tests.waiting import wait_until


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def fails(self: object) -> None:
    raise ZeroDivisionError("a defect of ours")


async def returns(self: object) -> None:
    return


async def is_cancelled(self: object) -> None:
    raise asyncio.CancelledError


async def ended(served: Served) -> BaseException:
    await wait_until(served.failure.done, "the failure is known")
    error = served.failure.exception()
    assert error is not None
    served.failure = asyncio.get_running_loop().create_future()
    return error


@pytest.mark.parametrize(
    ("end", "expected"),
    [(fails, "a defect"), (returns, "it returned"), (is_cancelled, "it was cancelled")],
)
async def test_ended_task_is_a_failure_however_it_ends(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: object,
    expected: str,
) -> None:
    monkeypatch.setattr(Codes, "run_late", end)
    async with serving_of(site, plan(site.url, draining=False)) as served:
        await served.start(print)
        assert expected in str(await ended(served))
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert record.__dict__["task"] == "late codes"
    assert expected in record.__dict__["reason"]


async def test_task_cancelled_by_somebody_else_is_a_failure(site: Site) -> None:
    async with serving_of(site, plan(site.url, draining=False)) as served:
        await served.start(print)
        served.cells[0].tasks[0].cancel()
        assert isinstance(await ended(served), TaskEnded)


async def test_stop_is_no_failure(site: Site) -> None:
    async with serving_of(site, plan(site.url, draining=False)) as served:
        await served.start(print)
    assert not served.failure.done()


async def test_failed_takeover_fails_the_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recovery, "take_over", fails)
    async with serving_of(site, plan(site.url, draining=False)) as served:
        with pytest.raises(ZeroDivisionError):
            await served.start(print)


async def test_refused_takeover_is_left_to_the_heartbeat(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.redis.set(site.ledger.keys.bridges, "not a sorted set")
    async with serving_of(site, plan(site.url, draining=False)) as served:
        await served.start(print)
        await site.redis.delete(site.ledger.keys.bridges)
    parts = {getattr(r, "part", None) for r in caplog.records}
    assert "takeover" in parts
