"""Operators of real queues on Asterisk 16 and 22, and calls that are dialed only for free ones."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import cast

import pytest
from redis import Redis

from dialer.domain.agents import Agent, AgentState
from dialer.domain.limits import Limit
from dialer.monitor.why import why
from dialer.multcall.answers import Response
from dialer.multcall.keys import CellKeys
from dialer.settings.model import load
from dialer.store import keys
from dialer.store.agents import agents_in
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab, Version
from tests.acceptance.test_dial_path import prefix
from tests.acceptance.test_recovery import asked
from tests.processes import Site

AVAILABLE, RINGING, BUSY, WRAPUP, PAUSED, GONE = AgentState
TEAMS = ("TEAM1", "TEAM2", "TEAM3")

#: Last two digits: the customer answers after 0.2 s and clears after 2 s, or after 5 s.
TALKS_2_S, TALKS_5_S = "20", "50"

both = pytest.mark.parametrize(("pbx", "version"), [("pbx22", "22"), ("pbx16", "16")])


@dataclass(slots=True)
class Floor:
    """The operators op1 to op4 of one Asterisk, and what the dialer shows of them."""

    lab: Lab
    version: Version
    pbx: str
    site: Site
    redis: Redis
    asked: int = 0

    def log_in(self, phone: str, name: str, *queues: str) -> None:
        for queue in queues:
            self.cli(f"queue add member PJSIP/{phone} to {queue} penalty 0 as {name}")

    def pause(self, phone: str, queue: str, reason: str) -> None:
        self.cli(f"queue pause member PJSIP/{phone} queue {queue} reason {reason}")

    def resume(self, phone: str, queue: str) -> None:
        self.cli(f"queue unpause member PJSIP/{phone} queue {queue}")

    def log_out(self, phone: str, *queues: str) -> None:
        for queue in queues:
            self.cli(f"queue remove member PJSIP/{phone} from {queue}")

    def cli(self, command: str) -> None:
        self.lab.cli(self.version, command)

    def agents(self) -> dict[str, Agent]:
        row = cast("dict[bytes, bytes]", self.redis.hgetall(keys.agents(self.pbx)))
        return {agent.interface.removeprefix("PJSIP/"): agent for agent in agents_in(row)}

    def state(self, phone: str) -> AgentState | None:
        agent = self.agents().get(phone)
        return agent.state if agent is not None else None

    def until(self, phone: str, state: AgentState) -> None:
        self.site.wait_until(lambda: self.state(phone) is state, f"{phone} is {state}")

    def push(self, *ends: str, cell: str = CELL) -> list[str]:
        """Push requests to numbers with these ends; return the numbers."""
        start, numbers = prefix(), []
        for end in ends:
            self.asked += 1
            call = asked(self.asked, f"{start}{self.asked:05d}{end}")
            self.redis.rpush(CellKeys(cell).request, call.element)
            numbers.append(call.number)
        return numbers

    def responses(self, n: int, cell: str = CELL) -> list[Response]:
        wire = CellKeys(cell)
        self.site.wait_until(lambda: self.redis.llen(wire.response) == n, f"{n} Responses")
        return [
            Response.model_validate_json(raw) for raw in self.redis.lrange(wire.response, 0, -1)
        ]

    def limit(self) -> Limit:
        return asyncio.run(why(load(self.site.folder / "dialer.toml"), CELL)).decision.limit


@pytest.fixture
def on_floor(lab: Lab, redis_url: str, make_site: MakeSite) -> Iterator[Callable[..., Floor]]:
    """Make a floor; whoever is logged in at the end is logged out."""
    floors: list[Floor] = []
    with Redis.from_url(redis_url) as redis:

        def make(pbx: str, version: Version, **cell: object) -> Floor:
            settings = {"queue": "TEAM1", "mode": "progressive", "timeout_command_ack": 1} | cell
            site = make_site(pbxs=[pbx], **settings)
            floor = Floor(lab, version, pbx, site, redis)
            floors.append(floor)
            return floor

        yield make
        for floor in floors:
            for phone in ("op1", "op2", "op3", "op4"):
                floor.log_out(phone, *TEAMS)


@contextmanager
def watched(floor: Floor, phone: str) -> Iterator[list[AgentState | None]]:
    """Collect the states in which an operator was shown, one after the other."""
    seen: list[AgentState | None] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            seen.append(floor.state(phone))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()
        seen.append(floor.state(phone))
        seen[:] = [state for state, _ in groupby(seen)]


@both
def test_an_operator_is_seen_from_login_to_logout(
    pbx: str, version: Version, on_floor: Callable[..., Floor]
) -> None:
    floor = on_floor(pbx, version)
    with watched(floor, "op1") as states:
        floor.log_in("op1", "Ana", "TEAM1")
        floor.until("op1", AVAILABLE)
        floor.pause("op1", "TEAM1", "almoço")
        floor.until("op1", PAUSED)
        assert floor.agents()["op1"].reason == "almoço"
        floor.resume("op1", "TEAM1")
        floor.push(TALKS_2_S)
        floor.until("op1", WRAPUP)
        ended_at = time.monotonic()
        floor.until("op1", AVAILABLE)
        wrapped_s = time.monotonic() - ended_at
        floor.log_out("op1", "TEAM1")
        floor.until("op1", GONE)
    assert states == [None, AVAILABLE, PAUSED, AVAILABLE, RINGING, BUSY, WRAPUP, AVAILABLE, GONE]
    assert 2.5 <= wrapped_s <= 8  # wrapuptime = 4 of queues.conf, which no event tells
    (told,) = floor.responses(1)
    assert told.agent == "Ana"
    assert floor.agents()["op1"].calls == 1
    print(f"Asterisk {version}: wrap-up of 4 s seen as {wrapped_s:.1f} s")


@both
def test_an_operator_who_does_not_answer_is_seen_ringing(
    pbx: str, version: Version, on_floor: Callable[..., Floor]
) -> None:
    floor = on_floor(pbx, version)
    floor.log_in("op4", "Caio", "TEAM1")
    floor.until("op4", AVAILABLE)
    with watched(floor, "op4") as states:
        floor.push(TALKS_5_S)
        (told,) = floor.responses(1)
        floor.until("op4", AVAILABLE)
    assert states == [AVAILABLE, RINGING, AVAILABLE, RINGING, AVAILABLE]
    assert told.agent is None


@both
def test_an_operator_who_hangs_up_wraps_up(
    pbx: str, version: Version, on_floor: Callable[..., Floor]
) -> None:
    floor = on_floor(pbx, version)
    floor.log_in("op3", "Bia", "TEAM1")
    floor.until("op3", AVAILABLE)
    with watched(floor, "op3") as states:
        floor.push("90")
        (told,) = floor.responses(1)
        floor.until("op3", WRAPUP)
    assert states[-3:] == [RINGING, BUSY, WRAPUP]
    assert told.agent == "Bia"


@both
def test_an_operator_of_three_queues_is_one(
    pbx: str, version: Version, on_floor: Callable[..., Floor]
) -> None:
    more = {
        name: {"queue": queue, "mode": "progressive", "timeout_command_ack": 1}
        for name, queue in (("CELL2", "TEAM2"), ("CELL3", "TEAM3"))
    }
    floor = on_floor(pbx, version, more_cells=more)
    floor.log_in("op2", "Duda", *TEAMS)
    of_all = {name.casefold(): AVAILABLE for name in TEAMS}
    floor.until("op2", AVAILABLE)
    floor.site.wait_until(lambda: floor.agents()["op2"].queues == of_all, "it is in all queues")
    for cell in (CELL, "CELL2", "CELL3"):
        floor.push(TALKS_2_S, cell=cell)
    told = [floor.responses(1, cell)[0] for cell in (CELL, "CELL2", "CELL3")]
    assert [one.agent for one in told] == ["Duda"] * 3
    assert most_at_once(told) == 1  # one operator: one call at a time, whatever its queue
    assert list(floor.agents()) == ["op2"]
    assert floor.agents()["op2"].calls == 3


@both
def test_nobody_is_called_while_nobody_is_free(
    pbx: str, version: Version, on_floor: Callable[..., Floor]
) -> None:
    floor = on_floor(pbx, version)
    floor.log_in("op1", "Ana", "TEAM1")
    floor.until("op1", AVAILABLE)
    floor.pause("op1", "TEAM1", "reunião")
    floor.until("op1", PAUSED)
    (number,) = floor.push(TALKS_2_S)
    began = time.monotonic()
    floor.site.wait_until(lambda: floor.limit() is Limit.NO_AGENTS, "why names it")
    named_s = time.monotonic() - began
    assert floor.lab.rings()[number] == 0
    floor.resume("op1", "TEAM1")
    (told,) = floor.responses(1)
    assert told.agent == "Ana"
    assert named_s < 20
    print(f"Asterisk {version}: no_agents named after {named_s:.1f} s")


@both
def test_progressive_dials_one_call_for_each_free_operator(
    pbx: str, version: Version, on_floor: Callable[..., Floor]
) -> None:
    floor = on_floor(pbx, version)
    floor.log_in("op1", "Ana", "TEAM1")
    floor.log_in("op2", "Duda", "TEAM1")
    floor.until("op2", AVAILABLE)
    floor.push(*[TALKS_2_S] * 6)
    told = floor.responses(6)
    assert most_at_once(told) == 2
    assert all(one.agent for one in told)  # nobody answered to an empty chair
    waits = [one.wait_s or 0.0 for one in told]
    assert max(waits) < 3, waits
    print(f"Asterisk {version}: customers waited {max(waits):.2f} s at most")


@both
def test_power_dials_more_calls_than_operators(
    pbx: str, version: Version, on_floor: Callable[..., Floor]
) -> None:
    floor = on_floor(pbx, version, mode="power", power_ratio=2.0)
    floor.push(*["81"] * 4)  # they ring for 5 s
    floor.log_in("op1", "Ana", "TEAM1")
    told = floor.responses(4)
    assert most_at_once(told) == 2


def most_at_once(told: Sequence[Response]) -> int:
    """How many calls were on their way or up at one time, at most."""
    moments = [(moment(one.dialed_at), 1) for one in told]
    moments += [(moment(one.ended_at), -1) for one in told]
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def moment(at: datetime | str | None) -> float:
    assert at is not None
    return (at if isinstance(at, datetime) else datetime.fromisoformat(at)).timestamp()
