"""Calls followed to their end: what real Asterisks said, in every order that they may say it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from dialer.domain.call import Call, CodeState, Ending, Result, State
from dialer.domain.request import CallRequest
from dialer.settings import Cell
from dialer.store.entry import Entry
from dialer.store.ledger import WorkerLedger
from dialer.store.registry import Registry
from tests.unit.captured import CALL_ID, VERSIONS, Version, messages
from tests.unit.test_translate import ANSWERED, NO_CHANNEL, REFUSALS
from tests.waiting import wait_until
from workers.ami.events import (
    AgentJoined,
    AmdHeard,
    AmiEvent,
    ChannelCreated,
    HungUp,
    OriginateEnded,
    QueueJoined,
    QueueLeft,
    translate,
)
from workers.calls import journal
from workers.calls import tracker as tracker_module
from workers.calls.tracker import Followed, Tracker

CELL = "ASR_TIM"
RESULTS: dict[str, Result] = {
    "busy": Result.BUSY,
    "rejected_403": Result.REJECTED,
    "rejected_603": Result.REJECTED,
    "unknown_number_404": Result.INVALID_NUMBER,
    "congestion_503": Result.CONGESTION,
    "rings_out": Result.NO_ANSWER,
    "local_busy": Result.BUSY,
    "local_rings_out": Result.NO_ANSWER,
    **dict.fromkeys(ANSWERED, Result.ANSWERED),
    **dict.fromkeys(NO_CHANNEL, Result.FAILED),
}


@dataclass(slots=True)
class Written:
    """A ledger and a registry that only write down what they are told."""

    steps: list[str] = field(default_factory=list)
    endings: list[tuple[Call, Ending]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    reply: str = "done"
    #: How often each step is yet to be refused, as where a key is of another type.
    refusals: dict[str, int] = field(default_factory=dict)

    def _take(self, step: str) -> None:
        if self.refusals.get(step):
            self.refusals[step] -= 1
            raise ResponseError("WRONGTYPE")
        self.steps.append(step)

    async def accept(self, request: CallRequest, **_: Any) -> bool:
        self._take("accept")
        return True

    async def answer(self, call_id: str, *, at: datetime) -> bool:
        self._take("answer")
        return True

    async def end(self, call: Call, request: CallRequest, ending: Ending) -> str:
        self._take("end")
        self.endings.append((call, ending))
        return self.reply

    async def release(self, pbx: str, call_ids: list[str]) -> None:
        if self.refusals.get("release"):
            self.refusals["release"] -= 1
            raise ResponseError("NOPERM")
        self.released += call_ids


@dataclass(slots=True)
class Scene:
    """One tracker, one call, and what came of it."""

    written: Written
    tracker: Tracker
    followed: Followed
    done: list[Call]
    forgotten: list[str]
    settled: list[Followed]

    def feed(self, events: list[AmiEvent]) -> None:
        for event in events:
            self.tracker.on_event(event)

    async def ending(self) -> Ending:
        """The one ending, once it is written."""
        await wait_until(lambda: self.written.endings, "the call is over")
        await self.tracker.writes.drain()
        ((_, ending),) = self.written.endings
        return ending


def make_scene(*, attempts: int = 1, **cell: Any) -> Scene:
    written = Written()
    done: list[Call] = []
    forgotten: list[str] = []
    settled: list[Followed] = []

    async def forget(call_id: str) -> None:
        forgotten.append(call_id)

    async def settle(followed: Followed, at: datetime) -> None:
        settled.append(followed)
        tracker.over(followed, at)

    tracker = Tracker(
        pbx="pbx01",
        cells={CELL: Cell(nome=CELL, threads=10, pbxs=("pbx01",), **cell)},
        ledgers={CELL: cast("WorkerLedger", written)},
        registry=cast("Registry", written),
        on_done=lambda call, _: done.append(call),
        forget=forget,
        settle=settle,
    )
    now = datetime.now(UTC)
    followed = tracker.follow(
        Entry(
            call=Call(
                call_id=CALL_ID,
                state=State.ORIGINATING,
                epoch=1,
                pbx="pbx01",
                code_state=CodeState.NONE,
                dialed_at=now,
            ),
            request=CallRequest(
                cell=CELL, request_id="1001", request_id_json="1001", number="5511987650"
            ),
            boot="b",
            expires_at=None,
        )
    )
    followed.attempts = attempts
    return Scene(written, tracker, followed, done, forgotten, settled)


def told(version: Version, scenario: str) -> list[AmiEvent]:
    return [event for m in messages(version, scenario) if (event := translate(m)) is not None]


def orders(events: list[AmiEvent]) -> Iterator[list[AmiEvent]]:
    """The channel's events in their order, each OriginateResponse at every place among them."""
    own = [e for e in events if not isinstance(e, OriginateEnded)]
    verdicts = [e for e in events if isinstance(e, OriginateEnded)]
    for places in itertools.product(range(len(own) + 1), repeat=len(verdicts)):
        mixed: list[AmiEvent] = []
        for i in range(len(own) + 1):
            mixed += [v for v, place in zip(verdicts, places, strict=True) if place == i]
            mixed += own[i : i + 1]
        yield mixed


@pytest.fixture(autouse=True)
def _quick_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "OTHER_HALF_S", 0.01)


def expected_cause(version: Version, scenario: str) -> int | None:
    if scenario in NO_CHANNEL:
        return None
    causes = REFUSALS[scenario][2] if scenario in REFUSALS else ANSWERED[scenario]
    return causes[VERSIONS.index(version)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", RESULTS)
async def test_a_recorded_call_ends_once_with_its_result_and_cause(
    version: Version, scenario: str
) -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    scene.feed(told(version, scenario))
    ending = await scene.ending()
    answered = scenario in ANSWERED
    assert (ending.result, ending.cause) == (RESULTS[scenario], expected_cause(version, scenario))
    assert scene.written.steps == ["accept", *(["answer"] if answered else []), "end"]
    assert scene.written.released == [CALL_ID]
    assert len(scene.done) == 1
    assert scene.forgotten == ([CALL_ID] if answered else [])
    assert (ending.error.code if ending.error else None) == (
        "no_channel" if scenario in NO_CHANNEL else None
    )
    assert CALL_ID not in scene.tracker.calls


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", RESULTS)
async def test_the_ending_is_the_same_in_every_order_asterisk_may_choose(
    version: Version, scenario: str
) -> None:
    for events in orders(told(version, scenario)):
        scene = make_scene()
        await scene.tracker.accept(scene.followed)
        scene.feed(events)
        ending = await scene.ending()
        found = (ending.result, ending.cause)
        assert found == (RESULTS[scenario], expected_cause(version, scenario)), events


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", RESULTS)
async def test_what_came_before_asterisks_word_counts_after_it(
    version: Version, scenario: str
) -> None:
    scene = make_scene()
    scene.feed(told(version, scenario))
    assert scene.written.steps == []
    await scene.tracker.accept(scene.followed)
    ending = await scene.ending()
    assert (ending.result, ending.cause) == (RESULTS[scenario], expected_cause(version, scenario))
    assert scene.written.steps[0] == "accept"


@pytest.mark.parametrize("version", VERSIONS)
async def test_amd_and_agent_are_in_the_ending(version: Version) -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    scene.feed(told(version, "amd_userevent"))
    ending = await scene.ending()
    assert (ending.amd, ending.agent) == ("MACHINE", "João Silva")


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_operator_and_the_wait_are_in_the_ending_to_the_millisecond(
    version: Version,
) -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    at = datetime.now(UTC)
    for event in told(version, "queue_operator_takes_the_call"):
        if isinstance(event, QueueLeft | AgentJoined):
            at += timedelta(seconds=1.25)
        scene.tracker.apply(event, at)
    ending = await scene.ending()
    assert (ending.agent, ending.wait_s) == ("Maria José", 2.5)


async def test_whom_nobody_took_waited_until_leaving_the_queue_from_joining_the_first() -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    at = datetime.now(UTC)
    scene.tracker.answered(scene.followed, at)
    for step in (QueueJoined, QueueLeft, QueueJoined, QueueLeft):
        scene.tracker.apply(step(uniqueid=CALL_ID), at)
        at += timedelta(seconds=3)
    scene.feed([HungUp(uniqueid=CALL_ID, cause=16, cause_text=None)])
    ending = await scene.ending()
    assert (ending.agent, ending.wait_s) == (None, 9.0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_refusal_of_a_second_attempt_leaves_the_ringing_call_alone(
    version: Version,
) -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    created = next(e for e in told(version, "rings_out") if isinstance(e, ChannelCreated))
    second = OriginateEnded(action_id=f"{CALL_ID}#2", answered=False, reason=0)
    scene.feed([second, created, second])
    assert scene.followed.originate is None
    scene.feed(told(version, "rings_out"))
    assert (await scene.ending()).result is Result.NO_ANSWER


async def test_a_failed_originate_whose_channel_shows_up_after_it_waits_for_the_hangup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    ended: list[datetime] = []
    at_last = Tracker._over_at_last

    def seen(tracker: Tracker, followed: Followed, at: datetime) -> None:
        ended.append(at)
        at_last(tracker, followed, at)

    monkeypatch.setattr(Tracker, "_over_at_last", seen)
    failed = OriginateEnded(action_id=f"{CALL_ID}#1", answered=False, reason=0)
    scene.feed([failed, ChannelCreated(uniqueid=CALL_ID, channel="PJSIP/x-1")])
    await wait_until(lambda: ended, "the wait for the other half is over")
    assert scene.written.endings == []
    scene.feed([HungUp(uniqueid=CALL_ID, cause=17, cause_text="User busy")])
    assert (await scene.ending()).result is Result.BUSY


async def test_a_hangup_that_says_nothing_ends_the_call_when_no_word_follows() -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    created = ChannelCreated(uniqueid=CALL_ID, channel="PJSIP/x-1")
    scene.feed([created, HungUp(uniqueid=CALL_ID, cause=0, cause_text="Unknown")])
    ending = await scene.ending()
    assert ending.result is Result.FAILED
    assert ending.error is not None
    assert ending.error.code == "call_failed"


async def test_events_of_calls_that_are_not_ours_are_ignored() -> None:
    scene = make_scene()
    scene.feed([HungUp(uniqueid="1700000000.1", cause=17, cause_text="User busy")])
    scene.feed([OriginateEnded(action_id="action/uuid/1/1", answered=False, reason=5)])
    assert scene.followed.early == []
    assert scene.written.steps == []


async def test_an_ending_that_the_ledger_has_already_is_not_told_again() -> None:
    scene = make_scene()
    scene.written.reply = "void"
    await scene.tracker.accept(scene.followed)
    scene.feed(told("22", "busy"))
    await scene.ending()
    assert scene.done == []


async def test_events_heard_twice_after_a_lost_link_change_nothing() -> None:
    scene = make_scene()
    await scene.tracker.accept(scene.followed)
    scene.tracker.buffer = []
    scene.feed(told("22", "answered_pbx_clears"))
    for event, at in scene.tracker.buffer:
        scene.tracker.apply(event, at)
    await scene.ending()
    assert scene.written.steps == ["accept", "answer", "end"]


async def test_a_hangup_after_a_gap_asks_the_record_before_it_is_taken_for_a_failure() -> None:
    scene = make_scene()
    scene.tracker.accept(scene.followed)
    scene.followed.missed = True  # its answer may have come while the link was down
    scene.feed([HungUp(uniqueid=CALL_ID, cause=16, cause_text="Normal Clearing")])
    await scene.ending()
    assert scene.settled == [scene.followed]


async def test_a_hangup_whose_other_half_never_comes_asks_the_record_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker_module, "OTHER_HALF_S", 0.01)
    scene = make_scene()
    scene.tracker.accept(scene.followed)
    scene.feed([HungUp(uniqueid=CALL_ID, cause=16, cause_text="Normal Clearing")])
    await scene.ending()
    assert scene.settled == [scene.followed]


async def test_the_record_of_an_adopted_call_knows_its_answer_better_than_the_adoption() -> None:
    scene = make_scene()
    scene.tracker.accept(scene.followed)
    adopted = datetime.now(UTC)
    scene.tracker.answered(scene.followed, adopted)
    answered, ended = adopted - timedelta(seconds=9), adopted - timedelta(seconds=1)
    record = Ending(result=Result.ANSWERED, ended_at=ended, answered_at=answered)
    await scene.tracker.end(scene.followed, record)
    ((call, _),) = scene.written.endings
    assert call.answered_at == answered


async def test_a_step_that_redis_refuses_is_tried_anew_until_it_is_taken_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "REFUSED_PAUSE_S", 0.0)
    scene = make_scene()
    scene.written.refusals = {"accept": 2, "end": 3, "release": 2}
    await scene.tracker.accept(scene.followed)
    scene.feed(told("22", "busy"))
    await scene.ending()
    assert scene.written.steps == ["accept", "end"]
    assert scene.written.released == [CALL_ID]
    assert len(scene.done) == 1
    said = [(vars(r)["cell"], vars(r)["step"]) for r in caplog.records]
    assert said == [(CELL, "accept"), (CELL, "end"), (CELL, "release")]


# --- answering machine detection --------------------------------------------------------


async def hear(scene: Scene, *verdicts: str | None) -> None:
    """An answered call in which AMD says this, and that is over."""
    await scene.tracker.accept(scene.followed)
    scene.tracker.answered(scene.followed, datetime.now(UTC))
    scene.feed([AmdHeard(uniqueid=CALL_ID, status=verdict) for verdict in verdicts])
    scene.feed([HungUp(uniqueid=CALL_ID, cause=16, cause_text="Normal Clearing")])
    await scene.ending()


async def test_who_hangs_up_before_amds_verdict_has_it_in_the_record() -> None:
    scene = make_scene(amd="hangup")
    await hear(scene)
    assert scene.settled == [scene.followed]
    for told_in_time in (make_scene(amd="hangup"), make_scene()):
        await hear(told_in_time, "HUMAN")
        assert told_in_time.settled == []


async def test_an_asterisk_without_amd_is_told_of_once_until_it_has_a_verdict(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = make_scene(amd="hangup")
    await hear(scene, None, None, "HUMAN", "HUMAN", None)
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        "Asterisk does not tell machines from people",
        "Machines are told from people again",
        "Asterisk does not tell machines from people",
    ]
    assert scene.settled == [], "nothing is to be had from the record"


async def test_nobody_misses_a_verdict_that_the_cell_did_not_ask_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = make_scene()
    await hear(scene, None)
    assert caplog.records == []
    assert scene.settled == []
