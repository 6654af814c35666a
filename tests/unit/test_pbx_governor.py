"""What a worker tells its governor, and what it does with the decision."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from dialer.domain.channel import (
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    HungUp,
    OriginateEnded,
    action_id,
)
from dialer.domain.governor import TrunkGovernor
from dialer.errors import AmiUnavailable, OriginateOutcomeUnknown, OriginateRefused
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.governed_pbx import GovernedPbx, PongsOnly, in_virtual_time
from tests.unit.parts import entry, parts
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.pbx.governor import WORD_WITHIN_S, PbxGovernor

CPS = 20.0

#: Capacity of a PBX that calls never slow down.
AMPLE = 1e6


@dataclass(slots=True)
class Rig:
    """A governor in virtual time."""

    is_on: bool = True
    link: PongsOnly = field(default_factory=PongsOnly)
    now: float = 100.0
    governor: PbxGovernor = field(init=False)
    _calls: int = 0

    def __post_init__(self) -> None:
        link = cast(AmiLink, self.link)
        self.governor = PbxGovernor(
            "pbx01", CPS, link, is_on=self.is_on, monotonic=lambda: self.now
        )
        self.governor.look()  # the link is new

    def calls(self, n: int, *, trunk: str = "tim") -> list[str]:
        made = [f"u{self._calls + i}" for i in range(n)]
        self._calls += n
        for uniqueid in made:
            self.governor.sent(uniqueid, trunk)
        return made

    def hear(self, *events: AmiEvent) -> None:
        for event in events:
            self.governor.on_event(event)

    def created(self, calls: list[str]) -> None:
        self.hear(*(ChannelCreated(uniqueid=i, channel=i) for i in calls))

    def ended(self, calls: list[str], cause: int) -> None:
        self.hear(*(HungUp(uniqueid=i, cause=cause, cause_text=None) for i in calls))

    def look(self, after_s: float = 0.5) -> None:
        self.now += after_s
        self.governor.look()

    def window(self, n: int = 10, *, late_s: float = 0.0, cause: int = 17) -> None:
        """One window of calls whose replies and channels come that late, and that then end."""
        calls = self.calls(n)
        self.now += late_s
        for uniqueid in calls:
            self.governor.accepted(uniqueid)
        self.created(calls)
        self.ended(calls, cause)
        self.look()

    @property
    def fact(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.governor.fact("i1"))
        return found


def test_quick_answers_limit_nothing() -> None:
    rig = Rig()
    rig.link.pings = [0.01]
    rig.look(2.0)
    for _ in range(9):
        rig.window(late_s=0.01)
    assert (rig.fact["limit"], rig.fact["why"], rig.fact["normal_ms"]) == (0, "", 10)
    assert rig.governor.room() > 5


def test_late_channels_limit_the_pbx(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    for late_s in (0.01, 0.6, 0.6):
        rig.window(late_s=late_s)
    assert 0 < rig.fact["limit"] < CPS
    assert (rig.fact["why"], rig.fact["answer_ms"], rig.fact["instance"]) == ("pbx_slow", 600, "i1")
    assert rig.governor.room() == rig.governor.state.at_once < 5
    for _ in range(45):
        rig.window(late_s=0.01)
    assert rig.fact["limit"] == 0
    assert len(caplog.records) == 1, "it may come back at once"
    for _ in range(60):
        rig.window(late_s=0.01)
    said = [record.message.partition(";")[0] for record in caplog.records]
    assert said == ["Asterisk is slow", "Asterisk is as fast as usual"]


def test_calls_without_a_channel_yet_count_by_their_age() -> None:
    rig = Rig()
    rig.window()
    rig.calls(10)
    for _ in range(3):
        rig.look()
        rig.calls(10)
    assert rig.fact["why"] == "pbx_slow"


def test_overtaken_calls_do_not_make_asterisk_slow() -> None:
    rig = Rig()
    rig.calls(4)  # lost: later ones have their channels
    rig.now += 2
    for _ in range(15):
        rig.window(late_s=0.01)
    assert rig.fact["why"] == ""


def test_many_calls_without_a_word_limit_the_pbx() -> None:
    rig = Rig()
    for _ in range(2):
        rig.calls(10)
        rig.now += 2
        rig.window(5)
        rig.now += WORD_WITHIN_S
    rig.window(5)
    rig.calls(8)
    rig.now += 2
    rig.window(5)
    assert rig.fact["why"] == "pbx_slow"


def test_slow_pings_limit_the_pbx() -> None:
    rig = Rig()
    for ping_s in (0.001, 0.7, 0.7):
        rig.link.pings = [ping_s]
        rig.look(2.0)
    assert rig.fact["why"] == "pbx_slow"


def test_unread_bytes_limit_the_pbx() -> None:
    rig = Rig(link=PongsOnly(unread_bytes=10**6))
    rig.window()
    rig.window()
    assert rig.fact["why"] == "pbx_slow"


def test_a_governor_that_is_off_keeps_nothing() -> None:
    rig = Rig(is_on=False)
    for _ in range(9):
        rig.window(late_s=2.0)
    assert rig.fact["limit"] == 0
    rig.calls(1000)
    assert rig.governor.room() == math.inf


def test_other_settings_are_followed_at_once() -> None:
    rig = Rig()
    for late_s in (0.01, 0.6, 0.6):
        rig.window(late_s=late_s)
    limit = rig.fact["starts"]
    assert 0 < limit < CPS
    rig.governor.change(2 * CPS, is_on=True)
    assert (rig.governor.turns.cps, rig.fact["starts"]) == (2 * CPS, limit), "it stays slow"
    rig.governor.change(limit / 2, is_on=True)
    assert rig.fact["starts"] == 0, "cps is the limit now"
    rig.governor.trunks["tim"] = TrunkGovernor.of(limit / 2)
    rig.governor.change(CPS, is_on=True)
    assert rig.governor.trunks["tim"].limit.most == CPS
    before = rig.governor.state
    rig.governor.change(CPS, is_on=True)
    assert rig.governor.state is before, "nothing has changed"
    rig.calls(1000)
    rig.governor.change(CPS, is_on=False)
    assert (rig.governor.room(), rig.governor.trunks) == (math.inf, {})
    rig.governor.change(CPS, is_on=True)
    rig.window(late_s=0.01)
    assert rig.fact["limit"] == 0, "it begins again"


def test_calls_that_wait_for_their_channel_take_room() -> None:
    rig = Rig()
    rig.window(late_s=0.01)
    room = rig.governor.room()
    first, second, third, last = rig.calls(4)
    assert rig.governor.room() == room - 4
    rig.created([first])
    rig.ended([second], 34)
    rig.hear(OriginateEnded(action_id=action_id(third, 1), answered=False, reason=0))
    assert rig.governor.room() == room - 1
    rig.governor.refused(last)
    assert rig.governor.room() == room


def test_overtaken_calls_take_no_room() -> None:
    rig = Rig()
    rig.window(late_s=0.01)
    room = rig.governor.room()
    rig.calls(3)  # lost
    rig.now += 1.02
    late = rig.calls(2)
    assert rig.governor.room() == room - 5
    rig.created(late[:1])
    assert rig.governor.room() == room - 1


def test_calls_that_wait_too_long_take_no_room() -> None:
    rig = Rig()
    rig.window(late_s=0.01)
    room = rig.governor.room()
    rig.calls(3)
    rig.now += 1.0
    assert rig.governor.room() == room - 3
    rig.now += 0.2
    assert rig.governor.room() == room


def test_calls_of_a_lost_link_do_not_count() -> None:
    rig = Rig()
    rig.calls(30)
    rig.link.ready = False
    rig.look(3.0)
    rig.link.ready, rig.link.session = True, 2
    rig.look()
    for _ in range(9):
        rig.look()
    assert rig.fact["why"] == ""


def test_refused_originates_do_not_count() -> None:
    rig = Rig()
    for uniqueid in rig.calls(20):
        rig.governor.refused(uniqueid)
    for _ in range(30):
        rig.look()
    assert rig.fact["why"] == ""


def test_calls_without_a_channel_that_ended_do_not_wait() -> None:
    rig = Rig()
    for uniqueid in rig.calls(20):
        ended = OriginateEnded(action_id=action_id(uniqueid, 1), answered=False, reason=0)
        rig.hear(ended)
    for _ in range(30):
        rig.look()
    assert rig.fact["why"] == ""


def test_a_congested_carrier_limits_its_trunk_alone(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    for _ in range(5):
        rig.window(cause=34)
    assert rig.fact["limit"] == 0
    assert rig.fact["trunks"]["tim"]["share"] == 1
    assert 0 < rig.fact["trunks"]["tim"]["limit"] < CPS
    for _ in range(90):
        rig.window(cause=17)
    assert rig.fact["trunks"] == {}
    said = [record.message.partition(" ")[2].split()[0] for record in caplog.records]
    assert said == ["carrier", "carrier"]


@pytest.mark.parametrize("cause", [34, 38, 42, 44])
def test_each_cause_of_a_carrier_without_capacity_counts(cause: int) -> None:
    rig = Rig()
    for _ in range(5):
        rig.window(cause=cause)
    assert rig.fact["trunks"]["tim"]["share"] == 1


def test_busy_numbers_and_answered_calls_congest_no_trunk() -> None:
    rig = Rig()
    for _ in range(9):
        calls = rig.calls(10)
        rig.created(calls)
        rig.hear(*(ChannelUp(uniqueid=i) for i in calls))
        rig.ended(calls, 34)
        rig.look()
        rig.window(cause=17)
    assert rig.fact["trunks"] == {}


def test_bridges_lease_fewer_while_calls_wait_here() -> None:
    rig = Rig()
    for late_s in (0.01, 0.6, 0.6):
        rig.window(late_s=late_s)
    before = rig.fact["limit"]
    rig.governor.turns._waiting = {(f"c{i}", 1): cast(Any, None) for i in range(30)}
    assert 0 < rig.fact["limit"] < before


async def test_a_call_with_a_channel_lets_the_next_go() -> None:
    rig = Rig()
    calls = rig.calls(6)
    assert rig.governor.room() <= 0
    waits = asyncio.create_task(rig.governor.turns.take(("c1", 1)))
    await wait_until(lambda: len(rig.governor.turns) == 1, "it waits")
    rig.created(calls[:2])
    assert await waits


async def test_calls_of_a_lost_link_let_others_go() -> None:
    rig = Rig()
    rig.calls(6)
    waits = asyncio.create_task(rig.governor.turns.take(("c1", 1)))
    await wait_until(lambda: len(rig.governor.turns) == 1, "it waits")
    rig.link.ready = False
    rig.look()
    assert await waits


# --- a new link --------------------------------------------------------------------------


def reconnected(rig: Rig, down_s: float = 3.0) -> None:
    rig.link.ready = False
    while down_s > 0:
        rig.look(0.25)
        down_s -= 0.25
    rig.link.ready, rig.link.session = True, rig.link.session + 1
    rig.look()


def test_slowness_before_a_lost_link_does_not_count() -> None:
    rig = Rig()
    for late_s in (0.01, 0.6):
        rig.window(late_s=late_s)
    rig.link.pings = [2.5]
    reconnected(rig)
    rig.look(2.0)
    rig.window(late_s=0.6)
    assert rig.fact["why"] == ""


def test_time_without_a_link_raises_no_limit() -> None:
    rig = Rig()
    for late_s in (*[0.01] * 4, 0.6, 0.6, 0.01, 0.01):
        rig.window(5, late_s=late_s)
    before = rig.governor.state.allowed
    assert before < 0.6 * CPS
    reconnected(rig, down_s=60)
    rig.window(5, late_s=0.01)
    assert before <= rig.governor.state.allowed < 0.9 * CPS


def test_a_trunk_limit_ends_after_a_reconnect_without_calls() -> None:
    rig = Rig()
    for _ in range(5):
        rig.window(cause=34)
    assert rig.fact["trunks"] != {}
    reconnected(rig)
    for _ in range(60):
        rig.look(2.0)
    assert rig.fact["trunks"] == {}


def test_calls_whose_reply_never_came_are_forgotten() -> None:
    rig = Rig()
    calls = rig.calls(3)
    rig.created(calls)
    rig.ended(calls, 16)
    assert rig.governor._unanswered == {}


# --- in virtual time ---------------------------------------------------------------------


def limited_until(pbx: GovernedPbx) -> float:
    """Return when the last limit ended, 0 if there was none."""
    assert max(limit for _, limit in pbx.limits) <= pbx.cps
    return max((at for at, limit in pbx.limits if limit < pbx.cps), default=0.0)


@in_virtual_time
@pytest.mark.parametrize("rtt_s", [0.0, 0.26, 0.5, 1.5])
@pytest.mark.parametrize("cps", [1.0, 2.0, 10.0, 100.0])
def test_a_far_pbx_gets_its_full_rate(cps: float, rtt_s: float) -> None:
    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, ami_s=lambda _: rtt_s)
    pbx.run(240)
    assert limited_until(pbx) <= 120
    assert pbx.rate(120, 240) >= 0.95 * cps


@in_virtual_time
def test_a_large_far_pbx_gets_its_full_rate() -> None:
    pbx = GovernedPbx(1000, lambda _: AMPLE, 1000, ami_s=lambda _: 1.5)
    pbx.run(130)
    assert limited_until(pbx) <= 120


@in_virtual_time
@pytest.mark.parametrize("cps", [2.0, 20.0, 100.0])
def test_a_pbx_that_stays_slow_gets_its_full_rate_again(cps: float) -> None:
    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, ami_s=lambda at: 1.5 if at > 60 else 0.005)
    pbx.run(240)
    assert limited_until(pbx) <= 180


@in_virtual_time
@pytest.mark.parametrize("late_s", [0.3, 0.5])
@pytest.mark.parametrize("demand", [5.0, 20.0])
def test_a_host_that_becomes_slow_for_other_reasons_dials_on(demand: float, late_s: float) -> None:
    pbx = GovernedPbx(200, lambda _: AMPLE, demand, ami_s=lambda at: late_s if at > 60 else 0.005)
    pbx.run(120)
    assert pbx.rate(60, 80) >= 0.4 * demand, "first it finds out that calls are not the reason"
    assert pbx.rate(80, 120) >= 0.95 * demand


@in_virtual_time
@pytest.mark.parametrize("channel_s", [0.15, 0.2, 0.24, 0.35])
@pytest.mark.parametrize("cps", [2.0, 5.0, 7.0, 10.0, 20.0])
@pytest.mark.parametrize("idle_s", [0.0, 10.0])
def test_slow_channels_behind_quick_pings_are_normal(
    cps: float, idle_s: float, channel_s: float
) -> None:
    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, channel_s=channel_s, idle_s=idle_s)
    pbx.run(240)
    assert limited_until(pbx) <= 120
    assert pbx.rate(120, 240) >= 0.95 * cps


@in_virtual_time
def test_a_far_pbx_that_was_idle_is_not_limited() -> None:
    pbx = GovernedPbx(1, lambda _: AMPLE, 1, ami_s=lambda _: 0.5, idle_s=60)
    pbx.run(240)
    assert limited_until(pbx) == 0


@in_virtual_time
@pytest.mark.parametrize("at", [60 + i / 10 for i in range(8)])
@pytest.mark.parametrize("cps", [5.0, 20.0, 100.0])
def test_one_hiccup_limits_nothing(cps: float, at: float) -> None:
    pbx = GovernedPbx(cps, lambda now: 0 if at <= now < at + 0.4 else AMPLE, cps)
    pbx.run(90)
    assert limited_until(pbx) == 0


@in_virtual_time
@pytest.mark.parametrize("at", [60 + i / 10 for i in range(0, 25, 3)])
@pytest.mark.parametrize("cps", [1.0, 5.0, 20.0])
def test_one_slow_ping_limits_nothing(cps: float, at: float) -> None:
    pbx = GovernedPbx(cps, lambda _: AMPLE, cps)
    pbx.run(at)
    pbx.link.pings.append(0.8)
    pbx.run(30)
    assert limited_until(pbx) == 0


@in_virtual_time
@pytest.mark.parametrize("refused", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("cps", [5.0, 20.0, 100.0])
def test_a_carrier_that_always_refuses_some_keeps_its_rate(cps: float, refused: float) -> None:
    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, refused=lambda _: refused, call_s=(5, 20))
    pbx.run(200)
    assert pbx.rate(100, 200) >= 0.75 * cps


@in_virtual_time
def test_few_refusals_before_the_first_good_calls_limit_nothing() -> None:
    pbx = GovernedPbx(20, lambda _: AMPLE, 20, refused=lambda _: 0.05, call_s=(5, 20))
    pbx.run(60)
    assert {limit for _, limit in pbx.trunk_limits} == {20}


@in_virtual_time
@pytest.mark.parametrize("cps", [20.0, 100.0])
def test_a_carrier_with_half_the_capacity_gets_fewer_calls(cps: float) -> None:
    def refused(at: float) -> float:
        """What is beyond the capacity, of the calls of the last second."""
        latest = sum(started > at - 1 for started in pbx.started_at[-2 * int(cps) :])
        return max(0.0, 1 - cps / 2 / max(1, latest)) if 30 < at < 150 else 0.0

    pbx = GovernedPbx(cps, lambda _: AMPLE, cps, refused=refused, call_s=(5, 20))
    pbx.run(200)
    assert 0.5 * cps <= pbx.rate(60, 150) <= 0.8 * cps
    assert pbx.trunk_limits[-1][1] == cps


@in_virtual_time
@pytest.mark.parametrize("cps", [5.0, 20.0, 100.0])
def test_a_dead_trunk_stays_limited_until_it_is_repaired(cps: float) -> None:
    pbx = GovernedPbx(
        cps, lambda _: AMPLE, cps, refused=lambda at: 0.9 if 30 < at < 200 else 0, call_s=(5, 20)
    )
    pbx.run(280)
    assert pbx.rate(100, 200) <= 0.25 * cps
    assert pbx.trunk_limits[-1][1] == cps


# --- the originator tells it -------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "is_waiting"),
    [
        (None, True),
        (OriginateOutcomeUnknown("no answer"), True),
        (AmiUnavailable("down"), False),
        (ValueError("a line end"), False),
        (OriginateRefused("no"), False),
    ],
    ids=["accepted", "unclear", "link down", "not sendable", "refused"],
)
async def test_sent_originates_wait_for_their_channel(
    reply: Exception | None, is_waiting: bool
) -> None:
    made = parts(retries=0)
    made.written.to_claim = entry(trunk="vivo")
    made.asterisk.replies = [reply]
    await made.originator.dial(CALL_ID, 1)
    await made.journal.wait_done()
    governor = made.governor
    assert (UNIQUEID in governor._waiting) is is_waiting
    assert (UNIQUEID in governor._unanswered) is isinstance(reply, OriginateOutcomeUnknown)
    assert [trunk for trunk, _ in governor._trunk_of.values()] == ["vivo"] * is_waiting
