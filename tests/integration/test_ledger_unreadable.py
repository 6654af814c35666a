"""Calls whose entry in the ledger cannot be read, among those that can."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dialer.domain.call import State
from dialer.store.entry import Entry
from tests.integration.cell_rig import CELL, T0, Bridge, Site, WholeLedger, pbx

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


async def remove(site: Site, key: str) -> None:
    await site.redis.delete(key)


def without(field: str) -> Any:
    async def lose(site: Site, key: str) -> None:
        await site.redis.hdel(key, field)

    return lose


def with_odd(field: str, value: bytes) -> Any:
    async def spoil(site: Site, key: str) -> None:
        await site.redis.hset(key, field, value)

    return spoil


DESTROYED: dict[str, Any] = {
    "no state": without("state"),
    "no epoch": without("epoch"),
    "odd state": with_odd("state", b"\xff odd"),
    "odd epoch": with_odd("epoch", b"-1.5"),
    "gone": remove,
}


@pytest.mark.parametrize("is_claimed", [False, True])
@pytest.mark.parametrize("way", DESTROYED)
async def test_a_destroyed_call_is_ended_and_buried(
    site: Site, way: str, *, is_claimed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if is_claimed:
        await site.claimed("r-1")
    await DESTROYED[way](site, site.ledger.keys.call(R1))
    bridge = Bridge.of(site, pbxs=(pbx(),))
    await bridge.reaper.reap()
    assert await site.responses() == []  # a replay may bring it back
    await bridge.reaper.reap()
    (response,) = await site.responses()
    assert (response["IdRequisicao"], response["Resultado"]) == ("r-1", "UNKNOWN")
    assert response["Erro"]["Codigo"] == "internal_error"
    assert "lost its state or epoch" in response["Erro"]["Mensagem"]
    (dead,) = await site.dead()
    assert (dead["source"], dead["reason"]) == ("request", "internal_error")
    assert await site.ledger.live() == [R2]
    assert await site.slots() == {"r-2"}
    assert await site.counters() == (1, 0)
    await bridge.reaper.reap()
    assert len(await site.responses()) == 1
    assert "A call's entry was destroyed; it is ended and goes to the dead list" in caplog.messages


async def test_a_call_of_another_type_stops_the_reaper_once(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=(pbx(),))
    await site.redis.delete(site.ledger.keys.call(R1))
    await site.redis.set(site.ledger.keys.call(R1), "another type")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await bridge.reaper.reap()
    await bridge.reaper.reap()
    assert [r["Resultado"] for r in await site.responses()] == ["UNKNOWN"]
    assert await site.ledger.live() == [R2]


async def test_an_entry_that_came_back_is_left_alone(site: Site) -> None:
    key = site.ledger.keys.call(R1)
    bridge = Bridge.of(site, pbxs=(pbx(),))
    await site.redis.hdel(key, "state")
    await bridge.reaper.reap()
    await site.redis.hset(key, "state", "queued")
    await bridge.reaper.reap()
    await bridge.recovery.end_destroyed([R1, R2, f"{CELL}:never-there"])
    assert await site.responses() == []
    assert await site.ledger.live() == [R1, R2]


async def test_nobody_dials_a_call_whose_entry_was_destroyed(site: Site) -> None:
    key = site.ledger.keys.call(R1)
    await site.redis.hset(key, "epoch", "7")
    await site.redis.hdel(key, "state")
    one = await site.ledger.mend(R1)
    assert one is not None
    assert (one.call.state, one.call.epoch, one.call.pbx) == (State.ORIGINATING, 8, "pbx01")
    for epoch in (1, 7, 8):
        claim = site.ledger.claim(R1, pbx="pbx01", epoch=epoch, at=T0, boot="b", token="u")
        assert await claim is None
    assert await site.ledger.mend(R1) is None


@pytest.mark.parametrize("errors", [[REFUSED], [ValueError("odd"), REFUSED]])
async def test_a_refusing_redis_makes_no_call_unreadable(
    site: Site, monkeypatch: pytest.MonkeyPatch, errors: list[Exception]
) -> None:
    left: list[Exception] = []

    async def entries(_ledger: WholeLedger, _ids: Sequence[str]) -> list[Entry]:
        raise left.pop(0)

    await site.claimed("r-1")
    monkeypatch.setattr(WholeLedger, "entries", entries)
    for read in (site.ledger.readable([R1, R2]), site.ledger.claimed("pbx01")):
        left = list(errors)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await read
        assert left == []


async def test_a_claimed_call_that_is_unreadable_hides_no_other(site: Site) -> None:
    for name in ("r-1", "r-2"):
        await site.claimed(name)
    await site.redis.hset(site.ledger.keys.call(R1), "code_state", "odd")
    assert [entry.call.call_id for entry in await site.ledger.claimed("pbx01")] == [R2]


async def test_an_unreadable_call_is_given_back_by_its_claim(site: Site) -> None:
    await site.redis.hset(site.ledger.keys.call(R1), "code_state", "odd")
    assert await site.claimed("r-1") is None
    assert (await site.state("r-1"), await site.field("r-1", "token")) == ("admitted", None)
    assert await site.state("r-2") == "queued"


async def test_a_worker_without_memory_gives_no_call_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_hash(*_: object) -> Entry:
        raise MemoryError

    monkeypatch.setattr(Entry, "from_hash", from_hash)
    with pytest.raises(MemoryError):
        await site.claimed("r-1")
    assert await site.state("r-1") == "originating"
