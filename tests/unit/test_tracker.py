"""Followed calls on an event loop: what is written and asked, in which order, and how often."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from dialer.domain.call import Result
from dialer.domain.channel import (
    AmdReported,
    ChannelCreated,
    ChannelUp,
    HandOverReported,
    HungUp,
    OriginateEnded,
)
from dialer.domain.follow_events import (
    ChannelWaitTimedOut,
    CheckDue,
    OriginateAccepted,
    OriginateUnclear,
)
from dialer.store.registry import Registry
from tests.unit.captured import CALL_ID, UNIQUEID, VERSIONS, Version
from tests.unit.lives import CELL, RESULTS, expected_cause, told
from tests.unit.parts import Parts, entry, parts
from tests.unit.test_translate import ANSWERED, NO_CHANNEL
from tests.waiting import wait_until

CREATED = ChannelCreated(uniqueid=UNIQUEID, channel="PJSIP/carrier-1")
UP = ChannelUp(uniqueid=UNIQUEID)


def hung_up(cause: int = 16) -> HungUp:
    return HungUp(uniqueid=UNIQUEID, cause=cause, cause_text=None)


def accepted(**cell: object) -> Parts:
    made = parts(**cell).claimed()
    made.tracker.feed(CALL_ID, OriginateAccepted())
    return made


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", RESULTS)
async def test_a_recorded_call_is_written_step_by_step(version: Version, scenario: str) -> None:
    made = accepted().hear(*told(version, scenario))
    ending = await made.ending()
    answered = scenario in ANSWERED
    assert (ending.result, ending.cause) == (RESULTS[scenario], expected_cause(version, scenario))
    assert made.written.done == ["accept", *(["answer"] if answered else []), "end"]
    assert made.written.released == [CALL_ID]
    assert len(made.done) == 1
    is_congested = ending.result is Result.CONGESTION
    assert made.state.results.last_minute()["congested"] == is_congested
    assert made.asterisk.forgotten == ([UNIQUEID] if answered else [])
    code = "no_channel" if scenario in NO_CHANNEL else None
    assert (ending.error.code if ending.error else None) == code
    assert len(made.calls) == 0


async def test_no_record_is_deleted_if_none_is_written() -> None:
    made = accepted()
    made.state.has_include = False
    made.hear(UP, hung_up())
    await made.ending()
    assert made.asterisk.forgotten == []


async def test_the_pairing_timer_asks_nothing_about_an_ended_call() -> None:
    made = accepted().hear(CREATED, hung_up(0))
    made.hear(OriginateEnded(action_id=f"{UNIQUEID}#1", answered=False, reason=3))
    assert (await made.ending()).result is Result.NO_ANSWER
    other = accepted().hear(CREATED, hung_up(0))  # its timer was started later
    await other.ending()
    assert made.asterisk.asked == []
    assert other.asterisk.asked == ["record"]


async def test_a_record_that_cannot_be_read_is_read_again() -> None:
    made = accepted()
    made.asterisk.is_lost = True
    made.hear(CREATED, hung_up(16))
    await wait_until(lambda: made.asterisk.asked.count("record") > 2, "it is asked again")
    made.asterisk.is_lost = False
    assert (await made.ending()).result is Result.FAILED


async def test_a_fed_event_returns_the_work_it_began() -> None:
    made = parts().claimed()
    assert made.tracker.feed(CALL_ID, OriginateUnclear()) == []  # a timer is no work
    assert len(made.tracker.feed(CALL_ID, OriginateAccepted())) == 1
    await made.journal.wait_done()


async def test_events_of_other_channels_are_ignored() -> None:
    made = parts().claimed()
    with made.tracker.buffering():
        made.hear(
            HungUp(uniqueid="1700000000.1", cause=17, cause_text="User busy"),
            OriginateEnded(action_id="action/uuid/1/1", answered=False, reason=5),
        )
        assert made.tracker._unfollowed == {}
    assert made.followed.early == ()
    assert made.tracker.feed(f"{CELL}:unknown", OriginateAccepted()) == []


async def test_events_of_an_adopted_call_are_applied_once() -> None:
    made = parts()
    with made.tracker.buffering():
        made.hear(CREATED, UP)
        made.tracker.adopt(entry())
        assert [type(event) for event, _ in made.followed.early] == [ChannelCreated, ChannelUp]
    made.hear(UP)
    assert len(made.followed.early) == 3


async def test_events_are_kept_until_the_last_listener_leaves() -> None:
    made = parts()
    with made.tracker.buffering():
        with made.tracker.buffering():
            made.hear(CREATED)
        made.tracker.adopt(entry())
    assert len(made.followed.early) == 1
    other = parts()
    with other.tracker.buffering():
        other.hear(CREATED)
    with other.tracker.buffering():
        other.tracker.adopt(entry())
    assert other.followed.early == (), "events of an older gap"


async def test_events_are_not_kept_when_nobody_listens() -> None:
    made = parts().hear(CREATED)
    made.tracker.adopt(entry())
    assert made.followed.early == ()


async def test_an_ending_the_ledger_has_is_not_reported_again() -> None:
    made = accepted()
    made.written.reply = "void"
    made.hear(*told("22", "busy"))
    await made.ending()
    assert made.done == []


def elsewhere(made: Parts) -> Parts:
    """The same parts, with the registry on another server than the ledger."""
    other = SimpleNamespace(steps=object(), release=made.written.release)
    made.tracker.registry = cast(Registry, other)
    return made


async def test_a_refused_step_is_retried_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = elsewhere(parts()).claimed()
    made.written.refusals = {"accept": 2, "end": 3, "release": 2}
    await made.tracker.feed(CALL_ID, OriginateAccepted())[0]
    made.hear(*told("22", "busy"))
    await made.ending()
    assert made.written.done == ["accept", "end"]
    assert made.written.released == [CALL_ID]
    assert len(made.done) == 1
    said = [(vars(r)["cell"], vars(r)["step"]) for r in caplog.records]
    assert said == [(CELL, "accept"), (CELL, "end"), (CELL, "release")]


async def test_the_end_releases_the_slot_where_one_server_has_both() -> None:
    made = accepted()
    made.written.refusals = {"release": 1}
    made.hear(*told("22", "busy"))
    await made.ending()
    assert made.written.released == [CALL_ID]
    assert made.written.refusals == {"release": 1}, "it needs no step of its own"


@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_slow_ledger_does_not_delay_the_release_of_the_slot(is_elsewhere: bool) -> None:
    made = elsewhere(accepted()) if is_elsewhere else accepted()
    made.tracker.slot_within_s = 0.01
    made.written.answers.clear()
    made.hear(hung_up(17))
    await wait_until(lambda: made.written.released, "its slot is given back")
    assert made.written.endings == []
    made.written.answers.set()
    await made.ending()


async def test_calls_without_reply_share_one_channel_list() -> None:
    made = parts().claimed()
    made.tracker.feed(CALL_ID, ChannelWaitTimedOut(gap=0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert made.asterisk.asked == [], "others may want the list in a moment"
    made.tracker.feed(CALL_ID, ChannelWaitTimedOut(gap=0))
    await made.ending()
    assert made.asterisk.asked == ["channels", "record"]


async def test_a_list_that_fails_drops_the_link() -> None:
    made = parts().claimed()
    made.asterisk.is_lost = True
    made.tracker.feed(CALL_ID, OriginateUnclear())
    await wait_until(lambda: made.asterisk.dropped, "the link is dropped")
    assert made.written.endings == []


async def test_no_list_is_asked_for_while_the_link_is_down() -> None:
    made = parts().claimed()
    made.asterisk.ready = False
    made.tracker.feed(CALL_ID, OriginateUnclear())
    await wait_until(lambda: made.followed.waited, "its Originate had its time")
    await made.journal.wait_done()
    assert made.asterisk.asked == []


async def test_a_list_wanted_before_the_link_is_ready_is_read() -> None:
    """The reconciliation may be over, and the checks before the link is ready not."""
    made = parts().claimed()
    made.asterisk.ready = False
    made.tracker.feed(CALL_ID, OriginateUnclear())
    await wait_until(lambda: made.followed.waited, "its Originate had its time")
    await made.journal.wait_done()
    made.asterisk.ready = True
    assert (await made.ending()).result is Result.FAILED


async def test_a_list_of_a_newer_link_ends_nothing() -> None:
    made = parts().claimed()

    def another_session() -> None:
        made.asterisk.session += 1

    made.asterisk.while_listing = another_session
    made.tracker.feed(CALL_ID, OriginateUnclear())
    await wait_until(lambda: made.asterisk.asked, "the channels are listed")
    await made.journal.wait_done()
    assert made.written.endings == [], "its Originate can still come"


async def test_a_long_call_is_asked_for_alone(caplog: pytest.LogCaptureFixture) -> None:
    made = accepted().hear(CREATED, UP)
    now = made.state.clock.now()
    made.tracker.feed(CALL_ID, CheckDue(), now.replace(year=now.year + 1))
    ending = await made.ending()
    assert ending.result is Result.UNKNOWN
    assert made.asterisk.asked == ["channel", "record"]
    assert "End of a call missed" in caplog.messages


async def test_a_long_call_whose_channel_is_up_goes_on() -> None:
    made = accepted().hear(CREATED, UP)
    made.asterisk.listed = {UNIQUEID: {}}
    now = made.state.clock.now()
    made.tracker.feed(CALL_ID, CheckDue(), now.replace(year=now.year + 1))
    await made.journal.wait_done()
    assert made.asterisk.asked == ["channel"]
    assert (made.written.endings, made.followed.asking) == ([], False)


async def test_a_link_lost_while_asking_for_a_channel_ends_nothing() -> None:
    made = accepted().hear(CREATED, UP)
    made.asterisk.is_lost = True
    now = made.state.clock.now()
    made.tracker.feed(CALL_ID, CheckDue(), now.replace(year=now.year + 1))
    await made.journal.wait_done()
    assert made.asterisk.asked == ["channel"]
    assert (made.written.endings, made.followed.asking) == ([], False)


async def test_missing_amd_is_logged_once_until_it_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = accepted(amd="hangup").hear(UP)
    for verdict in (None, None, "HUMAN", "HUMAN", None):
        made.hear(AmdReported(uniqueid=UNIQUEID, status=verdict))
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        "AMD does not run",
        "AMD runs again",
        "AMD does not run",
    ]
    assert {vars(r)["cell"] for r in caplog.records} == {CELL}


async def test_a_refused_hand_over_is_counted_and_told() -> None:
    made = parts()
    made.state.confirms = True
    made.claimed()
    made.tracker.feed(CALL_ID, OriginateAccepted())
    made.hear(ChannelUp(uniqueid=UNIQUEID), HandOverReported(uniqueid=UNIQUEID, handed="NOEXTEN"))
    made.hear(HungUp(uniqueid=UNIQUEID, cause=16, cause_text=None))
    ending = await made.ending()
    assert ending.error is not None
    assert ending.error.code == "not_handed_over"
    assert made.state.results.last_minute()["not_handed_over"] == 1


async def test_a_call_is_hung_up_for_an_operator(caplog: pytest.LogCaptureFixture) -> None:
    made = accepted().hear(CREATED)
    assert await made.tracker.hang_up(CALL_ID) == ""
    assert made.asterisk.asked == [f"hang up {UNIQUEID}"]
    assert caplog.messages == ["Call hung up for an operator"]
    made.hear(hung_up(), OriginateEnded(action_id=f"{UNIQUEID}#1", answered=False, reason=0))
    ending = await made.ending()
    assert ending.result is Result.CANCELLED


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_hang_up_that_fails_is_told(
    caplog: pytest.LogCaptureFixture, is_lost: bool
) -> None:
    made = accepted().hear(CREATED)
    made.asterisk.is_lost, made.asterisk.refusal = is_lost, "No such channel"
    said = "the link was lost" if is_lost else "No such channel"
    assert await made.tracker.hang_up(CALL_ID) == said
    (record,) = caplog.records
    assert record.message == "Call could not be hung up"
    assert vars(record)["reason"] == said
    made.asterisk.is_lost = False
    made.hear(UP, hung_up())
    assert (await made.ending()).error is None


async def test_a_call_without_a_channel_is_hung_up_later() -> None:
    made = accepted()
    assert await made.tracker.hang_up(CALL_ID) == ""
    assert made.asterisk.asked == []
    made.hear(CREATED)
    await wait_until(lambda: made.asterisk.asked, "Asterisk is asked")
