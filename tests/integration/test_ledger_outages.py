"""Steps on a server that dies, refuses or loses its scripts: each runs once, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from dialer.errors import StepsStopped
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import cancel, connect
from dialer.store.scripts import SOURCES
from dialer.store.servers import Servers
from dialer.store.steps import Steps
from tests.integration.cell_rig import BRIDGE, BUSY, CELL, Site, code_element, element
from tests.waiting import wait_until

DOWN = "Redis unavailable; retrying, nothing is lost"
UP = "Redis available again"
STOPPED = "Redis steps stopped by an unexpected error; the process must end"

#: Its Lua text is missing: an error that `Steps` does not expect.
NO_STEP = "no_such_step"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture
def server(valkey_server: EmbeddedValkey) -> EmbeddedValkey:
    return valkey_server


def said(caplog: pytest.LogCaptureFixture, message: str) -> int:
    return sum(record.getMessage() == message for record in caplog.records)


async def lives(site: Site, n: int) -> None:
    """Accept, answer and end `n` claimed calls, all steps concurrently."""
    entries = [await site.entry(f"r-{i}") for i in range(n)]
    works: list[Coroutine[Any, Any, object]] = []
    for entry in entries:
        works.append(site.accept(entry))
        works.append(site.ledger.answer(entry.call.call_id, at=BUSY.ended_at))
        works.append(site.ledger.end(entry.call, entry.request, BUSY))
    await asyncio.gather(*works)


async def check_one_of_each(site: Site, n: int) -> None:
    wanted = sorted(f"r-{i}" for i in range(n))
    assert sorted(ack["IdRequisicao"] for ack in await site.acks()) == wanted
    assert await site.responses() == []  # each waits for its code
    assert {await site.state(name) for name in wanted} == {"ended"}
    assert all([await site.field(name, "answered_ms") for name in wanted])
    assert await site.counters() == await site.sizes() == (n, n)


async def claimed_calls(site: Site, n: int) -> None:
    for i in range(n):
        await site.admitted(f"r-{i}")
        await site.claimed(f"r-{i}")


async def test_steps_wait_for_a_killed_server_and_log_it_once(
    site: Site, server: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    n = 40
    await claimed_calls(site, n)
    entries = [await site.entry(f"r-{i}") for i in range(n)]
    server.kill()
    works = [asyncio.create_task(site.accept(entry)) for entry in entries]
    works += [
        asyncio.create_task(site.ledger.answer(e.call.call_id, at=BUSY.ended_at)) for e in entries
    ]
    ends = [asyncio.create_task(site.ledger.end(e.call, e.request, BUSY)) for e in entries]
    reading = asyncio.create_task(site.ledger.calls())
    await wait_until(lambda: site.steps.is_down, "the outage is noticed")
    await asyncio.to_thread(server.start)
    await site.redis.connection_pool.disconnect()
    assert all(await asyncio.gather(*works))
    assert await asyncio.gather(*ends) == ["ended"] * n
    assert await reading == n
    await check_one_of_each(site, n)
    assert (said(caplog, DOWN), said(caplog, UP)) == (1, 1)


async def test_steps_in_flight_run_once_if_the_server_dies(
    site: Site, server: EmbeddedValkey
) -> None:
    n = 60
    await claimed_calls(site, n)
    work = asyncio.create_task(lives(site, n))
    await wait_until(lambda: site.redis.llen(site.ledger.wire.ack), "the first ACK")
    server.kill()
    await asyncio.to_thread(server.start)
    await site.redis.connection_pool.disconnect()
    await work
    await check_one_of_each(site, n)


async def test_steps_go_on_after_script_flush(site: Site) -> None:
    await claimed_calls(site, 5)
    await site.redis.script_flush()
    await lives(site, 5)
    await check_one_of_each(site, 5)


async def test_steps_of_a_call_stay_in_order_if_scripts_are_missing(
    site: Site,
) -> None:
    await claimed_calls(site, 5)
    await lives_of_another_site(site)
    await site.redis.script_flush()
    await site.redis.script_load(SOURCES["end"])  # another process was quicker
    await lives(site, 5)
    await check_one_of_each(site, 5)


async def lives_of_another_site(site: Site) -> None:
    """Run every script once, so that `Steps` does not load it again."""
    await site.admitted("other")
    entry = await site.claimed("other")
    assert entry is not None
    await site.accept(entry)
    await site.ledger.answer(entry.call.call_id, at=BUSY.ended_at)
    await site.ledger.end(entry.call, entry.request, BUSY)
    await site.code(code_element("other"))
    await site.redis.delete(site.ledger.wire.ack, site.ledger.wire.response)


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [
        pytest.param(
            lambda r: r.config_set("maxmemory", 1), lambda r: r.config_set("maxmemory", 0), id="OOM"
        ),
        pytest.param(
            lambda r: r.execute_command("REPLICAOF", "127.0.0.1", "1"),
            lambda r: r.execute_command("REPLICAOF", "NO", "ONE"),
            id="READONLY",
        ),
        pytest.param(
            lambda r: r.config_set("min-replicas-to-write", 1),
            lambda r: r.config_set("min-replicas-to-write", 0),
            id="NOREPLICAS",
        ),
    ],
)
async def test_steps_wait_while_the_server_refuses_writes(
    site: Site,
    caplog: pytest.LogCaptureFixture,
    refuse: Callable[[Redis], Awaitable[Any]],
    allow: Callable[[Redis], Awaitable[Any]],
) -> None:
    await claimed_calls(site, 3)
    await refuse(site.redis)
    try:
        work = asyncio.create_task(lives(site, 3))
        await wait_until(lambda: site.steps.is_down, "the refusal is noticed")
        assert not work.done()
        assert await site.acks() == []
    finally:
        await allow(site.redis)
    await work
    await check_one_of_each(site, 3)
    assert (said(caplog, DOWN), said(caplog, UP)) == (1, 1)


async def test_steps_wait_while_the_server_cannot_save_to_disk() -> None:
    with EmbeddedValkey(config={"save": '"3600 1"', "stop-writes-on-bgsave-error": "yes"}) as own:
        async with Site(own.url()) as site:
            await claimed_calls(site, 2)
            in_the_way = own.log_path.parent / "dump.rdb"
            in_the_way.mkdir()
            await site.redis.bgsave()

            async def failed() -> bool:
                return bool(
                    (await site.redis.info("persistence"))["rdb_last_bgsave_status"] != "ok"
                )

            await wait_until(failed, "the save failed")
            work = asyncio.create_task(lives(site, 2))
            await wait_until(lambda: site.steps.is_down, "MISCONF is noticed")
            in_the_way.rmdir()
            await site.redis.bgsave()
            await work
            await check_one_of_each(site, 2)


async def test_permanent_refusal_is_raised_and_the_next_step_runs(
    site: Site,
) -> None:
    await site.redis.set(site.ledger.keys.call(f"{CELL}:r-1"), "no hash")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await site.claimed()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await site.ledger.entries([f"{CELL}:r-1"])
    await site.admitted("r-2")
    assert not site.steps.is_down


async def test_text_that_is_not_utf8_fails_only_its_own_step(site: Site) -> None:
    with pytest.raises(UnicodeEncodeError):
        await site.ledger.bury(site.ledger.keys.code_hand(BRIDGE), b"x", "\ud800")
    await asyncio.wait_for(site.admitted("r-2"), 5)


async def test_cancelled_caller_does_not_affect_other_steps(site: Site) -> None:
    await site.admitted()
    gone = asyncio.create_task(site.ledger.assign(await site.waiting(), "pbx02"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(site.admitted("r-2"), 5)


async def test_waiting_steps_are_cancelled_by_close(redis_url: str, server: EmbeddedValkey) -> None:
    async with Site(redis_url) as site:
        server.kill()
        waiting = asyncio.create_task(site.ledger.take_over(BRIDGE))
        await wait_until(lambda: site.steps.is_down, "the outage is noticed")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(server.start)


async def test_wrong_type_of_a_list_stops_a_step_before_any_write(
    site: Site,
) -> None:
    wire, keys = site.ledger.wire, site.ledger.keys
    entry = await site.accepted("r-1", wait_s=0)
    await site.admitted("r-2")
    other = await site.claimed("r-2")
    assert other is not None
    await site.in_hand(b"\xff", element("r-9"))
    await site.redis.rpush(keys.code_hand(BRIDGE), b"code")
    for key in (wire.ack, wire.response, wire.request, wire.code, keys.dead):
        await site.redis.delete(key)
        await site.redis.set(key, "not a list")
    before = await site.snapshot()
    ledger = site.ledger
    for step in (
        lambda: site.accept(other),
        lambda: ledger.end(other.call, other.request, BUSY),
        lambda: ledger.end(entry.call, entry.request, BUSY),
        ledger.late_codes,
        lambda: ledger.code(BRIDGE, b"code", call_id=entry.call.call_id, code_json="1"),
        lambda: ledger.refuse(keys.hand(BRIDGE), b"\xff", request_id=None, dead="{}"),
        lambda: ledger.refuse(keys.hand(BRIDGE), element("r-9"), request_id="r-9", response="{}"),
        lambda: ledger.bury(keys.code_hand(BRIDGE), b"code", "{}"),
        lambda: ledger.return_hand(BRIDGE),
    ):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await step()
    assert await site.snapshot() == before
    for key in (wire.ack, wire.response, wire.request, wire.code, keys.dead):
        await site.redis.delete(key)
    assert await site.accept(other)
    assert await ledger.end(entry.call, entry.request, BUSY) == "ended"
    assert await ledger.late_codes() == [entry.call.call_id]
    assert [r["IdRequisicao"] for r in await site.responses()] == ["r-1"]


async def test_unexpected_error_fails_waiting_and_later_steps(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stopped: list[StepsStopped] = []
    steps = Steps(Redis.from_url(redis_url), "the test's Redis", on_stopped=stopped.append)
    keys = ["dialer:slots:pbx01"]
    names = ["release", NO_STEP, "release"]
    waiting = [asyncio.create_task(steps.run(name, keys, ["a"])) for name in names]
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert [type(result) for result in results] == [StepsStopped] * 3
    with pytest.raises(StepsStopped, match=f"the test's Redis.*{NO_STEP}"):
        await asyncio.wait_for(steps.run("release", keys, ["a"]), 5)
    assert len(stopped) == said(caplog, STOPPED) == 1
    await steps.close()


async def test_servers_tell_their_owner_when_steps_stop(redis_url: str) -> None:
    servers = Servers()
    watch = asyncio.create_task(servers.watch())
    steps = await servers.at(redis_url, "the test's Redis")
    await steps.run("release", ["dialer:slots:pbx01", "dialer:pbx:pbx01"], ["", "a"])
    assert not watch.done()
    with pytest.raises(StepsStopped):
        await asyncio.wait_for(steps.run(NO_STEP, []), 5)
    with pytest.raises(StepsStopped):
        await asyncio.wait_for(watch, 5)
    await servers.close()


async def test_only_steps_whose_loss_does_harm_wait_for_a_replica(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps(connect(redis_url), "the test's Redis", replicated=True)
    await steps.run("release", ["dialer:slots:pbx01", "dialer:pbx:pbx01"], ["", "a"])
    assert caplog.messages == []
    for number in ("1", "2"):
        await steps.run("fence", [f"dialer:fence:{CELL}:pbx01"], [number, 100])
    assert [m.partition(";")[0] for m in caplog.messages] == [
        "Redis replica does not confirm writes"
    ]
    await steps.close()


async def test_steps_are_refused_after_close(redis_url: str) -> None:
    steps = Steps(Redis.from_url(redis_url), "the test's Redis")
    await steps.close()
    with pytest.raises(StepsStopped, match="closed"):
        await asyncio.wait_for(steps.run("release", ["dialer:slots:pbx01"], ["a"]), 5)


async def test_two_clients_of_a_server_do_not_block_each_other(site: Site) -> None:
    both = [site.more_steps("first"), site.more_steps("second")]
    held = await asyncio.gather(
        *(s.run("restore_slots", ["dialer:slots:pbx01"], ["a"]) for s in both for _ in range(50))
    )
    assert sorted(held) == [0] * 99 + [1]


async def test_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    """redis-py swallows a cancellation that arrives together with a reply."""
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel([task]), 5)
    assert (task.cancelled(), lost) == (True, 3)
