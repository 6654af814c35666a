"""The step `pulse` on a real server: what it finds in many cells, and what it costs."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.exceptions import RedisError

from dialer.store.keys import BRIDGE_FORGOTTEN_AFTER_S, LedgerKeys
from dialer.store.ledger import BRIDGE_DEAD_AFTER_S, Pulsed, pulse
from tests.integration.cell_rig import BRIDGE, CELL, Site

KEYS = LedgerKeys(CELL)
OTHERS = [LedgerKeys(f"OTHER{n}") for n in range(3)]


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def pulsed(site: Site, cells: Sequence[LedgerKeys] = (KEYS,)) -> list[Pulsed | RedisError]:
    return await pulse(site.steps, BRIDGE, cells, is_renewal=False)


async def only(site: Site) -> Pulsed:
    (found,) = await pulsed(site)
    assert isinstance(found, Pulsed)
    return found


async def silence(site: Site, bridge: str, *, seconds: float) -> None:
    """Make the last heartbeat of a bridge that old."""
    now_s, _ = await site.redis.time()
    await site.redis.zadd(KEYS.bridges, {bridge: int((now_s - seconds) * 1000)})


async def test_an_empty_cell_is_quiet(site: Site) -> None:
    found = await only(site)
    assert (found.is_quiet, found.can_take_over) == (True, False)
    assert (found.code_in_s, found.unclaimed_s) == (math.inf, -math.inf)
    assert await site.redis.zscore(KEYS.bridges, BRIDGE)
    assert await site.redis.ttl(KEYS.bridges) > 0


@pytest.mark.parametrize("key", [KEYS.hand(BRIDGE), KEYS.code_hand(BRIDGE)])
async def test_an_element_in_hand_is_something_to_do(site: Site, key: str) -> None:
    await site.redis.rpush(key, "element")
    assert not (await only(site)).is_quiet


async def test_a_parked_request_is_something_to_do(site: Site) -> None:
    await site.redis.sadd(KEYS.parking, "tim")
    assert not (await only(site)).is_quiet


@pytest.mark.parametrize("key", [KEYS.queued, KEYS.awaiting])
async def test_a_call_that_only_waits_is_something_to_do(site: Site, key: str) -> None:
    """As after damage from outside: it is not among the live ones."""
    await site.redis.zadd(key, {f"{CELL}:a": 1})
    assert not (await only(site)).is_quiet


async def test_a_pulse_tells_when_calls_and_codes_are_late(site: Site) -> None:
    await site.admitted("queued")
    found = await only(site)
    assert not found.is_quiet
    assert 0 <= found.unclaimed_s < 60
    assert found.code_in_s == math.inf
    await site.redis.zadd(KEYS.queued, {f"{CELL}:queued": 0})
    assert (await only(site)).unclaimed_s > 1e6, "due now"
    await site.accepted("accepted", wait_s=60)
    assert 0 < (await only(site)).code_in_s <= 60
    await site.redis.zadd(KEYS.awaiting, {f"{CELL}:accepted": 1})
    assert (await only(site)).code_in_s == 0


async def test_only_the_hand_of_a_dead_bridge_is_taken(site: Site) -> None:
    await silence(site, "dead", seconds=BRIDGE_DEAD_AFTER_S + 1)
    await silence(site, "living", seconds=BRIDGE_DEAD_AFTER_S - 5)
    await site.redis.rpush(KEYS.hand("living"), "element")
    assert not (await only(site)).can_take_over
    await site.redis.rpush(KEYS.code_hand("dead"), "code")
    assert (await only(site)).can_take_over
    await site.redis.delete(KEYS.code_hand("dead"))
    await site.redis.rpush(KEYS.hand("dead"), "element")
    assert (await only(site)).can_take_over


async def test_a_long_dead_bridge_is_to_be_forgotten(site: Site) -> None:
    await silence(site, "dead", seconds=BRIDGE_FORGOTTEN_AFTER_S + 60)
    assert (await only(site)).can_take_over
    await site.ledger.take_over(BRIDGE)
    assert not (await only(site)).can_take_over


async def test_a_garbage_key_stops_only_its_cell(site: Site) -> None:
    await site.redis.set(OTHERS[1].bridges, "garbage")
    one, broken, two = await pulsed(site, OTHERS)
    assert isinstance(one, Pulsed)
    assert isinstance(two, Pulsed)
    assert isinstance(broken, RedisError)
    assert "WRONGTYPE" in str(broken)


async def test_a_busy_cell_makes_no_other_busy(site: Site) -> None:
    await site.redis.rpush(OTHERS[1].hand(BRIDGE), "element")
    replies = [reply for reply in await pulsed(site, OTHERS) if isinstance(reply, Pulsed)]
    assert [reply.is_quiet for reply in replies] == [True, False, True]


async def test_an_idle_cell_costs_two_commands(site: Site) -> None:
    await pulsed(site, OTHERS)

    async def commands() -> int:
        stats = await site.redis.info("commandstats")
        return sum(stats[name]["calls"] for name in stats if name != "cmdstat_info")

    before = await commands()
    await pulsed(site, OTHERS)
    assert await commands() - before == 3 + 2 * len(OTHERS), "the step, the time, all keys"


async def test_a_refusal_that_is_no_fault_of_a_cell_fails_the_step(site: Site) -> None:
    await site.redis.acl_setuser("default", enabled=True, commands=["-exists"])
    try:
        with pytest.raises(RedisError, match="exists"):
            await pulsed(site, OTHERS)
    finally:
        await site.redis.acl_setuser("default", enabled=True, commands=["+exists"])


async def test_the_lifetime_of_the_heartbeats_is_renewed(site: Site) -> None:
    await pulsed(site)
    await site.redis.persist(KEYS.bridges)
    await pulsed(site)
    assert await site.redis.ttl(KEYS.bridges) == -1
    await pulse(site.steps, BRIDGE, [KEYS], is_renewal=True)
    assert await site.redis.ttl(KEYS.bridges) > 0


async def test_the_cells_with_slots_are_read_once(site: Site) -> None:
    registry = site.registry
    await site.redis.zadd("dialer:slots:pbx01", {"A:1": 1, "A:2": 1, "B:1:2": 1})
    assert await registry.cells_with_slots(["pbx01", "pbx02"], max_age_s=60) == {"A", "B"}
    await site.redis.zadd("dialer:slots:pbx02", {"C:1": 1})
    assert await registry.cells_with_slots(["pbx01", "pbx02"], max_age_s=60) == {"A", "B"}
    assert await registry.cells_with_slots(["pbx01", "pbx02"], max_age_s=0) == {"A", "B", "C"}
