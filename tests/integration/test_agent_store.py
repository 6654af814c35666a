"""Operators in the registry: what a worker shows, and what a bridge and the page make of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.agents import Agent, AgentState, Team
from dialer.domain.limits import Limit
from dialer.store import keys
from dialer.store.agents import AgentStore, agents_in, agents_text, told_in
from tests.integration.cell_rig import CELL, Bridge, Site, cell, element, pbx
from tests.waiting import wait_until

ANA = Agent(
    interface="PJSIP/1001",
    name="Ana Júlia",
    state=AgentState.PAUSED,
    since=1_800_000_000.25,
    queues={"Q": AgentState.PAUSED, "R": AgentState.GONE},
    reason="almoço",
    calls=7,
    day="2026-11-27",
)
BOB = Agent(interface="SIP/2", name="SIP/2", state=AgentState.WRAPUP, since=1.0, free_at=9.5)


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture
def store(site: Site) -> AgentStore:
    return AgentStore(site.steps)


async def test_what_is_shown_is_read(store: AgentStore, site: Site) -> None:
    assert await store.show("pbx01", [ANA, BOB], fence=1)
    assert await store.read(["pbx01", "pbx02"]) == {"pbx01": [ANA, BOB], "pbx02": []}
    assert 86_000 < await site.redis.ttl(keys.agents("pbx01")) <= 86_400


async def test_those_who_are_gone_are_removed(store: AgentStore) -> None:
    await store.show("pbx01", [ANA, BOB], fence=1)
    await store.show("pbx01", [], gone=["SIP/2"], fence=1)
    assert await store.read(["pbx01"]) == {"pbx01": [ANA]}
    await store.show("pbx01", [BOB], are_all=True, fence=1)
    assert await store.read(["pbx01"]) == {"pbx01": [BOB]}


async def test_a_worker_that_lost_its_pbx_shows_nothing(store: AgentStore, site: Site) -> None:
    await site.redis.hset(keys.pbx("pbx01"), "fence", "8")
    assert not await store.show("pbx01", [ANA], fence=7)
    assert await store.show("pbx01", [ANA], fence=8)


async def test_keys_of_another_type_stop_nothing(store: AgentStore, site: Site) -> None:
    for key in (keys.pbx("pbx01"), keys.agents("pbx01")):
        await site.redis.set(key, "no hash")
    assert await store.show("pbx01", [ANA], fence=1)
    assert await store.read(["pbx01"]) == {"pbx01": [ANA]}


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=40), max_size=4))
def test_what_is_no_agent_is_left_out(found: dict[bytes, bytes]) -> None:
    assert agents_in(found) == []


@pytest.mark.parametrize(
    "text",
    [
        b'{"state": "flies", "queues": {}}',
        b'{"state": "busy", "queues": []}',
        b'{"state": ["busy"], "queues": {}}',
        b"[" * 100_000,
    ],
)
def test_a_state_that_is_none_is_left_out(text: bytes) -> None:
    assert agents_in({b"SIP/1": text}) == []


def test_absurd_numbers_of_an_agent_are_none() -> None:
    text = b"""{"state": "busy", "queues": {"Q": "flies", "R": "busy"}, "calls": -1, "day": null,
        "since": 1e400, "free_at": true, "name": ""}"""
    (one,) = agents_in({b"SIP/1": text})
    assert (one.since, one.free_at, one.calls, one.name) == (0.0, None, 0, "SIP/1")
    assert one.queues == {"R": AgentState.BUSY}


def test_the_teams_of_another_worker_do_not_count() -> None:
    text = agents_text({"Q": Team(available=2, busy=1)}, {"C": 3, "D": -1}, "i1")
    assert told_in(text, "i1") == ({"Q": Team(available=2, busy=1)}, {"C": 3, "D": 0})
    assert told_in(text, "i2") == ({}, {})
    for other in ("", "[]", '{"instance": "i1", "of": [], "rooms": 4}', '{"instance": "i1"}'):
        assert told_in(other, "i1") == ({}, {})


async def test_the_operators_of_a_silent_pbx_are_not_known(site: Site) -> None:
    await site.beat(agents=agents_text({"Q": Team(available=2, gone=1)}, {}, "i1"))
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert state.team("Q") == Team(available=2, gone=1)
    assert (state.team("R"), state.team(None)) == (None, None)
    await site.silence("pbx01", seconds=6)
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert state.team("Q") == Team(stale=2, gone=1)


async def test_a_bridge_queues_one_call_for_each_free_operator(site: Site) -> None:
    await site.beat(agents=agents_text({"Q": Team(available=3)}, {CELL: 3}, "i1"))
    bridge = Bridge.of(site, cell_table=cell(queue="Q", mode="progressive"))
    await site.push_requests(*(element(f"r-{i}") for i in range(8)))
    async with bridge.running():
        await wait_until(lambda: _live(site, 3), "3 calls are queued")
        for _ in range(5):
            await bridge.intake.fetch()
        assert await _live(site, 3), "those 3 have no operator yet in what the worker said"
        assert (await site.registry.pbxs([pbx()], CELL))["pbx01"].load.agents == 3


async def test_calls_of_one_pbx_take_no_operators_of_another(site: Site) -> None:
    for name in ("pbx01", "pbx02"):
        await site.beat(name, agents=agents_text({"Q": Team(available=2)}, {CELL: 2}, "i1"))
    table = cell("pbx01", "pbx02", queue="Q", mode="progressive")
    bridge = Bridge.of(site, cell_table=table, pbxs=[pbx("pbx01"), pbx("pbx02")])
    for n in range(2):
        await site.admitted(f"r-{n}", pbx="pbx01")
    room, _ = await bridge.intake.fetch()
    assert {load.name: load.agents for load in room.pbxs} == {"pbx01": 0, "pbx02": 2}


async def test_a_worker_that_tells_of_no_operators_gets_no_call(site: Site) -> None:
    await site.beat()  # of an older release, or with another mode in its file
    bridge = Bridge.of(site, cell_table=cell(queue="Q", mode="progressive"))
    state = (await bridge.cell.states())["pbx01"]
    assert not state.load.ready
    found = state.obstacle(CELL)
    assert found is not None
    assert found.limit is Limit.STALE_AGENTS
    assert "restart it" in found.reason
    ura = Bridge.of(site, cell_table=cell(queue="Q"))
    assert (await ura.cell.states())["pbx01"].load.ready


async def test_a_full_floor_is_named(site: Site) -> None:
    await site.beat(
        lacking=f'{{"{CELL}": "all free operators of queue Q of pbx01 (1) have calls"}}',
        limits=f'{{"instance": "i1", "of": {{"{CELL}": "agents_reserved"}}}}',
    )
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    found = state.obstacle(CELL)
    assert found is not None
    assert found.limit is Limit.AGENTS_RESERVED


async def _live(site: Site, n: int) -> bool:
    return len(await site.ledger.live()) == n
