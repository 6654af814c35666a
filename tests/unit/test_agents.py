"""Operators of queues: who is free, from the events and counts of Asterisk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.agents import (
    CONNECTS_WITHIN_S,
    DIFFERS_S,
    GONE_SHOWN_S,
    STALE_AFTER_S,
    Agent,
    AgentCalled,
    AgentCompleted,
    AgentConnected,
    AgentMissed,
    Agents,
    AgentState,
    CallerLeft,
    Member,
    MemberChanged,
    MemberRemoved,
    Team,
    room_for,
)
from tests.unit.captured import UNIQUEID, VERSIONS, Version, messages
from workers.ami.agent_events import AGENT_EVENTS, member_of, translate_agent

AVAILABLE, RINGING, BUSY, WRAPUP, PAUSED, GONE = AgentState
ANA = "PJSIP/1001"
NOT_IN_USE, IN_USE, UNAVAILABLE, RINGS = 1, 2, 5, 6
T0 = 1_000_000.0


def member(
    queue: str = "Q", interface: str = ANA, status: int = NOT_IN_USE, **more: object
) -> Member:
    return Member(queue=queue, interface=interface, name="Ana", status=status, **more)  # type: ignore[arg-type]


def pictured(*members: Member, queues: str = "Q R S") -> Agents:
    """The picture after these members were listed and counted."""
    agents = Agents(frozenset(queues.split()), day=lambda at: str(int(at // 86_400)))
    for queue in queues.split():
        mine = [one for one in members if one.queue == queue]
        agents.listed(queue, mine, T0)
        free = sum(one.status == NOT_IN_USE and not one.is_paused for one in mine)
        assert agents.counted(queue, free, free, T0)
    return agents


def everybody(_: str) -> bool:
    return True


def nobody(_: str) -> bool:
    return False


def state_of(agents: Agents, at: float, interface: str = ANA) -> AgentState:
    return next(one.state for one in agents.seen(at) if one.interface == interface)


def confirm(agents: Agents, at: float, *, ready: int | None = None, queue: str = "Q") -> bool:
    """Asterisk counts what the picture has; `ready` of the free ones do not wrap up."""
    team = agents.team(queue, at)
    free = team.available + team.wrapup
    return agents.counted(queue, free, free if ready is None else ready, at)


# --- states ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (member(), AVAILABLE),
        (member(status=0), AVAILABLE),
        (member(status=RINGS), RINGING),
        (member(status=IN_USE), BUSY),
        (member(status=3), BUSY),
        (member(status=7), BUSY),
        (member(status=8), BUSY),
        (member(is_in_call=True), BUSY),
        (member(status=IN_USE, is_paused=True), BUSY),
        (member(is_paused=True), PAUSED),
        (member(status=UNAVAILABLE), GONE),
        (member(status=4), GONE),
        (member(status=UNAVAILABLE, is_paused=True), GONE),
    ],
)
def test_a_member_is_what_its_telephone_and_pause_say(one: Member, state: AgentState) -> None:
    assert state_of(pictured(one), T0) is state


def test_a_called_agent_rings_until_it_connects() -> None:
    agents = pictured(member())
    agents.on(AgentCalled("Q", ANA, "c1"), T0 + 1)
    assert state_of(agents, T0 + 1) is RINGING
    agents.on(CallerLeft("c1"), T0 + 2)  # Asterisk says this first
    assert state_of(agents, T0 + 2) is RINGING
    agents.on(AgentConnected("Q", ANA, "c1"), T0 + 2.001)
    assert state_of(agents, T0 + 2.001) is BUSY


def test_an_agent_whose_caller_gives_up_is_available_again() -> None:
    agents = pictured(member())
    agents.on(AgentCalled("Q", ANA, "c1"), T0 + 1)
    agents.on(CallerLeft("other"), T0 + 2)
    assert state_of(agents, T0 + 5) is RINGING
    agents.on(CallerLeft("c1"), T0 + 5)
    assert state_of(agents, T0 + 5 + CONNECTS_WITHIN_S) is AVAILABLE


def test_an_agent_that_does_not_answer_is_available_again() -> None:
    agents = pictured(member())
    agents.on(AgentCalled("Q", ANA, "c1"), T0 + 1)
    agents.on(AgentMissed("Q", ANA), T0 + 4)
    assert state_of(agents, T0 + 4) is AVAILABLE


def test_a_telephone_that_stopped_ringing_ends_a_lost_offer() -> None:
    agents = pictured(member())
    agents.on(AgentCalled("Q", ANA, "c1"), T0 + 1)
    agents.on(MemberChanged(member()), T0 + 1.1)  # from before it rang
    assert state_of(agents, T0 + 1.1) is RINGING
    agents.on(MemberChanged(member(status=RINGS)), T0 + 1.2)
    agents.on(MemberChanged(member()), T0 + 4)  # the others' AgentRingNoAnswer never came
    assert state_of(agents, T0 + 4) is AVAILABLE


def test_a_lost_end_of_a_call_leaves_nobody_busy() -> None:
    agents = pictured(member())
    agents.on(AgentConnected("Q", ANA, "c1"), T0 + 1)
    agents.on(MemberChanged(member(status=IN_USE)), T0 + 9)
    assert state_of(agents, T0 + 9) is BUSY
    confirm(agents, T0 + 9)
    agents.on(MemberChanged(member(last_call=int(T0) + 9)), T0 + 10)
    confirm(agents, T0 + 10.5, ready=1)
    assert state_of(agents, T0 + 11) is AVAILABLE


def test_a_list_ends_what_it_does_not_have() -> None:
    bob = "PJSIP/1002"
    agents = pictured(member(), member(interface=bob))
    agents.on(AgentConnected("Q", ANA, "c1"), T0 + 1)
    agents.on(AgentCalled("Q", bob, "c2"), T0 + 1)
    agents.listed("Q", [member()], T0 + 1.1)
    assert state_of(agents, T0 + 1.1) is AVAILABLE
    assert state_of(agents, T0 + 1.1, bob) is GONE
    assert agents.team("Q", T0 + 1.1) == Team(available=1)


def test_events_about_strangers_change_nothing() -> None:
    agents = pictured(member())
    agents.on(MemberChanged(member("OTHER", "PJSIP/9")), T0)
    for event in (AgentCalled, AgentConnected):
        agents.on(event("Q", "PJSIP/9", "c1"), T0)
        agents.on(event("R", ANA, "c1"), T0)
    for gone in (AgentCompleted, AgentMissed, MemberRemoved):
        agents.on(gone("R", ANA), T0)
    assert [one.interface for one in agents.seen(T0)] == [ANA]
    assert state_of(agents, T0) is AVAILABLE


# --- several queues, logging out -------------------------------------------------------------


def test_a_member_of_three_queues_is_one_agent() -> None:
    agents = pictured(*(member(queue) for queue in "QRS"))
    assert len(agents.seen(T0)) == 1
    assert [agents.team(queue, T0).available for queue in "QRS"] == [1, 1, 1]
    assert agents.groups(nobody, T0) == {frozenset("QRS"): 1}


def test_an_agent_paused_in_one_queue_is_available_in_another() -> None:
    agents = pictured(member("Q", is_paused=True, reason="backlog"), member("R"))
    (ana,) = agents.seen(T0)
    assert (ana.state, ana.reason) == (AVAILABLE, "")
    assert ana.queues == {"Q": PAUSED, "R": AVAILABLE}


def test_an_agent_that_logs_out_is_gone_and_then_forgotten() -> None:
    agents = pictured(member("Q"), member("R"))
    agents.on(MemberRemoved("Q", ANA), T0 + 1)
    assert state_of(agents, T0 + 1) is AVAILABLE
    agents.on(MemberRemoved("R", ANA), T0 + 2)
    assert state_of(agents, T0 + 2) is GONE
    assert agents.team("R", T0 + 2) == Team()
    assert agents.seen(T0 + 2 + GONE_SHOWN_S)
    assert not agents.seen(T0 + 3 + GONE_SHOWN_S)


def test_a_queue_that_is_no_longer_watched_is_forgotten() -> None:
    agents = pictured(member("Q"), member("R", "PJSIP/2"))
    agents.watch(frozenset("Q"))
    assert agents.team("R", T0) == Team()
    assert state_of(agents, T0, "PJSIP/2") is GONE


# --- how many calls they allow ------------------------------------------------------------------


A, B, AB, BC = frozenset("A"), frozenset("B"), frozenset("AB"), frozenset("BC")


@pytest.mark.parametrize(
    ("demands", "groups", "room"),
    [
        ({}, {}, 0),
        ({}, {B: 3}, 3),
        ({"B": 2}, {B: 3}, 1),
        ({"B": 5}, {B: 3}, -2),
        ({"A": 1}, {AB: 1}, 0),
        ({"A": 1}, {AB: 1, A: 1}, 1),  # the other one can take it
        ({"A": 9}, {AB: 1, B: 2}, 2),  # its excess takes no operators of B alone
        ({"A": 1}, {AB: 1, frozenset("C"): 1}, 0),  # nobody of C helps
        ({"A": 1, "C": 1}, {AB: 1, BC: 1}, 0),
        ({"A": 1}, {AB: 1, BC: 1}, 1),
        ({"A": 1, "C": 1}, {AB: 1, BC: 1, frozenset("AC"): 1}, 1),
    ],
)
def test_calls_have_an_agent_each_over_all_queues(
    demands: dict[str, int], groups: dict[frozenset[str], int], room: int
) -> None:
    assert room_for("B", 1.0, demands, groups) == room


def test_more_calls_than_agents_may_be_allowed() -> None:
    assert room_for("B", 1.8, {"B": 1}, {B: 3}) == 4
    assert room_for("B", 1.8, {"A": 1, "B": 1}, {B: 2, AB: 1}) == 2


@given(
    st.dictionaries(st.sampled_from("ABCD"), st.integers(0, 4)),
    st.dictionaries(
        st.frozensets(st.sampled_from("ABCD"), min_size=1), st.integers(0, 3), max_size=5
    ),
)
def test_no_agent_is_counted_for_two_calls(
    demands: dict[str, int], groups: dict[frozenset[str], int]
) -> None:
    room = room_for("A", 1.0, {**demands, "A": 0}, groups)
    others = {queue: n for queue, n in demands.items() if queue != "A"}
    assert room == _best({**others, "A": 99}, groups) - _best(others, groups)


def _best(demands: dict[str, int], groups: dict[frozenset[str], int]) -> int:
    """Hall's theorem: the worst choice of queues bounds how many calls have an agent."""
    queues = [*demands]
    wanted = sum(demands.values())
    lacks = 0
    for mask in range(1 << len(queues)):
        some = {queue for n, queue in enumerate(queues) if mask >> n & 1}
        there = sum(n for group, n in groups.items() if group & some)
        lacks = max(lacks, sum(demands[queue] for queue in some) - there)
    return wanted - lacks


# --- wrap-up ----------------------------------------------------------------------------------


def after_a_call(*others: Member) -> Agents:
    """Ana's call has ended at T0 + 10."""
    agents = pictured(member(), *others)
    agents.on(AgentConnected("Q", ANA, "c1"), T0 + 1)
    agents.on(MemberChanged(member(status=IN_USE)), T0 + 1)
    confirm(agents, T0 + 9)
    agents.on(AgentCompleted("Q", ANA), T0 + 10)
    agents.on(MemberChanged(member(last_call=int(T0) + 10)), T0 + 10.01)
    return agents


def test_wrap_up_lasts_until_a_count_says_ready() -> None:
    agents = after_a_call()
    assert agents.must_count("Q", T0 + 10.1)
    confirm(agents, T0 + 10.1, ready=0)
    assert agents.must_count("Q", T0 + 10.1)
    confirm(agents, T0 + 13.1, ready=0)
    assert state_of(agents, T0 + 13.9) is WRAPUP
    confirm(agents, T0 + 14.1, ready=1)
    assert state_of(agents, T0 + 14.1) is AVAILABLE
    assert not agents.must_count("Q", T0 + 14.1)


def test_a_known_wrap_up_time_ends_by_itself() -> None:
    agents = after_a_call()
    confirm(agents, T0 + 13.6, ready=0)
    confirm(agents, T0 + 14.1, ready=1)  # more than 3.6 s, at most 4.1 s
    agents.on(AgentConnected("Q", ANA, "c2"), T0 + 20)
    agents.on(AgentCompleted("Q", ANA), T0 + 30)
    assert not agents.must_count("Q", T0 + 30)
    (ana,) = agents.seen(T0 + 30)
    assert ana.state is WRAPUP
    assert ana.free_at == pytest.approx(T0 + 34.1)
    (ana,) = agents.seen(T0 + 35)
    assert ana.state is AVAILABLE
    assert ana.since == pytest.approx(T0 + 34.1)


def test_those_whose_calls_ended_last_wrap_up() -> None:
    bob = "PJSIP/1002"
    agents = after_a_call(member(interface=bob))
    agents.on(AgentConnected("Q", bob, "c2"), T0 + 1)
    agents.on(AgentCompleted("Q", bob), T0 + 12)
    confirm(agents, T0 + 15, ready=1)
    assert state_of(agents, T0 + 15) is AVAILABLE
    assert state_of(agents, T0 + 15, bob) is WRAPUP


def test_a_queue_without_wrap_up_is_found_with_the_first_count() -> None:
    agents = after_a_call()
    confirm(agents, T0 + 10.3, ready=1)
    assert state_of(agents, T0 + 10.3) is AVAILABLE
    assert not agents.must_count("Q", T0 + 10.3)


def test_a_changed_wrap_up_time_is_found() -> None:
    agents = after_a_call()
    confirm(agents, T0 + 10.3, ready=1)
    agents.on(AgentCompleted("Q", ANA), T0 + 50)
    assert agents.counted("Q", 1, 0, T0 + 56)  # queues.conf has another wrap-up time now
    assert state_of(agents, T0 + 57) is WRAPUP
    assert agents.must_count("Q", T0 + 57)


def test_a_member_with_its_own_wrap_up_time_uses_that() -> None:
    agents = pictured(member(wrapup_s=30))
    agents.on(AgentCompleted("Q", ANA), T0 + 10)
    confirm(agents, T0 + 11, ready=1)
    assert not agents.must_count("Q", T0 + 11)
    assert state_of(agents, T0 + 39) is WRAPUP
    assert state_of(agents, T0 + 41) is AVAILABLE


def test_a_call_of_another_queue_counts_if_asterisk_shares_it() -> None:
    agents = pictured(member("Q"), member("R"))
    agents.on(MemberChanged(member("R", last_call=int(T0) + 10)), T0 + 10)
    assert agents.team("R", T0 + 10).wrapup == 1
    assert agents.team("Q", T0 + 10).available == 1


def test_a_call_that_ended_before_the_start_may_still_be_wrapped_up() -> None:
    agents = Agents(frozenset("Q"), day=str)
    agents.listed("Q", [member(last_call=int(T0) - 3)], T0)
    assert state_of(agents, T0) is WRAPUP
    agents.counted("Q", 1, 1, T0)
    assert state_of(agents, T0) is AVAILABLE


# --- confirmed, stale ---------------------------------------------------------------------------


def test_a_count_that_differs_for_long_asks_for_a_list() -> None:
    agents = pictured(member())
    assert agents.counted("Q", 0, 0, T0 + 3)  # an event may be on its way
    assert agents.counted("Q", 0, 0, T0 + 4)
    assert agents.has_operator("Q", T0 + 4) is None
    assert not agents.counted("Q", 0, 0, T0 + 3 + DIFFERS_S)
    agents.listed("Q", [member(status=IN_USE)], T0 + 5)
    assert agents.counted("Q", 0, 0, T0 + 6)


def test_a_count_that_agrees_again_ends_the_doubt() -> None:
    agents = pictured(member())
    assert agents.counted("Q", 0, 0, T0 + 3)
    assert agents.counted("Q", 1, 1, T0 + 4)
    assert agents.counted("Q", 0, 0, T0 + 5)


def test_nobody_is_available_in_a_stale_queue() -> None:
    agents = pictured(member(), member(interface="PJSIP/2", status=UNAVAILABLE))
    assert agents.has_operator("Q", T0) is True
    late = T0 + STALE_AFTER_S + 0.1
    assert agents.team("Q", late) == Team(stale=1, gone=1)
    assert agents.groups(everybody, late) == {}
    assert agents.has_operator("Q", late) is None
    assert agents.is_stale("NEVER LISTED", T0)


@pytest.mark.parametrize(
    ("one", "has_one"),
    [
        (member(), True),
        (member(status=IN_USE), True),
        (member(is_paused=True), False),
        (member(status=UNAVAILABLE), False),
    ],
)
def test_a_queue_has_an_operator_who_is_not_paused(one: Member, has_one: bool) -> None:
    assert pictured(one).has_operator("Q", T0) is has_one


def test_the_end_of_a_call_ends_it_whatever_a_list_said() -> None:
    agents = pictured(member(is_in_call=True))
    assert state_of(agents, T0) is BUSY
    agents.on(AgentCompleted("Q", ANA), T0 + 1)
    agents.counted("Q", 1, 1, T0 + 1.5)
    assert state_of(agents, T0 + 2) is AVAILABLE


def test_an_agent_who_seems_busy_and_counts_as_free_is_doubtful() -> None:
    agents = pictured(member())
    agents.on(AgentConnected("Q", ANA, "c1"), T0 + 1)  # its end is lost, its state follows nothing
    assert not agents.is_doubtful("Q", T0 + 60)
    assert agents.is_doubtful("Q", T0 + 62)
    agents.listed("Q", [member()], T0 + 62)
    assert not agents.is_doubtful("Q", T0 + 63)
    assert state_of(agents, T0 + 63) is AVAILABLE


def test_a_telephone_of_unknown_state_is_doubtful() -> None:
    agents = pictured(member(status=0))
    assert agents.is_doubtful("Q", T0 + 62)
    assert not agents.is_doubtful("R", T0 + 62)
    assert not pictured(member()).is_doubtful("Q", T0 + 62)


def test_events_are_newer_than_a_list_that_was_asked_before() -> None:
    bob = "PJSIP/1002"
    agents = pictured(member())
    agents.on(AgentConnected("Q", ANA, "c1"), T0 + 2)
    agents.on(MemberChanged(member(interface=bob)), T0 + 2)
    agents.listed("Q", [member()], T0 + 2.1, asked_at=T0 + 1.9)
    assert state_of(agents, T0 + 2.1) is BUSY
    assert state_of(agents, T0 + 2.1, bob) is AVAILABLE
    agents.listed("Q", [member()], T0 + 2.3, asked_at=T0 + 2.2)
    assert state_of(agents, T0 + 2.3) is AVAILABLE
    assert state_of(agents, T0 + 2.3, bob) is GONE


def test_a_clock_that_is_set_changes_nothing() -> None:
    agents = after_a_call()
    agents.on(AgentCalled("Q", ANA, "c2"), T0 + 10.2)
    agents.shift(-3600)
    assert not agents.is_stale("Q", T0 + 11 - 3600)
    assert state_of(agents, T0 + 11 - 3600) is RINGING
    agents.on(AgentMissed("Q", ANA), T0 + 11 - 3600)
    agents.counted("Q", 1, 0, T0 + 12 - 3600)
    agents.counted("Q", 1, 1, T0 + 15 - 3600)
    assert state_of(agents, T0 + 15 - 3600) is AVAILABLE


# --- reserved, shown -----------------------------------------------------------------------------


def test_an_agent_that_rings_for_us_is_still_reserved() -> None:
    agents = pictured(member())
    agents.on(AgentCalled("Q", ANA, "ours"), T0 + 1)
    ours: Callable[[str], bool] = "ours".__eq__
    assert agents.groups(ours, T0 + 1).total() == 1
    assert agents.groups("another".__eq__, T0 + 1).total() == 0


def test_a_telephone_that_rings_for_nobody_known_is_not_free() -> None:
    agents = pictured(member(status=RINGS))
    assert agents.groups(everybody, T0).total() == 0


def test_calls_of_the_day_begin_again_at_midnight() -> None:
    agents = pictured(member())
    for n in range(3):
        agents.on(AgentConnected("Q", ANA, f"c{n}"), T0 + n)
    assert agents.seen(T0 + 3)[0].calls == 3
    assert agents.seen(T0 + 86_400)[0].calls == 0
    agents.on(AgentConnected("Q", ANA, "d0"), T0 + 86_400)
    assert agents.seen(T0 + 86_401)[0].calls == 1


def test_a_restart_keeps_the_calls_and_since_when() -> None:
    before = pictured(member(is_paused=True, reason="lunch"))
    before.on(AgentConnected("Q", ANA, "c1"), T0 + 1)
    before.on(AgentCompleted("Q", ANA), T0 + 2)
    (shown,) = before.seen(T0 + 3)
    after = Agents(frozenset("Q"), before.day)
    after.restore([shown])
    after.listed("Q", [member(is_paused=True, reason="lunch")], T0 + 60)
    after.counted("Q", 0, 0, T0 + 60)
    assert after.seen(T0 + 60) == [shown]
    assert isinstance(shown, Agent)
    assert (shown.calls, shown.since, shown.reason) == (1, T0 + 3, "lunch")


@pytest.mark.parametrize(
    ("team", "words"),
    [
        (Team(), "none is logged in"),
        (Team(busy=1, paused=1), "1 talks, 1 is paused"),
        (
            Team(ringing=2, busy=3, wrapup=2, paused=2, gone=2, stale=2),
            "2 ring, 3 talk, 2 wrap up, 2 are paused, 2 are gone, 2 are not known",
        ),
    ],
)
def test_a_team_says_what_it_does(team: Team, words: str) -> None:
    assert team.in_words() == words


def test_teams_add_up() -> None:
    both = Team(available=1, busy=2, gone=1).and_(Team(available=2, stale=1))
    assert both == Team(available=3, busy=2, gone=1, stale=1)
    assert both.logged_in == 6


# --- what Asterisk 16 and 22 say --------------------------------------------------------------


def told(version: Version, scenario: str, queues: str) -> list[tuple[str, list[AgentState]]]:
    """The states of the one agent by event, 0.1 s apart, with Asterisk's counts."""
    agents = Agents(frozenset(queues.split()), day=str)
    for queue in queues.split():
        agents.listed(queue, [], T0)
    seen: list[tuple[str, list[AgentState]]] = []
    free, at = 0, 0.0
    for n, message in enumerate(messages(version, scenario)):
        at = n / 10
        name = message.get("Event", "")
        if message.get("Variable", "").endswith(",free)"):
            free = int(message["Value"])
        elif message.get("Variable", "").endswith(",ready)"):
            name = "count"
            assert agents.counted("team1", free, int(message["Value"]), T0 + at)
        elif name in AGENT_EVENTS:
            event = translate_agent(message)
            assert event is not None
            agents.on(event, T0 + at)
        else:
            continue
        states = [one.state for one in agents.seen(T0 + at)]
        if not seen or seen[-1][1] != states:
            seen.append((name, states))
    return seen


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_operator_pauses_talks_wraps_up_and_leaves(version: Version) -> None:
    states = [state for _, (state,) in told(version, "agent_pauses_and_wraps_up", "team1")]
    assert states == [AVAILABLE, PAUSED, AVAILABLE, RINGING, BUSY, WRAPUP, AVAILABLE, GONE]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_operator_hangs_up(version: Version) -> None:
    states = [state for _, (state,) in told(version, "agent_hangs_up", "team1")]
    assert states == [AVAILABLE, RINGING, BUSY, WRAPUP, GONE]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_operator_does_not_answer(version: Version) -> None:
    states = [state for _, (state,) in told(version, "agent_does_not_answer", "team1")]
    assert states == [AVAILABLE, RINGING, AVAILABLE, RINGING, AVAILABLE, GONE]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_operator_of_three_queues_is_one(version: Version) -> None:
    seen = told(version, "agent_of_three_queues", "team1 team2 team3")
    assert all(len(states) == 1 for _, states in seen)
    assert [state for _, (state,) in seen] == [AVAILABLE, RINGING, BUSY, PAUSED, GONE]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_list_says_what_the_events_said(version: Version) -> None:
    rows = [
        member_of(m)
        for m in messages(version, "agent_of_three_queues")
        if m.get("Event") == "QueueMember"
    ]
    assert [(one.interface, one.name, one.is_paused, one.reason) for one in rows] == [
        ("PJSIP/op2", "Duda", True, "banheiro")
    ]
    assert rows[0].last_call > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_caller_is_the_call_that_we_dialed(version: Version) -> None:
    events = [translate_agent(m) for m in messages(version, "agent_hangs_up")]
    assert AgentCalled("team1", "PJSIP/op3", UNIQUEID) in events
    assert CallerLeft(UNIQUEID) in events


@pytest.mark.parametrize("status", ["", "x", "-1", "99999999999999999999"])
def test_numbers_that_are_none_are_zero(status: str) -> None:
    event = translate_agent({"Event": "QueueMemberStatus", "Status": status, "LastCall": status})
    assert isinstance(event, MemberChanged)
    assert (event.member.status, event.member.last_call) == (0, 0)


def test_other_events_say_nothing_about_agents() -> None:
    assert translate_agent({"Event": "Hangup"}) is None
    assert translate_agent({"Event": "AgentDump", "Queue": "Q", "Interface": ANA}) == (
        AgentCompleted("q", ANA)
    )
