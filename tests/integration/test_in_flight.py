"""Calls in flight as a page shows them, read from a real ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dialer.domain.call import State
from dialer.store.ledger import LedgerReads
from tests.integration.cell_rig import CELL, Site, code_element


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


def reads(site: Site) -> LedgerReads:
    return LedgerReads(site.steps, CELL)


async def aged(site: Site, name: str, ms: int) -> None:
    await site.redis.zadd(site.ledger.keys.live, {f"{CELL}:{name}": ms})


async def test_the_newest_calls_come_first(site: Site) -> None:
    for n in range(5):
        await site.admitted(f"r-{n}")
        await aged(site, f"r-{n}", n)
    found = await reads(site).in_flight(3)
    assert [one.call_id for one in found] == [f"{CELL}:r-{n}" for n in (4, 3, 2)]
    assert {(one.state, one.pbx) for one in found} == {(State.QUEUED, "pbx01")}
    assert {one.number for one in found} == {"5511987654321"}
    assert len(await reads(site).in_flight(100)) == 5


async def test_more_calls_than_one_slice_are_read(site: Site) -> None:
    for n in range(130):
        await site.admitted(f"r-{n}")
    assert len(await reads(site).in_flight(125)) == 125


async def test_a_done_call_is_not_in_flight(site: Site) -> None:
    await site.accepted("r-1")
    assert await reads(site).number(f"{CELL}:r-1") == "5511987654321"
    (now,) = await reads(site).in_flight(9)
    assert (now.state, now.since) == (State.ACCEPTED, now.admitted_at)  # the test's clock is behind
    await site.code(code_element("r-1"))
    await site.end("r-1")
    assert await reads(site).in_flight(9) == []
    assert await reads(site).flights([f"{CELL}:r-1"]) == []
    assert await reads(site).number(f"{CELL}:r-1") == ""


async def test_garbage_in_the_ledger_hides_no_call(site: Site) -> None:
    await site.admitted("good")
    await aged(site, "good", 1)
    keys = site.ledger.keys
    names = {"other:r-1": 8.0, f"{CELL}:none": float("inf"), f"{CELL}:string": 7.0}
    await site.redis.zadd(keys.live, {b"\xff": 9.0})
    await site.redis.zadd(keys.live, {**names, f"{CELL}:hash": 6.0})
    await site.redis.set(keys.call(f"{CELL}:string"), "x")
    await site.redis.hset(keys.call(f"{CELL}:hash"), mapping={"state": b"\xff", "request": b"["})
    found = await reads(site).in_flight(9)
    assert [one.call_id for one in found] == [
        f"{CELL}:{name}" for name in ("none", "string", "hash", "good")
    ]
    assert [one.state for one in found] == [None, None, None, State.QUEUED]
