"""One worker in this process: what it does again and again, its stop, and a Redis that is back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from dialer import failpoints
from dialer.domain.call import Call, Ending
from dialer.domain.limits import Limit
from dialer.domain.parameters import Edit, Subject
from dialer.errors import StoreUnfit
from dialer.settings import Settings
from dialer.settings.kept import text_of
from dialer.simulation.pbx import actions
from dialer.simulation.pbx.events import Event, event_mask
from dialer.simulation.pbx.outcomes import VERSIONS
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.cells import CellBook
from dialer.store.parameters import ParameterStore
from tests.integration.ami.middle import Middle
from tests.integration.cell_rig import CELL, Site, cell
from tests.waiting import wait_until
from workers.ami import link as ami_link
from workers.pbx.state import REFUSED_FOR_S
from workers.recovery.reconcile import Reconciler
from workers.worker import DIALING_WITHIN_S, PbxWorker

R1 = f"{CELL}:r-1"
SECRET = "s"


@asynccontextmanager
async def started(
    site: Site, pbx: SimulatedPbx | Middle, broker: str = "", **fields: Any
) -> AsyncIterator[PbxWorker]:
    """A worker of the site's cell; `fields` are the cell's."""
    table = {"name": "pbx01", "port": pbx.port, "secret": SECRET, "max_calls": 10, "cps": 100}
    settings = Settings.model_validate(
        {
            "multcall": {"redis_url": site.url},
            "broker": {"url": broker or site.url},
            "pbxs": [{**table, "trunks": {"tim": "PJSIP/{number}@tim"}}],
            "cells": [{"nome": CELL, "threads": 10, "pbxs": ["pbx01"], **fields}],
        }
    )

    def on_done(call: Call, ending: Ending) -> None: ...

    worker = PbxWorker(settings, settings.pbx("pbx01"), on_done, check_every_s=0.05)
    try:
        await worker.start()
    except BaseException:
        await worker.close()
        raise
    try:
        yield worker
    finally:
        await worker.stop()


@asynccontextmanager
async def working(
    site: Site, pbx: SimulatedPbx | Middle, **fields: Any
) -> AsyncIterator[PbxWorker]:
    """The same worker, once it is ready."""
    async with started(site, pbx, **fields) as worker:
        async with asyncio.timeout(15):
            await worker.until_ready()
        yield worker


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture
async def pbx() -> AsyncIterator[SimulatedPbx]:
    """An Asterisk at which every number rings for an hour."""
    async with SimulatedPbx(secret=SECRET, ring_time=(3600, 3600)) as simulated:
        yield simulated


async def ringing(site: Site, worker: PbxWorker) -> None:
    """Dial r-1 until its ACK."""
    await site.admitted()
    worker.take(R1, 1)
    await wait_until(site.acks, "the call is accepted")


# --- its start ----------------------------------------------------------------------------


@pytest.mark.parametrize("are_armed", [False, True])
async def test_a_worker_says_if_failure_points_are_armed(
    site: Site,
    pbx: SimulatedPbx,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    are_armed: bool,
) -> None:
    monkeypatch.setattr(failpoints, "is_armed", lambda: are_armed)
    async with started(site, pbx):
        assert ("Failure points are armed: this is a test" in caplog.messages) is are_armed


async def test_a_broker_is_checked_if_it_is_a_redis(
    site: Site, pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    async def check(url: str) -> None:
        checked.append(url)

    monkeypatch.setattr("workers.worker.check_broker", check)
    for broker in ("amqp://u:p@127.0.0.1:5672/", site.url):
        async with started(site, pbx, broker):
            pass
    assert checked == [site.url]


# --- live parameters -----------------------------------------------------------------------


async def set_live(site: Site, subject: Subject, name: str, value: Any, version: int = 0) -> None:
    """Store a live value; None: take it back."""
    edit = Edit(name=name, old=0, new=value, was_live=value is None, is_live=value is not None)
    await ParameterStore(site.steps).change(subject, [edit], version=version, by="ana@ops")


async def test_a_call_of_a_paused_cell_stays_queued(site: Site, pbx: SimulatedPbx) -> None:
    await set_live(site, Subject("cell", CELL), "paused", True)  # a value
    async with working(site, pbx) as worker:
        await site.admitted()
        worker.take(R1, 1)
        await wait_until(lambda: not worker._dialing, "the nudge is handled")
        assert await site.state() == "queued"
        reason = worker.state.reason_not_to_dial(CELL) or ""
        assert reason.startswith("paused by ana@ops since")
        assert worker.state.lacking == {}, "the bridge knows it anyhow"
        await set_live(site, Subject("cell", CELL), "paused", None, version=1)
        await wait_until(site.acks, "its own look finds the call")


async def test_a_worker_takes_over_new_values(site: Site, pbx: SimulatedPbx) -> None:
    async with working(site, pbx) as worker:
        await set_live(site, Subject("pbx", "pbx01"), "cps", 2.5)
        await wait_until(lambda: worker.governor.turns.cps == 2.5, "the rate")
        await set_live(site, Subject("pbx", "pbx01"), "governor", False, version=1)
        await wait_until(lambda: not worker.governor.is_on, "the governor")
        assert worker._originator.pbx.cps == worker._targets.pbx.cps == 2.5
        await set_live(site, Subject("cell", CELL), "ring_timeout", 7, version=2)
        await wait_until(
            lambda: [one.ring_timeout for one in worker._cells] == [7], "the cell's value"
        )


async def test_parameters_that_redis_refuses_end_the_start_of_a_worker(
    site: Site, pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Any) -> None:
        raise ResponseError("NOPERM")

    monkeypatch.setattr("workers.worker.Watch.look", refuse)
    with pytest.raises(StoreUnfit, match="the registry's Redis refuses a command: NOPERM"):
        async with started(site, pbx):
            pass


# --- a Redis, and cells that left the settings --------------------------------------------


async def test_a_redis_that_is_back_has_its_calls_answered_for(pbx: SimulatedPbx) -> None:
    with EmbeddedValkey(appendonly=True) as server:
        async with Site(server.url()) as site, working(site, pbx) as worker:
            await site.admitted()
            await site.claimed()  # by a worker that forgot it
            server.kill()
            await wait_until(lambda: worker._registry.steps.is_down, "the outage is noticed")
            await asyncio.to_thread(server.start)
            await site.redis.connection_pool.disconnect()
            await wait_until(site.responses, "the call is answered for")
    assert worker.failure.cancelled() or not worker.failure.done()


async def test_a_cell_that_left_is_served_while_it_has_calls(
    redis_url: str, site: Site, pbx: SimulatedPbx
) -> None:
    async with Site(redis_url, cell="LEFT") as left:
        for name in ("LEFT", "IDLE", CELL):
            await CellBook(site.steps).write(name, text_of(cell(nome=name, threads=3)))
        await left.admitted()
        async with working(site, pbx) as worker:
            assert {one.name: one.threads for one in worker._cells} == {CELL: 10, "LEFT": 3}
            worker.take("LEFT:r-1", 1)
            await wait_until(left.acks, "its call is dialed")


async def test_cells_that_cannot_be_read_stop_no_worker(
    site: Site, pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    await site.redis.set("dialer:cells", "no hash")
    async with working(site, pbx) as worker:
        assert [one.name for one in worker._cells] == [CELL]
    assert any(m.startswith("Redis refused to list removed cells") for m in caplog.messages)


async def test_a_refused_claim_leaves_the_call_queued(
    site: Site, pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    await site.admitted()
    await site.redis.delete(site.ledger.keys.queued)
    await site.redis.set(site.ledger.keys.queued, "no sorted set")
    async with working(site, pbx) as worker:
        worker.take(R1, 1)
        said = "Redis refused a claim; the call stays queued"
        await wait_until(lambda: said in caplog.messages, "it is logged")
        assert await site.state() == "queued"
        assert not worker._calls


# --- what is done again and again -----------------------------------------------------------


async def test_a_call_that_waits_for_its_turn_was_announced(
    site: Site,
    pbx: SimulatedPbx,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    async with working(site, pbx) as worker:
        turns = worker.governor.turns
        with monkeypatch.context() as patch:
            patch.setattr(turns, "room", lambda: 0)
            await site.admitted()
            worker.take(R1, 1)
            await site.admitted("r-2")  # its message was lost
            await wait_until(lambda: (f"{CELL}:r-2", 1) in turns, "the worker found it")
            assert (R1, 1) in turns
        said = "Dialing calls that no message announced"
        assert [vars(r)["calls"] for r in caplog.records if r.message == said] == [1]


async def test_a_long_call_whose_end_was_missed_is_ended(site: Site, pbx: SimulatedPbx) -> None:
    async with working(site, pbx) as worker:
        await ringing(site, worker)
        followed = worker._calls.get(R1)
        assert followed is not None
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        worker._calls.put(replace(followed, call=replace(followed.call, dialed_at=long_ago)))
        pbx.exchange.floor.vanish()  # without a Hangup
        await wait_until(lambda: not worker._calls, "the call is ended")


async def test_old_records_are_deleted_once_per_link(site: Site, pbx: SimulatedPbx) -> None:
    async with working(site, pbx) as worker:
        done: list[str | int] = []

        async def check_long_calls() -> None:
            done.append("check")

        async def delete_old_records() -> None:
            done.append(worker.link.session)  # the first link's may still be due

        spy = SimpleNamespace(
            check_long_calls=check_long_calls,
            delete_old_records=delete_old_records,
            run=worker._reconciler.run,
        )
        worker._reconciler = cast("Reconciler", spy)
        session = worker.link.session
        pbx.drop_links()
        await wait_until(lambda: worker.link.session > session and worker.link.ready, "a new link")
        session = worker.link.session
        await wait_until(lambda: session in done, "the old records are deleted")
        done.clear()
        await wait_until(lambda: len(done) > 3, "it checks again")
        assert session not in done
        pbx.refuse_connections(True)
        pbx.drop_links()
        await wait_until(lambda: not worker.link.ready, "the link is down")
        done.clear()
        await asyncio.sleep(4 * worker.check_every_s)
        assert done == []


async def test_a_refused_heartbeat_is_tried_again(
    site: Site, pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(site, pbx) as worker:
        worker._journal.refused_pause_s = 0.05
        redis: Any = site.redis
        await redis.execute_command("ACL", "SETUSER", "default", "-hset")
        said = "Redis refused a command; trying again"
        try:
            await wait_until(lambda: caplog.messages.count(said) > 1, "it is tried again")
        finally:
            await redis.execute_command("ACL", "SETUSER", "default", "+hset")
        await site.redis.delete("dialer:pbx:pbx01")
        await wait_until(lambda: site.redis.hgetall("dialer:pbx:pbx01"), "it is written")
        assert not worker.failure.done()


async def test_a_refused_part_is_not_tried_again_at_once(site: Site, pbx: SimulatedPbx) -> None:
    tried: list[str] = []

    async def part() -> None:
        tried.append("once")
        raise ResponseError("NOPERM")

    async with working(site, pbx) as worker:
        worker._journal.refused_pause_s = 3_600.0
        task = asyncio.create_task(worker._retry_refused(part))
        for _ in range(20):
            await asyncio.sleep(0)
        assert tried == ["once"]
        task.cancel()


async def test_a_missing_target_is_in_the_heartbeat(site: Site, pbx: SimulatedPbx) -> None:
    async def beat() -> dict[str, str]:
        raw: Any = await site.redis.hgetall("dialer:pbx:pbx01")
        return {name.decode(): value.decode() for name, value in raw.items()}

    async def lacking() -> list[str]:
        return [*json.loads((await beat()).get("lacking", "{}"))]

    async def found_again() -> bool:
        return await lacking() == []

    async with working(site, pbx, queue="not-there") as worker:
        await wait_until(lacking, "the queue is missing")
        assert await lacking() == [CELL]
        before = await beat()
        assert (before["calls"], before["include"], before["link"]) == ("0", "1", "up")
        assert before["boot"] == worker.state.boot
        await worker._check_targets()
        assert worker.state.instance == before["instance"]
        worker.state.lacking = {CELL: "no queue"}
        worker._cells.add(cell(), worker._cells.ledger(CELL))  # which needs no queue
        await wait_until(found_again, "nothing is missing")
        after = await beat()
        assert after["instance"] != before["instance"], "what was queued here is sent again"


# --- an Asterisk that is not as it should be ---------------------------------------------------


async def test_a_worker_is_not_ready_without_its_ami_permissions(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        SimulatedPbx(secret=SECRET, write="system,reporting") as pbx,
        started(site, pbx) as worker,
    ):

        def reasons() -> str:
            return " ".join(str(vars(record).get("reason")) for record in caplog.records)

        await wait_until(lambda: "add originate to its write" in reasons(), "it is logged")
        assert not worker.link.ready


async def test_a_refused_login_ends_the_worker_with_one_sentence(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The start says it; a part that ended unexpectedly would be a second, worse reason."""
    async with SimulatedPbx(secret="another") as pbx, started(site, pbx) as worker:
        await wait_until(worker.failure.done, "the worker ends")
        assert [r.getMessage() for r in caplog.records if r.levelname == "CRITICAL"] == []


async def test_an_asterisk_before_12_takes_no_calls(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 11 ignores ChannelId: people are rung, and nobody hears how it ended."""
    old = replace(VERSIONS["22"], banner="Asterisk Call Manager/1.3", release="11.25.3")
    monkeypatch.setattr(actions, "VERSIONS", {**VERSIONS, "22": old})
    async with SimulatedPbx(secret=SECRET) as pbx, started(site, pbx) as worker:
        await wait_until(lambda: "12 or later" in worker.link.trouble, "it is refused")
        assert (worker.link.ready, worker.state.link_state) == (False, "down")

        async def told() -> bool:
            trouble: Any = await site.redis.hget("dialer:pbx:pbx01", "trouble")
            return b"12 or later" in (trouble or b"")

        await wait_until(told, "the heartbeat says it")


async def test_a_missing_include_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with SimulatedPbx(secret=SECRET, include=False) as pbx, working(site, pbx):
        missing = [m for m in caplog.messages if m.startswith("The dialplan include is missing")]
        assert len(missing) == 1
        ready = next(record for record in caplog.records if record.getMessage() == "PBX ready")
        assert str(vars(ready)["asterisk"]).startswith("22.")


async def test_a_silent_asterisk_gets_no_more_calls(
    site: Site, pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ami_link, "SILENT_AFTER_S", 0.3)
    await site.admitted("r-1")
    async with working(site, pbx, timeout_command_response=60) as worker:
        pbx.hang()
        worker.take(R1, 1)
        await wait_until(lambda: worker.link.silence, "its silence is noticed")
        await site.admitted("r-2")
        worker.take(f"{CELL}:r-2", 1)

        async def told() -> bool:
            trouble: Any = await site.redis.hget("dialer:pbx:pbx01", "trouble")
            return b"does not answer" in (trouble or b"")

        await wait_until(told, "the heartbeat says it")
        assert await site.state("r-2") == "queued"
        pbx.unhang()
        await wait_until(lambda: pbx.rings.total() == 2, "both are dialed")


async def test_a_cell_whose_redis_refuses_is_lacking(site: Site, pbx: SimulatedPbx) -> None:
    async with working(site, pbx) as worker:
        await site.redis.set(f"dialer:claimed:{CELL}:pbx01", "not a set")
        await site.admitted()
        worker.take(R1, 1)

        async def lacks() -> bool:
            lacking: Any = await site.redis.hget("dialer:pbx:pbx01", "lacking")
            return "refuses the worker of pbx01" in json.loads(lacking or "{}").get(CELL, "")

        await wait_until(lacks, "the heartbeat says it")
        assert worker.state.trouble == "", "the other cells go on"
        await site.redis.delete(f"dialer:claimed:{CELL}:pbx01")
        worker.state.monotonic = lambda: time.monotonic() + REFUSED_FOR_S
        await wait_until(site.acks, "it is dialed again")


async def test_a_worker_that_cannot_show_itself_dials_nothing(
    site: Site, pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    async def lacks() -> bool:
        lacking: Any = await site.redis.hget("dialer:pbx:pbx01", "lacking")
        return "refuses the worker of pbx01" in json.loads(lacking or "{}").get(CELL, "")

    redis: Any = site.redis
    async with working(site, pbx) as worker:
        worker._journal.refused_pause_s = 0.05
        await redis.execute_command("ACL", "SETUSER", "default", "-set")
        try:
            await wait_until(lacks, "the heartbeat says it")
            assert "Redis refused a command; trying again" in caplog.messages
        finally:
            await redis.execute_command("ACL", "SETUSER", "default", "+set")
        await site.redis.delete(f"dialer:worker:{CELL}:pbx01")
        shown = partial(site.redis.exists, f"dialer:worker:{CELL}:pbx01")
        await wait_until(shown, "it shows itself again")
        assert not worker.failure.done()


async def test_a_trouble_and_its_end_are_logged_once_each(
    site: Site, pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    def logged(text: str) -> list[str]:
        found = [r for r in caplog.records if r.getMessage() == text]
        return [str(vars(r).get("reason", "")) for r in found]

    def is_logged(text: str, times: int) -> bool:
        return len(logged(text)) == times

    troubles = [""]
    async with working(site, pbx) as worker:
        worker.state.looks.append((Limit.AMI_DOWN, lambda: troubles[0]))
        for n, trouble in enumerate(("no broker", "no disk"), 1):
            troubles[0] = trouble
            await wait_until(partial(is_logged, "PBX takes no calls", n), "it is logged")
            troubles[0] = ""
            await wait_until(partial(is_logged, "PBX takes calls again", n), "its end is logged")
    assert logged("PBX takes no calls") == ["no broker", "no disk"]


async def test_a_queue_that_loses_an_operator_is_checked_soon(
    site: Site, pbx: SimulatedPbx
) -> None:
    async with working(site, pbx) as worker:
        due = asyncio.create_task(worker._targets._is_due.wait())
        name = "QueueMemberRemoved"
        text = f"Event: {name}\r\nQueue: sales\r\n\r\n"
        pbx._publish(Event(name=name, category=event_mask("agent") or 0, text=text))
        await wait_until(due.done, "it is due")


# --- the stop ---------------------------------------------------------------------------------


async def test_a_stop_waits_for_a_call_that_is_being_dialed(site: Site, pbx: SimulatedPbx) -> None:
    await site.admitted()
    async with working(site, pbx) as worker:
        pbx.hang()
        worker.take(R1, 1)
        await wait_until(lambda: (f := worker._calls.get(R1)) and f.sent, "the Originate is sent")
        stopping = asyncio.create_task(worker.begin_stop())
        await wait_until(lambda: worker.state.link_state == "stopping", "the stop has begun")
        assert worker._dialing
        pbx.unhang()
        await stopping
        assert not worker._dialing
        await wait_until(site.acks, "the call is accepted")
    assert not worker.failure.done()


async def test_a_stop_does_not_wait_for_a_silent_asterisk(site: Site, pbx: SimulatedPbx) -> None:
    await site.admitted()
    async with working(site, pbx, timeout_command_response=60) as worker:
        pbx.hang()
        worker.take(R1, 1)
        await wait_until(lambda: (f := worker._calls.get(R1)) and f.sent, "the Originate is sent")
        async with asyncio.timeout(DIALING_WITHIN_S + 2):
            await worker.begin_stop()
    assert await site.state() == "originating", "the next start adopts it"
