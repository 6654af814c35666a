"""Two bridges on one cell, one of them slow, stopped or dead: every request once, no slot lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from dialer.bridge.cell import BridgeCell
from dialer.multcall.request import parse_request
from dialer.store.entry import Entry
from dialer.store.ledger import Admissible, Admission
from tests.integration.cell_rig import BUSY, CELL, Bridge, Site, cell, element, pbx, task_of
from tests.waiting import wait_until

PBXS = (pbx("pbx01"), pbx("pbx02"))
R1 = f"{CELL}:r-1"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02")
        yield site


def pair(site: Site, **fields: int) -> tuple[Bridge, Bridge]:
    table = cell("pbx01", "pbx02", **fields)
    first, second = (
        Bridge.of(site, name=name, pbxs=PBXS, cell_table=table) for name in ("one", "two")
    )
    return first, second


async def die(site: Site, name: str) -> None:
    """Make the others hold that bridge for dead."""
    await site.redis.zincrby(site.ledger.keys.bridges, -11_000, name)


async def until_nudged(n: int, *bridges: Bridge) -> None:
    """Wait for the nudges: a call may be over before its nudge is sent."""
    await wait_until(lambda: sum(len(b.nudges.sent) for b in bridges) >= n, f"{n} nudges")


async def ends_what_it_sees(site: Site, seen: list[int]) -> None:
    """End live calls, as workers would; note in `seen` how many there are each time."""

    async def end(entry: Entry) -> None:
        await site.ledger.end(entry.call, entry.request, BUSY)
        await site.registry.release(entry.call.pbx or "", [entry.call.call_id])

    while True:
        live = await site.ledger.live()
        seen.append(len(live))
        entries = await site.ledger.entries(live)
        await asyncio.gather(*(end(entry) for entry in entries))
        await asyncio.sleep(0)


async def test_two_bridges_admit_each_request_once_within_threads(
    site: Site,
) -> None:
    first, second = pair(site, threads=20)
    wanted: list[str] = []
    seen: list[int] = []

    async def everything_came() -> bool:
        return len(await site.responses()) >= len(wanted)

    async with first.running(), second.running(), task_of(ends_what_it_sees(site, seen)):
        # One of them may be so quick that the other finds no room for a while.
        while len(wanted) < 200 or not (first.nudges.sent and second.nudges.sent):
            assert len(wanted) < 10_000, "only one of them ever admits"
            more = [f"r-{len(wanted) + i}" for i in range(200)]
            wanted += more
            await site.push_requests(*(element(name) for name in more))
            await wait_until(everything_came, f"{len(wanted)} Responses", within_s=60)
            await until_nudged(len(wanted), first, second)
    got = sorted(r["IdRequisicao"] for r in await site.responses())
    assert got == sorted(wanted)
    assert 0 < max(seen) <= 20
    admitted = [c for b in (first, second) for c, _, e in b.nudges.calls if e == 1]
    assert sorted(admitted) == sorted(f"{CELL}:{name}" for name in wanted)
    assert await site.dead() == []
    assert await site.counters() == (0, 0)


async def test_hand_of_a_dead_bridge_is_admitted_in_order(
    site: Site,
) -> None:
    first, second = pair(site)
    await site.push_requests(*(element(f"r-{i}") for i in range(5)))
    await first.recovery.take_over()
    await first.cell.ledger.fetch("one", at_most=5, threads=50)
    async with second.running():
        await wait_until(lambda: site.redis.zscore(site.ledger.keys.bridges, "two"), "its word")
        assert await site.ledger.live() == []
        await die(site, "one")
        await second.nudges.until(5)
    assert sorted(c for c, _, _ in second.nudges.calls) == [f"{CELL}:r-{i}" for i in range(5)]


async def test_resumed_bridge_admits_nothing_that_was_taken_over(
    site: Site,
) -> None:
    first, second = pair(site)
    await site.push_requests(*(element(f"r-{i}") for i in range(5)))
    await first.recovery.take_over()
    fetched = await first.intake.fetch()
    assert len(fetched[1].hand) == 5  # here it is stopped
    await die(site, "one")
    await second.recovery.take_over()
    room, in_hand = await second.intake.fetch()
    await second.intake.handle(room, replace(in_hand, hand=in_hand.hand[:3]))
    await first.intake.handle(*fetched)  # and here it goes on
    assert first.nudges.sent == []
    assert len(await site.ledger.live()) == 3
    slots = await site.slots("pbx01") | await site.slots("pbx02")
    assert slots == {"r-0", "r-1", "r-2"}
    async with first.running(), second.running():
        await wait_until(lambda: _live(site, 5), "the rest")
        await until_nudged(5, first, second)
    assert len(first.nudges.sent) + len(second.nudges.sent) == 5


async def _live(site: Site, n: int) -> bool:
    return len(await site.ledger.live()) == n


async def test_resumed_bridge_frees_no_slot_of_the_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BridgeCell, "is_on_one_server", False)  # lease and admission are apart
    first, second = pair(site)
    await site.push_requests(element())
    await first.recovery.take_over()
    fetched = await first.intake.fetch()
    admissions = type(first.intake.admissions)
    run_step = admissions._run_step

    async def late(self: object, *args: object) -> Admission:
        monkeypatch.setattr(admissions, "_run_step", run_step)
        await die(site, "one")
        await second.recovery.take_over()
        await second.intake.handle(*await second.intake.fetch())
        return await run_step(first.intake.admissions, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(admissions, "_run_step", late)
    await first.intake.handle(*fetched)
    assert (len(first.nudges.sent), len(second.nudges.sent)) == (0, 1)
    assert await site.slots("pbx01") | await site.slots("pbx02") == {"r-1"}


@pytest.mark.parametrize("step", ["admit", "admit_many"])
async def test_an_admission_whose_reply_was_lost_is_an_admission(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Twice the same step with the same arguments, as `Steps` does after a broken connection."""
    monkeypatch.setattr(BridgeCell, "is_on_one_server", step == "admit_many")
    bridge, _ = pair(site)
    run = type(bridge.cell.ledger.steps).run

    async def twice(self: object, name: str, *rest: object) -> object:
        if name == step:
            await run(bridge.cell.ledger.steps, name, *rest)  # type: ignore[arg-type]
        return await run(bridge.cell.ledger.steps, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(type(bridge.cell.ledger.steps), "run", twice)
    await site.redis.rpush(site.ledger.keys.hand("one"), element(), element())
    while await bridge.intake.handle(*await bridge.intake.fetch()):
        pass
    assert [c for c, _, _ in bridge.nudges.calls] == [R1]
    assert await site.slots("pbx01") | await site.slots("pbx02") == {"r-1"}
    assert [d["reason"] for d in await site.dead()] == ["duplicate_request"]


async def test_fetch_with_a_lost_reply_leaves_nothing_in_the_hand(site: Site) -> None:
    bridge, _ = pair(site)
    async with bridge.running():
        await wait_until(
            lambda: site.redis.zscore(site.ledger.keys.bridges, "one"), "the bridge runs"
        )
        await site.in_hand(element("unseen"), bridge="one")
        await site.push_requests(element("next"))
        await wait_until(lambda: _live(site, 2), "both")


async def test_same_element_in_another_hand_is_gone(site: Site) -> None:
    raw = element()
    await site.in_hand(raw, bridge="one")
    request = parse_request(raw, cell=CELL)
    replies = [
        await site.ledger.admit(
            Admissible(source=site.ledger.keys.hand(name), raw=raw, request=request),
            pbx="pbx01",
            threads=9,
        )
        for name in ("one", "two")
    ]
    assert replies == [Admission.ADMITTED, Admission.GONE]


async def test_stopped_bridge_returns_its_hand_in_order(site: Site) -> None:
    first, _ = pair(site, threads=2)
    # On one PBX: nudges of one round go out PBX by PBX.
    second = Bridge.of(site, name="two", pbxs=PBXS[:1], cell_table=cell("pbx01", threads=2))
    await site.push_requests(*(element(f"r-{i}") for i in range(6)))
    async with first.running():
        await wait_until(lambda: _live(site, 2), "the cell is full")
    await site.in_hand(element("in-hand"), bridge="one")
    await first.cell.ledger.return_hand("one")
    left = [
        parse_request(r, cell=CELL).request_id for r in await site.listed(site.ledger.wire.request)
    ]
    assert left == ["in-hand", "r-2", "r-3", "r-4", "r-5"]
    async with second.running(), task_of(ends_what_it_sees(site, [])):
        await wait_until(lambda: _answered(site, 7), "all are answered")
        await until_nudged(5, second)
    order = [c.removeprefix(f"{CELL}:") for c, _, _ in second.nudges.calls]
    assert order == left


async def _answered(site: Site, n: int) -> bool:
    return len(await site.responses()) == n


async def test_killed_bridges_lose_nothing_and_admit_nothing_twice(site: Site) -> None:
    """Bridges are killed in mid-work, by a seeded plan, while others take over."""
    plan, n = random.Random(20260504), 150
    wanted = [f"r-{i}" for i in range(n)]
    await site.push_requests(*(element(name) for name in wanted))
    nudges: list[str] = []
    async with task_of(ends_what_it_sees(site, [])):
        for life in range(12):
            bridge = Bridge.of(site, name=f"b{life}", pbxs=PBXS, cell_table=cell(threads=15))
            async with bridge.running():
                goal = min(n, len(await site.responses()) + plan.randrange(1, 20))
                await wait_until(lambda goal=goal: _came(site, goal), f"{goal} Responses")  # type: ignore[misc]
            nudges += [c for c, _, _ in bridge.nudges.calls]
            await die(site, f"b{life}")
        async with Bridge.of(site, name="last", pbxs=PBXS).running():
            await wait_until(lambda: _came(site, n), "all Responses")
    assert sorted(r["IdRequisicao"] for r in await site.responses()) == sorted(wanted)
    assert await site.dead() == []
    assert len(nudges) == len(set(nudges))
    assert await site.counters() == (0, 0)


async def _came(site: Site, n: int) -> bool:
    return len(await site.responses()) >= n
