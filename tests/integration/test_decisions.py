"""The decision log on a real server: who keeps it, what it keeps, and what it says of a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dialer.domain.limits import Limit
from dialer.domain.why import LATELY_S, Decision, Took
from dialer.store.keys import DECISIONS_MAX, DECISIONS_RETENTION_S, LedgerKeys
from dialer.store.ledger import DecisionReads, Logged, News, write_news
from tests.integration.cell_rig import BRIDGE, CELL, Site

KEYS = LedgerKeys(CELL)


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.ledger.take_over(BRIDGE)  # its heartbeat
        yield site


def entry(limit: Limit, at: datetime, reason: str = "") -> Logged:
    return Logged(at=at, decision=Decision(cell=CELL, limit=limit, reason=reason))


async def time_of(site: Site, *, ago_s: float = 0.0) -> datetime:
    seconds, micros = await site.redis.time()
    now = datetime.fromtimestamp(seconds + micros // 1000 / 1000, UTC)
    return now - timedelta(seconds=ago_s)


async def write(
    site: Site, *entries: Logged, took: Took | None = None, bridge: str = BRIDGE
) -> bool:
    at_ms = round((await time_of(site)).timestamp() * 1000)
    news = News(cell=KEYS, took=took or Took(), at_ms=at_ms, entries=entries)
    (kept,) = await write_news(site.steps, bridge, [news])
    return kept


async def limits(site: Site) -> list[str]:
    members: Any = await site.redis.zrange(KEYS.decisions, 0, -1)
    return [member.decode().split(" ")[1] for member in members]


async def took(site: Site) -> Took:
    return (await site.surveyed()).took


async def at(site: Site, when: datetime) -> tuple[Limit | None, Limit | None]:
    """The limit in force at a time, and the next one."""
    before, after = await DecisionReads(site.steps, CELL).in_force_at(when)
    return (
        before.decision.limit if before is not None else None,
        after.decision.limit if after is not None else None,
    )


async def test_the_log_says_what_was_in_force_at_a_time(site: Site) -> None:
    times = [await time_of(site, ago_s=s) for s in (30, 20, 10)]
    entries = map(entry, (Limit.NONE, Limit.CPS, Limit.PAUSED), times)
    assert await write(site, *entries)
    assert await at(site, times[0] - timedelta(seconds=1)) == (None, Limit.NONE)
    assert await at(site, times[1]) == (Limit.CPS, Limit.PAUSED)
    assert await at(site, times[1] - timedelta(milliseconds=1)) == (Limit.NONE, Limit.CPS)
    assert await at(site, await time_of(site)) == (Limit.PAUSED, None)


async def test_an_entry_keeps_numbers_and_reason(site: Site) -> None:
    decision = Decision(
        cell=CELL, limit=Limit.AMI_DOWN, reason="pbx01: não há AMI", numbers={"waiting": 7}
    )
    logged = Logged(at=await time_of(site), decision=decision)
    await write(site, logged)
    assert (await DecisionReads(site.steps, CELL).in_force_at(logged.at))[0] == logged


async def test_a_limit_that_goes_on_is_one_entry(site: Site) -> None:
    now = await time_of(site)
    for _ in range(2):  # the reply of the first was lost
        await write(site, entry(Limit.CPS, now), entry(Limit.NONE, now + timedelta(seconds=1)))
    await write(site, entry(Limit.NONE, now + timedelta(seconds=2)))
    assert (await limits(site))[-2:] == ["cps", "none"]
    assert await at(site, now + timedelta(seconds=5)) == (Limit.NONE, None)


async def test_of_two_bridges_one_keeps_the_log(site: Site) -> None:
    now = await time_of(site)
    await site.ledger.take_over("a-bridge")
    assert BRIDGE > "a-bridge"
    assert not await write(site, entry(Limit.CPS, now))
    assert await limits(site) == []
    assert await write(site, entry(Limit.NONE, now), bridge="a-bridge")
    await site.ledger.return_hand("a-bridge")  # it stops
    assert await write(site, entry(Limit.CPS, now + timedelta(seconds=1)))
    assert await limits(site) == ["none", "cps"]


async def test_the_log_keeps_24_h_and_what_began_before(site: Site) -> None:
    old = [await time_of(site, ago_s=DECISIONS_RETENTION_S + s) for s in (300, 200, 100)]
    await write(site, *map(entry, (Limit.NONE, Limit.CPS, Limit.PAUSED), old))
    assert await limits(site) == ["paused"]
    assert await site.redis.ttl(KEYS.decisions) > DECISIONS_RETENTION_S


async def test_the_log_has_a_greatest_size(site: Site) -> None:
    now = (await time_of(site)).timestamp() * 1000
    many = {f"{now - n:.0f} none {{}}": now - n for n in range(DECISIONS_MAX + 50)}
    await site.redis.zadd(KEYS.decisions, many)
    await write(site, entry(Limit.CPS, await time_of(site)))
    assert await site.redis.zcard(KEYS.decisions) == DECISIONS_MAX
    assert (await limits(site))[-1] == "cps"


async def test_what_bridges_did_lately_is_one_answer(site: Site) -> None:
    assert await took(site) == Took()
    await write(site, took=Took(has_started=True, refused={Limit.REFUSED: 2}))
    await write(site, took=Took(stopped_by=Limit.CPS), bridge="another")
    both = Took(has_started=True, stopped_by=Limit.CPS, refused={Limit.REFUSED: 2})
    assert await took(site) == both
    await write(site, took=Took())
    assert await took(site) == Took(stopped_by=Limit.CPS)
    assert 0 < await site.redis.ttl(KEYS.took) <= 60


async def test_what_a_dead_bridge_did_last_is_past(site: Site) -> None:
    long_ago = round((await time_of(site, ago_s=2 * LATELY_S + 1)).timestamp() * 1000)
    news = News(cell=KEYS, took=Took(has_started=True), at_ms=long_ago)
    await write_news(site.steps, "dead", [news])
    assert await took(site) == Took()


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "[]",
        "{",
        '{"at_ms": "now"}',
        '{"at_ms": 9e99, "started": 1, "stopped_by": [], "refused": [1]}',
        '{"at_ms": 99999999999999, "stopped_by": "?", "refused": {"?": 1, "cps": "x"}}',
    ],
)
async def test_garbage_of_bridges_is_ignored(site: Site, garbage: str) -> None:
    await site.redis.hset(KEYS.took, "x", garbage)
    assert await took(site) == Took()


@pytest.mark.parametrize(
    "garbage", ["", "x", "1 none", "1 unheard {}", "99999999999999999999 none {}", "1 none {"]
)
async def test_garbage_in_the_log_is_no_entry(site: Site, garbage: str) -> None:
    now = await time_of(site)
    await site.redis.zadd(KEYS.decisions, {garbage: now.timestamp() * 1000})
    before, _ = await DecisionReads(site.steps, CELL).in_force_at(now)
    assert before is None or before.decision == Decision(cell=CELL, limit=Limit.NONE)
    await write(site, entry(Limit.CPS, now + timedelta(seconds=1)))
    assert await at(site, now + timedelta(seconds=1)) == (Limit.CPS, None)
