"""What a worker shows of the operators of its queues, and how it reserves them for calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from dialer.domain.agents import STALE_AFTER_S, Agent, AgentState, Member, Team
from dialer.domain.limits import Limit
from dialer.errors import AmiUnavailable
from dialer.settings import Cell
from dialer.store.agents import AgentStore
from dialer.store.ledger import WorkerLedger
from dialer.store.ledger.fence import Fence
from tests.unit.lives import REQUEST
from tests.unit.stand_ins import a
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.calls import agent_watch
from workers.calls.agent_watch import LIST_EVERY_S, AgentWatch
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.pbx.questions import Questions
from workers.pbx.state import PbxState

T0 = 1_800_000_000.0
ANA, BOB = "PJSIP/1001", "PJSIP/1002"


@dataclass(slots=True)
class Asterisk:
    """Queues with their members; `differs` is added to the count of free ones."""

    members: dict[str, list[Member]] = field(default_factory=dict)
    differs: int = 0
    listed: list[str] = field(default_factory=list)
    waiting: frozenset[str] = frozenset()
    is_away: bool = False
    ready: bool = True

    async def members_of(self, queue: str) -> tuple[list[Member], frozenset[str]]:
        if self.is_away:
            raise AmiUnavailable("gone")
        self.listed.append(queue)
        return self.members.get(queue, []), self.waiting

    async def count(self, queue: str) -> tuple[int, int]:
        if self.is_away:
            raise AmiUnavailable("gone")
        free = sum(m.status == 1 and not m.is_paused for m in self.members.get(queue, []))
        return free + self.differs, free + self.differs


@dataclass(slots=True)
class Shown:
    """What the registry got."""

    agents: dict[str, Agent] = field(default_factory=dict)
    former: list[Agent] = field(default_factory=list)
    shows: int = 0

    async def show(self, pbx: str, agents: list[Agent], **more: Any) -> bool:
        assert (pbx, more["fence"]) == ("pbx01", 7)
        self.shows += 1
        if more["are_all"]:
            self.agents.clear()
        for gone in more["gone"]:
            self.agents.pop(gone, None)
        self.agents |= {agent.interface: agent for agent in agents}
        return True

    async def read(self, pbxs: list[str]) -> dict[str, list[Agent]]:
        return dict.fromkeys(pbxs, self.former)


class Floor:
    """A watch on stand-ins; `now` is the time of Redis."""

    def __init__(self, *cells: Cell) -> None:
        self.now, self.set_s = T0, 0.0
        self.asterisk, self.shown, self.beats = Asterisk(), Shown(), 0
        questions = a(members=self.asterisk.members_of, free_and_ready=self.asterisk.count)
        self.state = PbxState("pbx01", cast("AmiLink", self.asterisk))
        self.state.clock = a(now=lambda: datetime.fromtimestamp(self.now + self.set_s, UTC))
        self.state.monotonic = lambda: self.now
        self.cells, self.calls = Cells(), Calls()
        for one in cells or (cell(),):
            self.cells.add(one, cast("WorkerLedger", None))
        fence = Fence("pbx01", 7)

        async def beat() -> None:
            self.beats += 1

        self.watch = AgentWatch(
            self.state,
            cast("Questions", questions),
            self.cells,
            self.calls,
            cast("AgentStore", self.shown),
            fence,
            beat=beat,
        )

    async def up(self, *members: Member) -> Floor:
        for one in members:
            self.asterisk.members.setdefault(one.queue, []).append(one)
        await self.watch.list_all()
        return self

    def say(self, event: str, interface: str = ANA, queue: str = "Q", **more: str) -> None:
        self.watch.on_event({"Event": event, "Queue": queue, "Interface": interface, **more})

    def dial(self, n: int, *, of: str = "C", answered_s: float | None = None, **more: Any) -> None:
        """A call of the cell is followed from now on; it was answered so long ago."""
        at = None if answered_s is None else datetime.fromtimestamp(self.now - answered_s, UTC)
        call = a(call_id=f"{of}:{n}", answered_at=at)
        fields = dict.fromkeys(("agent", "hangup", "over_at", "amd", "context")) | more
        request = replace(REQUEST, cell=of, context=fields.pop("context"))
        self.calls.put(a(call=call, request=request, uniqueids=(f"u{n}",), **fields))

    @property
    def limit(self) -> Limit | None:
        found = self.watch.obstacles().get("C")
        return found.limit if found is not None else None


def cell(name: str = "C", queue: str | None = "Q", mode: str = "progressive", **more: Any) -> Cell:
    return Cell(nome=name, threads=9, pbxs=("pbx01",), queue=queue, mode=mode, **more)  # type: ignore[arg-type]


def member(
    interface: str = ANA, queue: str = "q", *, status: int = 1, paused: bool = False
) -> Member:
    return Member(queue=queue, interface=interface, name=interface, status=status, is_paused=paused)


# --- one operator for each call -----------------------------------------------------------------


async def test_a_call_needs_a_free_operator() -> None:
    floor = await Floor().up(member(), member(BOB, paused=True))
    assert (floor.limit, floor.watch.rooms()) == (None, {"C": 1})
    floor.dial(1)
    assert (floor.limit, floor.watch.rooms()) == (Limit.AGENTS_RESERVED, {"C": 0})
    assert "all free operators of queue Q of pbx01 (1)" in floor.watch.why_not("C")
    floor.say("AgentCalled", Uniqueid="other")
    assert floor.limit is Limit.AGENTS_BUSY
    assert floor.watch.why_not("C").endswith(
        "nobody is free in queue Q of pbx01: 1 rings, 1 is paused"
    )


async def test_nobody_at_work_is_no_operator() -> None:
    floor = await Floor().up(member(paused=True))
    assert floor.limit is Limit.NO_AGENTS


@pytest.mark.parametrize(
    "more",
    [
        {"agent": "Ana"},
        {"hangup": "it hung up"},
        {"over_at": "then"},
        {"amd": "MACHINE"},
        {"context": "dialer-ura"},
    ],
)
async def test_a_call_that_needs_no_operator_reserves_none(more: dict[str, Any]) -> None:
    floor = await Floor(cell(amd="hangup")).up(member())
    floor.dial(1, **more)
    assert floor.watch.rooms() == {"C": 1}


async def test_a_machine_that_goes_to_an_operator_reserves_one() -> None:
    floor = await Floor(cell(amd="pass")).up(member())
    floor.dial(1, amd="MACHINE")
    assert floor.watch.rooms() == {"C": 0}


async def test_a_call_that_left_the_queue_reserves_none() -> None:
    floor = await Floor().up(member())
    floor.dial(1)
    caller = next(iter(floor.calls._by_uniqueid))
    floor.watch.on_event({"Event": "QueueCallerLeave", "Queue": "Q", "Uniqueid": caller})
    assert floor.watch.rooms() == {"C": 1}


async def test_calls_from_before_a_restart_have_their_operators() -> None:
    floor = Floor()
    floor.asterisk.waiting = frozenset({"u2"})
    for n, answered_s in enumerate([60.0, 60.0, 60.0, 3.0, None]):
        floor.dial(n, answered_s=answered_s)
    await floor.up(*(member(f"PJSIP/{n}") for n in range(9)))
    assert floor.watch.rooms() == {"C": 9 - 3}  # u2 waits, u3 may be on its way, u4 rings


async def test_a_queue_is_the_same_in_any_case() -> None:
    floor = await Floor(cell(queue="Cobranca")).up(member(queue="cobranca"))
    floor.say("QueueMemberPause", queue="COBRANCA", Status="1", Paused="1")
    assert floor.watch.teams() == {"Cobranca": Team(paused=1)}


async def test_a_call_that_is_being_claimed_has_its_operator() -> None:
    floor = await Floor().up(member(), member(BOB))
    with floor.calls.claiming("C:1"):
        assert floor.watch.rooms() == {"C": 1}
        floor.dial(1)
        assert floor.watch.rooms() == {"C": 1}
    assert floor.watch.rooms() == {"C": 1}


async def test_a_call_with_its_operator_leaves_the_others_free() -> None:
    floor = await Floor().up(member(), member(BOB))
    floor.dial(1, agent="Ana")
    floor.say("AgentConnect", Uniqueid="c1")
    assert floor.watch.rooms() == {"C": 1}


async def test_an_operator_that_rings_for_our_call_stays_reserved() -> None:
    floor = await Floor().up(member(), member(BOB))
    floor.dial(1)
    ours = next(iter(floor.calls._by_uniqueid))
    floor.say("AgentCalled", Uniqueid=ours)
    assert floor.watch.rooms() == {"C": 1}


async def test_power_allows_more_calls_than_operators() -> None:
    floor = await Floor(cell(mode="power", power_ratio=2.5)).up(member())
    assert floor.watch.rooms() == {"C": 2}


async def test_ura_asks_for_no_operator() -> None:
    floor = await Floor(cell(mode="ura"), cell("D", queue=None, mode="ura")).up()
    assert (floor.watch.obstacles(), floor.watch.rooms()) == ({}, {})
    assert [floor.watch.why_not(name) for name in ("C", "D", "NONE")] == ["", "", ""]


async def test_an_operator_of_two_queues_is_reserved_once() -> None:
    floor = await Floor(cell(), cell("D", queue="R")).up(member(), member(queue="r"))
    assert floor.watch.rooms() == {"C": 1, "D": 1}
    floor.dial(1, of="D")
    assert floor.watch.rooms() == {"C": 0, "D": 0}


async def test_a_cell_of_other_pbxs_is_not_watched() -> None:
    elsewhere = cell().model_copy(update={"pbxs": ("pbx02",)})
    floor = await Floor(elsewhere).up(member())
    assert (floor.watch.teams(), floor.watch.rooms()) == ({}, {})


async def test_what_nothing_confirms_stops_calls() -> None:
    floor = await Floor().up(member())
    floor.now += STALE_AFTER_S + 1
    assert floor.limit is Limit.STALE_AGENTS
    assert "read = agent" in floor.watch.why_not("C")
    assert floor.watch.has_operator("Q") is None


async def test_a_queue_has_an_operator_as_the_picture_says() -> None:
    floor = await Floor().up(member(status=2))
    assert floor.watch.has_operator("Q") is True


# --- counts, lists, what is shown ---------------------------------------------------------------


async def test_rare_counts_make_no_queue_stale() -> None:
    floor = await Floor(*(cell(f"C{n}", queue=f"Q{n}") for n in range(60))).up(member(queue="q1"))
    floor.now += 24
    assert floor.watch.obstacles()["C0"].limit is Limit.NO_AGENTS
    assert "C1" not in floor.watch.obstacles()
    floor.now += 60
    assert floor.watch.obstacles()["C1"].limit is Limit.STALE_AGENTS


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[asyncio.Task[None]]]:
    monkeypatch.setattr(agent_watch, "TOGETHER_S", 0.0)
    monkeypatch.setattr(agent_watch, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(agent_watch, "RESERVED_LOOK_EVERY_S", 0.001)
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_changes_are_shown_and_told_at_once(running: list[asyncio.Task[None]]) -> None:
    floor = await Floor().up(member())
    running.append(asyncio.create_task(floor.watch.run()))
    await wait_until(lambda: ANA in floor.shown.agents, "it")
    beats = floor.beats
    floor.say("QueueMemberPause", Status="1", Paused="1", PausedReason="lunch", MemberName="Ana")
    floor.asterisk.members["q"] = [member(paused=True)]
    await wait_until(lambda: floor.shown.agents[ANA].state is AgentState.PAUSED, "it")
    assert floor.shown.agents[ANA].reason == "lunch"
    await wait_until(lambda: floor.beats > beats, "it")
    assert floor.watch.teams() == {"Q": Team(paused=1)}
    shows = floor.shown.shows
    floor.now += 1
    await asyncio.sleep(0.02)
    assert floor.shown.shows == shows  # nothing new


async def test_all_are_shown_again_after_a_while(running: list[asyncio.Task[None]]) -> None:
    floor = await Floor().up(member())
    running.append(asyncio.create_task(floor.watch.run()))
    await wait_until(lambda: ANA in floor.shown.agents, "it")
    floor.shown.agents.clear()  # the registry lost it
    floor.now += 31
    await wait_until(lambda: ANA in floor.shown.agents, "it")


async def test_a_count_that_differs_is_answered_by_a_list(
    running: list[asyncio.Task[None]], caplog: pytest.LogCaptureFixture
) -> None:
    floor = await Floor().up(member())
    assert floor.asterisk.listed == ["q"]
    floor.asterisk.members["q"] = []  # and no event said so
    running.append(asyncio.create_task(floor.watch.run()))
    floor.now += 4
    await asyncio.sleep(0.02)
    floor.now += 2
    await asyncio.sleep(0.02)
    assert floor.asterisk.listed == ["q"]  # a list locks the queue: not so soon
    floor.now += LIST_EVERY_S
    await wait_until(lambda: floor.asterisk.listed == ["q", "q"], "it")
    assert floor.watch.teams() == {"Q": Team()}
    assert "Asterisk counts other free operators" in caplog.text


async def test_a_link_that_is_lost_does_not_end_the_watch(
    running: list[asyncio.Task[None]], caplog: pytest.LogCaptureFixture
) -> None:
    floor = await Floor().up(member())
    floor.asterisk.is_away = True
    running.append(asyncio.create_task(floor.watch.run()))
    floor.now += STALE_AFTER_S + 1
    await wait_until(lambda: "What the operators of a queue do is not known" in caplog.text, "it")
    floor.asterisk.is_away = False
    floor.now += 4
    await wait_until(lambda: "What the operators of a queue do is known again" in caplog.text, "it")
    assert floor.limit is None


async def test_a_link_that_is_down_is_not_asked(running: list[asyncio.Task[None]]) -> None:
    floor = await Floor().up(member())
    floor.asterisk.ready = False
    floor.asterisk.is_away = True
    running.append(asyncio.create_task(floor.watch.run()))
    floor.now += 60
    await wait_until(lambda: floor.shown.shows > 0, "it")
    assert not running[0].done()


async def test_a_cell_with_another_queue_is_watched_from_then_on(
    running: list[asyncio.Task[None]],
) -> None:
    floor = await Floor(cell(), cell("D", queue="R")).up(member(), member(BOB, "r"))
    floor.cells.change(cell("D", queue="S"))
    floor.asterisk.members["s"] = [member(BOB, "s")]
    running.append(asyncio.create_task(floor.watch.run()))
    both = {"Q": Team(available=1), "S": Team(available=1)}
    await wait_until(lambda: floor.watch.teams() == both, "it")


async def test_a_doubtful_queue_is_listed_again(running: list[asyncio.Task[None]]) -> None:
    floor = await Floor().up(member())
    floor.say("AgentConnect", Uniqueid="c1")
    running.append(asyncio.create_task(floor.watch.run()))
    await wait_until(lambda: ANA in floor.shown.agents, "it")
    await wait_until(lambda: floor.shown.agents[ANA].state is AgentState.BUSY, "it")
    floor.now += 62
    await wait_until(lambda: floor.shown.agents[ANA].state is AgentState.AVAILABLE, "it")


async def test_a_clock_that_is_set_stops_nothing(running: list[asyncio.Task[None]]) -> None:
    floor = await Floor().up(member())
    running.append(asyncio.create_task(floor.watch.run()))
    await wait_until(lambda: ANA in floor.shown.agents, "it")
    since = floor.shown.agents[ANA].since
    floor.set_s = -3600
    await wait_until(lambda: floor.shown.agents[ANA].since == since - 3600, "it")
    floor.asterisk.members["q"] = [member(paused=True)]
    floor.say("QueueMemberPause", Status="1", Paused="1")
    await wait_until(lambda: floor.shown.agents[ANA].state is AgentState.PAUSED, "it")
    assert floor.limit is Limit.NO_AGENTS


async def test_queued_calls_are_looked_for_when_operators_allow_calls_again(
    running: list[asyncio.Task[None]],
) -> None:
    looks: list[str] = []
    floor = await Floor().up(member(paused=True))
    floor.watch.on_room = lambda: looks.append("now")
    running.append(asyncio.create_task(floor.watch.run()))
    await wait_until(lambda: floor.beats, "it")
    assert looks == []
    floor.asterisk.members["q"] = [member()]
    floor.say("QueueMemberPause", Status="1", Paused="0")
    await wait_until(lambda: looks == ["now"], "it")


async def test_a_restart_takes_over_what_was_shown() -> None:
    floor = Floor()
    day = floor.watch._day(T0)
    floor.shown.former = [
        Agent(
            interface=ANA, name="Ana", state=AgentState.AVAILABLE, since=T0 - 60, calls=4, day=day
        )
    ]
    await floor.watch.restore()
    await floor.up(member())
    (ana,) = floor.watch.agents.seen(T0)
    assert (ana.calls, ana.since) == (4, T0 - 60)


async def test_the_end_of_a_call_is_counted_at_once() -> None:
    floor = await Floor().up(member())
    floor.say("AgentComplete")
    assert floor.watch._count_at["q"] < T0 + 0.5
    floor.say("Hangup")  # not of the queue
