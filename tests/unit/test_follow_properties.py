"""What holds for a followed call whatever Asterisk says of it, in whatever order."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import CallError, Result, State
from dialer.domain.channel import (
    AgentJoined,
    AmdReported,
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    DialEnded,
    FarEndCleared,
    HandOverReported,
    HungUp,
    OriginateEnded,
    QueueJoined,
    QueueLeft,
    Record,
)
from dialer.domain.follow_events import (
    ChannelListed,
    ChannelMissing,
    ChannelNotListed,
    ChannelWaitTimedOut,
    CheckDue,
    FollowEvent,
    GapFound,
    GivenUp,
    HangUpAsked,
    HangUpRefused,
    LedgerRead,
    NoteHandOver,
    OriginateAccepted,
    OriginateNotSent,
    OriginateSent,
    OriginateUnclear,
    PairingTimedOut,
    RecordDue,
    RecordRead,
    RecordUnavailable,
    WriteAck,
    WriteAnswered,
    WriteEnd,
)
from dialer.domain.hand_over import LATE, YES
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.lives import T0, Life, claimed

causes = st.none() | st.sampled_from([0, 1, 16, 17, 23, 34, 127])
handed = st.sampled_from([YES, "JOINEMPTY", "NOEXTEN"])
channels: st.SearchStrategy[AmiEvent] = st.one_of(
    st.just(ChannelCreated(uniqueid=UNIQUEID, channel="PJSIP/carrier-1")),
    st.just(ChannelUp(uniqueid=UNIQUEID)),
    st.builds(
        DialEnded,
        uniqueid=st.just(CALL_ID),
        status=st.sampled_from(["BUSY", "ANSWER", "?"]),
        forward=st.sampled_from(["", "0551190000"]),
    ),
    st.just(FarEndCleared(uniqueid=UNIQUEID)),
    st.builds(HandOverReported, uniqueid=st.just(UNIQUEID), handed=handed),
    st.builds(
        OriginateEnded,
        action_id=st.sampled_from([f"{UNIQUEID}#1", f"{UNIQUEID}#2"]),
        answered=st.booleans(),
        reason=st.none() | st.sampled_from([0, 3, 4, 5]),
    ),
    st.builds(HungUp, uniqueid=st.just(CALL_ID), cause=causes, cause_text=st.none()),
    st.builds(
        AmdReported, uniqueid=st.just(CALL_ID), status=st.sampled_from([None, "HUMAN", "MACHINE"])
    ),
    st.builds(AgentJoined, uniqueid=st.just(CALL_ID), agent=st.just("Ana"), wait_s=st.none()),
    st.just(QueueJoined(uniqueid=UNIQUEID)),
    st.just(QueueLeft(uniqueid=UNIQUEID)),
)
records = st.none() | st.builds(
    Record,
    answered_at=st.just(T0),
    ended_at=st.none() | st.just(T0 + timedelta(seconds=9)),
    cause=causes,
    amd=st.none() | st.just("HUMAN"),
    agent=st.none() | st.just("Maria"),
    wait_s=st.none() | st.just(4.0),
    handed=st.just("") | handed,
)
#: Doubled timers and answers too: nothing may depend on their coming once.
others: st.SearchStrategy[FollowEvent] = st.one_of(
    st.builds(OriginateSent, attempt=st.just(1)),
    st.sampled_from([OriginateNotSent(), OriginateAccepted(), OriginateUnclear()]),
    st.sampled_from([GapFound(), CheckDue(), ChannelMissing(), PairingTimedOut(), RecordDue()]),
    st.builds(ChannelListed, channel=st.just("PJSIP/carrier-1"), is_up=st.booleans()),
    st.builds(ChannelNotListed, boot=st.sampled_from(["b", "c"])),
    st.builds(ChannelWaitTimedOut, gap=st.integers(0, 3)),
    st.builds(RecordRead, record=records, has_include=st.booleans()),
    st.sampled_from([RecordUnavailable(), HangUpAsked(), HangUpRefused()]),
    st.builds(
        LedgerRead,
        state=st.sampled_from([State.ORIGINATING, State.ACCEPTED, State.ANSWERED]),
        epoch=st.integers(1, 3),
        token=st.none() | st.just("t"),
    ),
    st.builds(
        GivenUp,
        result=st.just(Result.FAILED),
        error=st.just(CallError(code="originate_refused", message="…")),
        tried=st.booleans(),
    ),
)
#: Timers and answers come when they are due, or (`next`) the oldest timer runs out now.
happenings = st.lists(st.tuples(channels | others, st.booleans()), max_size=30)


def happened(
    events: list[tuple[FollowEvent, bool]],
    record: Record | None,
    *,
    wants_amd: bool,
    confirms: bool,
    accepts: bool,
) -> Life:
    """A call to which all this happened, with timers running out in between."""
    life = Life(claimed(wants_amd=wants_amd, confirms=confirms), record=record)
    if accepts:
        life.dial()
    for event, runs_timer in events:
        life.feed(event, after_s=0.4)
        if runs_timer:
            life.run_timers(at_most=1)
    return life


lives = st.builds(
    happened,
    happenings,
    records,
    wants_amd=st.booleans(),
    confirms=st.booleans(),
    accepts=st.booleans(),
)


@given(lives)
def test_a_call_ends_at_most_once_and_last(life: Life) -> None:
    life.run_timers()
    assert len(life.endings) <= 1
    if life.endings:
        writes = [e for e in life.effects if isinstance(e, WriteAck | WriteAnswered | WriteEnd)]
        assert isinstance(writes[-1], WriteEnd)
        assert not life.followed.is_up


@given(lives)
def test_the_ack_is_written_before_anything_but_a_failure(life: Life) -> None:
    life.run_timers()
    writes = [e for e in life.effects if isinstance(e, WriteAck | WriteAnswered | WriteEnd)]
    if any(isinstance(e, WriteAck | WriteAnswered) for e in writes):
        assert isinstance(writes[0], WriteAck)


@given(st.lists(channels, max_size=25), records, st.booleans())
def test_asterisk_alone_writes_one_ack_and_one_answer(
    events: list[AmiEvent], record: Record | None, wants_amd: bool
) -> None:
    life = Life(claimed(wants_amd=wants_amd), record=record).dial().feed(*events).run_timers()
    assert len(life.effects_of(WriteAck)) == 1
    assert len(life.effects_of(WriteAnswered)) <= 1


@given(lives, causes)
def test_a_hangup_always_leads_to_the_end(life: Life, cause: int | None) -> None:
    life.feed(OriginateAccepted(), HungUp(uniqueid=UNIQUEID, cause=cause, cause_text=None))
    life.run_timers()
    assert len(life.endings) == 1


@given(lives)
def test_a_reconnect_without_the_channel_leads_to_the_end(life: Life) -> None:
    """Even if nothing is ever heard of the call again."""
    life.feed(OriginateSent(attempt=1), OriginateAccepted())
    life.run_timers()
    life.feed(GapFound(), ChannelNotListed(boot="b"))
    life.run_timers()
    assert len(life.endings) == 1


@given(lives, st.lists(channels, max_size=15))
def test_an_answered_call_ends_answered_or_unknown(life: Life, more: list[AmiEvent]) -> None:
    was_answered = life.followed.is_answered
    answered_at = life.followed.call.answered_at
    life.feed(*more).run_timers()
    if was_answered:
        assert life.followed.call.answered_at is not None
        for ending in life.endings:
            assert ending.result in (Result.ANSWERED, Result.UNKNOWN)
            assert ending.answered_at is not None or life.followed.call.answered_at == answered_at


@given(lives)
def test_an_ended_call_changes_no_more(life: Life) -> None:
    life.feed(OriginateAccepted(), HungUp(uniqueid=UNIQUEID, cause=17, cause_text=None))
    life.run_timers()
    over = life.followed
    life.feed(ChannelUp(uniqueid=UNIQUEID), GapFound(), ChannelListed(channel="x", is_up=True))
    assert life.followed == over


@given(lives)
def test_a_hand_over_is_noted_once_or_first_as_late(life: Life) -> None:
    life.run_timers()
    notes = [note.handed for note in life.effects_of(NoteHandOver)]
    assert len(notes) <= 1 or (len(notes) == 2 and notes[0] == LATE)
    assert not notes or life.followed.confirms


@given(lives)
def test_who_was_not_handed_over_is_told_and_noted(life: Life) -> None:
    """What Multcall is told of an answered call is what the PBX is judged by."""
    life.run_timers()
    notes = [note.handed for note in life.effects_of(NoteHandOver)]
    for ending in life.endings:
        is_told = ending.error is not None and ending.error.code == "not_handed_over"
        if notes and ending.result is Result.ANSWERED and life.followed.is_answered:
            assert is_told == (notes[-1] != YES)
        if is_told:
            assert ending.result is Result.ANSWERED


@given(st.lists(channels, max_size=12), causes)
def test_an_answered_call_is_handed_over_or_said_not_to_be(
    events: list[AmiEvent], cause: int | None
) -> None:
    """Without a gap nothing in between: reported, the customer's own hangup, or an error."""
    life = Life(claimed(confirms=True)).dial().feed(*events)
    life.feed(HungUp(uniqueid=CALL_ID, cause=cause, cause_text=None)).run_timers()
    if life.followed.call.answered_at is not None:
        (ending,) = life.endings
        is_excused = life.followed.handed == YES or life.followed.cleared
        assert is_excused or (ending.error is not None)
