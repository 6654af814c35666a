"""Requests whose trunk has no room are parked: others overtake, order holds, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from dialer.bridge.parked import PAUSE_S, SLICE
from dialer.domain.room import Room
from dialer.store.entry import Entry
from tests.integration.cell_rig import BRIDGE, CELL, Bridge, Site, cell, element, pbx, task_of
from tests.waiting import wait_until

TIM, VIVO = frozenset({"tim"}), frozenset({"vivo"})
PBXS = (pbx("pbx01", trunks=TIM), pbx("pbx02", trunks=VIVO))
MANY = 1_000


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    """pbx01 is ready; the only PBX with trunk vivo is down."""
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02", "down")
        yield site


def bridge_of(site: Site, name: str = BRIDGE, threads: int = 50) -> Bridge:
    return Bridge.of(site, name=name, pbxs=PBXS, cell_table=cell("pbx01", "pbx02", threads=threads))


async def beats(site: Site, *names: str) -> None:
    """Keep PBXs ready, as their workers do."""
    while True:
        for name in names:
            await site.beat(name)
        await asyncio.sleep(1)


async def ends_calls(site: Site) -> None:
    """End calls as workers would."""
    while True:
        await end_live(site)
        await asyncio.sleep(0.01)


async def end_live(site: Site) -> None:
    async def end(entry: Entry) -> None:
        await site.end(entry.request.request_id)
        await site.registry.release(entry.call.pbx or "", [entry.call.call_id])

    # At once: one after the other they take a minute on a busy machine.
    await asyncio.gather(*map(end, await site.ledger.entries(await site.ledger.live())))


def blocked(n: int) -> list[bytes]:
    return [element(f"b-{i}", Tronco="vivo") for i in range(n)]


async def push(site: Site, *raw: bytes) -> None:
    await site.redis.rpush(site.ledger.wire.request, *raw)


async def parked(site: Site) -> int:
    return int(await site.redis.llen(site.ledger.keys.parked("vivo")))


async def has_parked(site: Site, n: int) -> bool:
    return await parked(site) == n


async def nobody_waits(site: Site) -> bool:
    """True if no BLMOVE waits any longer: one of a bridge that stopped would take a new request."""
    return int((await site.redis.info("clients"))["blocked_clients"]) == 0


def nudged(bridge: Bridge, prefix: str) -> list[str]:
    ids = [c.removeprefix(f"{CELL}:") for c, _, _ in bridge.nudges.calls]
    return [i for i in ids if i.startswith(prefix)]


async def test_many_blocked_requests_stop_no_others_and_keep_order(site: Site) -> None:
    bridge = bridge_of(site)
    await push(site, *blocked(MANY), *(element(f"o-{i}") for i in range(200)))
    async with task_of(beats(site, "pbx01")), bridge.running(), task_of(ends_calls(site)):
        await wait_until(lambda: len(nudged(bridge, "o-")) == 200, "others", within_s=60)
        assert nudged(bridge, "b-") == []
        assert await parked(site) == MANY
        counts = (await site.surveyed()).counts
        assert (counts.waiting, counts.parked) == (MANY, {"vivo": MANY})
        await push(site, element("b-last", Tronco="vivo"))
        await wait_until(lambda: has_parked(site, MANY + 1), "the last one is parked too")
        async with task_of(beats(site, "pbx02")):
            wanted = [*(f"b-{i}" for i in range(MANY)), "b-last"]
            await wait_until(
                lambda: len(nudged(bridge, "b-")) == MANY + 1, "the blocked ones", within_s=60
            )
            keys = site.ledger.keys.parking, site.ledger.keys.parked("vivo")

            async def is_clean() -> bool:
                return not await site.redis.exists(*keys)

            await wait_until(is_clean, "the next round forgets the trunk")
    assert nudged(bridge, "b-") == wanted
    assert await site.dead() == []


async def test_killed_bridge_loses_no_parked_request(site: Site) -> None:
    first, second = bridge_of(site, "one"), bridge_of(site, "two")
    await push(site, *blocked(150))
    async with first.running():
        await wait_until(lambda: has_parked(site, 150), "they are parked")
    await site.beat("pbx02")
    async with second.running(), task_of(ends_calls(site), beats(site, "pbx02")):
        await wait_until(lambda: len(nudged(second, "b-")) == 150, "the other takes them")
    assert nudged(second, "b-") == [f"b-{i}" for i in range(150)]


async def test_two_bridges_dial_each_parked_request_once(site: Site) -> None:
    first, second = bridge_of(site, "one"), bridge_of(site, "two")
    await push(site, *blocked(200))
    async with first.running(), second.running(), task_of(ends_calls(site)):
        await wait_until(lambda: has_parked(site, 200), "they are parked")
        async with task_of(beats(site, "pbx02")):
            await wait_until(
                lambda: len(nudged(first, "b-") + nudged(second, "b-")) >= 200, "all are dialed"
            )
    both = nudged(first, "b-") + nudged(second, "b-")
    assert sorted(both) == sorted(f"b-{i}" for i in range(200))
    assert await site.dead() == []


async def test_stopping_bridge_leaves_parked_requests_to_the_next(site: Site) -> None:
    bridge = bridge_of(site)
    await push(site, *blocked(5))
    async with bridge.running():
        await wait_until(lambda: has_parked(site, 5), "they are parked")
    await wait_until(lambda: nobody_waits(site), "Redis has noticed that the bridge is gone")
    await push(site, element("newer"))
    await site.in_hand(element("hand"))
    assert await bridge.cell.ledger.return_hand(BRIDGE) == 1
    assert await site.listed(site.ledger.wire.request) == [element("hand"), element("newer")]
    after = bridge_of(site)
    async with after.running(), task_of(beats(site, "pbx02")), task_of(ends_calls(site)):
        await wait_until(lambda: len(nudged(after, "b-")) == 5, "they are dialed")
    assert nudged(after, "b-") == [f"b-{i}" for i in range(5)]


async def test_parked_requests_go_back_in_slices_and_in_order(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialer.store.ledger.bridge.RETURNED", 2)
    bridge = bridge_of(site)
    await push(site, *blocked(5))
    async with bridge.running():
        await wait_until(lambda: has_parked(site, 5), "they are parked")
    await push(site, element("newer"))
    ledger = bridge.cell.ledger
    assert [await ledger.return_parked(BRIDGE) for _ in range(4)] == [2, 2, 1, 0]
    assert await site.listed(site.ledger.wire.request) == [*blocked(5), element("newer")]
    assert not await site.redis.exists(site.ledger.keys.parking)


async def test_parked_requests_stay_while_another_bridge_lives(site: Site) -> None:
    bridge = bridge_of(site)
    await push(site, *blocked(5))
    async with bridge.running():
        await wait_until(lambda: has_parked(site, 5), "they are parked")
    await site.ledger.take_over("another")
    assert await bridge.cell.ledger.return_parked(BRIDGE) == 0
    assert await has_parked(site, 5)


async def test_parked_requests_do_not_use_up_threads(site: Site) -> None:
    bridge = bridge_of(site, threads=2)
    await push(site, *blocked(10), element("o-1"), element("o-2"))
    async with bridge.running():
        await wait_until(lambda: len(nudged(bridge, "o-")) == 2, "both threads are used")
    assert await site.counters() == (2, 0)


async def test_parked_requests_are_counted_by_trunk(site: Site) -> None:
    bridge = bridge_of(site)
    await push(site, *blocked(7))
    async with bridge.running():
        await wait_until(lambda: has_parked(site, 7), "all are parked")
        counts = (await site.surveyed()).counts
    assert (counts.waiting, counts.parked) == (7, {"vivo": 7})


async def test_parked_request_expires_in_time(site: Site) -> None:
    soon = (datetime.now(UTC) - timedelta(seconds=9)).isoformat()
    await push(site, *blocked(3), element("late", Tronco="vivo", CriadaEm=soon, ValidadeSeg=10))
    async with bridge_of(site).running():
        await wait_until(lambda: has_parked(site, 4), "they are parked")
        await wait_until(site.responses, "its Response")
    assert [r["Erro"]["Codigo"] for r in await site.responses()] == ["expired"]
    assert await parked(site) == 3


async def test_parked_request_is_cancelled_once_on_the_dnc_set(site: Site) -> None:
    await push(site, element("b", number="5511900000000", Tronco="vivo"))
    async with bridge_of(site).running():
        await wait_until(lambda: has_parked(site, 1), "it is parked")
        await site.registry.dnc_add(["5511900000000"])
        await wait_until(site.responses, "its Response")
    assert [r["Erro"]["Codigo"] for r in await site.responses()] == ["do_not_call"]
    assert await parked(site) == 0


async def test_parked_request_of_a_removed_trunk_is_refused(site: Site) -> None:
    await push(site, *blocked(1))
    async with bridge_of(site).running():
        await wait_until(lambda: has_parked(site, 1), "it is parked")
    async with Bridge.of(site, name="two", pbxs=PBXS[:1]).running():
        await wait_until(site.responses, "its Response")
    assert [r["Resultado"] for r in await site.responses()] == ["INVALID_REQUEST"]


async def test_parked_request_of_a_changed_trunk_makes_way(site: Site) -> None:
    """The cell's default trunk was tim, and is vivo now; a killed bridge left one parked."""
    pbxs = (pbx("pbx01", trunks=TIM, max_calls=1), PBXS[1])
    bridge = Bridge.of(site, pbxs=pbxs, cell_table=cell("pbx01", "pbx02", trunk="vivo"))
    tim = site.ledger.keys.parked("tim")
    left, behind = element("b-1"), element("o-1", Tronco="tim")
    await site.redis.rpush(tim, left, behind)
    await site.redis.sadd(site.ledger.keys.parking, "tim")
    for _ in range(2):
        await bridge.intake.handle(*await bridge.intake.fetch())
    assert nudged(bridge, "") == ["o-1"]
    assert await site.listed(site.ledger.keys.parked("vivo")) == [left]


async def test_newer_request_does_not_pass_a_parked_one(site: Site) -> None:
    """The first parked request leaves its place to the second, and not to one in the hand."""
    bridge = Bridge.of(site, pbxs=(PBXS[0], pbx("pbx02", trunks=VIVO, max_calls=1)))
    old = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await push(site, *blocked(2))
    await bridge.intake.handle(*await bridge.intake.fetch())
    expired = element("expired", Tronco="vivo", CriadaEm=old, ValidadeSeg=1)
    await site.redis.lpush(site.ledger.keys.parked("vivo"), expired)
    await push(site, element("b-new", Tronco="vivo"))
    await site.beat("pbx02")
    for _ in range(2):
        await bridge.intake.handle(*await bridge.intake.fetch())
    assert nudged(bridge, "b-") == ["b-0"]
    assert await site.listed(site.ledger.keys.parked("vivo")) == [
        element("b-1", Tronco="vivo"),
        element("b-new", Tronco="vivo"),
    ]


async def test_parked_requests_of_two_trunks_take_turns(site: Site) -> None:
    """Both trunks are of one PBX, which has room for one call in each round."""
    trunks = frozenset({"claro", "vivo"})
    bridge = Bridge.of(site, pbxs=(PBXS[0], pbx("pbx02", trunks=trunks, max_calls=1)))
    await push(site, *(element(f"c-{i}", Tronco="claro") for i in range(9)), *blocked(2))
    await bridge.intake.handle(*await bridge.intake.fetch())
    await site.beat("pbx02")
    for _ in range(4):
        await bridge.intake.handle(*await bridge.intake.fetch())
        await end_live(site)
    assert sorted(nudged(bridge, "")) == ["b-0", "b-1", "c-0", "c-1"]


async def test_sweep_passes_many_repeats_in_one_slice(site: Site) -> None:
    """A request behind as many repeats as a slice has is answered after two slices."""
    bridge = bridge_of(site)
    old = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    expired = element("late", Tronco="vivo", CriadaEm=old, ValidadeSeg=1)
    await site.redis.rpush(site.ledger.keys.parked("vivo"), *blocked(1) * SLICE, expired)
    async with asyncio.timeout(20 * PAUSE_S):
        await bridge.parked._sweep("vivo")
    assert [r["IdRequisicao"] for r in await site.responses()] == ["late"]


async def test_waiting_for_a_trunk_is_no_busy_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second of waiting is a few rounds, and parses nothing in the intake."""
    bridge = bridge_of(site)
    rounds: list[int] = []
    handle = type(bridge.intake).handle

    async def counted(*args: object) -> Room | None:
        rounds.append(len(await type(bridge.intake)._elements(*args)))  # type: ignore[arg-type]
        return await handle(*args)  # type: ignore[arg-type]

    await push(site, *blocked(50))
    async with task_of(bridge.intake.run()):
        await wait_until(lambda: has_parked(site, 50), "they are parked")
        monkeypatch.setattr(type(bridge.intake), "handle", counted)
        began = asyncio.get_running_loop().time()
        await wait_until(lambda: len(rounds) >= 3, "three rounds")
        waited_s = asyncio.get_running_loop().time() - began
    assert set(rounds) == {0}
    assert waited_s >= 1.5
