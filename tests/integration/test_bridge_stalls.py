"""The bridge never blocks its event loop for long, whatever waits in the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dialer.bridge.recovery import Recovery
from tests.integration.cell_rig import CELL, Bridge, Site, cell, element, pbx
from tests.loop_watch import LONGEST_CALLBACK_S, watched_loop
from tests.waiting import wait_until

MANY = 10_000
CLAIMED = 3_000


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01", "down")
        await site.beat("pbx02")
        yield site


async def queue_calls(site: Site, state: str, n: int = MANY) -> None:
    """Calls of pbx01, all published long ago."""
    keys = site.ledger.keys
    for start in range(0, n, 1_000):
        async with site.redis.pipeline(transaction=False) as pipe:
            for i in range(start, start + 1_000):
                call_id = f"{CELL}:r-{i}"
                fields = ("state", state, "epoch", "1", "pbx", "pbx01", "code_state", "none")
                pipe.execute_command(
                    "HSET", keys.call(call_id), *fields, "request", element(f"r-{i}")
                )
                pipe.zadd(keys.live, {call_id: 1})
                pipe.zadd("dialer:slots:pbx01", {call_id: 1})
                if state == "queued":
                    pipe.zadd(keys.queued, {call_id: 1})
                else:
                    pipe.sadd(keys.claimed("pbx01"), call_id)
            await pipe.execute()


class Rounds:
    """Count the rounds of the recovery."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        end_lost = Recovery.end_lost

        async def counted(*args: object) -> None:
            await end_lost(*args)  # type: ignore[arg-type]
            self.n += 1

        monkeypatch.setattr(Recovery, "end_lost", counted)

    async def more(self, n: int) -> None:
        until = self.n + n
        await wait_until(lambda: self.n >= until, f"{n} rounds of the recovery", within_s=60)


def bridge_of(site: Site) -> Bridge:
    return Bridge.of(
        site,
        pbxs=(pbx("pbx01", max_calls=MANY), pbx("pbx02", max_calls=5)),
        cell_table=cell("pbx01", "pbx02", threads=MANY),
    )


async def test_ten_thousand_queued_calls_block_no_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue_calls(site, "queued")
    rounds = Rounds(monkeypatch)
    with watched_loop() as watched:
        async with bridge_of(site).running():
            await rounds.more(4)
    assert watched.longest_s < LONGEST_CALLBACK_S, watched
    assert len(await site.slots("pbx02")) == 5


async def test_claimed_calls_of_a_lost_pbx_block_no_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue_calls(site, "originating", CLAIMED)
    await site.silence("pbx01", seconds=300)
    rounds = Rounds(monkeypatch)
    with watched_loop() as watched:
        async with bridge_of(site).running():
            await rounds.more(1)
    assert watched.longest_s < LONGEST_CALLBACK_S, watched
    assert len(await site.listed(site.ledger.wire.response)) == CLAIMED


async def test_moving_looks_at_no_more_calls_than_there_is_room(site: Site) -> None:
    await queue_calls(site, "queued", 1_000)
    bridge = bridge_of(site)
    read: list[int] = []
    readable = type(bridge.cell.ledger).readable
    states = await site.registry.pbxs(bridge.cell.pbxs)

    class Counting(type(bridge.cell.ledger)):  # type: ignore[misc]
        __slots__ = ()

        async def readable(self, ids: list[str]) -> object:
            read.append(len(ids))
            return await readable(self, ids)

    object.__setattr__(bridge.cell, "ledger", Counting(bridge.cell.ledger.steps, CELL, "right"))
    await bridge.recovery.move_from_unready_pbxs(states)
    assert read == [5]
    assert len(bridge.nudges.calls) == 5


async def test_due_calls_of_a_pbx_are_found_behind_others(site: Site) -> None:
    await queue_calls(site, "queued", CLAIMED)
    await site.admitted("of-pbx02", pbx="pbx02")
    found = [
        w.call_id
        async for part in site.ledger.due(older_than_s=0, pbx="pbx02", at_most=1)
        for w in part
    ]
    assert found == [f"{CELL}:of-pbx02"]
