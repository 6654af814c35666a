"""Lease and admission in one step, on a real server: the same rules as in two."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dialer.domain.room import PbxLimits
from dialer.multcall.request import parse_request
from dialer.store.ledger import Admissible, Admission
from dialer.store.registry import lease_parts
from dialer.store.step_queue import Step, StepQueue
from tests.integration.cell_rig import BRIDGE, CELL, Site, element, governor, pbx

ADMITTED, NO_SLOT = Admission.ADMITTED, Admission.NO_SLOT


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        yield site


def admissible(site: Site, name: str, **more: Any) -> Admissible:
    raw = element(name)
    request = parse_request(raw, cell=CELL)
    return Admissible(source=site.ledger.keys.hand(BRIDGE), raw=raw, request=request, **more)


async def admit(
    site: Site,
    *requests: Admissible,
    on: PbxLimits | None = None,
    threads: int = 50,
    trunks: Sequence[str] = (),
) -> list[Admission]:
    return await site.ledger.admit_many(
        requests, pbx="pbx01", threads=threads, registry=lease_parts(on or pbx()), trunks=trunks
    )


async def in_hand(site: Site, *names: str, **more: Any) -> list[Admissible]:
    await site.in_hand(*(element(name) for name in names))
    return [admissible(site, name, **more) for name in names]


async def test_admitted_calls_are_queued_with_their_slots(site: Site) -> None:
    assert await admit(site, *await in_hand(site, "a", "b")) == [ADMITTED] * 2
    assert await site.slots() == {"a", "b"}
    assert (await site.sizes(), await site.counters()) == ((2, 0), (2, 0))
    assert [await site.state(name) for name in "ab"] == ["queued"] * 2
    assert await site.ledger.hand(BRIDGE) == []
    assert (await site.registry.pbxs([pbx()]))["pbx01"].load.recent_starts > 1


async def test_a_repeat_of_the_step_changes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "token")
    requests = await in_hand(site, "a")
    assert await admit(site, *requests) == [ADMITTED]
    before = await site.snapshot()
    assert await admit(site, *requests) == [ADMITTED], "its reply was lost"
    assert await site.snapshot() == before


async def test_slots_pace_and_threads_limit_the_step(site: Site) -> None:
    two = pbx(max_calls=2)
    requests = await in_hand(site, "a", "b", "c")
    assert await admit(site, *requests, on=two) == [ADMITTED, ADMITTED, NO_SLOT]
    assert await admit(site, requests[2], threads=2) == [Admission.FULL]
    slow = pbx("pbx02", cps=0.1)
    assert await admit(site, requests[2], on=slow) == [ADMITTED]
    later = await in_hand(site, "d")
    assert await admit(site, *later, on=slow) == [NO_SLOT]
    assert await site.listed(site.ledger.keys.hand(BRIDGE)) == [element("d")]
    assert await site.slots("pbx02") == {"c"}


async def test_a_slot_that_a_call_has_is_not_leased_twice(site: Site) -> None:
    await site.redis.zadd("dialer:slots:pbx01", {f"{CELL}:a": 1})
    assert await admit(site, *await in_hand(site, "a"), on=pbx(max_calls=1)) == [ADMITTED]
    assert await site.redis.get("dialer:pace:pbx01") is None


async def test_what_is_not_admitted_leases_nothing(site: Site) -> None:
    await site.admitted("used")
    (repeat,) = await in_hand(site, "used")
    gone = admissible(site, "gone")
    limited = admissible(site, "limited", most_per_number=1, number_window_s=60)
    await site.in_hand(limited.raw)
    key = site.ledger.keys.number(limited.request.number)
    now_s, _ = await site.redis.time()
    await site.redis.zadd(key, {"earlier": now_s * 1000})
    slots = await site.slots()
    replies = await admit(site, repeat, gone, limited)
    assert replies == [Admission.DUPLICATE, Admission.GONE, Admission.NUMBER_LIMIT]
    assert await site.slots() == slots
    assert await site.redis.get("dialer:pace:pbx01") is None


async def test_a_pbx_on_trial_gets_one_call(site: Site) -> None:
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert await site.registry.condemn(state, "a reason")
    requests = await in_hand(site, "a", "b")
    assert await admit(site, *requests) == [NO_SLOT] * 2
    await site.redis.hset("dialer:verdict:pbx01", "trial_ms", 1)
    assert await admit(site, *requests) == [ADMITTED, NO_SLOT]
    assert await site.redis.hget("dialer:verdict:pbx01", "trial") == f"{CELL}:a".encode()


async def test_the_limit_of_a_governor_limits_the_step(site: Site) -> None:
    await site.beat(governor=governor(10))
    requests = await in_hand(site, "a", "b", "c", "d")
    assert await admit(site, *requests) == [ADMITTED] * 3 + [NO_SLOT]


async def test_a_limited_trunk_stops_only_its_own_requests(site: Site) -> None:
    await site.beat(governor=governor(trunks={"tim": {"limit": 0.5}}))
    requests = await in_hand(site, "a", "b", "c", "d")
    trunks = ["tim", "tim", "vivo", "tim"]
    assert await admit(site, *requests, trunks=trunks) == [ADMITTED, NO_SLOT, ADMITTED, NO_SLOT]
    load = (await site.registry.pbxs([pbx(default_trunk="tim")]))["pbx01"].load
    assert load.room_for(None) == 0
    assert await site.redis.hget("dialer:starts:pbx01", "trunk:vivo") is None
    assert await admit(site, requests[1], trunks=["vivo"]) == [ADMITTED]


async def test_an_error_leaves_slots_and_counter_right(site: Site) -> None:
    requests = await in_hand(site, "a", "broken", "b")
    await site.redis.set(site.ledger.keys.call(f"{CELL}:broken"), "garbage")
    with pytest.raises(ResponseError):
        await admit(site, *requests, on=pbx(cps=5))
    assert await site.slots() == {"a"}
    assert await site.counters() == (1, 0)
    assert await site.redis.get("dialer:pace:pbx01") is not None
    assert len(await site.ledger.hand(BRIDGE)) == 2


@pytest.mark.parametrize("key", ["queued", "live"])
async def test_a_refused_admission_leaves_the_request_in_the_hand(site: Site, key: str) -> None:
    (one,) = await in_hand(site, "a")
    name = getattr(site.ledger.keys, key)
    await site.redis.set(name, "garbage")
    with pytest.raises(ResponseError):
        await admit(site, one)
    assert await site.ledger.hand(BRIDGE) == [one.raw]
    await site.redis.delete(name)
    assert await admit(site, one) == [ADMITTED]
    assert await site.ledger.hand(BRIDGE) == []


async def test_no_right_to_write_a_call_loses_no_request(site: Site) -> None:
    (one,) = await in_hand(site, "a")
    await site.redis.acl_setuser("default", enabled=True, commands=["-hset"])
    try:
        with pytest.raises(ResponseError, match="hset"):
            await admit(site, one)
    finally:
        await site.redis.acl_setuser("default", enabled=True, commands=["+hset"])
    assert await site.ledger.hand(BRIDGE) == [one.raw]
    assert await admit(site, one) == [ADMITTED]


async def test_other_steps_of_its_calls_wait_for_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[Step] = []
    add = StepQueue.add

    def note(queue: StepQueue, step: Step) -> None:
        added.append(step)
        add(queue, step)

    monkeypatch.setattr(StepQueue, "add", note)
    await admit(site, *await in_hand(site, "a", "b"))
    assert {step.calls for step in added if step.name == "admit_many"} == {
        tuple(site.ledger.keys.call(f"{CELL}:{name}") for name in "ab")
    }
