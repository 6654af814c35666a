"""What the bridge mends: lost messages, dead PBXs, leaked and lost slots, old calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from tests.integration.cell_rig import CELL, Bridge, Site, cell, pbx
from tests.integration.test_bridge_intake import shut

TWO = (pbx("pbx01"), pbx("pbx02"))
ENDED = "Call ended by the bridge"
R1 = f"{CELL}:r-1"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02")
        yield site


async def look(bridge: Bridge) -> None:
    """One round of the recovery, and one of the reaper."""
    states = await bridge.cell.registry.pbxs(bridge.cell.pbxs)
    await bridge.recovery.judge.look(states)
    await bridge.recovery.move_late(states)
    await bridge.recovery.move_from_unready_pbxs(states)
    await bridge.recovery.judge.try_with_queued(states)
    await bridge.recovery.end_lost(states)
    await bridge.reaper.reap()


async def age(site: Site, *, seconds: float) -> None:
    """Make every publishing and every slot of pbx01 that old."""
    for key in (site.ledger.keys.queued, "dialer:slots:pbx01"):
        for member in cast("list[bytes]", await site.redis.zrange(key, 0, -1)):
            await site.redis.zincrby(key, -seconds * 1000, member)


# --- unclaimed calls -----------------------------------------------------------------------


async def test_call_left_unclaimed_for_10_s_moves_to_another_pbx(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    await age(site, seconds=9)
    await look(bridge)
    assert bridge.nudges.calls == []
    await age(site, seconds=1)
    await look(bridge)
    await look(bridge)
    assert bridge.nudges.calls == [(R1, "pbx02", 2)]
    assert (await site.slots("pbx01"), await site.slots("pbx02")) == (set(), {"r-1"})


async def test_a_claimed_call_is_not_moved(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    await site.claimed()
    await age(site, seconds=31)
    await look(bridge)
    assert bridge.nudges.calls == []


async def test_a_call_that_was_given_back_gets_a_pbx_again(site: Site) -> None:
    bridge = Bridge.of(site)
    await site.admitted()
    await site.claimed()
    await site.ledger.unclaim(R1, pbx="pbx01", token="t")
    await site.registry.release("pbx01", [R1])
    await look(bridge)
    assert bridge.nudges.calls == [(R1, "pbx01", 2)]
    assert await site.slots() == {"r-1"}


# --- moving -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["silent", "down", "stopping"])
async def test_waiting_calls_leave_an_unready_pbx_and_its_task_is_void(
    site: Site, how: str
) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    if how == "silent":
        await site.silence("pbx01", seconds=11)
    else:
        await site.beat("pbx01", how)  # type: ignore[arg-type]
    await look(bridge)
    assert bridge.nudges.calls == [(R1, "pbx02", 2)]
    assert await site.claimed(pbx="pbx01", epoch=1) is None
    assert (await site.slots("pbx01"), await site.slots("pbx02")) == (set(), {"r-1"})
    assert await site.claimed(pbx="pbx02", epoch=2) is not None


async def test_calls_stay_if_no_other_pbx_has_room(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=(pbx("pbx01"), pbx("pbx02", max_calls=1)))
    await site.admitted("r-1")
    await site.admitted("r-2")
    await site.beat("pbx01", "down")
    await look(bridge)
    assert len(bridge.nudges.calls) == 1
    assert len(await site.slots("pbx01")) == len(await site.slots("pbx02")) == 1


async def test_calls_stay_on_their_pbx_while_none_is_ready(site: Site) -> None:
    bridge = Bridge.of(site)
    await site.admitted()
    await site.beat("pbx01", "down")
    await look(bridge)
    assert bridge.nudges.calls == []
    assert (await site.entry()).call.epoch == 1


async def test_a_call_moves_only_to_a_pbx_that_has_the_cells_trunk(site: Site) -> None:
    other = pbx("pbx02", trunks=frozenset({"vivo"}))
    where = cell("pbx01", "pbx02", trunk="tim")
    bridge = Bridge.of(site, pbxs=(pbx("pbx01"), other), cell_table=where)
    await site.admitted()
    await site.beat("pbx01", "down")
    await look(bridge)
    assert bridge.nudges.calls == []


async def test_call_queued_to_a_former_pbx_moves_to_another(
    site: Site,
) -> None:
    bridge = Bridge.of(site, pbxs=[pbx("pbx01")])
    await site.admitted(pbx="pbx09")
    await age(site, seconds=31)
    await look(bridge)
    assert bridge.nudges.calls == [(R1, "pbx01", 2)]
    assert await site.slots("pbx09") == set()


async def test_two_bridges_that_move_the_same_call_leave_it_its_slot(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second leases first, places last: the lease that looks like its own is the call's."""
    first, second = (Bridge.of(site, name=n, pbxs=TWO) for n in ("bridge-1", "bridge-2"))
    await site.admitted()
    await site.beat("pbx01", "down")
    states = await site.registry.pbxs(TWO)
    waiting = [await site.waiting()]
    place = type(second.cell.ledger).assign

    async def late(self: object, *args: object) -> int:
        monkeypatch.setattr(type(second.cell.ledger), "assign", place)
        await first.recovery.move_from(
            "pbx01", states, at_most=1
        )  # between the other's lease and its place
        entry = await site.claimed(pbx="pbx02", epoch=2)
        assert entry is not None  # and its worker was quick
        return await place(second.cell.ledger, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(type(second.cell.ledger), "assign", late)
    entries = await second.recovery._unexpired(waiting, states)
    await second.recovery._move(waiting, entries, states)
    assert first.nudges.calls == [(R1, "pbx02", 2)]
    assert second.nudges.calls == []
    assert await site.slots("pbx02") == {"r-1"}


# --- ending -------------------------------------------------------------------------


async def test_a_waiting_call_past_its_time_is_answered_expired(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge.of(site)
    await site.admitted(ValidadeSeg=1)
    old = int((datetime.now(UTC) - timedelta(seconds=1)).timestamp() * 1000)
    await site.redis.hset(site.ledger.keys.call(R1), "expires_ms", old)
    await age(site, seconds=31)
    await look(bridge)
    (response,) = await site.responses()
    assert (response["Resultado"], response["Erro"]["Codigo"]) == ("EXPIRED", "expired")
    assert await site.slots() == set()
    assert bridge.nudges.calls == []
    assert await site.counters() == (0, 0)
    (logged,) = [vars(r) for r in caplog.records if r.getMessage() == ENDED]
    assert (logged["call_id"], logged["pbx"], logged["error"]) == (R1, "pbx01", "expired")


async def test_a_call_that_was_claimed_in_that_moment_does_not_expire(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge.of(site)
    await site.admitted(ValidadeSeg=1)
    old = int((datetime.now(UTC) - timedelta(seconds=1)).timestamp() * 1000)
    await site.redis.hset(site.ledger.keys.call(R1), "expires_ms", old)
    end = type(bridge.cell.ledger).end

    async def late(self: object, *args: object, **more: object) -> str:
        assert await site.claimed() is not None
        return await end(bridge.cell.ledger, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(type(bridge.cell.ledger), "end", late)
    await age(site, seconds=31)
    await look(bridge)
    assert await site.state() == "originating"
    assert await site.responses() == []
    assert await site.slots() == {"r-1"}
    assert ENDED not in caplog.messages


async def test_expired_call_is_answered_while_no_pbx_is_ready(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted("over", ValidadeSeg=1)
    await site.admitted("in-time", ValidadeSeg=3600)
    old = int((datetime.now(UTC) - timedelta(seconds=1)).timestamp() * 1000)
    await site.redis.hset(site.ledger.keys.call(f"{CELL}:over"), "expires_ms", old)
    await site.silence("pbx01", seconds=11)
    await site.beat("pbx02", "down")
    await age(site, seconds=31)
    await look(bridge)
    (response,) = await site.responses()
    assert (response["IdRequisicao"], response["Resultado"]) == ("over", "EXPIRED")
    assert await site.slots() == {"in-time"}
    assert await site.state("in-time") == "queued"
    assert bridge.nudges.calls == []


async def test_call_outside_hours_is_answered_while_no_pbx_is_ready(site: Site) -> None:
    bridge = Bridge.of(site, cell_table=shut("expire"))
    await site.admitted()
    await site.beat("pbx01", "down")
    await age(site, seconds=31)
    await look(bridge)
    assert [r["Erro"]["Codigo"] for r in await site.responses()] == ["outside_hours"]
    assert await site.slots() == set()


@pytest.mark.parametrize("outside_hours", ["hold", "expire"])
async def test_after_hours_a_waiting_call_is_not_published(site: Site, outside_hours: str) -> None:
    bridge = Bridge.of(site, cell_table=shut(outside_hours))
    await site.admitted()
    await age(site, seconds=31)
    await look(bridge)
    assert bridge.nudges.calls == []
    codes = [r["Erro"]["Codigo"] for r in await site.responses()]
    assert codes == (["outside_hours"] if outside_hours == "expire" else [])


async def test_claimed_calls_of_a_lost_pbx_are_answered_unknown(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO, pbx_lost_after_s=120)
    await site.admitted("r-1")
    await site.claimed("r-1")
    await site.accepted("r-2")
    await site.silence("pbx01", seconds=60)
    await look(bridge)
    assert await site.responses() == []
    await site.silence("pbx01", seconds=121)
    await look(bridge)
    (response,) = await site.responses()
    assert (response["Resultado"], response["Erro"]["Codigo"]) == ("UNKNOWN", "pbx_lost")
    assert await site.state("r-2") == "ended"  # its code is awaited
    assert await site.slots() == set()


async def test_calls_of_a_pbx_that_just_came_back_are_not_given_up(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted()
    await site.claimed()
    await site.silence("pbx01", seconds=300)
    states = await bridge.cell.registry.pbxs(TWO)
    await site.beat("pbx01")  # while this bridge was stopped
    await bridge.recovery.end_lost(states)
    assert await site.state() == "originating"


async def test_a_registry_that_lost_its_data_is_no_lost_pbx(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge.of(site, pbx_lost_after_s=5)
    await site.admitted()
    await site.claimed()
    await site.redis.delete("dialer:pbx:pbx01", "dialer:slots:pbx01")
    await look(bridge)
    assert await site.state() == "originating"
    for pbx_name in bridge.recovery._unknown_since:  # five seconds later
        bridge.recovery._unknown_since[pbx_name] -= 5
    await look(bridge)
    assert [r["Resultado"] for r in await site.responses()] == ["UNKNOWN"]


async def test_claimed_calls_of_a_former_pbx_are_answered(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=[pbx("pbx01")])
    await site.beat("pbx09")
    await site.admitted(pbx="pbx09")
    await site.claimed(pbx="pbx09")
    await look(bridge)
    assert await site.state() == "originating"  # its worker lives: it is still followed
    await site.silence("pbx09", seconds=121)
    await look(bridge)
    assert [r["Resultado"] for r in await site.responses()] == ["UNKNOWN"]
    assert await site.slots("pbx09") == set()


# --- slots --------------------------------------------------------------------------


async def test_leaked_slots_come_back_and_a_live_calls_slot_never_does(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted("queued")
    await site.accepted("up")
    await site.accepted("over")
    await site.end("over")
    await site.admitted("done")
    await site.end("done")
    await site.admitted("elsewhere", pbx="pbx02")
    held = {"queued", "up"}
    leaked = {"over", "done", "elsewhere", "never-admitted"}
    members = {f"{CELL}:{name}": 1 for name in held | leaked} | {"OTHER:call": 1}
    await site.redis.zadd("dialer:slots:pbx01", members)
    await bridge.reaper.reap()
    assert await site.slots("pbx01") == held | {"call"}
    assert await site.slots("pbx02") == {"elsewhere"}


async def test_leaked_slots_of_a_former_pbx_are_released(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=[pbx("pbx01")], former=["pbx02"])
    await site.admitted("up", pbx="pbx02")
    await site.claimed("up", pbx="pbx02")
    await site.redis.zadd("dialer:slots:pbx02", {f"{CELL}:leaked": 1, "OTHER:call": 1})
    await site.registry.lease(pbx("pbx02"), [f"{CELL}:on-its-way"])
    await bridge.reaper.reap()
    assert await site.slots("pbx02") == {"up", "call", "on-its-way"}


async def test_fresh_lease_is_left_alone(site: Site) -> None:
    bridge = Bridge.of(site)
    await site.registry.lease(pbx(), [R1])
    await bridge.reaper.reap()
    assert await site.slots() == {"r-1"}


async def test_lost_slots_of_live_calls_are_restored(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=TWO)
    await site.admitted("queued")
    await site.accepted("up")
    await site.accepted("over")
    await site.end("over")
    await site.redis.delete("dialer:slots:pbx01", "dialer:slots:pbx02")
    await bridge.reaper.reap()
    assert await site.slots("pbx01") == {"queued", "up"}
    assert await site.slots("pbx02") == set()
