"""What a worker tells its governor, and what it does with the decision."""

from __future__ import annotations

import json
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
from dialer.errors import AmiUnavailable, OriginateOutcomeUnknown, OriginateRefused
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.parts import entry, parts
from workers.ami import AmiLink
from workers.pbx.governor import WORD_WITHIN_S, PbxGovernor

CPS = 20.0


@dataclass(slots=True)
class Link:
    """An AMI link with the pings that the test says."""

    ready: bool = True
    session: int = 1
    unread_bytes: int = 0
    pings: list[float] = field(default_factory=list)

    def take_ping_times(self) -> list[float]:
        times, self.pings = self.pings, []
        return times


@dataclass(slots=True)
class Rig:
    """A governor in virtual time."""

    is_on: bool = True
    link: Link = field(default_factory=Link)
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
    assert rig.governor.turns.rate is None


def test_late_channels_limit_the_pbx(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    for late_s in (0.01, 0.6, 0.6):
        rig.window(late_s=late_s)
    assert 0 < rig.fact["limit"] < CPS
    assert (rig.fact["why"], rig.fact["answer_ms"], rig.fact["instance"]) == ("pbx_slow", 600, "i1")
    assert rig.governor.turns.rate == pytest.approx(rig.fact["limit"], abs=0.001)
    for _ in range(60):
        rig.window(late_s=0.01)
    assert rig.fact["limit"] == 0
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
    rig = Rig(link=Link(unread_bytes=10**6))
    rig.window()
    rig.window()
    assert rig.fact["why"] == "pbx_slow"


def test_a_governor_that_is_off_keeps_nothing() -> None:
    rig = Rig(is_on=False)
    for _ in range(9):
        rig.window(late_s=2.0)
    assert rig.fact["limit"] == 0
    assert rig.governor.turns.rate is None


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
    assert rig.governor.state.limit.floor <= rig.fact["limit"] < before


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
