"""What cells need of a PBX: what it lacks is known at every moment, and asked for without waste."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from dialer.errors import AmiUnavailable
from dialer.settings import Cell, Pbx
from workers.ami import AmiLink
from workers.pbx.hand_overs import MOST_FAILED, HandOvers
from workers.pbx.questions import Limits, Questions
from workers.pbx.state import PbxState
from workers.pbx.targets import CHECK_EVERY_S, CHECK_SOON_S, QUEUE_EVENTS, Targets, endpoint_of

NO_LIMITS = Limits(max_calls=0, max_load=0.0, calls=0)
PBX = Pbx(name="pbx01", max_calls=50, cps=5, trunks={"tim": "PJSIP/{number}@tim"})


@dataclass(slots=True)
class Asterisk:
    """Stands where the AMI link does; what is false in `there` is lacking."""

    there: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    limited: Limits = NO_LIMITS
    now_loaded: float | None = None
    redirects: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answers.set()

    async def _ask(self, question: str) -> bool:
        self.asked.append(question)
        await self.answers.wait()
        if self.lost:
            raise AmiUnavailable("no answer within 5 s")
        return self.there.get(question, True)

    async def has_include(self) -> bool:
        return await self._ask("include")

    async def has_current_include(self) -> bool:
        return await self._ask("hand-over")

    async def has_amd(self) -> bool:
        return await self._ask("amd")

    async def has_queue(self, name: str) -> bool:
        return await self._ask(f"queue {name}")

    async def has_context(self, context: str) -> bool:
        return await self._ask(f"context {context}")

    async def has_place(self, context: str, exten: str, priority: int) -> bool:
        return await self._ask(f"place {context},{exten},{priority}")

    async def has_operator(self, queue: str) -> bool:
        return await self._ask(f"operator {queue}")

    async def limits(self) -> Limits:
        return self.limited

    async def load(self) -> float | None:
        return self.now_loaded

    async def redirect_method(self, endpoint: str) -> str:
        return self.redirects.get(endpoint, "user")

    def drop(self, why: str) -> None:
        self.dropped.append(why)


def targets(asterisk: Asterisk, *, has_include: bool = True, confirms: bool = True) -> Targets:
    link = cast("AmiLink", asterisk)
    state = PbxState("pbx01", link, has_include=has_include, confirms=confirms)
    return Targets(PBX, state, link, HandOvers(state), cast("Questions", asterisk))


def cell(name: str = "C", **fields: Any) -> Cell:
    return Cell(nome=name, threads=1, pbxs=("pbx01",), **fields)


async def test_a_cell_lacks_its_target_during_the_next_check_too() -> None:
    asterisk = Asterisk({"queue Q": False})
    looked = targets(asterisk)
    await looked.check([cell(queue="Q")])
    asterisk.answers.clear()
    looking = asyncio.create_task(looked.check([cell(queue="Q")]))
    for _ in range(5):
        await asyncio.sleep(0)
        assert "C" in looked.state.lacking
    asterisk.answers.set()
    assert not await looking
    asterisk.lost = True
    with pytest.raises(AmiUnavailable):
        await looked.check([cell(queue="Q")])
    assert "pbx01 has no queue Q" in looked.state.lacking["C"]


async def test_a_missing_target_is_logged_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    asterisk = Asterisk({"queue Q": False})
    looked = targets(asterisk)
    cells = [cell(queue="Q"), cell("D")]
    assert [await looked.check(cells) for _ in range(3)] == [False] * 3
    asterisk.there = {}
    assert [await looked.check(cells) for _ in range(3)] == [True, False, False]
    assert looked.state.lacking == {}
    assert [r.getMessage() for r in caplog.records] == [
        "Calls of a cell are not dialed here, because answered calls would be cut off",
        "Calls of a cell are dialed here again",
    ]
    assert {(vars(r)["pbx"], vars(r)["cell"]) for r in caplog.records} == {("pbx01", "C")}


@pytest.mark.parametrize(
    ("missing", "fields", "said"),
    [
        ("hand-over", {"queue": "Q"}, "lacks the dialplan include, or has an old one"),
        ("hand-over", {"amd": "hangup"}, "lacks the dialplan include, or has an old one"),
        ("amd", {"amd": "pass"}, "cannot detect answering machines, but cell C has amd"),
        ("queue Q", {"queue": "Q"}, "has no queue Q: add it to queues.conf and load it"),
        ("context ivr", {"context": "ivr"}, "has no context ivr: add it to the dialplan"),
        (
            "place ivr,7,2",
            {"context": "ivr", "exten": "7", "priority": 2},
            "has no extension 7, priority 2 in context ivr: add it to the dialplan",
        ),
        (
            "operator Q",
            {"queue": "Q"},
            "queue Q of pbx01 has no available member: have an operator",
        ),
    ],
)
async def test_a_missing_target_is_named_with_its_cure(
    missing: str, fields: dict[str, Any], said: str
) -> None:
    looked = targets(Asterisk({missing: False}), confirms=missing != "hand-over")
    await looked.check([cell(**fields)])
    assert said in looked.state.lacking["C"]


@pytest.mark.parametrize("fields", [{"queue": "Q"}, {}])
async def test_a_context_that_is_not_set_is_not_asked_for(fields: dict[str, Any]) -> None:
    """Each request may name its own."""
    asterisk = Asterisk()
    await targets(asterisk).check([cell(**fields)])
    assert not [one for one in asterisk.asked if one.startswith(("context", "place"))]


async def test_cells_share_the_answer_to_a_question() -> None:
    asterisk = Asterisk()
    await targets(asterisk).check([cell(f"C{n}", queue="Q", amd="pass") for n in range(20)])
    assert sorted(asterisk.asked) == ["amd", "hand-over", "include", "operator Q", "queue Q"]


@pytest.mark.parametrize(
    ("had", "has", "why"),
    [
        ((True, True), {"include": False}, "gone"),
        ((False, False), {}, "there now"),
        ((True, False), {}, "another one now"),
        ((True, True), {"hand-over": False}, "another one now"),
    ],
)
async def test_a_changed_include_drops_the_link(
    had: tuple[bool, bool], has: dict[str, bool], why: str
) -> None:
    asterisk = Asterisk(has)
    looked = targets(asterisk, has_include=had[0], confirms=had[1])
    looked.state.lacking["C"] = "it lacked something"
    assert not await looked.check([cell()])
    assert looked.state.lacking, "nothing else was asked"
    assert asterisk.dropped == [f"the dialplan include is {why}"]


async def test_one_cell_can_be_looked_at_alone() -> None:
    looked = targets(Asterisk())
    assert await looked.missing(cell(queue="Q", amd="pass")) is None
    gone = targets(Asterisk({"queue Q": False}))
    assert "pbx01 has no queue Q" in (await gone.missing(cell(queue="Q")) or "")


def test_every_event_of_a_member_is_heard() -> None:
    heard = {f"QueueMember{what}" for what in ("Added", "Removed", "Pause", "Status")}
    assert heard == QUEUE_EVENTS


async def test_a_maxcalls_that_leaves_all_the_room_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await targets(Asterisk(limited=limits(max_calls=PBX.max_calls))).check([cell()])
    assert caplog.records == []


async def test_calls_that_asterisk_counts_late_leave_no_more_room() -> None:
    looked = targets(Asterisk(limited=limits(max_calls=20, calls=1)))
    looked.state.answered = lambda: 9
    await looked.check([cell()])
    assert looked.state.cap == 20


async def test_two_hundred_targets_cost_ten_questions_a_second() -> None:
    few = targets(Asterisk())
    await few.check([cell(queue="Q")])
    assert few.pause_s == CHECK_EVERY_S
    asterisk = Asterisk()
    many = targets(asterisk)
    await many.check([cell(f"C{n}", queue=f"Q{n}") for n in range(200)])
    assert len(asterisk.asked) / many.pause_s <= 10.1


# --- what prevents all calls -----------------------------------------------------------------


def limits(**given: Any) -> Limits:
    return Limits(**{"max_calls": 0, "max_load": 0.0, "calls": 0} | given)


async def test_maxcalls_caps_max_calls_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asterisk = Asterisk(limited=limits(max_calls=20, calls=12))
    looked = targets(asterisk)
    looked.state.answered = lambda: 9
    for _ in range(3):
        await looked.check([cell()])
    assert looked.state.cap == 17  # three calls are not the dialer's
    assert looked.state.lacking == {}
    (said,) = caplog.records
    assert said.getMessage().startswith("maxcalls of asterisk.conf leaves room for fewer calls")
    asterisk.limited = limits()
    await looked.check([cell()])
    assert looked.state.cap == 0


async def test_other_calls_may_use_up_maxcalls() -> None:
    looked = targets(Asterisk(limited=limits(max_calls=20, calls=20)))
    await looked.check([cell()])
    assert looked.state.cap == 1
    assert looked.state.lacking["C"] == (
        "pbx01 has as many calls as maxcalls of asterisk.conf allows, 20: raise it"
    )


@pytest.mark.parametrize(("load", "is_held"), [(None, False), (3.9, False), (4.0, True)])
async def test_a_load_above_maxload_holds_every_cell_back(
    load: float | None, is_held: bool
) -> None:
    looked = targets(Asterisk(limited=limits(max_load=4.0), now_loaded=load))
    await looked.check([cell(), cell("D")])
    assert sorted(looked.state.lacking) == (["C", "D"] if is_held else [])


async def test_a_trunk_that_dials_on_holds_every_cell_back() -> None:
    looked = targets(Asterisk(redirects={"tim": "uri_core"}))
    await looked.check([cell()])
    assert "set redirect_method = user at endpoint tim" in looked.state.lacking["C"]


@pytest.mark.parametrize(
    ("dial_string", "endpoint"),
    [
        ("PJSIP/{number}@tim", "tim"),
        ("PJSIP/0{number}@tim", "tim"),
        ("PJSIP/tim/sip:{number}@10.0.0.1:5060", "tim"),
        ("SIP/{number}@tim", None),
        ("Local/{number}@trunk/n", None),
    ],
)
def test_the_endpoint_is_in_the_dial_string(dial_string: str, endpoint: str | None) -> None:
    assert endpoint_of(dial_string) == endpoint


# --- when is checked ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "lacking", "is_soon"),
    [
        ({"Event": "QueueMemberRemoved", "Status": "1"}, {}, True),
        ({"Event": "QueueMemberPause", "Status": "1", "Paused": "1"}, {}, True),
        ({"Event": "QueueMemberStatus", "Status": "5", "Paused": "0"}, {}, True),
        ({"Event": "QueueMemberStatus", "Status": "2", "Paused": "0"}, {}, False),
        ({"Event": "QueueMemberStatus", "Status": "1", "Paused": "0"}, {"C": "…"}, True),
    ],
)
async def test_an_operator_who_comes_or_goes_is_noticed_soon(
    event: dict[str, str], lacking: dict[str, str], is_soon: bool
) -> None:
    looked = targets(Asterisk())
    looked.state.lacking = lacking
    looked.on_event(event)
    waiting = asyncio.create_task(looked.wait_until_due())
    done, _ = await asyncio.wait({waiting}, timeout=CHECK_SOON_S + 0.5)
    waiting.cancel()
    assert bool(done) is is_soon
    assert not looked._is_due.is_set(), "one event causes one check"


async def test_a_held_cell_stays_held_whatever_its_target() -> None:
    asterisk = Asterisk()
    looked = targets(asterisk)
    for n in range(MOST_FAILED):
        looked.hand_overs.note("C", f"C:{n}", "JOINEMPTY")
    assert not await looked.check([cell()])
    assert looked.state.lacking["C"].startswith("pbx01 did not hand over the last answered calls")
    looked.hand_overs.note("C", "C:9", "yes")
    assert looked.state.lacking == {}
