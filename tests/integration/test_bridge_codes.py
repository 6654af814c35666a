"""CODLIGACAO through the running bridge: delivered, late, twice, for nobody, unreadable."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.integration.cell_rig import BRIDGE, CELL, Bridge, Site, code_element
from tests.unit.hostile_requests import hostile_codes
from tests.waiting import wait_until


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        yield site


async def has_dead(site: Site, n: int) -> bool:
    return len(await site.dead()) >= n


async def code_of(site: Site, name: str = "r-1") -> str | None:
    return await site.field(name, "code")


async def test_code_comes_back_in_the_response_as_it_came(
    site: Site,
) -> None:
    await site.accepted()
    async with Bridge.of(site).running():
        await site.push_codes(b'{ "CodLigacao" : 007e, "IdRequisicao" : "r-1" }')
        await site.push_codes(b'{ "CodLigacao" : 12345678901234567890, "IdRequisicao" : "r-1" }')
        await wait_until(lambda: code_of(site), "the code is stored")
        await wait_until(site.dead, "the other one is dead")
        assert await site.counters() == (1, 0)
        await site.end()
    (raw,) = await site.listed(site.ledger.wire.response)
    assert b'"CodLigacao":12345678901234567890,' in raw
    assert [d["reason"] for d in await site.dead()] == ["invalid_code"]


async def test_a_code_before_the_ack_is_kept(site: Site) -> None:
    await site.admitted()
    async with Bridge.of(site).running():
        await site.push_codes(code_element())
        await wait_until(lambda: code_of(site), "the code is stored")
    assert await site.state() == "queued"


async def test_a_code_for_nobody_is_an_orphan(site: Site) -> None:
    async with Bridge.of(site).running():
        await site.push_codes(code_element("nobody"))
        await wait_until(site.dead, "the orphan is dead")
    (dead,) = await site.dead()
    assert (dead["reason"], dead["source"]) == ("orphan_code", "code")
    assert json.loads(dead["raw"])["IdRequisicao"] == "nobody"


async def test_a_code_after_the_end_is_an_orphan(site: Site) -> None:
    await site.admitted()
    await site.end()
    async with Bridge.of(site).running():
        await site.push_codes(code_element())
        await wait_until(site.dead, "the orphan is dead")
    assert [d["reason"] for d in await site.dead()] == ["orphan_code"]
    assert len(await site.responses()) == 1


async def test_second_code_for_a_call_goes_to_the_dead_list(site: Site) -> None:
    await site.accepted()
    async with Bridge.of(site).running():
        await site.push_codes(code_element(), code_element(), code_element(code=2))
        await wait_until(lambda: has_dead(site, 2), "both repeats are dead")
    assert [d["reason"] for d in await site.dead()] == ["duplicate_code"] * 2
    assert await code_of(site) == '"C-1"'


async def test_an_ended_call_is_answered_when_its_code_comes(site: Site) -> None:
    await site.accepted()
    await site.end()
    async with Bridge.of(site).running():
        await site.push_codes(code_element())
        await wait_until(site.responses, "the Response")
    assert [r["CodLigacao"] for r in await site.responses()] == ["C-1"]


async def test_ended_call_without_its_code_is_answered(site: Site) -> None:
    await site.accepted(wait_s=0.1)
    await site.end()
    async with Bridge.of(site).running():
        await wait_until(site.responses, "the Response")
    assert [r["CodLigacao"] for r in await site.responses()] == [None]
    assert await site.counters() == (0, 0)


async def test_hostile_codes_are_buried_and_the_next_one_arrives(
    site: Site,
) -> None:
    hostile = hostile_codes(5, 200)
    await site.accepted()
    async with Bridge.of(site).running():
        await site.push_codes(*(e.raw for e in hostile), code_element())
        await wait_until(lambda: code_of(site), "the good code")
        await wait_until(lambda: has_dead(site, len(hostile)), "all are dead")
    assert sorted(d["reason"] for d in await site.dead()) == sorted(e.expect for e in hostile)
    assert await site.ledger.code_hand(BRIDGE) == []
    assert await site.ledger.live() == [f"{CELL}:r-1"]


async def test_codes_in_hand_of_a_dead_bridge_are_delivered(site: Site) -> None:
    await site.accepted()
    await site.ledger.take_over("bridge-0")
    await site.redis.rpush(site.ledger.keys.code_hand("bridge-0"), code_element())
    await site.redis.zincrby(site.ledger.keys.bridges, -11_000, "bridge-0")
    async with Bridge.of(site).running():
        await wait_until(lambda: code_of(site), "the code is stored")
