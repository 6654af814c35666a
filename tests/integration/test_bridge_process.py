"""`dialer bridge` as the program it is: how it starts, what it publishes, how it ends."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dialer.simulation.valkey import EmbeddedValkey
from tests.integration.cell_rig import Site, element, task_of
from tests.integration.stack import CELL, Stack
from tests.waiting import wait_until

OTHER = "ura-2"


@pytest.fixture
async def stack(
    redis_url: str, valkey_server: EmbeddedValkey, tmp_path: Path
) -> AsyncIterator[Stack]:
    assert redis_url
    async with Stack(tmp_path, valkey=valkey_server) as stack:
        stack.add_pbx("pbx01")
        stack.add_cell(OTHER)
        await stack.start(bridges=0, workers=False)
        yield stack


@pytest.fixture
async def site(stack: Stack) -> AsyncIterator[Site]:
    async with Site(stack.valkey.url(), cell=CELL) as site, task_of(site.beat_on()):
        yield site


async def test_task_shows_no_number_and_bridge_stops_in_time(stack: Stack, site: Site) -> None:
    await site.beat()
    bridge = await stack.start_bridge()
    await site.push_requests(element())
    async with Site(stack.broker_url) as broker:
        await wait_until(lambda: broker.redis.llen("pbx01"), "a message in the queue of the PBX")
        message = json.loads((await broker.listed("pbx01"))[0])
    args, _, _ = json.loads(base64.b64decode(message["body"]))
    assert args == [f"{CELL}:r-1", CELL, 1]
    assert message["headers"]["id"] == f"{CELL}:r-1"
    assert "5511987654321" not in json.dumps(message) + bridge.log
    began = time.monotonic()
    assert await bridge.stop(within_s=14) == 0
    assert time.monotonic() - began < 14  # systemd kills it after 15 s
    assert "Bridge stopped" in bridge.log


async def test_stopping_bridge_process_returns_its_hand(stack: Stack, site: Site) -> None:
    await site.beat()
    await site.admitted("live")
    stack.add_cell(CELL, threads=2)
    stack.write_config()
    bridge = await stack.start_bridge()
    (name,) = await site.redis.zrange(site.ledger.keys.bridges, 0, -1)
    assert isinstance(name, bytes)
    await site.in_hand(element("r-1"), element("r-2"), bridge=name.decode())
    assert await bridge.stop(within_s=14) == 0
    assert await site.ledger.hand(name.decode()) == []
    left = [json.loads(raw)["IdRequisicao"] for raw in await site.listed(site.ledger.wire.request)]
    assert left in ([], ["r-2"], ["r-1", "r-2"])
    assert len(left) + len(await site.ledger.live()) == 3


async def test_cell_with_lists_of_a_wrong_type_stops_no_other(stack: Stack, site: Site) -> None:
    await site.beat()
    wire = site.ledger.wire
    for key in (wire.request, wire.code, wire.response):
        await site.redis.set(key, "not a list")
    bridge = await stack.start_bridge()
    async with Site(stack.valkey.url(), cell=OTHER) as other:
        await other.push_requests(element())
        await wait_until(other.state, "the other cell's call is admitted")
        await wait_until(lambda: "Redis refused a command" in bridge.log, "it says so")
        assert bridge.running
        for key in (wire.request, wire.code, wire.response):
            await site.redis.delete(key)
        await site.push_requests(element())
        await wait_until(site.state, "the cell works again")
    assert await bridge.stop(within_s=14) == 0


async def test_a_bridge_of_one_cell_leaves_the_others_alone(stack: Stack, site: Site) -> None:
    await site.beat()
    bridge = await stack.start_bridge("--cell", CELL)
    async with Site(stack.valkey.url(), cell=OTHER) as other:
        await other.push_requests(element())
        await site.push_requests(element())
        await wait_until(site.state, "its own cell's call is admitted")
        assert await other.state() is None
    assert await bridge.stop(within_s=14) == 0


async def test_an_unknown_cell_is_one_sentence_and_exit_code_two(stack: Stack) -> None:
    bridge = await stack.start_bridge("--cell", "nobody", wait=False)
    assert await bridge.exit_code() == 2
    assert "there is no cell 'nobody'" in bridge.log
    assert f"cells are {CELL}, {OTHER}" in bridge.log
    assert "Traceback" not in bridge.log


async def test_unreachable_redis_is_one_sentence_and_exit_code_two(
    stack: Stack,
) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        url = f"redis://:s3cret@127.0.0.1:{port}/0"
        bridge = await stack.start_bridge(env={"DIALER_MULTCALL__REDIS_URL": url}, wait=False)
        assert await bridge.exit_code() == 2
    assert "cannot be reached" in bridge.log
    assert "correct its redis_url" in bridge.log
    assert "s3cret" not in bridge.log
    assert "Traceback" not in bridge.log


async def test_a_bridge_whose_redis_is_gone_stops_all_the_same(
    stack: Stack, site: Site, valkey_server: EmbeddedValkey
) -> None:
    await site.beat()
    bridge = await stack.start_bridge()
    valkey_server.kill()
    await wait_until(lambda: "Redis unavailable" in bridge.log, "it notices")
    assert await bridge.stop(within_s=8) == 0
    assert "could not be put back" in bridge.log
    valkey_server.start()


async def test_bridge_stops_while_its_broker_hangs(stack: Stack, site: Site) -> None:
    await site.beat()
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/1"
        bridge = await stack.start_bridge(env={"DIALER_BROKER__URL": url})
        await site.push_requests(element())
        await wait_until(site.state, "the call is admitted")
        assert await bridge.stop(within_s=14) == 0
