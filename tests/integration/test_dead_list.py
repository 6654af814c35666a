"""The dead list: bounded, its losses counted, and nothing leaves a hand before it is there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from dialer.store.ledger import Delivery
from tests.integration.cell_rig import BRIDGE, Site, code_element

MOST = 100_000
WARNING = "Dead list full; its oldest entries are dropped"

Push = Callable[[Site], Awaitable[object]]


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def fill(site: Site, n: int = MOST) -> None:
    """Push entries "1" to "n" to the dead list."""
    text = "for i = 1, ARGV[1] do redis.call('RPUSH', KEYS[1], i) end"
    await site.redis.eval(text, 1, site.ledger.keys.dead, n)


async def bury_code(site: Site, entry: str = '"new"') -> None:
    await site.redis.rpush(site.ledger.keys.code_hand(BRIDGE), b"c")
    assert await site.ledger.bury(site.ledger.keys.code_hand(BRIDGE), b"c", entry)


async def bury_request(site: Site, entry: str = '"new"') -> None:
    await site.in_hand(b"r")
    assert await site.ledger.bury(site.ledger.keys.hand(BRIDGE), b"r", entry)


async def refuse(site: Site, entry: str = '"new"') -> None:
    await site.in_hand(b"r")
    assert await site.ledger.refuse(
        site.ledger.keys.hand(BRIDGE), b"r", request_id=None, dead=entry
    )


async def bury_call(site: Site, entry: str = '"new"') -> None:
    name = f"r-{await site.ledger.calls()}"
    await site.admitted(name)
    await site.ledger.bury_call(f"{site.cell}:{name}", entry)


@pytest.mark.parametrize("push", [bury_code, bury_request, refuse])
async def test_full_dead_list_drops_its_oldest_entries(site: Site, push: Push) -> None:
    await fill(site, MOST - 1)
    await push(site)
    assert not await site.redis.exists(site.ledger.keys.dropped), "it is full, and lost nothing"
    await push(site)
    await push(site)
    counts = (await site.surveyed()).counts
    assert (counts.dead, counts.dropped) == (MOST, 2)
    dead = site.ledger.keys.dead
    assert await site.redis.lrange(dead, 0, 0) == [b"3"]
    assert await site.redis.lrange(dead, -4, -1) == [b"99999", b'"new"', b'"new"', b'"new"']


@pytest.mark.parametrize("push", [bury_code, refuse, bury_call])
async def test_full_dead_list_is_warned_of_once_per_cell(
    redis_url: str, caplog: pytest.LogCaptureFixture, push: Push
) -> None:
    caplog.set_level(logging.WARNING)
    for cell in (f"{push.__name__}-1", f"{push.__name__}-2"):
        async with Site(redis_url, cell=cell) as site:
            await push(site)
            assert not any(getattr(record, "cell", "") == cell for record in caplog.records)
            await fill(site)
            for _ in range(3):
                await push(site)
    warned = [record for record in caplog.records if record.getMessage().startswith(WARNING)]
    assert [record.__dict__["cell"] for record in warned] == [
        f"{push.__name__}-1",
        f"{push.__name__}-2",
    ]


async def test_refused_code_stays_in_hand_until_buried(site: Site) -> None:
    orphan, second = code_element("nobody"), code_element("r-1", 2)
    await site.accepted("r-1")
    await site.code(code_element("r-1"))
    await site.redis.rpush(site.ledger.keys.code_hand(BRIDGE), orphan, second)
    for _ in range(2):  # a repeat, or another bridge that took the hand over
        assert await deliver(site, "nobody", orphan) is Delivery.ORPHAN
        assert await deliver(site, "r-1", second) is Delivery.SECOND
    assert await site.ledger.code_hand(BRIDGE) == [orphan, second]
    assert await site.dead() == []
    for raw, entry in ((orphan, '"orphan"'), (second, '"second"')):
        assert await site.ledger.bury(site.ledger.keys.code_hand(BRIDGE), raw, entry)
        assert not await site.ledger.bury(
            site.ledger.keys.code_hand(BRIDGE), raw, entry
        )  # its reply was lost
    assert await site.dead() == ["orphan", "second"]
    assert await deliver(site, "nobody", orphan) is Delivery.GONE


async def deliver(site: Site, request_id: str, raw: bytes) -> Delivery:
    return await site.ledger.code(
        BRIDGE, raw, call_id=f"{site.cell}:{request_id}", code_json='"C-2"'
    )
