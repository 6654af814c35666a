"""The registry's steps of lease and verdict, each on its own: what they write and return."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from dialer.store.keys import (
    IDLE_RETENTION_S,
    RESULTS_OF_S,
    VERDICT_RETENTION_S,
    LedgerKeys,
)
from dialer.store.ledger.unannounced import unannounced
from dialer.store.registry import PBX_DEAD_AFTER_S, Holder, Lease
from tests.integration.cell_rig import CELL, Site, pbx
from tests.waiting import wait_until

BEAT = "dialer:pbx:pbx01"
VERDICT = "dialer:verdict:pbx01"
A = Holder(name="pbx01-a", host="host-a", pid="7", place="here")
B = Holder(name="pbx01-b", host="host-b", pid="8", place="there")


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


def ids(*names: str) -> list[str]:
    return [f"{CELL}:{name}" for name in names]


async def hashed(site: Site, key: str) -> dict[str, str]:
    raw: Any = await site.redis.hgetall(key)
    return {name.decode(): value.decode() for name, value in raw.items()}


# --- the lease of a PBX -------------------------------------------------------------------


async def test_who_has_the_lease_is_told_in_full(site: Site) -> None:
    await site.registry.hold("pbx01", A)
    await site.redis.hset(BEAT, mapping={"asterisk": "00:1b", "link": "up"})
    held = await site.registry.hold("pbx01", B)
    assert (held.holder, held.link, held.asterisk) == (A, "up", "00:1b")
    assert held.seen_ms <= held.now_ms < held.seen_ms + 10_000


async def test_a_lease_is_kept_for_thirty_days(site: Site) -> None:
    await site.registry.hold("pbx01", A)
    assert IDLE_RETENTION_S - 60 < await site.redis.ttl(BEAT) <= IDLE_RETENTION_S
    await site.redis.persist(BEAT)
    await site.beat()
    assert IDLE_RETENTION_S - 60 < await site.redis.ttl(BEAT) <= IDLE_RETENTION_S


async def test_the_holder_itself_gets_a_number_above_the_asked(site: Site) -> None:
    number = (await site.registry.hold("pbx01", A)).fence
    assert (await site.registry.hold("pbx01", A, above=number - 1)).fence == number
    higher = (await site.registry.hold("pbx01", A, above=number)).fence
    assert higher > number
    ahead = higher + 10**9
    assert (await site.registry.hold("pbx01", A, above=ahead)).fence == ahead + 1


@pytest.mark.parametrize(
    ("known", "is_ours"),
    [("9007199254740991", True), ("9100000000000000", False), ("-9100000000000000", False)],
)
async def test_a_number_that_is_too_great_counts_as_none(
    site: Site, known: str, *, is_ours: bool
) -> None:
    """Lua would round it, and the next number would not be greater."""
    await site.redis.hset(BEAT, "fence", known)
    held = await site.registry.hold("pbx01", A)
    assert held.fence == (int(known) + 1 if is_ours else held.now_ms)


async def test_a_silence_that_is_too_short_frees_no_lease(site: Site) -> None:
    await site.registry.hold("pbx01", A)
    await site.silence("pbx01", seconds=PBX_DEAD_AFTER_S / 2)
    assert (await site.registry.hold("pbx01", B)).fence == 0
    assert (await site.registry.hold("pbx01", B, dead="pbx01-c")).fence == 0


async def test_the_first_heartbeat_begins_the_unready_time(site: Site) -> None:
    await site.beat(link="down")
    assert await site.registry.unready_s("pbx01") < 10


async def test_only_a_heartbeat_with_the_link_up_is_ready(site: Site) -> None:
    await site.beat()
    await site.redis.hset(BEAT, "ready_ms", "1")
    await site.beat(link="down")
    assert (await hashed(site, BEAT))["ready_ms"] == "1"
    await site.beat()
    assert (await hashed(site, BEAT))["ready_ms"] != "1"


async def test_what_nobody_wrote_is_the_empty_text(site: Site) -> None:
    names = [f"dialer:{what}:pbx01" for what in ("pbx", "slots", "pace", "starts", "verdict")]
    _, row = await site.steps.run("loads", names)
    assert row == [[b""] * 14, 0, 0, [b""] * 2, [b""] * 7, []]


async def test_a_stopped_worker_is_told_as_such(site: Site) -> None:
    await site.beat(link="stopping", trouble="no broker")
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert state.why_not_taking() == "its worker was stopped"


async def test_a_heartbeat_writes_all_facts(site: Site) -> None:
    await site.beat(calls=3, host="h", pid="7")
    found = await hashed(site, BEAT)
    assert (found["calls"], found["host"], found["pid"]) == ("3", "h", "7")
    assert "fence" not in found


SLOTS, PACE, STARTS = "dialer:slots:pbx01", "dialer:pace:pbx01", "dialer:starts:pbx01"
FENCE = LedgerKeys(CELL).fence("pbx01")
STEPS: dict[str, tuple[Callable[[Site], Awaitable[Any]], Any, tuple[str, ...]]] = {
    "hold": (lambda s: s.registry.hold("pbx01", A), None, (BEAT,)),
    "heartbeat": (lambda s: s.beat(), None, (BEAT,)),
    "let_go": (lambda s: s.registry.let_go("pbx01", A.name), None, (BEAT,)),
    "release": (lambda s: s.registry.release("pbx01", ids("a"), fence=7), None, (SLOTS, BEAT)),
    "restore": (lambda s: s.registry.restore_slots("pbx01", ids("a")), 1, (SLOTS,)),
    "old": (lambda s: s.registry.slots(["pbx01"], CELL, older_than_s=0), {"pbx01": []}, (SLOTS,)),
    "try": (lambda s: s.registry.try_with("pbx01", "a"), False, (VERDICT,)),
    "tried": (lambda s: s.registry.tried("pbx01", "a", success=True), False, (VERDICT, BEAT)),
    "condemn": (lambda s: condemn(s), False, (VERDICT, BEAT)),
    "fence": (lambda s: s.steps.run("fence", [FENCE], ["7", 100]), 1, (FENCE,)),
    "lease": (
        lambda s: s.registry.lease(pbx(), ids("a")),
        Lease(granted=1, new=frozenset(ids("a"))),
        (SLOTS, PACE, BEAT, VERDICT, STARTS),
    ),
}


async def condemn(site: Site) -> bool:
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    return await site.registry.condemn(state, "no word")


@pytest.mark.parametrize("name", STEPS)
async def test_a_key_of_another_type_stops_no_step(site: Site, name: str) -> None:
    """An operator, or another program, wrote it; what the step needs is written again."""
    step, expected, keys = STEPS[name]
    for key in keys:
        await site.redis.flushall()
        await site.redis.rpush(key, "no hash, set or text")
        result = await step(site)
        if expected is not None:
            assert result == expected
        assert await site.redis.type(key) != b"list"


@pytest.mark.parametrize("key", [BEAT, SLOTS, PACE, STARTS, VERDICT])
async def test_a_pbx_is_read_though_a_key_has_another_type(site: Site, key: str) -> None:
    await site.redis.rpush(key, "no hash, set or text")
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert (state.instance, state.verdict, state.load.calls) == ("", None, 0)
    assert await site.redis.type(key) == b"list", "a read changes nothing"


async def test_a_start_within_the_burst_is_remembered(site: Site) -> None:
    numbers = itertools.count()

    async def is_remembered() -> bool:
        """The key lives for a second."""
        await site.registry.lease(pbx(cps=30, max_calls=10_000), ids(str(next(numbers))))
        return int(await site.redis.pttl(PACE)) > 500

    await wait_until(is_remembered, "a start is remembered")


async def test_a_number_of_starts_that_is_too_great_counts_as_none(site: Site) -> None:
    now_s, _ = await site.redis.time()
    garbage: Any = {"n": "1e300", "at_us": now_s * 1_000_000}
    await site.redis.hset(STARTS, mapping=garbage)
    await site.registry.lease(pbx(), ids("a"))
    assert (await hashed(site, STARTS))["n"] == "1.000000"


# --- the fence of a cell ------------------------------------------------------------------


async def test_a_fence_is_kept_for_thirty_days(site: Site) -> None:
    key = LedgerKeys(CELL).fence("pbx01")
    assert await site.steps.run("fence", [key], ["12", 100]) == 1
    assert (await site.redis.get(key), await site.redis.ttl(key)) in [(b"12", 100), (b"12", 99)]
    assert await site.steps.run("fence", [key], ["12", 100]) == 1
    assert await site.steps.run("fence", [key], ["13", 100]) == 1
    assert await site.redis.get(key) == b"13"


async def test_a_step_without_a_number_leaves_the_fence(site: Site) -> None:
    key = LedgerKeys(CELL).fence("pbx01")
    assert await site.steps.run("fence", [key], ["", 100]) == 1
    assert await site.redis.get(key) is None


# --- calls that no message announced ------------------------------------------------------


async def queued(site: Site, *names: str, at: str = "pbx01", age_s: float = 120) -> None:
    for name in names:
        await site.admitted(name, pbx=at)
        await site.redis.zincrby(site.ledger.keys.queued, -age_s * 1000, ids(name)[0])


async def test_queued_calls_without_a_message_are_found(site: Site) -> None:
    await queued(site, "old", "older")
    await queued(site, "elsewhere", at="pbx02")
    await queued(site, "new", age_s=0)
    await queued(site, "claimed")
    await site.claimed("claimed")
    await site.redis.zadd(site.ledger.keys.queued, {ids("claimed")[0]: 1, ids("gone")[0]: 1})
    before = await site.snapshot()
    assert await unannounced(site.steps, ["none", CELL], "pbx01", older_than_s=60) == [
        (call_id, 1) for call_id in ids("old", "older")
    ]
    assert await site.snapshot() == before


async def test_queued_calls_with_an_odd_id_or_epoch_are_passed_over(site: Site) -> None:
    await queued(site, "none", "odd", "sound")
    keys = site.ledger.keys
    await site.redis.hdel(keys.call(ids("none")[0]), "epoch")
    await site.redis.hset(keys.call(ids("odd")[0]), "epoch", "x")
    fields: Any = {"state": "queued", "pbx": "pbx01", "epoch": 1}
    await site.redis.hset(cast(Any, keys.call(CELL).encode() + b":\xff"), mapping=fields)
    await site.redis.zadd(keys.queued, {f"{CELL}:".encode() + b"\xff": 1})
    found = await unannounced(site.steps, [CELL], "pbx01", older_than_s=60)
    assert found == [(ids("sound")[0], 1)]


async def test_one_look_returns_and_reads_a_bounded_number(site: Site) -> None:
    await queued(site, "r-1", "r-2", "r-3", "r-4")

    async def look(most: int, read: int) -> Any:
        key, call = site.ledger.keys.queued, LedgerKeys("").call("")
        found: Any = await site.steps.run("unannounced", [key], ["pbx01", 60_000, call, most, read])
        return [i.decode().partition(":")[2] for i in found[::2]]

    assert await look(100, 1000) == ["r-1", "r-2", "r-3", "r-4"]
    assert await look(3, 1000) == ["r-1", "r-2", "r-3"]
    assert await look(100, 2) == ["r-1", "r-2"]


# --- the verdict --------------------------------------------------------------------------


async def condemned(site: Site) -> Any:
    """A verdict whose first trial is due."""
    await site.beat()
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert await site.registry.condemn(state, "no word")
    await pass_ms(site, 2_000)
    return state


async def pass_ms(site: Site, ms: int) -> None:
    await site.redis.hincrby(VERDICT, "trial_ms", -ms)


async def test_a_verdict_is_written_once(site: Site) -> None:
    state = await condemned(site)
    before = await hashed(site, VERDICT)
    assert before["reason"] == "no word"
    verdict = (await site.registry.pbxs([pbx()]))["pbx01"].verdict
    assert verdict is not None
    assert (verdict.reason, verdict.trials, verdict.trial) == ("no word", 0, "")
    assert 0 <= verdict.age_s < 60
    assert 2 <= verdict.trial_age_s < 60
    assert (before["trial"], before["trials"], before["instance"]) == ("", "0", "i1")
    assert VERDICT_RETENTION_S - 60 < await site.redis.ttl(VERDICT) <= VERDICT_RETENTION_S
    assert not await site.registry.condemn(state, "another")
    assert await hashed(site, VERDICT) == before


async def test_a_verdict_of_a_former_worker_is_replaced_whole(site: Site) -> None:
    state = await condemned(site)
    await site.redis.hset(VERDICT, mapping={"trials": 7, "lifted": "x"})
    assert not await site.registry.condemn(replace(state, instance="i2"), "it is not there")
    await site.beat(instance="i2")
    assert not (await site.registry.pbxs([pbx()]))["pbx01"].load.is_held
    assert await site.registry.condemn(replace(state, instance="i2"), "again")
    found = await hashed(site, VERDICT)
    assert (found["reason"], found["trials"], found.get("lifted")) == ("again", "0", None)
    assert (await site.registry.pbxs([pbx()]))["pbx01"].load.is_held


async def test_a_lifted_verdict_can_be_given_again(site: Site) -> None:
    state = await condemned(site)
    assert await site.registry.try_with("pbx01", "a")
    assert await site.registry.tried("pbx01", "a", success=True)
    assert await site.registry.condemn(state, "again")


async def test_a_trial_is_due_after_the_pause(site: Site) -> None:
    assert not await site.registry.try_with("pbx01", "a"), "there is no verdict"
    await condemned(site)
    await pass_ms(site, -1_500)
    assert not await site.registry.try_with("pbx01", "a")
    assert (await site.registry.lease(pbx(), ids("a"))).granted == 0
    await pass_ms(site, 1_500)
    assert await site.registry.try_with("pbx01", "a")
    assert (await hashed(site, VERDICT))["trial"] == "a"
    await pass_ms(site, 20_000)
    assert not await site.registry.try_with("pbx01", "b")
    assert (await site.registry.lease(pbx(), ids("b"))).granted == 0
    await pass_ms(site, 10_000)
    assert await site.registry.try_with("pbx01", "b")


async def test_a_failed_trial_begins_the_pause_again(site: Site) -> None:
    await condemned(site)
    assert await site.registry.try_with("pbx01", "a")
    assert not await site.registry.tried("pbx01", "b", success=False)
    await pass_ms(site, 60_000)
    await site.redis.persist(VERDICT)
    assert await site.registry.tried("pbx01", "a", success=False)
    found = await hashed(site, VERDICT)
    assert (found["trial"], found["trials"]) == ("", "1")
    assert not await site.registry.try_with("pbx01", "c"), "the pause began when it failed"
    assert VERDICT_RETENTION_S - 60 < await site.redis.ttl(VERDICT) <= VERDICT_RETENTION_S


async def test_a_successful_trial_keeps_the_results_for_a_minute(site: Site) -> None:
    await condemned(site)
    await site.beat(results='{"claimed": 3}')
    assert await site.registry.try_with("pbx01", "a")
    assert await site.registry.tried("pbx01", "a", success=True)
    assert await hashed(site, VERDICT) == {"lifted": '{"claimed": 3}'}
    assert (await site.registry.pbxs([pbx()]))["pbx01"].lifted.claimed == 3
    assert RESULTS_OF_S - 10 < await site.redis.ttl(VERDICT) <= RESULTS_OF_S
    assert (await site.registry.lease(pbx(), ids("a", "b"))).granted == 2


async def test_a_leased_trial_is_written_down(site: Site) -> None:
    await condemned(site)
    lease = await site.registry.lease(pbx(), ids("a", "b"))
    assert (lease.granted, lease.new) == (1, frozenset(ids("a")))
    found = await hashed(site, VERDICT)
    assert found["trial"] == ids("a")[0]
    now_s, _ = await site.redis.time()
    assert abs(int(found["trial_ms"]) - now_s * 1000) < 20_000


async def test_a_cap_of_one_leaves_room_for_one_call(site: Site) -> None:
    await site.beat(cap=1)
    assert (await site.registry.lease(pbx(), ids("a", "b"))).granted == 1


async def test_every_granted_start_is_counted_and_no_other(site: Site) -> None:
    assert (await site.registry.lease(pbx(max_calls=0), ids("a"))).granted == 0
    assert await site.snapshot() == {}
    await site.registry.lease(pbx(), ids("a"))
    assert (await hashed(site, "dialer:starts:pbx01"))["n"] == "1.000000"
    assert 3_000 < await site.redis.ttl("dialer:starts:pbx01") <= 3_600
    assert 0.1 < (await site.registry.pbxs([pbx()]))["pbx01"].load.recent_starts <= 1


async def test_starts_of_the_last_seconds_still_count(site: Site) -> None:
    now_s, _ = await site.redis.time()
    long_ago: Any = {"n": "1000", "at_us": (now_s - 1) * 1_000_000}
    await site.redis.hset("dialer:starts:pbx01", mapping=long_ago)
    await site.registry.lease(pbx(), ids("a"))
    assert 100 < float((await hashed(site, "dialer:starts:pbx01"))["n"]) < 1000


async def test_a_lacking_target_is_told_for_its_cell(site: Site) -> None:
    await site.beat(lacking=json.dumps({CELL: "no queue"}))
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert (state.why_not_taking(), state.why_not_taking(CELL)) == ("", "no queue")
