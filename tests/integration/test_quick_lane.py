"""The quick lane to a broker: what it writes, and that nothing is lost beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from celery import Celery
from redis.asyncio import Redis

from dialer.bridge import dispatch, quick_lane
from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.nudges import Nudge
from dialer.bridge.quick_lane import QuickLane
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect
from tests.waiting import wait_until


def nudge(n: int, pbx: str = "pbx01") -> Nudge:
    return Nudge(call_id=f"ASR_TIM:r-{n}", pbx=pbx, epoch=n, shown=f"('ASR_TIM', 'é{n}')")


def ignore(refused: Sequence[Nudge], *, is_well: bool) -> None:
    """Does nothing with the replies."""


class Rig:
    """A dispatcher with a quick lane to a real server."""

    def __init__(self, server: EmbeddedValkey) -> None:
        self.server, url = server, server.url(1)
        self.app = Celery("test", broker=url)
        self.lane = QuickLane(self.app, connect(url))
        self.dispatcher = Dispatcher(self.app, self.lane)
        self.redis = Redis.from_url(url)

    async def publish(self, *nudges: Nudge) -> None:
        await self.dispatcher.publish(nudges)
        await self.dispatcher.flush()

    async def until_open(self) -> None:
        """Publish until the lane is open, as a bridge does with its first tasks."""

        async def is_open() -> bool:
            await self.publish(nudge(0, "first"))
            connection = self.lane._connection
            return connection is not None and connection.is_open and not self.dispatcher.is_down

        await wait_until(is_open, "the lane is open")

    async def ids(self, pbx: str) -> list[str]:
        """The calls of the tasks of a PBX, oldest first."""
        elements = await self.redis.lrange(pbx, 0, -1)
        return [json.loads(raw)["headers"]["id"] for raw in reversed(elements)]


@pytest.fixture
async def rig(redis_url: str, valkey_server: EmbeddedValkey) -> AsyncIterator[Rig]:
    assert redis_url  # its databases are empty
    rig = Rig(valkey_server)
    yield rig
    rig.dispatcher.close()
    rig.dispatcher._disconnect()
    await rig.lane.close()
    await rig.redis.aclose()


async def test_the_lane_writes_what_kombu_writes(rig: Rig) -> None:
    await rig.until_open()
    await rig.publish(nudge(7, "pbx01"))
    rig.dispatcher.lane = None
    await rig.publish(nudge(7, "pbx02"))
    (quick,), (kombus,) = [await rig.redis.lrange(pbx, 0, -1) for pbx in ("pbx01", "pbx02")]
    assert _same_but_for_its_tag(quick) == _same_but_for_its_tag(kombus)


def _same_but_for_its_tag(raw: bytes | str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(raw)
    properties = message["properties"]
    assert len(properties.pop("delivery_tag")) == 36
    assert properties["delivery_info"].pop("routing_key").startswith("pbx0")
    return message


async def test_tasks_of_the_lane_keep_their_order(rig: Rig) -> None:
    await rig.until_open()
    await rig.publish(nudge(1), nudge(2, "pbx02"), nudge(3))
    await rig.publish(nudge(4))
    assert await rig.ids("pbx01") == ["ASR_TIM:r-1", "ASR_TIM:r-3", "ASR_TIM:r-4"]
    assert await rig.ids("pbx02") == ["ASR_TIM:r-2"]


async def test_kombu_gets_what_the_broker_refuses(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.until_open()
    await rig.redis.set("pbx02", "no list")
    await rig.publish(nudge(1), nudge(2, "pbx02"))
    assert await rig.ids("pbx01") == ["ASR_TIM:r-1"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "Broker refuses the queue of a PBX; its calls stay in the ledger"
    )
    assert vars(record)["queue"] == "pbx02"
    assert not rig.dispatcher.is_down


async def test_the_lane_opens_again_after_an_outage(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_lane, "AGAIN_AFTER_S", 0.0)
    await rig.until_open()
    before = rig.lane._connection
    rig.server.kill()
    try:
        await rig.publish(nudge(1))
        await wait_until(lambda: rig.dispatcher.is_down, "the broker is missed")
        assert rig.lane.owed == 0
    finally:
        rig.server.start()
    await rig.until_open()
    await rig.publish(nudge(2))
    assert rig.lane._connection is not before
    assert (await rig.ids("pbx01"))[-1] == "ASR_TIM:r-2"
    assert caplog.messages == [
        "Broker unavailable; retrying, the calls stay in the ledger",
        "Broker available again",
    ]


async def test_a_lost_reply_sends_the_task_the_other_way(rig: Rig) -> None:
    await rig.until_open()
    await rig.redis.client_pause(60_000, all=False)
    sending = asyncio.create_task(rig.dispatcher.publish([nudge(1)]))
    await wait_until(lambda: rig.lane.owed == 1, "it is written")
    connection = rig.lane._connection
    assert connection is not None
    connection.lose(ConnectionError("cut"))
    await rig.redis.client_unpause()
    await sending
    await rig.dispatcher.flush()
    assert "ASR_TIM:r-1" in await rig.ids("pbx01")  # twice, if Redis had read it


async def test_a_slow_broker_gets_no_more_by_the_lane(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_lane, "OWED_MAX", 2)
    await rig.until_open()
    took = [rig.lane.send([nudge(n)], ignore) for n in range(3)]
    assert took == [True, True, False]
    await rig.dispatcher.flush()
    assert rig.lane.owed == 0


async def test_a_closed_lane_leaves_no_connection(rig: Rig) -> None:
    await rig.until_open()
    connection = rig.lane._connection
    await rig.lane.close()
    assert connection is not None
    assert not connection.is_open
    assert not rig.lane.ping(ignore)


async def test_the_bridge_stops_while_the_lane_connects(rig: Rig) -> None:
    assert not rig.lane.send([nudge(1)], ignore)
    await rig.lane.close()
    assert rig.lane._connection is None


async def test_a_broker_that_refuses_the_lane_is_not_asked_at_once_again(
    redis_url: str, unused_tcp_port: int
) -> None:
    assert redis_url
    lane = QuickLane(Celery("test"), connect(f"redis://127.0.0.1:{unused_tcp_port}/0"))
    assert not lane.send([nudge(1)], ignore)
    await wait_until(lambda: lane._opening is None, "it gave up")
    assert not lane.send([nudge(1)], ignore)
    assert lane._opening is None
    await lane.close()


async def test_the_lane_asks_a_quiet_broker(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.until_open()
    monkeypatch.setattr(dispatch, "PROBE_AFTER_S", 0.0)
    connects = await _connects(rig)
    before = rig.dispatcher._proved_at
    rig.dispatcher.look()
    await wait_until(lambda: rig.dispatcher._proved_at > before, "it replied")
    assert rig.dispatcher._is_idle(), "the thread asked nothing"
    assert await _connects(rig) == connects


async def test_kombu_asks_a_quiet_broker_over_its_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.dispatcher.lane = None
    await rig.publish(nudge(1))
    monkeypatch.setattr(dispatch, "PROBE_AFTER_S", 0.0)
    connects = await _connects(rig)
    before = rig.dispatcher._proved_at
    rig.dispatcher.look()
    await rig.dispatcher.flush()
    assert rig.dispatcher._proved_at > before
    assert await _connects(rig) == connects


async def _connects(rig: Rig) -> int:
    return int((await rig.redis.info("stats"))["total_connections_received"])


async def test_a_broker_that_only_refuses_new_connections_is_well(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.until_open()
    monkeypatch.setattr(dispatch, "PROBE_AFTER_S", 0.0)
    clients = (await rig.redis.info("clients"))["connected_clients"]
    await rig.redis.config_set("maxclients", clients)
    try:
        for n in range(5):
            rig.dispatcher.look()
            await rig.publish(nudge(n))
            assert not rig.dispatcher.is_down
    finally:
        await rig.redis.config_set("maxclients", 10_000)
    assert await rig.ids("pbx01") == [f"ASR_TIM:r-{n}" for n in range(5)]


async def test_a_silent_broker_is_given_up_after_a_second_whatever_its_url_says(
    redis_url: str, valkey_server: EmbeddedValkey
) -> None:
    assert redis_url
    lane = QuickLane(Celery("test"), connect(f"{valkey_server.url(1)}?timeout=60"))
    lane.send([nudge(1)], ignore)
    await wait_until(lambda: lane._connection is not None, "it is open")
    given_back: list[Sequence[Nudge]] = []

    def note(refused: Sequence[Nudge], *, is_well: bool) -> None:
        assert not is_well
        given_back.append(refused)

    async with Redis.from_url(valkey_server.url(0)) as redis:
        await redis.client_pause(60_000, all=False)
        assert lane.send([nudge(1)], note)
        await wait_until(lambda: given_back, "it is given up")
        await redis.client_unpause()
    assert given_back == [[nudge(1)]]
    await lane.close()


async def test_a_lane_to_a_replica_connects_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_lane, "AGAIN_AFTER_S", 0.0)
    await rig.until_open()
    before = rig.lane._connection
    await rig.redis.replicaof("127.0.0.1", 1)
    try:
        await rig.publish(nudge(1))
        assert before is not None
        await wait_until(lambda: not before.is_open, "the connection is given up")
    finally:
        await rig.redis.replicaof("NO", "ONE")
    await rig.until_open()
    assert rig.lane._connection is not before
