"""The decision log on a real server: who keeps it, what it keeps, and what it says of a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dialer.domain.limits import Limit
from dialer.domain.why import LATELY_S, Decision, Took
from dialer.store.keys import DECISIONS_MAX, DECISIONS_RETENTION_S, LOGGERS, LedgerKeys
from dialer.store.ledger import DecisionReads, News, write_news
from dialer.store.ledger.decisions import CELLS_AT_ONCE, REASON_MAX, UNKEPT_AFTER_S
from dialer.store.ledger.survey import AGE_MAX_S
from tests.integration.cell_rig import BRIDGE, CELL, T0, Site

KEYS = LedgerKeys(CELL)


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.ledger.take_over(BRIDGE)  # its heartbeat
        yield site


def decision(limit: Limit, reason: str = "") -> Decision:
    return Decision(cell=CELL, limit=limit, reason=reason)


async def time_of(site: Site, *, ago_s: float = 0.0) -> datetime:
    seconds, micros = await site.redis.time()
    now = datetime.fromtimestamp(seconds + micros // 1000 / 1000, UTC)
    return now - timedelta(seconds=ago_s)


async def write(
    site: Site,
    limit: Limit | None = None,
    *,
    took: Took | None = None,
    bridge: str = BRIDGE,
    gap: Limit | None = None,
    reason: str = "",
) -> bool | str:
    at_ms = round((await time_of(site)).timestamp() * 1000)
    new = decision(limit, reason) if limit is not None else None
    news = News(cell=KEYS, took=took or Took(), at_ms=at_ms, decision=new)
    missed = decision(gap, "none was running") if gap is not None else None
    (kept,) = await write_news(site.steps, bridge, [news], gap=missed)
    return kept


async def seen(site: Site, bridge: str, *, ago_s: float) -> None:
    """Make it that long ago that a bridge was there and kept logs."""
    then_ms = (await time_of(site, ago_s=ago_s)).timestamp() * 1000
    await site.redis.zadd(LOGGERS, {bridge: then_ms})
    await site.redis.zadd(KEYS.bridges, {bridge: then_ms})


async def logged(site: Site, limit: Limit, *, ago_s: float) -> None:
    """Put an entry of that age into the log."""
    at_ms = round((await time_of(site, ago_s=ago_s)).timestamp() * 1000)
    await site.redis.zadd(KEYS.decisions, {f"{at_ms} {limit} {{}}": at_ms})


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
    for limit, ago_s in ((Limit.NONE, 30), (Limit.CPS, 20), (Limit.PAUSED, 10)):
        await logged(site, limit, ago_s=ago_s)
    assert await at(site, await time_of(site, ago_s=31)) == (None, Limit.NONE)
    assert await at(site, await time_of(site, ago_s=29)) == (Limit.NONE, Limit.CPS)
    assert await at(site, await time_of(site, ago_s=19)) == (Limit.CPS, Limit.PAUSED)
    assert await at(site, await time_of(site)) == (Limit.PAUSED, None)


async def test_an_entry_keeps_numbers_and_reason(site: Site) -> None:
    new = Decision(cell=CELL, limit=Limit.AMI_DOWN, reason="não \udce9 há", numbers={"waiting": 7})
    await write_news(site.steps, BRIDGE, [News(cell=KEYS, took=Took(), at_ms=0, decision=new)])
    found, _ = await DecisionReads(site.steps, CELL).in_force_at(await time_of(site))
    assert found is not None
    assert found.decision == new
    await write(site, Limit.CPS, reason="x" * 9_000)
    found, _ = await DecisionReads(site.steps, CELL).in_force_at(await time_of(site))
    assert found is not None
    assert len(found.decision.reason) == REASON_MAX


async def test_a_limit_that_goes_on_is_one_entry(site: Site) -> None:
    for limit in (Limit.CPS, Limit.CPS, Limit.NONE, Limit.NONE):
        assert await write(site, limit) is True
    assert await limits(site) == ["cps", "none"]


async def test_of_two_bridges_one_keeps_the_log(site: Site) -> None:
    await seen(site, "a-bridge", ago_s=0)
    assert BRIDGE > "a-bridge"
    assert await write(site, Limit.CPS) is False
    assert await limits(site) == []
    await seen(site, "a-bridge", ago_s=UNKEPT_AFTER_S + 1)
    assert await write(site, Limit.CPS) is True


async def test_a_bridge_that_keeps_no_logs_is_no_keeper(site: Site) -> None:
    """One of an older release, or one that has lost the registry."""
    await site.ledger.take_over("a-bridge")
    assert await write(site, Limit.CPS) is True
    assert await limits(site) == ["cps"]


async def test_time_without_a_bridge_is_logged_by_the_next(site: Site) -> None:
    await logged(site, Limit.CPS, ago_s=100)
    await seen(site, "dead", ago_s=70)
    await seen(site, "older", ago_s=90)
    await write(site, Limit.CPS, gap=Limit.NO_BRIDGE)
    assert await limits(site) == ["cps", "no_bridge", "cps"]
    assert await at(site, await time_of(site, ago_s=71)) == (Limit.CPS, Limit.NO_BRIDGE)
    assert await at(site, await time_of(site, ago_s=69)) == (Limit.NO_BRIDGE, Limit.CPS)
    assert (await DecisionReads(site.steps, CELL).kept_until() or T0) > await time_of(site, ago_s=5)


async def test_gaps_of_many_cells_are_all_logged(site: Site) -> None:
    cells = [LedgerKeys(f"C{n}") for n in range(CELLS_AT_ONCE + 10)]
    then_ms = (await time_of(site, ago_s=70)).timestamp() * 1000
    await site.redis.zadd(LOGGERS, {"dead": then_ms})
    for cell in cells:
        await site.redis.zadd(cell.bridges, {"dead": then_ms})
    news = [News(cell=c, took=Took(), at_ms=0, decision=decision(Limit.CPS)) for c in cells]
    assert all(await write_news(site.steps, BRIDGE, news, gap=decision(Limit.NO_BRIDGE)))
    for cell in cells:
        members = await site.redis.zrange(cell.decisions, 0, -1)
        assert len(members) == 2, cell


@pytest.mark.parametrize("who", ["z-bridge", BRIDGE])
async def test_a_cell_that_was_served_has_no_gap(site: Site, who: str) -> None:
    """By another bridge, or by this one before it reloaded its settings."""
    await seen(site, "dead", ago_s=70)
    await seen(site, who, ago_s=1)
    await write(site, Limit.CPS, gap=Limit.NO_BRIDGE)
    assert await limits(site) == ["cps"]


async def test_a_new_system_has_no_gap(site: Site) -> None:
    await write(site, Limit.CPS, gap=Limit.NO_BRIDGE)
    assert await limits(site) == ["cps"]
    assert await DecisionReads(site.steps, "OTHER").kept_until() is None


async def test_a_redis_without_memory_keeps_no_log(site: Site) -> None:
    """A script that has deleted something may write on: what a bridge did must not matter."""
    assert await write(site, Limit.CPS) is True
    kept = await site.redis.zscore(LOGGERS, BRIDGE)
    await site.redis.config_set("maxmemory", 1)
    try:
        for some in (Took(), Took(has_started=True)):
            assert await site.steps.or_none_if_down(write(site, Limit.NONE, took=some)) is None
    finally:
        await site.redis.config_set("maxmemory", 0)
    assert await limits(site) == [Limit.CPS]
    assert await site.redis.zscore(LOGGERS, BRIDGE) == kept


async def test_a_log_that_was_refused_is_not_written_later(site: Site) -> None:
    """Else the log looks kept, and the time in which Redis refused is no gap."""
    await write(site, Limit.CPS)
    kept = await site.redis.zscore(LOGGERS, BRIDGE)
    await site.redis.config_set("maxmemory", 1)
    assert await site.steps.or_none_if_down(write(site, Limit.NONE)) is None
    await site.redis.config_set("maxmemory", 0)
    await site.ledger.take_over("bridge-2")  # the steps work again
    assert await site.redis.zscore(LOGGERS, BRIDGE) == kept


async def test_a_clock_that_was_set_back_keeps_the_order(site: Site) -> None:
    await logged(site, Limit.CPS, ago_s=-3600)
    await write(site, Limit.PAUSED)
    await write(site, Limit.NONE)
    assert await limits(site) == ["paused", "none"]


async def test_the_log_keeps_24_h_and_what_began_before(site: Site) -> None:
    for limit, more_s in ((Limit.NONE, 300), (Limit.CPS, 200), (Limit.PAUSED, 100)):
        await logged(site, limit, ago_s=DECISIONS_RETENTION_S + more_s)
    await write(site, Limit.PAUSED)
    assert await limits(site) == ["paused"]
    assert await site.redis.ttl(KEYS.decisions) > DECISIONS_RETENTION_S


async def test_the_log_has_a_greatest_size(site: Site) -> None:
    now = (await time_of(site)).timestamp() * 1000
    many = {f"{now - n:.0f} none {{}}": now - n for n in range(DECISIONS_MAX + 50)}
    await site.redis.zadd(KEYS.decisions, many)
    await write(site, Limit.CPS)
    assert await site.redis.zcard(KEYS.decisions) == DECISIONS_MAX
    assert (await limits(site))[-1] == "cps"


@pytest.mark.parametrize("key", [KEYS.took, KEYS.decisions, KEYS.bridges])
async def test_a_key_of_another_type_harms_no_other_cell(site: Site, key: str) -> None:
    other = LedgerKeys("OTHER")
    await site.redis.delete(key)
    await site.redis.set(key, "garbage")
    news = [
        News(cell=cell, took=Took(has_started=True), at_ms=0, decision=decision(Limit.CPS))
        for cell in (KEYS, other)
    ]
    broken, right = await write_news(site.steps, BRIDGE, news)
    assert "WRONGTYPE" in str(broken)
    assert right is True
    assert await site.redis.zcard(other.decisions) == 1


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
    assert before is None or before.decision == decision(Limit.NONE)
    await write(site, Limit.CPS)
    assert (await at(site, await time_of(site)))[0] is Limit.CPS


@pytest.mark.parametrize("score", ["-inf", "+inf", "-1e15", "1e15"])
async def test_scores_that_are_no_times_harm_nothing(site: Site, score: str) -> None:
    redis: Any = site.redis
    for key in (LOGGERS, KEYS.bridges):
        await redis.execute_command("ZADD", key, score, "a-strange-one")
    await write(site, Limit.CPS, gap=Limit.NO_BRIDGE)
    assert (await at(site, await time_of(site)))[0] is Limit.CPS
    await DecisionReads(site.steps, CELL).kept_until()
    ages = (await site.surveyed()).bridges
    assert all(-AGE_MAX_S <= age <= AGE_MAX_S for age in ages.values()), ages
