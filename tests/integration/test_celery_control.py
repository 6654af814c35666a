"""`celery control` and `celery inspect` on real workers, foreign messages, the last task events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Producer
from redis.asyncio import Redis

from dialer.celery import ORIGINATE
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.keys import LedgerKeys
from tests.celery_events import Heard, heard_events
from tests.integration.stack import BIN, CELL, Program, Stack
from tests.waiting import PATIENCE_S, wait_until

NO_POOL = "a worker has no pool"


async def ask(stack: Stack, command: str, /, **arguments: Any) -> Any:
    """The reply of the worker of pbx01 to a command, as Flower sends it."""

    def broadcast() -> Any:
        app = Celery(broker=stack.broker_url)
        return app.control.broadcast(command, arguments=arguments, reply=True, timeout=PATIENCE_S,
                                     limit=1)  # fmt: skip

    (by_node,) = await asyncio.to_thread(broadcast)
    ((_, reply),) = by_node.items()
    return reply


async def celery(stack: Stack, *args: str) -> Program:
    """`celery -A dialer …`, once it has ended."""
    program = await stack.run(args[0], [str(BIN / "celery"), "-A", "dialer", *args])
    await program.exit_code(60)
    return program


def types(heard: Heard, call_id: str) -> list[str]:
    return [event["type"] for event in heard.of(call_id)]


# --- commands -----------------------------------------------------------------------------


async def test_commands_tell_the_truth_about_calls(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        pbx = stack.add_pbx(ring_time=(3600, 3600))
        await stack.start()
        await stack.push(3, TempoToque=120)
        await stack.until_live(3)
        ids = {f"{CELL}:{ack['IdRequisicao']}" for ack in await acks(stack, 3)}

        found = await ask(stack, "calls", n=2)
        assert (found["total"], found["states"], len(found["oldest"])) == (3, {"accepted": 3}, 2)
        active = await ask(stack, "active")
        assert {task["id"] for task in active} == ids
        assert pbx.rings.keys().isdisjoint(str(active).split("'")), "numbers are not shown"
        one = min(ids)
        assert (await ask(stack, "query_task", ids=[one])).keys() == {one}
        assert await ask(stack, "reserved") == []
        assert await ask(stack, "scheduled") == []
        assert (await ask(stack, "stats"))["total"] == {ORIGINATE: 3}
        assert [name.split()[0] for name in await ask(stack, "registered")] == [ORIGINATE]
        assert [queue["name"] for queue in await ask(stack, "active_queues")] == ["pbx01"]
        assert "celery" in (await ask(stack, "report"))["ok"]

        assert "too late" in (await ask(stack, "revoke", task_id=one))["error"]
        assert one in await ask(stack, "revoked")
        for command, arguments in WITHOUT_EFFECT.items():
            assert "nothing" in (await ask(stack, command, **arguments))["error"], command
        assert pbx.live == 3, "no command ends a call"

        said = await celery(stack, "inspect", "calls", "1")
        assert '"total": 3' in said.log
        said = await celery(stack, "control", "rate_limit", ORIGINATE, "1/m")
        assert "cps of the PBX" in said.log
        said = await celery(stack, "control", "drain", "kernel update")
        assert "change 1: PBX pbx01 is drained" in said.log
        drained = await ask(stack, "drain")
        assert drained == {"ok": "nothing changed: PBX pbx01 is drained already"}
        assert (await ask(stack, "resume"))["ok"] == "change 2: PBX pbx01 is no longer drained"
        await stack.push(30)
        await stack.until_live(33)  # without a rate limit


async def test_an_operator_hangs_calls_up(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01", ring_time=(3600, 3600))
        pbx = stack.add_pbx("pbx02", ring_time=(0.1, 0.1), talk_time=(3600, 3600))
        stack.add_cell(CELL, pbxs=["pbx01"], threads=5)
        stack.add_cell("TALK", pbxs=["pbx02"], threads=5)
        await stack.start()
        (rings,) = await stack.push(1, TempoToque=120)
        (talks,) = await stack.push(1, cell="TALK")
        await stack.until_live(1)
        await wait_until(lambda: pbx.live == 1, "the other one talks")
        await until_answered(stack, "TALK")

        said = await celery(stack, "control", "hangup", f"{CELL}:{rings['IdRequisicao']}")
        assert "is being hung up" in said.log
        (response,) = await stack.responses(1)
        assert (response["Resultado"], response["Erro"]["Codigo"]) == ("CANCELLED", "hung_up")

        said = await stack.run("call", [str(BIN / "dialer"), "call", talks["IdRequisicao"],
                                        "--hangup"])  # fmt: skip
        assert await said.exit_code(60) == 0
        assert f"TALK:{talks['IdRequisicao']} is being hung up" in said.log
        ended = stack.multcalls["TALK"].responses
        await wait_until(lambda: ended, "its Response")
        assert (ended[0]["Resultado"], ended[0]["Erro"]["Codigo"]) == ("ANSWERED", "hung_up")

        again = await stack.run("again", [str(BIN / "dialer"), "call", talks["IdRequisicao"],
                                          "--hangup"])  # fmt: skip
        assert await again.exit_code(60) == 1
        assert "is not dialed now: it is done" in again.log


async def until_answered(stack: Stack, cell: str) -> None:
    """Wait until a call of that cell is answered."""
    key = LedgerKeys(cell)

    async def is_answered() -> bool:
        ids: Any = await stack.redis.zrange(key.live, 0, -1)
        states = [await stack.redis.hget(key.call(i.decode()), "state") for i in ids]
        return b"answered" in states

    await wait_until(is_answered, f"a call of {cell} is answered")


#: Commands of Celery's that have no meaning here, with the arguments that Flower gives them.
WITHOUT_EFFECT: Mapping[str, Mapping[str, Any]] = {
    "rate_limit": {"task_name": ORIGINATE, "rate_limit": "1/m"},
    "time_limit": {"task_name": ORIGINATE, "hard": 1, "soft": 1},
    "pool_grow": {"n": 2},
    "pool_shrink": {"n": 1},
    "pool_restart": {"modules": None, "reload": False, "reloader": None},
    "autoscale": {"max": 9, "min": 1},
    "terminate": {"task_id": "x", "signal": "KILL"},
}


async def acks(stack: Stack, n: int) -> list[dict[str, Any]]:
    await wait_until(lambda: len(stack.multcall.acks) == n, f"{n} ACKs")
    return stack.multcall.acks


async def test_a_revoked_call_gets_its_response(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        with heard_events(Celery(broker=stack.broker_url)) as flower:
            assert "r-2" in (await ask(stack, "revoke", task_id=[f"{CELL}:r-2"]))["ok"]
            await stack.push([{"IdRequisicao": f"r-{n}"} for n in range(5)])
            by_id = {r["IdRequisicao"]: r for r in await stack.responses(5)}
            revoked = by_id.pop("r-2")
            assert (revoked["Resultado"], revoked["Erro"]["Codigo"]) == ("CANCELLED", "revoked")
            assert {r["Resultado"] for r in by_id.values()} == {"ANSWERED"}
            assert stack.rings.total() == 4
            await stack.at_rest()
            seen = ["task-received", "task-started", "task-revoked"]
            await wait_until(lambda: types(flower, f"{CELL}:r-2") == seen, "Flower sees it")


async def test_task_events_can_be_switched_off_and_on(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        with heard_events(Celery(broker=stack.broker_url)) as flower:
            assert await ask(stack, "disable_events") == {"ok": "task events disabled"}
            await stack.push([{"IdRequisicao": "off"}])
            await stack.responses(1)
            assert await ask(stack, "enable_events") == {"ok": "task events enabled"}
            await stack.push([{"IdRequisicao": "on"}])
            await wait_until(lambda: len(types(flower, f"{CELL}:on")) == 3, "events are on")
            begin = {"task-received", "task-started"}
            assert not begin & {*types(flower, f"{CELL}:off")}  # its end may come after `enable`


async def test_purged_messages_cost_no_call(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        stack.workers["pbx01"].freeze()
        await stack.push(5)
        with Connection(stack.broker_url) as broker:
            await wait_until(lambda: purged(broker), "a message is purged")
            stack.workers["pbx01"].thaw()
        await stack.responses(5)
        assert stack.rings.total() == 5


def purged(broker: Connection) -> int:
    channel: Any = broker.default_channel
    return int(channel.queue_purge("pbx01"))


# --- foreign messages ---------------------------------------------------------------------


async def test_foreign_messages_are_refused_in_one_sentence_each(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        worker = stack.workers["pbx01"]
        number = "11987654321"
        with Connection(stack.broker_url) as broker:
            producer = Producer(broker, routing_key="pbx01")
            call = [[f"{CELL}:x", CELL, 1], {}, {}]
            for task in ("foreign.task", "celery.chord_unlock", "celery.group"):
                producer.publish([[number], {}, {}], headers={"task": task, "id": "1"})
            producer.publish([[number], {}, {}], headers={"task": ORIGINATE, "id": "2"})
            producer.publish({"task": ORIGINATE, "id": "3", "args": [number], "kwargs": {}})
            producer.publish({"number": number})
            producer.publish(number.encode(), content_type="application/json",
                             content_encoding="utf-8", headers={"task": ORIGINATE})  # fmt: skip
            producer.publish(b"{" + number.encode(), content_type="application/json",
                             content_encoding="utf-8", headers={"task": ORIGINATE})  # fmt: skip
            producer.publish(call, serializer="pickle", headers={"task": ORIGINATE, "id": "4"})
        said = "Message in the PBX's queue is not from a bridge and is dropped"
        await wait_until(lambda: worker.log.count(said) == 9, "each is refused")
        await stack.push(10)
        await stack.responses(10)
        assert worker.running
        assert "Traceback" not in worker.log
        assert "Connection to broker lost" not in worker.log
        assert number not in worker.log
        assert worker.log.count(said) == 9
        for task in ("foreign.task", "celery.chord_unlock", "celery.group"):
            assert f"there is no task '{task}'" in worker.log


def _says(program: Program, sentence: str, times: int) -> bool:
    return program.log.count(sentence) == times


def _message(headers: Any, properties: dict[str, str], body: str = "W10=") -> str:
    """A message as kombu keeps it in Redis; `W10=` is `[]`."""
    return json.dumps({"body": body, "content-type": "application/json",
                       "content-encoding": "utf-8", "headers": headers,
                       "properties": {"delivery_info": {}, "delivery_tag": "x",
                                      "body_encoding": "base64", **properties}})  # fmt: skip


async def test_a_message_with_a_broken_envelope_ends_no_worker(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        worker = stack.workers["pbx01"]
        broken = [
            "11987654321 is no JSON",
            "[]",
            _message([1], {}),
            _message({"task": [1]}, {}),
            _message({}, {}, "eyJ0YXNrIjogW119"),  # {"task": []}
            _message({"task": ORIGINATE}, {"body_encoding": "rot13"}),
        ]
        said = "Message in the PBX's queue is not from a bridge and is dropped"
        async with Redis.from_url(stack.broker_url) as broker:
            for n, message in enumerate(broken, 1):
                await broker.lpush("pbx01", message)
                await wait_until(partial(_says, worker, said, n), "it is refused")
        await stack.push(10)
        await stack.responses(10)
        assert worker.running
        assert "Traceback" not in worker.log
        assert "11987654321" not in worker.log


# --- the last events ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "SIGQUIT", "shutdown"])
async def test_the_last_calls_before_a_stop_are_told(tmp_path: Path, how: str) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx(ring_time=(0.01, 0.02), talk_time=(0.05, 0.06))
        await stack.start()
        worker = stack.workers["pbx01"]
        with heard_events(Celery(broker=stack.broker_url)) as flower:
            await stack.push(20)
            await stack.responses(20)
            await stop(stack, worker, how)
            await wait_until(lambda: len(flower.workers("task-succeeded")) == 20, "all ends arrive")
        assert set(flower.workers("task-succeeded").values()) == {"pbx01"}
        assert "Flower misses calls" not in worker.log


async def stop(stack: Stack, worker: Program, how: str) -> None:
    if how == "shutdown":
        app = Celery(broker=stack.broker_url)
        await asyncio.to_thread(app.control.broadcast, "shutdown")
        assert await worker.exit_code(60) == 0
    elif how == "SIGQUIT":
        worker.process.send_signal(3)
        await worker.exit_code(60)
    else:
        assert await worker.stop(60) == 0


async def test_calls_of_a_broker_outage_are_told_afterwards(tmp_path: Path) -> None:
    with EmbeddedValkey(appendonly=False) as broker:
        async with Stack(tmp_path, settings={"broker": {"url": broker.url(1)}}) as stack:
            stack.add_pbx(talk_time=(2.0, 2.1))
            await stack.start()
            worker = stack.workers["pbx01"]
            await stack.push(5)
            await acks(stack, 5)
            broker.kill()
            await stack.responses(5)
            worker.freeze()  # until somebody listens
            await asyncio.to_thread(broker.start)
            with heard_events(Celery(broker=broker.url(1))) as flower:
                worker.thaw()
                await wait_until(
                    lambda: len(flower.workers("task-succeeded")) == 5,
                    "all ends arrive",
                    within_s=60,
                )
            assert "Flower misses calls" not in worker.log
            assert json.dumps(flower.events).count("ANSWERED cause=16") == 5
