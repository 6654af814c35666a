"""The lease of a PBX, with a registry that replies as the test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from dialer.errors import Fenced, PbxHeld
from dialer.store.ledger.fence import Fence, fenced_by
from dialer.store.registry import Held, Holder, Registry
from workers.pbx import lease as module
from workers.pbx.clock import RedisClock
from workers.pbx.lease import PbxLease, Pulse

T0 = datetime.fromtimestamp(1, UTC)
OTHER = Holder(name="pbx01-other", host="host-b", pid="7", place="elsewhere")
HELD = Held(now_ms=1_000, fence=0, holder=OTHER, link="up", seen_ms=500)
FREE = Held(now_ms=1_000, fence=9, holder=OTHER)


@dataclass(slots=True)
class Replies:
    """A registry that gives these replies to `hold`, in order."""

    held: list[Held]
    asked: list[tuple[str, int]] = field(default_factory=list)
    let_go_of: list[tuple[str, str]] = field(default_factory=list)

    async def hold(self, pbx: str, worker: Holder, *, dead: str = "", above: int = 0) -> Held:
        self.asked.append((dead, above))
        return self.held.pop(0)

    async def let_go(self, pbx: str, holder: str) -> None:
        self.let_go_of.append((pbx, holder))


def lease(*held: Held, place: str = "here", **more: Any) -> tuple[PbxLease, Replies]:
    registry = Replies([*held])
    fence = Fence("pbx01")
    clock = RedisClock(host=lambda: T0)
    return PbxLease(cast(Registry, registry), fence, clock, Pulse(place), **more), registry


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRY_EVERY_S", 0.0)


# --- is a process dead? -------------------------------------------------------------------


def test_a_process_that_runs_here_is_not_dead() -> None:
    one, _ = lease()
    for _ in range(2):  # the look itself leaves nothing behind
        assert (one.pulse.is_dead(one.me), one.pulse.is_here(one.me)) == (False, True)
    one.pulse.stop()
    for _ in range(2):
        assert (one.pulse.is_dead(one.me), one.pulse.is_here(one.me)) == (True, False)
    one.pulse.stop()  # once more does no harm


def test_of_a_process_elsewhere_nothing_is_known() -> None:
    pulse = Pulse("here")
    assert (pulse.is_dead(OTHER), pulse.is_here(OTHER)) == (False, False)


def test_without_a_place_nothing_is_known() -> None:
    pulse = Pulse("")
    pulse.start("pbx01-mine")
    nowhere = replace(OTHER, name="pbx01-mine", place="")
    assert (pulse.is_dead(nowhere), pulse.is_here(nowhere)) == (False, False)
    assert pulse._socket is None
    pulse.stop()


def test_the_place_is_the_same_for_two_processes_here() -> None:
    assert Pulse().place == Pulse().place
    assert Pulse().place.count("-") == 5  # a boot id, and a namespace


# --- taking it ----------------------------------------------------------------------------


async def test_a_free_lease_gives_number_and_time() -> None:
    one, registry = lease(FREE)
    await one.take()
    assert (one.fence.number, registry.asked) == (9, [("", 0)])
    assert one.clock.now() > T0  # it goes on from the registry's time
    one.pulse.stop()


async def test_a_dead_holder_is_named_to_the_registry_at_once() -> None:
    dead, _ = lease()
    dead.pulse.stop()
    one, registry = lease(replace(HELD, holder=dead.me), FREE)
    taking = asyncio.create_task(one.take())
    for _ in range(5):  # no pause
        await asyncio.sleep(0)
    assert taking.done()
    assert registry.asked == [("", 0), (dead.me.name, 0)]
    one.pulse.stop()


async def test_a_holder_that_runs_here_ends_the_start() -> None:
    first, _ = lease()
    second, registry = lease(replace(HELD, holder=first.me, asterisk="10.0.0.5:5038"))
    with pytest.raises(PbxHeld, match=r"on host .*, on the Asterisk 10\.0\.0\.5:5038\. One PBX"):
        await second.take()
    assert len(registry.asked) == 1
    assert first.pulse.is_dead(second.me), "its own pulse goes on"
    first.pulse.stop()


async def test_a_holder_elsewhere_that_beats_again_ends_the_start(at_once: None) -> None:
    one, registry = lease(HELD, HELD, replace(HELD, seen_ms=1_500))
    with pytest.raises(PbxHeld, match=r"pid 7 on host host-b\. One PBX has one worker"):
        await one.take()
    assert len(registry.asked) == 3


async def test_a_silent_holder_is_waited_for_and_logged_once(
    at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    one, registry = lease(HELD, HELD, HELD, FREE)
    await one.take()
    assert [dead for dead, _ in registry.asked] == [""] * 4
    assert len(caplog.records) == 1
    one.pulse.stop()


async def test_another_silent_holder_is_waited_for_anew(
    at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    third = replace(HELD, holder=replace(OTHER, name="pbx01-third"), seen_ms=900)
    one, _ = lease(HELD, third, third, FREE)
    await one.take()
    assert len(caplog.records) == 2
    one.pulse.stop()


async def test_a_holder_that_stops_is_waited_for_with_a_pause() -> None:
    stopping = replace(HELD, link="stopping")
    one, registry = lease(stopping, replace(stopping, seen_ms=900), FREE)
    taking = asyncio.create_task(one.take())
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(registry.asked) == 1
    await taking
    one.pulse.stop()


# --- keeping it ---------------------------------------------------------------------------


async def test_a_lease_counts_for_8_s_after_it_was_renewed() -> None:
    now = [100.0]
    one, _ = lease(FREE, monotonic=lambda: now[0])
    assert one.trouble == ""  # it was never taken
    await one.take()
    now[0] = 107.9
    assert one.trouble == ""
    now[0] = 108.0
    assert one.trouble.startswith("the worker of pbx01 could not renew its lease for 8 s")
    one.renewed(101.0)
    assert one.trouble == ""
    one.pulse.stop()


async def test_a_refused_take_renews_nothing() -> None:
    now = [100.0]
    first, _ = lease()
    one, _ = lease(replace(HELD, holder=first.me), monotonic=lambda: now[0])
    with pytest.raises(PbxHeld):
        await one.take()
    now[0] += 60
    assert (one.fence.number, one.trouble) == (0, "")
    first.pulse.stop()


async def test_a_cell_with_a_greater_number_is_answered_with_a_greater_one() -> None:
    one, registry = lease(FREE, replace(FREE, fence=13))
    await one.take()
    await one.fence.on_fenced(12)
    assert (one.fence.number, registry.asked[1]) == (13, ("", 12))
    one.pulse.stop()


async def test_a_cell_with_the_same_number_is_asked_about_too() -> None:
    one, registry = lease(FREE, replace(FREE, fence=10))
    await one.take()
    await one.fence.on_fenced(9)
    assert (one.fence.number, registry.asked[1]) == (10, ("", 9))
    one.pulse.stop()


async def test_a_number_that_was_raised_meanwhile_asks_nothing() -> None:
    one, registry = lease(FREE)
    await one.take()
    await one.fence.on_fenced(8)
    assert len(registry.asked) == 1
    one.pulse.stop()


async def test_a_worker_whose_lease_another_has_gives_up() -> None:
    one, _ = lease(FREE, HELD)
    await one.take()
    with pytest.raises(Fenced, match=r"another worker has taken over pbx01, .* silent for 10 s"):
        await one.fence.on_fenced(12)
    one.pulse.stop()


async def test_only_a_lease_that_was_taken_is_let_go() -> None:
    one, registry = lease(FREE)
    await one.let_go()
    assert registry.let_go_of == []
    await one.take()
    await one.let_go()
    assert registry.let_go_of == [("pbx01", one.me.name)]
    one.pulse.stop()


# --- the fence alone ----------------------------------------------------------------------


async def test_a_fence_without_a_lease_gives_up() -> None:
    fence = Fence("pbx01")
    assert fence.number == 0
    with pytest.raises(Fenced, match="has the fencing number 12"):
        await fence.on_fenced(12)


def test_only_the_error_fenced_names_a_newer_worker() -> None:
    assert fenced_by(ResponseError("FENCED 12")) == 12
    assert fenced_by(ResponseError("WRONGTYPE 12")) is None
