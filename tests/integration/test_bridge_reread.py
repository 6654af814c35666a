"""SIGHUP: a running bridge reads its settings again and breaks no promise."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from celery.app.amqp import Queues
from redis.asyncio import Redis

from dialer.multcall.keys import CellKeys
from tests.integration.stack import CELL, Multcall, Program, Stack
from tests.integration.test_worker_process import each_once, tally
from tests.waiting import wait_until

OTHER = "ura-2"
REFUSED = "New settings refused; the old ones stay in force"
IN_FORCE = "New settings are in force"


@asynccontextmanager
async def load(stack: Stack, *, per_second: float = 20) -> AsyncIterator[list[dict[str, Any]]]:
    """Pushes requests at that rate while the block runs; yields those pushed."""
    pushed: list[dict[str, Any]] = []
    over = asyncio.Event()  # a push that was cancelled may have reached Redis all the same

    async def push() -> None:
        while not over.is_set():
            pushed.extend(await stack.push(1))
            await asyncio.sleep(1 / per_second)

    task = asyncio.create_task(push())
    try:
        yield pushed
    finally:
        over.set()
        await task


def longest_pause_s(responses: list[dict[str, Any]]) -> float:
    """The longest time in which nothing was dialed, in seconds."""
    dialed = sorted(datetime.fromisoformat(r["DiscadaEm"]) for r in responses)
    return max((later - sooner).total_seconds() for sooner, later in pairwise(dialed))


async def test_third_pbx_takes_its_share_without_a_restart(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        for name in ("pbx01", "pbx02"):
            stack.add_pbx(name, talk_time=(1.0, 2.0))
        await stack.start()
        (bridge,) = stack.bridges
        async with load(stack) as pushed:
            await stack.until_dialed(40)
            third = stack.add_pbx("pbx03", talk_time=(1.0, 2.0))
            await third.start()
            stack.write_config()
            await stack.start_worker("pbx03")
            before = stack.rings.total()
            assert third.rings.total() == 0
            await stack.reread(bridge, write=False)
            await stack.until_dialed(before + 60)
            share = third.rings.total() / (stack.rings.total() - before)
        assert share > 0.25, "a third, or more until all are loaded alike"
        responses = await each_once(stack, pushed)
        assert tally(list(responses.values())) == {"ANSWERED": len(pushed)}
        assert longest_pause_s(list(responses.values())) < 2.0
        assert all(program.running for program in stack.programs)
        assert bridge.log.count("Bridge ready") == 1
        assert "changed=\"['pbxs[pbx03]', 'cells[ASR_TIM]']\"" in bridge.log
        assert "Gave back slots" not in bridge.log
        for worker in stack.workers.values():
            assert "Void task" not in worker.log


async def test_reloads_under_load_and_a_killed_bridge_lose_nothing(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        for name in ("pbx01", "pbx02"):
            stack.add_pbx(name)
        await stack.start(bridges=2)
        async with load(stack, per_second=40) as pushed:
            for n in range(6):
                stack.add_cell(CELL, threads=100 + n)
                for bridge in stack.bridges:
                    await stack.reread(bridge)
            for bridge in stack.bridges:
                bridge.hang_up()
            await stack.bridges[0].kill()
        # What the dead one had admitted and not published is sent again after 30 s.
        await stack.responses(len(pushed), within_s=90)
        await each_once(stack, pushed)
        assert stack.bridges[1].running


async def test_wrong_file_is_refused_and_dialing_goes_on(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start()
        (bridge,) = stack.bridges
        stack.add_cell(CELL, threads=0)
        async with load(stack) as pushed:
            await stack.until_dialed(10)
            await stack.reread(bridge, REFUSED)
            assert re.search(
                f"ERROR .*{REFUSED} reason=.*threads: 0 is wrong; it takes", bridge.log
            )
            stack.config_path.write_text("this is no TOML", encoding="utf-8")
            await stack.reread(bridge, REFUSED, write=False)
            stack.config_path.unlink()
            await stack.reread(bridge, REFUSED, write=False)
            assert "there is no such file" in bridge.log
            await stack.until_dialed(stack.rings.total() + 10)
            stack.add_cell(CELL, threads=200)
            await stack.reread(bridge, "Settings unchanged")
        await each_once(stack, pushed)
        assert IN_FORCE not in bridge.log
        assert "Traceback" not in bridge.log


async def test_new_threads_take_effect_at_once(tmp_path: Path) -> None:
    async with Stack(tmp_path, cell={"threads": 2}) as stack:
        await stack.start()
        (bridge,) = stack.bridges
        requests = await stack.push(8, last_two=90)  # they stay up
        await stack.until_live(2)
        assert await stack.redis.llen(CellKeys(CELL).request) == 6
        stack.add_cell(CELL, threads=5)
        await stack.reread(bridge)
        await stack.until_live(5)
        await wait_until(lambda: len(stack.multcall.acks) == 5, "five are acknowledged")
        assert await stack.redis.llen(CellKeys(CELL).request) == 3
        stack.add_cell(CELL, threads=8)
        await stack.reread(bridge)
        await stack.until_live(8)
        assert {a["IdRequisicao"] for a in stack.multcall.acks} <= {
            r["IdRequisicao"] for r in requests
        }


async def test_broker_and_log_settings_wait_for_a_restart(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start()
        (bridge,) = stack.bridges
        stack.settings = {"broker": {"url": "redis://127.0.0.1:1/1"}, "log": {"level": "ERROR"}}
        await stack.reread(bridge)
        await wait_until(lambda: "[broker] and [log] stay as they are" in bridge.log, "it says so")
        await each_once(stack, await stack.push(3))


# --- PBXs that go ---------------------------------------------------------------------


async def test_removed_pbx_runs_empty_and_its_waiting_calls_move(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        for name in ("pbx01", "pbx02"):
            stack.add_pbx(name, talk_time=(1.0, 2.0))
        await stack.start()
        (bridge,) = stack.bridges
        requests = await stack.push(20)
        await stack.until_dialed(20)
        stack.workers["pbx02"].freeze()  # to the bridge it lives for another 10 s
        requests += await stack.push(20)
        await stack.until_dialed(30)
        waiting = await stack.redis.zcard(f"dialer:queued:{CELL}")
        assert waiting > 0
        stack.forget_pbx("pbx02")
        await stack.reread(bridge)
        await stack.until_dialed(40)
        await wait_until(
            lambda: bridge.log.count("Call moved to another PBX") == waiting, "each move is logged"
        )
        stack.workers["pbx02"].thaw()
        responses = await each_once(stack, requests)
        assert tally(list(responses.values())) == {"ANSWERED": 40}


async def test_restarted_worker_adopts_calls_of_an_unnamed_pbx(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        for name in ("pbx01", "pbx02"):
            stack.add_pbx(name, talk_time=(3.0, 4.0))
        await stack.start()
        (bridge,) = stack.bridges
        requests = await stack.push(20)
        await wait_until(lambda: len(stack.multcall.acks) == 20, "all are up")
        stack.add_cell(CELL, pbxs=["pbx01"])
        await stack.reread(bridge)
        await stack.workers["pbx02"].stop()
        await stack.start_worker("pbx02")
        responses = await each_once(stack, requests)
        assert tally(list(responses.values())) == {"ANSWERED": 20}
        assert "adopted=" in stack.workers["pbx02"].log


async def test_calls_on_a_removed_pbx_that_died_are_answered(tmp_path: Path) -> None:
    async with Stack(tmp_path, settings={"recovery": {"pbx_lost_after": 2}}) as stack:
        for name in ("pbx01", "pbx02"):
            stack.add_pbx(name, talk_time=(3.0, 4.0))
        await stack.start()
        (bridge,) = stack.bridges
        requests = await stack.push(20)
        await wait_until(lambda: len(stack.multcall.acks) == 20, "all are up")
        there = stack.pbxs["pbx02"].rings.total()
        await stack.workers["pbx02"].kill()
        stack.forget_pbx("pbx02")
        await stack.reread(bridge)
        responses = list((await each_once(stack, requests)).values())
        assert tally(responses) == {"ANSWERED": 20 - there, "UNKNOWN": there}
        assert {r["Erro"]["Codigo"] for r in responses if r["Erro"]} == {"pbx_lost"}


# --- cells that come and go -----------------------------------------------------------


async def answered(multcall: Multcall, n: int) -> None:
    await wait_until(lambda: len(multcall.responses) >= n, f"{n} Responses in {multcall.cell}")


async def test_removed_cell_ends_its_calls_and_takes_no_more(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01", talk_time=(1.5, 2.0))
        await stack.start()
        (bridge,) = stack.bridges
        stack.add_cell(OTHER)
        other = stack.play_multcall(OTHER)
        stack.write_config()
        await stack.workers["pbx01"].stop()
        await stack.start_worker()  # a worker learns of a cell when it starts
        await stack.reread(bridge, write=False)
        await stack.push(5, cell=OTHER)
        await wait_until(lambda: len(other.acks) == 5, "all are up")
        stack.forget_cell(OTHER)
        await stack.reread(bridge)
        await stack.push(1, cell=OTHER)
        stack.add_cell(CELL, threads=100)
        await stack.reread(bridge)  # it goes on leaving
        await answered(other, 5)
        assert {r["CodLigacao"] for r in other.responses} == {f"C-R{n}" for n in range(1, 6)}
        await wait_until(lambda: "Removed cell has no calls left" in bridge.log, "it says")
        await each_once(stack, await stack.push(2))
        assert await stack.redis.llen(CellKeys(OTHER).request) == 1
        stack.add_cell(OTHER)
        await stack.reread(bridge)
        await answered(other, 6)
        await stack.at_rest()


async def test_bridge_of_one_cell_ignores_new_cells_and_keeps_its_own(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start(bridges=0)
        bridge = await stack.start_bridge("--cell", CELL)
        stack.add_cell(OTHER)
        await stack.reread(bridge)
        await stack.push(1, cell=OTHER)
        await each_once(stack, await stack.push(2))
        assert await stack.redis.llen(CellKeys(OTHER).request) == 1
        stack.forget_cell(CELL)
        await stack.reread(bridge, REFUSED)
        assert f"there is no cell '{CELL}'" in bridge.log
        await stack.redis.delete(CellKeys(OTHER).request)


async def test_sighup_restarts_a_worker_and_its_calls_stay_up(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01", talk_time=(300.0, 300.0))
        await stack.start()
        (bridge,) = stack.bridges
        worker = stack.workers["pbx01"]
        requests = await stack.push(20)
        await wait_until(lambda: len(stack.multcall.acks) == 20, "all are up")
        stack.add_cell(OTHER)
        other = stack.play_multcall(OTHER)
        stack.write_config()
        _, before = await stack.heartbeat("pbx01")
        worker.hang_up()
        await stack.until_link("pbx01", "up", other_than=before)
        await stack.reread(bridge, write=False)
        await stack.push(3, cell=OTHER)
        await stack.until_answered(23)
        stack.end_calls()
        await answered(other, 3)
        assert tally(list((await each_once(stack, requests)).values())) == {"ANSWERED": 20}
        assert worker.running
        assert "adopted=20" in worker.log


async def test_calls_of_a_cell_removed_before_a_restart_are_answered(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01", talk_time=(300.0, 300.0))
        stack.add_cell(OTHER, limits={"calling_hours": [], "time_zone": "UTC"}, threads=25)
        await stack.start()
        other = stack.multcalls[OTHER]
        other.answers_codes = False
        (bridge,) = stack.bridges
        requests = await stack.push(20, cell=OTHER)
        await wait_until(lambda: len(other.acks) == 20, "all are up")
        await stack.workers["pbx01"].kill()  # to the bridge it lives for another 10 s
        requests += await stack.push(5, cell=OTHER)
        await wait_until(lambda: queued(stack, 5), "five are queued")
        stack.forget_cell(OTHER)
        stack.write_config()
        await bridge.kill()
        await stack.start_worker("pbx01")
        bridge = await stack.start_bridge()
        await stack.until_answered(25)
        stack.end_calls()
        await answered(other, 25)
        assert tally(other.responses) == {"ANSWERED": 25}
        assert {r["IdRequisicao"] for r in other.responses} == {r["IdRequisicao"] for r in requests}
        assert "adopted=20" in stack.workers["pbx01"].log
        assert "Removed cells still have calls" in bridge.log
        await wait_until(lambda: "Removed cell has no calls left" in bridge.log, "it says")
        await stack.at_rest()
        later = await stack.push(2)
        await stack.until_answered(2)
        stack.end_calls()
        await each_once(stack, later)
        await wait_until(lambda: forgotten(stack), "its settings are forgotten")


async def queued(stack: Stack, n: int) -> bool:
    """True if n calls are queued and their nudges published: a bridge may die between the two."""
    async with Redis.from_url(stack.broker_url) as broker:
        nudges = await broker.llen("pbx01")
    return bool(await stack.redis.zcard(f"dialer:queued:{OTHER}") == n == nudges)


async def forgotten(stack: Stack) -> bool:
    return not await stack.redis.hexists("dialer:cells", OTHER)


# --- signals --------------------------------------------------------------------------


@pytest.fixture
def mute() -> Any:
    """A port where nobody ever answers."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        yield mute.getsockname()[1]


async def test_settings_with_an_unreachable_redis_are_refused(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start()
        (bridge,) = stack.bridges
        stack.add_cell(OTHER, redis_url="redis://:s3cret@127.0.0.1:1/0")
        async with load(stack) as pushed:
            await stack.reread(bridge, REFUSED)
        assert f"the Redis of cell {OTHER} at redis://" in bridge.log
        assert "s3cret" not in bridge.log
        await each_once(stack, pushed)


async def test_bridge_stops_in_time_during_a_reload(tmp_path: Path, mute: int) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start()
        (bridge,) = stack.bridges
        stack.add_cell(OTHER, redis_url=f"redis://127.0.0.1:{mute}/0")
        stack.write_config()
        bridge.hang_up()
        await until_connected(bridge, mute)
        assert await bridge.stop(within_s=5) == 0
        assert REFUSED not in bridge.log


async def until_connected(bridge: Program, port: int) -> None:
    """Wait until something of this machine has a connection to that port."""
    table = Path(f"/proc/{bridge.pid}/net/tcp")

    def is_connected() -> bool:
        assert bridge.running, f"{bridge.name} has ended"
        rows = (line.split() for line in table.read_text().splitlines())
        return any(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)

    await wait_until(is_connected, f"a connection to port {port}")


async def test_a_second_sighup_during_a_reload_takes_effect_after_it(
    tmp_path: Path, mute: int
) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start()
        (bridge,) = stack.bridges
        stack.add_cell(OTHER, redis_url=f"redis://127.0.0.1:{mute}/0")
        stack.write_config()
        bridge.hang_up()
        await until_connected(bridge, mute)
        stack.forget_cell(OTHER)
        stack.add_cell(CELL, threads=3)
        await stack.reread(bridge)
        assert bridge.log.index(REFUSED) < bridge.log.index(IN_FORCE)
        await each_once(stack, await stack.push(5))


async def test_sighup_during_the_start_is_not_lost(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start(bridges=0)
        bridge = await stack.start_bridge(wait=False)
        status = Path(f"/proc/{bridge.pid}/status")

        def holds_it() -> bool:
            blocked = re.search(r"^SigBlk:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
            return blocked is not None and int(blocked[1], 16) & 1 == 1

        await wait_until(holds_it, "the signal is held")
        bridge.hang_up()
        await wait_until(lambda: "Settings unchanged" in bridge.log, "it has reread")
        await each_once(stack, await stack.push(2))


def test_queue_of_an_unknown_pbx_is_declared_as_the_workers_is() -> None:
    from kombu import Exchange, Queue

    made = Queues(create_missing=True)["pbx03"].as_dict()
    ours = Queue("pbx03", Exchange("pbx03"), routing_key="pbx03", no_ack=True).as_dict()
    told = {key for key in ours if key not in ("exchange", "no_ack")}  # no_ack is the consumer's
    assert {key: made[key] for key in told} == {key: ours[key] for key in told}
    assert made["exchange"] == ours["exchange"]
