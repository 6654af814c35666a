"""Whatever another program left in our keys ends no process, and no call of another PBX."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dialer.domain.call import State
from dialer.store.ledger import WorkerLedger
from dialer.store.ledger.fence import Fence
from dialer.store.ledger.unannounced import unannounced
from dialer.store.registry import Holder
from tests.integration.cell_rig import CELL, T0, Bridge, Site, pbx
from tests.integration.test_bridge_recovery import look

R1, R2 = f"{CELL}:r-1", f"{CELL}:r-2"
TWO = (pbx("pbx01"), pbx("pbx02"))
A = Holder(name="pbx01-a", host="host-a", pid="7", place="")

FILLED: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda redis, key: redis.set(key, b"\xff\x00 garbage"),
    "hash": lambda redis, key: redis.hset(key, "x", b"\xff"),
    "zset": lambda redis, key: redis.zadd(key, {b"\xff": 1.5, f"{CELL}:\u00ff": 2}),
    "set": lambda redis, key: redis.sadd(key, b"\xff"),
    "list": lambda redis, key: redis.rpush(key, b"\xff"),
}
OF_PBX = ("pbx", "slots", "pace", "starts", "verdict")
NO_NUMBERS = (b"\xff", b"soon", b"nan", b"inf", b"1e300", b"9" * 5_000, b"0x", b"")


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02")
        yield site


@pytest.mark.parametrize("kind", FILLED)
@pytest.mark.parametrize("key", OF_PBX)
async def test_a_key_of_another_type_stops_no_other_pbx(site: Site, key: str, kind: str) -> None:
    name = f"dialer:{key}:pbx01"
    await site.redis.delete(name)
    await FILLED[kind](site.redis, name)
    assert (await site.registry.pbxs(TWO))["pbx02"].load.room > 0
    await site.beat("pbx01")
    assert (await site.registry.lease(pbx(), [R1])).granted == 1
    assert (await site.registry.pbxs(TWO))["pbx01"].load.calls >= 1
    await site.registry.release("pbx01", [R1], fence=1)
    assert (await site.registry.hold("pbx01", A)).fence > 0
    await site.registry.let_go("pbx01", A.name)


@pytest.mark.parametrize("garbage", NO_NUMBERS, ids=lambda one: one[:6].decode("latin1"))
async def test_fields_that_are_no_numbers_stop_nothing(site: Site, garbage: bytes) -> None:
    names = (
        "seen_ms",
        "ready_ms",
        "skew_ms",
        "cap",
        "fence",
        "asterisk",
        "lacking",
        "results",
        "governor",
    )
    verdict = ("trial", "trial_ms", "since_ms", "trials", "lifted")
    await site.redis.hset("dialer:pbx:pbx01", mapping=dict.fromkeys(names, garbage))
    instance = await site.redis.hget("dialer:pbx:pbx01", "instance")
    standing: dict[Any, Any] = {
        **dict.fromkeys(verdict, garbage),
        "reason": "r",
        "instance": instance,
    }
    await site.redis.hset("dialer:verdict:pbx01", mapping=standing)
    await site.redis.set("dialer:pace:pbx01", garbage)
    await site.redis.hset("dialer:starts:pbx01", mapping={"n": garbage, "at_us": garbage})
    assert (await site.registry.pbxs(TWO))["pbx02"].load.room > 0
    assert await site.registry.unready_s("pbx01") > 0
    assert isinstance(await site.registry.asterisk("pbx01"), str)
    assert (await site.registry.hold("pbx01", A)).fence > 0
    await site.beat("pbx01")
    assert (await site.registry.pbxs(TWO))["pbx01"].load.ready
    assert (await site.registry.lease(pbx(), [R1])).granted == 1
    await site.registry.tried("pbx01", R1, success=False)
    await site.registry.try_with("pbx01", R2)
    assert (await site.registry.pbxs(TWO))["pbx01"].load.is_held


@pytest.mark.parametrize("kind", FILLED)
async def test_a_fence_of_garbage_fences_nobody(site: Site, kind: str) -> None:
    await site.admitted()
    await FILLED[kind](site.redis, f"dialer:fence:{CELL}:pbx01")
    mine = WorkerLedger(site.steps, CELL, "right", fence=Fence("pbx01", 10))
    assert await mine.claim(R1, pbx="pbx01", epoch=1, at=T0, boot="b", token="u")


@pytest.mark.parametrize("kind", ["string", "set"])
async def test_a_worker_looks_into_the_other_cells(site: Site, kind: str) -> None:
    await site.admitted()
    await FILLED[kind](site.redis, "dialer:queued:OTHER")
    queued: dict[Any, Any] = {R1: 1, b"\xff": 1}
    await site.redis.zadd(f"dialer:queued:{CELL}", queued)
    found = await unannounced(site.steps, ["OTHER", CELL], "pbx01", older_than_s=0.5)
    assert found == [(R1, 1)]


@pytest.mark.parametrize("field", ["state", "epoch"])
async def test_an_odd_state_or_epoch_ends_no_bridge(site: Site, field: str) -> None:
    await site.admitted("r-1")
    await site.admitted("r-2")
    await site.redis.hset(f"dialer:call:{R1}", field, b"\xff odd")
    await site.redis.zadd(f"dialer:queued:{CELL}", {R1: 1, R2: 1})
    due = [one async for part in site.ledger.due(older_than_s=0) for one in part]
    assert [one.call_id for one in due] == [R2]
    assert (await site.ledger.trial(R1)).state == (None if field == "state" else State.QUEUED)
    assert R2 in await site.ledger.slot_holders([R1, R2])
    assert await site.ledger.first_queued(["pbx01"])
    bridge = Bridge.of(site, pbxs=TWO)
    await look(bridge)
    await bridge.reaper.reap()


async def test_an_unreadable_claimed_call_hides_no_other(site: Site) -> None:
    for name in ("r-1", "r-2"):
        await site.admitted(name)
        await site.claimed(name)
    await site.redis.hset(f"dialer:call:{R1}", "dialed_ms", b"9" * 400)
    await site.redis.sadd(f"dialer:claimed:{CELL}:pbx01", b"\xff")
    assert [entry.call.call_id for entry in await site.ledger.claimed("pbx01")] == [R2]


async def test_a_call_that_cannot_be_read_is_given_back(site: Site) -> None:
    await site.admitted()
    await site.redis.hset(f"dialer:call:{R1}", "request", b"{no json")
    claim = site.ledger.claim(R1, pbx="pbx01", epoch=1, at=T0, boot="b", token="u")
    assert await claim is None
    assert await site.redis.hget(f"dialer:call:{R1}", "state") == b"admitted"
    await look(Bridge.of(site, pbxs=TWO))
    assert (await site.responses())[0]["Erro"]["Codigo"] == "internal_error"
