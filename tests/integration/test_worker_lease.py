"""The lease of a PBX: one worker at a time, and what a fenced worker may not write."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dialer.domain.call import State
from dialer.errors import Fenced, PbxHeld
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.store.keys import IDLE_RETENTION_S
from dialer.store.ledger import Waiting, WorkerLedger
from dialer.store.ledger.fence import Fence
from dialer.store.registry import PBX_DEAD_AFTER_S, Holder
from tests.integration.cell_rig import BUSY, CELL, T0, Site, pbx
from tests.integration.stack import SECRET, Program, Stack
from tests.waiting import wait_until
from workers.pbx.clock import RedisClock
from workers.pbx.lease import PbxLease, Pulse

R1 = f"{CELL}:r-1"
A = Holder(name="pbx01-a", host="host-a", pid="7", place="")
B = Holder(name="pbx01-b", host="host-b", pid="7", place="")


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


def lease(site: Site, place: str = "here") -> PbxLease:
    return PbxLease(site.registry, Fence("pbx01"), RedisClock(), Pulse(place))


def ledger(site: Site, fence: Fence) -> WorkerLedger:
    return WorkerLedger(site.steps, CELL, "right", fence=fence)


async def beat(site: Site, one: Holder, fence: int, link: Any = "up") -> bool:
    reply = await site.registry.heartbeat(
        "pbx01", instance="i", link=link, facts={"calls": 3}, holder=one.name, fence=fence
    )
    return reply.is_holder


# --- who has the lease --------------------------------------------------------------------


async def test_the_first_worker_gets_the_lease(site: Site) -> None:
    held = await site.registry.hold("pbx01", A)
    assert held.fence == held.now_ms
    assert await beat(site, A, held.fence)


async def test_a_second_worker_does_not_get_it(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    second = await site.registry.hold("pbx01", B)
    assert (second.fence, second.holder) == (0, A)
    assert await beat(site, A, first.fence)
    assert not await beat(site, B, first.fence - 1)


async def test_a_lost_reply_gives_the_same_number_again(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    assert (await site.registry.hold("pbx01", A)).fence == first.fence


async def test_a_silent_holder_loses_the_lease(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    await site.silence("pbx01", seconds=PBX_DEAD_AFTER_S + 0.1)
    second = await site.registry.hold("pbx01", B)
    assert second.fence > first.fence
    assert not await beat(site, A, first.fence)
    raw: Any = await site.redis.hget("dialer:pbx:pbx01", "calls")
    assert raw is None, "a fenced worker wrote a heartbeat"


async def test_a_lease_that_was_let_go_is_free(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    await site.registry.let_go("pbx01", A.name)
    second = await site.registry.hold("pbx01", B)
    assert second.fence > first.fence
    await site.registry.let_go("pbx01", A.name)
    assert (await site.registry.hold("pbx01", A)).holder == B, "only its holder returns it"
    assert await beat(site, B, second.fence)


async def test_a_stopping_worker_that_was_replaced_writes_nothing(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    second = await site.registry.hold("pbx01", B, dead=A.name)
    assert await beat(site, B, second.fence)
    assert not await beat(site, A, first.fence, link="stopping")
    assert (await site.redis.hget("dialer:pbx:pbx01", "link")) == b"up"


async def test_a_registry_without_its_data_locks_nobody_out(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    await site.redis.flushall()
    assert await beat(site, A, first.fence)
    assert (await site.registry.hold("pbx01", B)).fence == 0


async def test_a_failover_that_forgot_the_lease_ends_no_worker(site: Site) -> None:
    await site.registry.hold("pbx01", A)
    before: Any = await site.redis.hgetall("dialer:pbx:pbx01")
    second = await site.registry.hold("pbx01", B, dead=A.name)
    await site.redis.hset("dialer:pbx:pbx01", mapping=before)  # the last write is lost
    assert await beat(site, B, second.fence)
    assert (await site.redis.hget("dialer:pbx:pbx01", "holder")) == B.name.encode()


async def test_the_number_grows_though_the_clock_was_set_back(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    ahead = first.fence + 10**9
    await site.redis.hset("dialer:pbx:pbx01", "fence", str(ahead))
    assert (await site.registry.hold("pbx01", B, dead=A.name)).fence == ahead + 1


# --- waiting for it -----------------------------------------------------------------------


async def test_a_dead_process_of_this_host_is_replaced_at_once(site: Site) -> None:
    dead = lease(site)
    await dead.take()
    dead.pulse.stop()  # as the kernel does when the process ends
    heir = lease(site)
    async with asyncio.timeout(5):  # 10 s without the pulse
        await heir.take()
    assert heir.fence.number > dead.fence.number
    heir.pulse.stop()


async def test_a_living_process_of_this_host_is_named(site: Site) -> None:
    first, second = lease(site), lease(site)
    await first.take()
    with pytest.raises(PbxHeld, match=rf"pid {first.me.pid} on host {first.me.host}"):
        await second.take()
    first.pulse.stop()


async def test_a_holder_elsewhere_that_beats_is_named_with_its_asterisk(site: Site) -> None:
    held = await site.registry.hold("pbx01", A)
    await site.redis.hset("dialer:pbx:pbx01", "asterisk", "00:1b:21 at 10.0.0.5:5038")
    taking = asyncio.create_task(lease(site).take())
    for _ in range(100):
        if taking.done():
            break
        await beat(site, A, held.fence)
        await asyncio.wait({taking}, timeout=0.1)
    with pytest.raises(PbxHeld, match=r"pid 7 on host host-a, on the Asterisk 00:1b:21 at"):
        await taking


async def test_a_holder_that_stops_is_waited_for(site: Site) -> None:
    first, second = lease(site), lease(site)
    await first.take()
    await beat(site, first.me, first.fence.number, link="stopping")
    taking = asyncio.create_task(second.take())
    assert not (await asyncio.wait({taking}, timeout=0.5))[0]
    await first.let_go()
    async with asyncio.timeout(5):
        await taking
    first.pulse.stop()
    second.pulse.stop()


async def test_a_clock_set_back_keeps_no_lease_of_a_dead_worker(site: Site) -> None:
    held = await site.registry.hold("pbx01", A)
    await site.redis.hset("dialer:pbx:pbx01", "seen_ms", held.now_ms + 3_600_000)
    ticks = itertools.count(step=2.5)
    fence, clock = Fence("pbx01"), RedisClock()
    second = PbxLease(site.registry, fence, clock, Pulse(""), monotonic=lambda: next(ticks))
    async with asyncio.timeout(5):
        await second.take()
    assert second.fence.number > held.fence


async def test_a_lease_that_cannot_be_renewed_is_a_trouble(site: Site) -> None:
    now = 100.0
    one = PbxLease(site.registry, Fence("pbx01"), RedisClock(), Pulse(""), monotonic=lambda: now)
    await one.take()
    assert one.trouble == ""
    now += 8.0
    assert one.trouble.startswith("the worker of pbx01 could not renew its lease for 8 s")
    one.renewed(now)
    assert one.trouble == ""


# --- the cells' ledgers -------------------------------------------------------------------


async def test_a_fenced_worker_changes_no_call(site: Site) -> None:
    await site.admitted("r-1")
    await site.admitted("r-2")
    await site.accepted("r-3")
    await site.admitted("r-4")
    await site.claimed("r-4")
    old, new = ledger(site, Fence("pbx01", 10)), ledger(site, Fence("pbx01", 11))
    entries = {name: await site.entry(name) for name in ("r-3", "r-4")}
    await old.fence_off()
    await new.fence_off()
    before = await site.snapshot()
    request, call = entries["r-4"].request, entries["r-4"].call
    waiting = await site.waiting("r-2")
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: old.fence_off(),
        lambda: old.claim(R1, pbx="pbx01", epoch=1, at=T0, boot="b", token="u"),
        lambda: old.unclaim(f"{CELL}:r-4", pbx="pbx01", token="t"),
        lambda: old.accept(request, pbx="pbx01", uniqueid="u", attempts=1, at=T0, code_wait_s=1),
        lambda: old.answer(f"{CELL}:r-3", at=T0),
        lambda: old.end(call, request, BUSY),
        lambda: old.assign(waiting, "pbx01"),
    ]
    for step in steps:
        with pytest.raises(Fenced):
            await step()
    assert await site.snapshot() == before


async def test_each_step_of_a_worker_fences_older_ones(site: Site) -> None:
    await site.admitted("r-1")
    await site.admitted("r-2")
    await site.claimed("r-2")
    mine = ledger(site, Fence("pbx01", 11))
    entry = await site.entry("r-2")
    request, call = entry.request, entry.call
    waiting = Waiting(call_id=R1, state=State.ADMITTED, epoch=1, pbx=None)
    steps: list[Callable[[], Awaitable[object]]] = [
        mine.fence_off,
        lambda: mine.claim(R1, pbx="pbx01", epoch=1, at=T0, boot="b", token="u"),
        lambda: mine.unclaim(R1, pbx="pbx01", token="u"),
        lambda: mine.assign(waiting, "pbx01"),
        lambda: mine.accept(request, pbx="pbx01", uniqueid="u", attempts=1, at=T0, code_wait_s=1),
        lambda: mine.answer(call.call_id, at=T0),
        lambda: mine.end(call, request, BUSY),
    ]
    fence = f"dialer:fence:{CELL}:pbx01"
    for step in steps:
        await site.redis.delete(fence)
        assert await step() not in (False, 0, "void")
        assert await site.redis.get(fence) == b"11"
        assert IDLE_RETENTION_S - 60 < await site.redis.ttl(fence) <= IDLE_RETENTION_S


async def test_the_newer_worker_and_a_bridge_are_not_fenced(site: Site) -> None:
    await site.admitted()
    old, new = ledger(site, Fence("pbx01", 10)), ledger(site, Fence("pbx01", 11))
    await new.fence_off()
    assert await new.claim(R1, pbx="pbx01", epoch=1, at=T0, boot="b", token="u")
    other = ledger(site, Fence("pbx02", 1))
    await other.fence_off()
    with pytest.raises(Fenced):
        await old.fence_off()
    assert await site.end() == "done"


async def test_a_fenced_worker_releases_no_slot(site: Site) -> None:
    first = await site.registry.hold("pbx01", A)
    second = await site.registry.hold("pbx01", B, dead=A.name)
    await site.registry.lease(pbx(), [R1])
    await site.registry.release("pbx01", [R1], fence=first.fence)
    assert await site.slots() == {"r-1"}
    await site.registry.release("pbx01", [R1], fence=second.fence)
    assert await site.slots() == set()
    await site.registry.lease(pbx(), [R1])
    await site.registry.release("pbx01", [R1])
    assert await site.slots() == set(), "a bridge has no number"


async def test_the_holder_gets_a_greater_number_than_a_cell_knows(site: Site) -> None:
    one = lease(site)
    await one.take()
    ahead = one.fence.number + 10**9  # the registry's clock was set back, or it lost its data
    await site.redis.set(f"dialer:fence:{CELL}:pbx01", ahead)
    await site.admitted()
    mine = ledger(site, one.fence)
    assert await mine.claim(R1, pbx="pbx01", epoch=1, at=T0, boot="b", token="u")
    assert one.fence.number == ahead + 1
    one.pulse.stop()


async def test_a_worker_that_lost_its_lease_cannot_raise_its_number(site: Site) -> None:
    one = lease(site)
    await one.take()
    second = await site.registry.hold("pbx01", B, dead=one.me.name)
    await ledger(site, Fence("pbx01", second.fence)).fence_off()
    with pytest.raises(Fenced, match="another worker has taken over pbx01"):
        await ledger(site, one.fence).fence_off()
    one.pulse.stop()


# --- real processes -----------------------------------------------------------------------


async def held(stack: Stack) -> dict[str, str]:
    raw: Any = await stack.redis.hgetall("dialer:pbx:pbx01")
    return {name.decode(): value.decode() for name, value in raw.items()}


async def second_worker(stack: Stack, folder: Path, other: SimulatedPbx) -> Program:
    """A copied unit: the same name, another Asterisk."""
    text = stack.config_path.read_text().replace(
        f"port = {stack.pbxs['pbx01'].port}", f"port = {other.port}"
    )
    path = folder / "copied.toml"
    path.write_text(text)
    return await stack.run_celery("-Q", "pbx01", env={"DIALER_CONFIG": str(path)})


async def test_a_second_worker_touches_no_call(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack, SimulatedPbx(secret=SECRET) as other:
        stack.add_pbx("pbx01", talk_time=(3600, 3600))
        await stack.start()
        await stack.push(30)
        await stack.until_live(30)
        await wait_until(lambda: len(stack.multcall.acks) == 30, "30 ACKs")
        first = await held(stack)
        second = await second_worker(stack, tmp_path, other)
        assert await second.exit_code(30) == 2
        said = f"pbx01 has a worker already: pid {first['pid']} on host {first['host']}"
        assert said in second.log
        assert f"127.0.0.1:{stack.pbxs['pbx01'].port}" in second.log, "it names the Asterisk"
        assert "Traceback" not in second.log
        assert "Task was destroyed" not in second.log
        assert not stack.multcall.responses
        assert stack.pbxs["pbx01"].live == 30
        assert (await held(stack))["holder"] == first["holder"]


async def test_a_killed_worker_is_replaced_at_once(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01", talk_time=(3600, 3600))
        await stack.start()
        await stack.push(5)
        await stack.until_live(5)
        await stack.workers["pbx01"].kill()
        worker = await stack.start_worker("pbx01")
        assert "Waiting for the lease" not in worker.log
        await stack.push(1)
        await stack.until_live(6)
        assert not stack.multcall.responses


async def test_a_frozen_worker_finds_itself_fenced(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        simulated = stack.add_pbx("pbx01", talk_time=(3600, 3600))
        await stack.start()
        await stack.push(5)
        await stack.until_live(5)
        await wait_until(lambda: len(stack.multcall.acks) == 5, "5 ACKs")
        frozen = stack.workers["pbx01"]
        frozen.freeze()

        async def silent() -> bool:
            now_s, _ = await stack.redis.time()
            return now_s * 1000 - int((await held(stack))["seen_ms"]) > PBX_DEAD_AFTER_S * 1000

        await wait_until(silent, "the frozen worker is silent")
        heir = await stack.start_worker("pbx01", wait=False)
        await wait_until(lambda: "PBX ready" in heir.log, "the second one serves")
        frozen.thaw()
        assert await frozen.exit_code(40) == 1
        assert frozen.log.count("Worker fenced; it ends") == 1
        assert "another worker has taken over pbx01" in frozen.log
        assert "Traceback" not in frozen.log
        assert not stack.multcall.responses, "a live call was answered for"
        assert simulated.live == 5
        await stack.push(1)
        await stack.until_live(6)
        heir_holds = await held(stack)
        assert heir_holds["pid"] == str(heir.pid)
