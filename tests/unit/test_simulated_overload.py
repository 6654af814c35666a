"""A simulated PBX with too little capacity: late replies, late channels, starved calls."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from dialer.simulation.pbx.control import ControlPort
from dialer.simulation.pbx.timing import REPLIES_WITHIN_S, SIDE_BY_SIDE_S, Workload
from tests.unit.simulated_pbx_client import LONG, Client, MakePbx, quick_pbxs
from tests.waiting import wait_until


@pytest.fixture
async def make_pbx() -> AsyncIterator[MakePbx]:
    async with quick_pbxs() as make:
        yield make


def test_work_beyond_the_capacity_waits_in_order() -> None:
    work = Workload()
    assert [work.add(100.0) for _ in range(3)] == [0, 0, 0]
    work.change(10, 100.0)
    waits = [work.add(100.0) for _ in range(6)]
    assert waits == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])
    assert work.wait_s(100.5) == 0
    assert work.reply_s(100.0) == pytest.approx(0.6 - SIDE_BY_SIDE_S)


def test_replies_are_never_later_than_a_bound() -> None:
    work = Workload()
    work.change(1, 0.0)
    for _ in range(50):
        work.add(0.0)
    assert work.reply_s(0.0) == REPLIES_WITHIN_S


def test_a_change_of_capacity_keeps_what_waits() -> None:
    work = Workload()
    work.change(10, 0.0)
    for _ in range(10):
        work.add(0.0)
    work.change(5, 0.0)
    assert work.wait_s(0.0) == pytest.approx(2.0 - SIDE_BY_SIDE_S)
    work.change(None, 0.0)
    assert work.wait_s(0.0) == 0


async def test_an_overloaded_pbx_creates_channels_late(make_pbx: MakePbx) -> None:
    pbx = await make_pbx()
    client = await Client.logged_in(pbx, "call")
    pbx.slow_down(4)
    began = time.monotonic()
    for i in range(4):
        client.originate(f"11{i}00", f"c{i}")
    await wait_until(lambda: pbx.stats()["started"] == 4, "all are started")
    assert time.monotonic() - began >= 3 / 4 - SIDE_BY_SIDE_S
    assert pbx.stats()["starved"] == 0


async def test_calls_that_wait_too_long_starve(make_pbx: MakePbx) -> None:
    pbx = await make_pbx()
    client = await Client.logged_in(pbx, "call")
    pbx.slow_down(1)
    for i in range(8):
        client.originate(f"11{i}00", f"c{i}")
    await wait_until(lambda: pbx.stats()["originates"] == 8, "all have come")
    assert pbx.stats()["starved"] == 3
    pbx.restart()
    assert pbx.live == 0


async def test_the_control_port_changes_the_capacity(make_pbx: MakePbx) -> None:
    pbx = await make_pbx(**LONG)
    control = ControlPort(pbx, stop=lambda: None)
    work = pbx.exchange.floor.workload
    seen = [(control.answer(line), work.capacity) for line in ("capacity 20", "capacity off")]
    assert seen == [("ok", 20), ("ok", None)]
    assert control.answer("capacity 0").startswith("error")
