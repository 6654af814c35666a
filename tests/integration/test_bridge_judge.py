"""PBXs that say they are ready and take no calls: verdict, trial calls, and how it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.taking import Results
from dialer.store.registry import PbxState
from tests.integration.cell_rig import BUSY, CELL, T0, Bridge, Site, pbx
from tests.integration.test_bridge_recovery import age, look

TWO = (pbx("pbx01"), pbx("pbx02"))
CONDEMNED = (
    "PBX takes no calls although its worker says it is ready; its calls go to other PBXs, and "
    "single calls try it"
)
BAD = json.dumps({"claimed": 20, "accepted": 12, "no_word": 8})


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02")
        yield site


def ids(*names: str) -> list[str]:
    return [f"{CELL}:{name}" for name in names]


async def state_of(site: Site, name: str = "pbx01") -> PbxState:
    return (await site.registry.pbxs(TWO))[name]


async def seen_ready_for_long(bridge: Bridge) -> None:
    """One round, as if this bridge had seen each PBX ready for ten seconds before it."""
    await look(bridge)
    since = bridge.recovery.judge._ready_since
    for name in since:
        since[name] -= 10


async def pass_time(site: Site, *, seconds: float, name: str = "pbx01") -> None:
    """Make the last trial of a PBX that old."""
    await site.redis.hincrby(f"dialer:verdict:{name}", "trial_ms", int(-seconds * 1000))


async def condemned(site: Site, bridge: Bridge) -> None:
    """Make pbx01 a PBX that is not taking calls, ready to be tried."""
    await site.beat("pbx01", results=BAD)
    await look(bridge)
    assert (await state_of(site)).load.is_held
    await pass_time(site, seconds=2)


# --- the verdict --------------------------------------------------------------------


async def test_pbx_that_claims_nothing_is_not_taking_calls(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (Bridge.of(site, name=n, pbxs=TWO) for n in ("one", "two"))
    await seen_ready_for_long(one)
    await seen_ready_for_long(two)
    for name in ("r-1", "r-2"):
        await site.admitted(name)
    await age(site, seconds=10)
    await look(one)
    await look(two)
    state = await state_of(site)
    assert (state.load.ready, state.load.is_taking_calls, state.load.room) == (True, False, 0)
    assert state.verdict is not None
    assert "did not claim 2 calls that waited for 10 s" in state.verdict.reason
    assert (await site.slots("pbx01"), await site.slots("pbx02")) == (set(), {"r-1", "r-2"})
    assert caplog.messages.count(CONDEMNED) == 1  # whoever judges, one says so


async def test_pbx_or_bridge_that_was_away_is_not_judged(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await look(bridge)
    await site.admitted()
    await age(site, seconds=10)
    await look(bridge)  # this bridge has not seen it ready for so long
    assert (await state_of(site)).verdict is None
    assert await site.slots("pbx02") == {"r-1"}
    await seen_ready_for_long(bridge)
    bridge.recovery.judge._looked_at -= 4  # it was stopped
    await site.admitted("r-2")
    await site.redis.zincrby(site.ledger.keys.queued, -10_000, f"{CELL}:r-2")
    await look(bridge)
    assert (await state_of(site)).verdict is None


async def test_pbx_whose_calls_end_at_once_is_not_taking_calls(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.beat("pbx01", results=json.dumps({"claimed": 20, "no_word": 5}))
    await look(bridge)
    assert (await state_of(site)).verdict is None
    await site.beat("pbx01", results=BAD)
    await site.admitted()
    await look(bridge)
    verdict = (await state_of(site)).verdict
    assert verdict is not None
    assert verdict.reason == "of its 20 calls of the last minute 8 got no word from Asterisk"
    await look(bridge)
    assert bridge.nudges.calls == [(f"{CELL}:r-1", "pbx02", 2)]
    (logged,) = [vars(r) for r in caplog.records if r.getMessage() == CONDEMNED]
    assert (logged["pbx"], logged["reason"]) == ("pbx01", verdict.reason)


async def test_restarted_worker_is_not_held_back(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await condemned(site, bridge)
    stale = await state_of(site)
    await site.beat("pbx01", instance="new", results="{}")
    state = await state_of(site)
    assert (state.verdict, state.load.is_taking_calls) == (None, True)
    assert (await site.registry.lease(pbx(), ids("a", "b"))).granted == 2
    assert not await site.registry.condemn(stale, "of the old one")


async def test_verdict_without_trials_ends_by_itself(site: Site) -> None:
    await condemned(site, Bridge.of(site, pbxs=TWO))
    assert 0 < await site.redis.ttl("dialer:verdict:pbx01") <= 600


# --- trial calls --------------------------------------------------------------------


async def test_held_pbx_gets_one_trial_call_at_a_time(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await condemned(site, bridge)
    assert (await state_of(site)).load.room == 1
    lease = await site.registry.lease(pbx(), ids("a", "b", "c"))
    assert (lease.granted, await site.slots()) == (1, {"a"})
    assert (await state_of(site)).load.room == 0
    assert (await site.registry.lease(pbx(), ids("b"))).granted == 0
    assert (await site.registry.lease(pbx(), ids("a"))).granted == 1  # it has its slot
    await pass_time(site, seconds=31)  # the bridge that gave it died
    assert (await state_of(site)).load.room == 1
    assert (await site.registry.lease(pbx(), ids("b"))).granted == 1


async def trial(site: Site, bridge: Bridge, name: str = "try") -> None:
    """Give pbx01 a trial call, which its worker claims."""
    await condemned(site, bridge)
    assert (await site.registry.lease(pbx(), ids(name))).granted == 1
    await site.admitted(name)
    await site.claimed(name)


@pytest.mark.parametrize("how", ["up", "busy"])
async def test_successful_trial_lifts_the_verdict(site: Site, how: str) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await trial(site, bridge)
    await look(bridge)
    assert (await state_of(site)).verdict is not None
    if how == "up":
        await site.accept(await site.entry("try"))
        await look(bridge)
        assert (await state_of(site)).verdict is not None
        bridge.recovery.judge._up[f"{CELL}:try"] -= 1
    else:
        await site.end("try", BUSY)
    await look(bridge)
    state = await state_of(site)
    assert (state.verdict, state.load.is_taking_calls) == (None, True)
    assert state.lifted == Results(claimed=20, accepted=12, no_word=8)
    await look(bridge)  # the calls before are not judged again
    assert (await state_of(site)).verdict is None
    assert 0 < await site.redis.ttl("dialer:verdict:pbx01") <= 60


@pytest.mark.parametrize(
    ("result", "code"), [(Result.FAILED, "no_word"), (Result.ANSWERED, "not_handed_over")]
)
async def test_failed_trial_is_followed_by_another_after_a_pause(
    site: Site, result: Result, code: str
) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await trial(site, bridge)
    error = CallError(code=code, message="m")
    await site.end("try", Ending(result=result, ended_at=T0, error=error))
    await look(bridge)
    state = await state_of(site)
    assert state.verdict is not None
    assert (state.verdict.trial, state.verdict.trials, state.load.room) == ("", 1, 0)
    await pass_time(site, seconds=2)
    assert (await state_of(site)).load.room == 1


async def test_trial_that_is_not_claimed_moves_after_3_s(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await condemned(site, bridge)
    await site.registry.lease(pbx(), ids("try"))
    await site.admitted("try")
    await look(bridge)
    assert await site.slots("pbx01") == {"try"}  # other calls move, the trial stays
    await pass_time(site, seconds=3)
    await look(bridge)
    await look(bridge)
    assert bridge.nudges.calls == [(f"{CELL}:try", "pbx02", 2)]
    assert (await site.slots("pbx01"), await site.slots("pbx02")) == (set(), {"try"})


async def test_calls_of_the_only_pbx_stay_and_one_of_them_tries_it(site: Site) -> None:
    bridge = Bridge.of(site)
    await seen_ready_for_long(bridge)
    for name in ("r-1", "r-2"):
        await site.admitted(name)
    await age(site, seconds=10)
    await look(bridge)
    await look(bridge)
    assert (await state_of(site)).verdict is not None
    assert (bridge.nudges.calls, len(await site.slots())) == ([], 2)
    await pass_time(site, seconds=2)
    await look(bridge)
    verdict = (await state_of(site)).verdict
    assert verdict is not None
    assert verdict.trial == f"{CELL}:r-1"
    await site.claimed("r-1")  # its worker is back
    await site.end("r-1", BUSY)
    await look(bridge)
    assert (await state_of(site)).verdict is None


# --- what else decides ----------------------------------------------------------------


async def test_expired_call_names_the_pbx_that_took_no_calls(site: Site) -> None:
    bridge = Bridge.of(site)
    await site.beat("pbx01", trouble="its consumer was cancelled")
    await site.admitted(ValidadeSeg=1)
    await site.redis.hset(site.ledger.keys.call(f"{CELL}:r-1"), "expires_ms", 1)
    await age(site, seconds=10)
    await look(bridge)
    (response,) = await site.responses()
    assert response["Erro"] == {
        "Codigo": "expired",
        "Mensagem": "ValidadeSeg passed before it was dialed; it waited for pbx01, which takes no "
        "calls: its consumer was cancelled",
    }


@pytest.mark.parametrize(
    "facts",
    [
        {"trouble": "its consumer was cancelled"},
        {"skew_ms": 30_001},
        {"skew_ms": -600_000},
    ],
)
async def test_worker_in_trouble_is_not_ready(site: Site, facts: dict[str, Any]) -> None:
    await site.beat("pbx01", **facts)
    state = await state_of(site)
    assert (state.link, state.load.ready) == ("up", False)
    assert state.why_not_taking()
    assert (await state_of(site, "pbx02")).why_not_taking() == ""


async def test_silent_worker_gets_no_calls_long_before_it_is_dead(site: Site) -> None:
    await site.silence("pbx01", seconds=3)
    assert (await state_of(site)).load.ready
    await site.silence("pbx01", seconds=5)
    state = await state_of(site)
    assert (state.load.ready, state.is_alive) == (False, True)
    assert state.why_not_taking() == "no heartbeat of its worker for 5 s"


async def test_reason_not_to_take_calls_is_that_of_the_first_cause(site: Site) -> None:
    async def why(cell: str | None = None) -> str:
        return (await state_of(site)).why_not_taking(cell)

    await site.redis.delete("dialer:pbx:pbx01")
    assert await why() == "no worker of it ever came"
    await site.beat("pbx01", "down")
    assert (await why()).startswith("no AMI link for ")
    await site.beat("pbx01", "up", lacking=json.dumps({CELL: "no queue"}))
    assert (await why(), await why(CELL)) == ("", "no queue")
    await condemned(site, Bridge.of(site, pbxs=TWO))
    assert "8 got no word from Asterisk" in await why()
    await site.beat("pbx01", "stopping")
    assert await why() == "its worker was stopped"


async def test_call_leaves_a_pbx_whose_worker_is_in_trouble_at_once(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    await site.beat("pbx01", trouble="its consumer was cancelled")
    await look(bridge)
    assert bridge.nudges.calls == [(f"{CELL}:r-1", "pbx02", 2)]


@pytest.mark.parametrize("results", ["", "[]", "{", '{"claimed": "x", "new": 1}', "\xff"])
async def test_unknown_words_in_a_heartbeat_mean_nothing(site: Site, results: str) -> None:
    await site.beat("pbx01", results=results, lacking=results, skew_ms="soon", cap="many")
    state = await state_of(site)
    assert (state.results, state.load.max_calls, state.load.ready) == (Results(), 50, True)


async def test_limit_of_asterisk_caps_load_and_lease(site: Site) -> None:
    await site.beat("pbx01", cap=2)
    assert (await state_of(site)).load.max_calls == 2
    assert (await site.registry.lease(pbx(), ids("a", "b", "c"))).granted == 2
    await site.beat("pbx01", cap=0)
    assert (await site.registry.lease(pbx(), ids("c"))).granted == 1


async def test_starts_count_as_load_after_the_calls_have_ended(site: Site) -> None:
    lease = await site.registry.lease(pbx(), ids("a", "b", "c"))
    await site.registry.release("pbx01", lease.new)
    load = (await state_of(site)).load
    assert load.calls == 0
    assert 2 < load.recent_starts <= 3
    await site.redis.hincrby("dialer:starts:pbx01", "at_us", -10_000_000)
    assert 0.7 < (await state_of(site)).load.recent_starts < 1.2
    await site.registry.lease(pbx(), ids("d"))
    assert 1.7 < (await state_of(site)).load.recent_starts < 2.2
