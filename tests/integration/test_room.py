"""Lua grants exactly what `dialer.domain.room` says for the same state, on a real Redis."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialer.domain.room import CellRoom, Pace, PbxLimits, Room, trunk_pace
from dialer.multcall.request import parse_request
from dialer.store.ledger import Admissible, Admission
from tests.integration.cell_rig import CELL, Site, element, governor, pbx

MOST = 12

sizes = st.integers(0, MOST)


@dataclass(frozen=True, slots=True)
class State:
    """One cell with two bridges on one PBX. `ahead_us` is when its next start is due, from now."""

    threads: int
    live: int
    own_hand: int
    other_hand: int
    waiting: int
    parked: int
    max_calls: int
    used: int
    cps: float
    ahead_us: int
    at_most: int
    limit: float
    trunk_limit: float


states = st.builds(
    State,
    threads=sizes,
    live=sizes,
    own_hand=st.integers(0, 3),
    other_hand=st.integers(0, 3),
    waiting=sizes,
    parked=st.integers(0, 3),
    max_calls=st.integers(1, MOST),
    used=sizes,
    cps=st.sampled_from([0.1, 25, 80, 1000]),
    ahead_us=st.sampled_from([-20_000_000, -1, 0, 3_000_000]),
    at_most=sizes,
    limit=st.sampled_from([0, 0.5, 40, 5000]),
    trunk_limit=st.sampled_from([0, 0.5, 40]),
)


async def put(site: Site, state: State) -> PbxLimits:
    """Write the state to an empty Redis."""
    keys = site.ledger.keys
    await site.redis.flushdb()
    trunks = {"tim": {"limit": state.trunk_limit}} if state.trunk_limit else {}
    await site.beat(governor=governor(limit=state.limit, trunks=trunks))
    seconds, micros = await site.redis.time()
    due_us = seconds * 1_000_000 + micros + state.ahead_us
    async with site.redis.pipeline(transaction=False) as pipe:
        for i in range(state.live):
            pipe.zadd(keys.live, {f"{CELL}:live-{i}": 1})
        for i in range(state.used):
            pipe.zadd("dialer:slots:pbx01", {f"OTHER:{i}": 1})
        for i in range(state.own_hand):
            pipe.rpush(keys.hand("one"), element(f"own-{i}"))
        for i in range(state.other_hand):
            pipe.rpush(keys.hand("two"), element(f"other-{i}"))
        for i in range(state.parked):
            pipe.rpush(keys.parked("tim"), element(f"parked-{i}"))
            pipe.sadd(keys.parking, "tim")
        for i in range(state.waiting):
            pipe.rpush(site.ledger.wire.request, element(f"new-{i}"))
        pipe.zadd(keys.bridges, {"one": seconds * 1000, "two": seconds * 1000})
        pipe.set("dialer:pace:pbx01", due_us)
        pipe.hset("dialer:starts:pbx01", "trunk:tim", due_us)
        await pipe.execute()
    return pbx(max_calls=state.max_calls, cps=state.cps, default_trunk="tim")


async def room_of(site: Site, limits: PbxLimits, state: State) -> Room:
    load = (await site.registry.pbxs([limits]))["pbx01"].load
    cell = CellRoom(
        threads=state.threads, live=state.live, in_hand=state.own_hand + state.other_hand
    )
    return Room(cell=cell, pbxs=(load,))


async def agree_on_fetch(site: Site, state: State) -> None:
    room = await room_of(site, await put(site, state), state)
    fetched = await site.ledger.fetch("one", at_most=state.at_most, threads=state.threads)
    may = max(0, min(room.cell.to_fetch, state.at_most - state.own_hand))
    assert len(fetched.hand) - state.own_hand == min(may, state.waiting)
    assert fetched.live == state.live
    assert fetched.in_hand == len(fetched.hand) + state.other_hand
    assert sum(fetched.parked.values()) == state.parked


async def starts_at(site: Site, pace: Pace, due: Any, granted: int) -> int:
    """Return how many calls could start before the lease granted so many."""
    seconds, micros = await site.redis.time()
    return pace.starts(int(due or 0) - pace.gap_us * granted, seconds * 1_000_000 + micros)


async def agree_on_lease(site: Site, state: State) -> None:
    limits = await put(site, state)
    before = await room_of(site, limits, state)
    asked = [f"{CELL}:r-{i}" for i in range(2 * MOST)]
    lease = await site.registry.lease(limits, asked, ["tim"] * len(asked))
    # Time goes on between the two readings: the pace may let more start by then, never fewer.
    await site.redis.delete("dialer:slots:pbx01")
    pace = limits.pace_at(state.limit)
    starts = await starts_at(site, pace, await site.redis.get("dialer:pace:pbx01"), lease.granted)
    if state.trunk_limit:
        due = await site.redis.hget("dialer:starts:pbx01", "trunk:tim")
        of_trunk = await starts_at(site, trunk_pace(state.trunk_limit), due, lease.granted)
        starts = min(starts, of_trunk)
    assert before.pbxs[0].room_for("tim") <= lease.granted
    assert lease.granted <= max(0, min(state.max_calls - state.used, starts, len(asked)))


async def agree_on_admit(site: Site, state: State) -> None:
    room = await room_of(site, await put(site, state), state)
    hand = site.ledger.keys.hand("one")
    raws = [element(f"a-{i}") for i in range(MOST + 1)]
    await site.redis.rpush(hand, *raws)
    replies = [
        await site.ledger.admit(
            Admissible(source=hand, raw=raw, request=parse_request(raw, cell=CELL)),
            pbx="pbx01",
            threads=state.threads,
        )
        for raw in raws
    ]
    assert replies.count(Admission.ADMITTED) == room.cell.to_admit
    assert set(replies) <= {Admission.ADMITTED, Admission.FULL}


def test_lua_grants_what_the_room_says(redis_url: str) -> None:
    turns = itertools.count()
    with asyncio.Runner() as runner:
        site = Site(redis_url)
        runner.run(site.__aenter__())

        async def check(state: State) -> None:
            await agree_on_fetch(site, state)
            await agree_on_lease(site, state)
            if next(turns) % 4 == 0:
                await agree_on_admit(site, state)

        @settings(
            max_examples=100,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(states)
        def run(state: State) -> None:
            runner.run(check(state))

        try:
            run()
        finally:
            runner.run(site.__aexit__())
