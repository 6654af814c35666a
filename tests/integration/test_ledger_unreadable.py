"""Calls whose entry in the ledger cannot be read, among those that can."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from redis.exceptions import ResponseError

from dialer.domain.call import State
from dialer.store.entry import Entry
from tests.integration.cell_rig import CELL, Site, WholeLedger

R1, R2 = f"{CELL}:r-1", f"{CELL}:r-2"
REFUSED = ResponseError("WRONGTYPE a key of another type")


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.admitted("r-1")
        await site.admitted("r-2")
        yield site


async def test_readable_calls_need_no_second_look(site: Site) -> None:
    entries, unreadable = await site.ledger.readable([R1, R2])
    assert [entry.call.call_id for entry in entries] == [R1, R2]
    assert unreadable == []


async def test_an_unreadable_call_does_not_hide_another(site: Site) -> None:
    await site.redis.hset(site.ledger.keys.call(R1), "code_state", "odd")
    entries, (one,) = await site.ledger.readable([R1, R2])
    assert [entry.call.call_id for entry in entries] == [R2]
    assert (one.call.call_id, one.call.state, one.call.epoch) == (R1, State.QUEUED, 1)
    assert one.call.pbx == "pbx01"
    assert isinstance(one.error, ValueError)


async def test_a_request_lost_in_the_meantime_is_empty(site: Site) -> None:
    await site.redis.hdel(site.ledger.keys.call(R1), "request")
    (one,) = await site.ledger._unreadable(R1, ValueError())
    assert one.raw == b""


async def test_an_unreadable_call_keeps_what_multcall_pushed(site: Site) -> None:
    key = site.ledger.keys.call(R1)
    await site.redis.hset(key, "request", b"{no json")
    await site.redis.hdel(key, "pbx")
    _, (one,) = await site.ledger.readable([R1])
    assert (one.raw, one.call.pbx) == (b"{no json", None)


@pytest.mark.parametrize("lost", ["state", "epoch"])
async def test_a_call_without_state_or_epoch_is_left_alone(site: Site, lost: str) -> None:
    await site.redis.hdel(site.ledger.keys.call(R1), lost)
    entries, unreadable = await site.ledger.readable([R1, R2])
    assert [entry.call.call_id for entry in entries] == [R2]
    assert unreadable == []


@pytest.mark.parametrize("errors", [[REFUSED], [ValueError("odd"), REFUSED]])
async def test_a_refusing_redis_makes_no_call_unreadable(
    site: Site, monkeypatch: pytest.MonkeyPatch, errors: list[Exception]
) -> None:
    left = list(errors)

    async def entries(_ledger: WholeLedger, _ids: Sequence[str]) -> list[Entry]:
        raise left.pop(0)

    monkeypatch.setattr(WholeLedger, "entries", entries)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await site.ledger.readable([R1, R2])
    assert left == []
