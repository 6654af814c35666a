"""What a step replies and leaves alone, also where no method of the ledger tells the difference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from dialer.multcall.request import parse_request
from dialer.store.keys import DONE_RETENTION_S, IDLE_RETENTION_S
from dialer.store.ledger import Admissible, Admission, Delivery
from dialer.store.ledger.bridge import BRIDGE_DEAD_AFTER_S
from tests.integration.cell_rig import BRIDGE, BUSY, CELL, T0, Site, element
from tests.waiting import wait_until

R1 = f"{CELL}:r-1"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


# --- elements and calls that are not there ------------------------------------------------


async def test_an_element_that_is_gone_is_not_buried(site: Site) -> None:
    keys = site.ledger.keys
    names = [keys.hand(BRIDGE), keys.dead, keys.dropped]
    assert await site.steps.run("bury", names, [b"gone", "{}"]) == -1
    await site.in_hand(b"here")
    assert await site.steps.run("bury", names, [b"here", "{}"]) == 0


async def test_a_call_is_buried_once_and_then_drops_nothing(site: Site) -> None:
    keys = site.ledger.keys
    names = [keys.call(R1), keys.dead, keys.dropped]
    await site.admitted()
    for _ in range(2):
        assert await site.steps.run("bury_call", names, ["{}"]) == 0
    assert await site.dead() == [{}]


async def test_a_refusal_tells_what_it_found_and_dropped(site: Site) -> None:
    keys, raw = site.ledger.keys, element()
    names = [
        keys.hand(BRIDGE), keys.call(R1), keys.dead, site.ledger.wire.response, keys.dropped,
    ]  # fmt: skip

    async def refuse(dead: str) -> Any:
        more = ("RPUSH", DONE_RETENTION_S, "INVALID_REQUEST")
        return await site.steps.run("refuse", names, [raw, dead, "{}", *more])

    assert await refuse("") == [b"gone", 0]
    await site.in_hand(raw)
    assert await refuse("") == [b"refused", 0]
    assert await refuse("") == [b"gone", 0]
    await site.in_hand(raw)
    assert await refuse("") == [b"duplicate", 0]
    await site.redis.delete(keys.call(R1))
    assert await refuse("{}") == [b"refused", 0]


async def test_an_element_without_an_id_gets_no_response(site: Site) -> None:
    await site.in_hand(b"odd")
    hand = site.ledger.keys.hand(BRIDGE)
    await site.ledger.refuse(hand, b"odd", request_id=None, response="{}")
    assert await site.snapshot() == {}


async def test_a_call_that_is_gone_or_sound_is_not_mended(site: Site) -> None:
    keys = site.ledger.keys
    names, args = [keys.call(R1), keys.live], [R1, " queued ", "originating"]
    assert await site.steps.run("mend", names, args) == 0
    await site.admitted()
    assert await site.steps.run("mend", names, args) == 0
    await site.redis.hdel(keys.call(R1), "state", "epoch")
    assert await site.steps.run("mend", names, args) == 1, "its new epoch"


async def test_a_code_that_is_not_in_hand_is_gone(site: Site) -> None:
    await site.accepted()
    before = await site.snapshot()
    assert await site.code(put=False) is Delivery.GONE
    assert await site.snapshot() == before


async def test_a_late_code_of_a_call_that_is_gone_writes_none(site: Site) -> None:
    assert await site.ledger.late_codes() == []
    assert await site.snapshot() == {}
    await site.redis.zadd(site.ledger.keys.awaiting, {R1: 1})
    assert await site.ledger.late_codes() == [R1]
    assert await site.snapshot() == {site.ledger.wire.counter_ack.encode(): b"0"}


# --- admitting, and calls that are due ----------------------------------------------------


async def test_without_a_limit_no_call_to_a_number_is_counted(site: Site) -> None:
    await site.in_hand(element())
    request = parse_request(element(), cell=CELL)
    one = Admissible(
        source=site.ledger.keys.hand(BRIDGE), raw=element(), request=request, number_window_s=60
    )
    reply = await site.ledger.admit(one, pbx="pbx01", threads=1)
    assert reply is Admission.ADMITTED
    assert not await site.redis.exists(site.ledger.keys.number(request.number))


async def test_an_admission_is_repeated_by_its_token_only(site: Site) -> None:
    keys, raw = site.ledger.keys, element()
    await site.in_hand(raw)
    names = [
        keys.hand(BRIDGE), keys.call(R1), keys.live, keys.queued, keys.number("5511987654321"),
        site.ledger.wire.counter,
    ]  # fmt: skip

    async def admit(token: str) -> Any:
        return await site.steps.run("admit", names, [1, raw, R1, "pbx01", "", "", token, raw, 0, 0])

    assert await admit("mine") == b"admitted"
    before = await site.snapshot()
    assert await admit("mine") == b"admitted", "its reply was lost"
    assert await admit("other") == b"gone"
    assert await site.snapshot() == before


async def due(site: Site, **query: Any) -> list[list[str]]:
    """The calls of each slice."""
    slices = site.ledger.due(**{"older_than_s": 0, **query})
    return [[waiting.call_id.partition(":")[2] for waiting in one] async for one in slices]


async def test_no_more_calls_are_due_than_asked_for(site: Site) -> None:
    assert await due(site) == []
    for name in ("r-1", "r-2", "r-3", "r-4"):
        await site.admitted(name)
    async with asyncio.timeout(5):
        assert await due(site, at_most=1) == [["r-1"]]
        assert await due(site, at_most=2) == [["r-2", "r-3"]]
        assert await due(site, at_most=0) == []


@pytest.mark.parametrize("odd", [{"state": "odd"}, {"epoch": "x"}, {"epoch": ""}])
async def test_a_call_with_an_odd_entry_is_not_due(site: Site, odd: Any) -> None:
    for name in ("r-1", "r-2"):
        await site.admitted(name)
    await site.redis.hset(site.ledger.keys.call(R1), mapping=odd)
    assert await due(site) == [["r-2"]]


async def test_the_first_queued_call_of_each_asked_pbx_is_told(site: Site) -> None:
    for name, pbx in (("a", "pbx02"), ("b", "pbx01"), ("c", "pbx01"), ("d", "pbx03")):
        await site.admitted(name, pbx=pbx)
    assert await site.ledger.first_queued(["pbx01", "pbx02"]) == {
        "pbx01": f"{CELL}:b",
        "pbx02": f"{CELL}:a",
    }


async def test_a_call_is_due_once_in_a_round_of_many(site: Site) -> None:
    names = [f"r-{n}" for n in range(60)]
    for name in names:
        await site.admitted(name)
    async with asyncio.timeout(10):
        found = [name for part in await due(site) for name in part]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize("is_recovered", [False, True])
async def test_a_response_tells_when_the_call_was_answered(
    site: Site, *, is_recovered: bool
) -> None:
    entry, at = await site.accepted(), T0 + timedelta(seconds=7)
    await site.code()
    ending = replace(BUSY, answered_at=at if is_recovered else None)
    call = entry.call if is_recovered else replace(entry.call, answered_at=at)
    assert await site.ledger.end(call, entry.request, ending) == "done"
    (response,) = await site.responses()
    assert datetime.fromisoformat(response["AtendidaEm"]) == at


# --- the bridges --------------------------------------------------------------------------


async def test_a_stopped_bridge_counts_as_dead_since_just_now(site: Site) -> None:
    bridges = site.ledger.keys.bridges
    await site.ledger.return_hand(BRIDGE)
    now_s, _ = await site.redis.time()
    silent_s = now_s - (await site.redis.zscore(bridges, BRIDGE) or 0) / 1000
    assert BRIDGE_DEAD_AFTER_S - 1 < silent_s < BRIDGE_DEAD_AFTER_S + 8


async def test_a_dead_bridge_keeps_no_parked_request(site: Site) -> None:
    keys = site.ledger.keys
    now_s, _ = await site.redis.time()
    await site.redis.zadd(keys.bridges, {"dead": (now_s - BRIDGE_DEAD_AFTER_S - 1) * 1000})
    await site.redis.sadd(keys.parking, "tim")
    await site.redis.rpush(keys.parked("tim"), b"1")
    assert await site.ledger.return_parked(BRIDGE) == 1
    assert await site.listed(site.ledger.wire.request) == [b"1"]


@pytest.mark.parametrize("step", ["fetch", "fetch_codes"])
async def test_a_forgotten_bridge_is_registered_by_its_fetch(site: Site, step: str) -> None:
    bridges = site.ledger.keys.bridges

    async def fetch() -> None:
        if step == "fetch":
            await site.ledger.fetch(BRIDGE, at_most=1, threads=1)
        else:
            await site.ledger.fetch_codes(BRIDGE, at_most=1)

    await fetch()
    assert IDLE_RETENTION_S - 60 < await site.redis.ttl(bridges) <= IDLE_RETENTION_S
    await site.redis.zadd(bridges, {BRIDGE: 1})
    await site.redis.expire(bridges, 1_000)
    await fetch()
    assert await site.redis.zscore(bridges, BRIDGE) == 1, "a fetch is no heartbeat"
    assert await site.redis.ttl(bridges) <= 1_000


async def test_a_trunk_without_parked_requests_is_forgotten(site: Site) -> None:
    keys = site.ledger.keys
    await site.redis.sadd(keys.parking, "oi", "tim")
    await site.redis.rpush(keys.parked("tim"), b"1")
    fetched = await site.ledger.fetch(BRIDGE, at_most=0, threads=0)
    assert fetched.parked == {"tim": 1}
    assert await site.redis.smembers(keys.parking) == {b"tim"}


async def test_a_step_tells_the_time_of_its_redis(site: Site) -> None:
    async def is_in_its_second_half() -> bool:
        return bool((await site.redis.time())[1] > 500_000)

    await wait_until(is_in_its_second_half, "the second half of a second")
    before = await site.redis.time()
    await site.ledger.take_over(BRIDGE)
    after = await site.redis.time()
    seen_ms: Any = await site.redis.zscore(site.ledger.keys.bridges, BRIDGE)
    assert before[0] * 1000 + before[1] // 1000 <= seen_ms <= after[0] * 1000 + after[1] // 1000
