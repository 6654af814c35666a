"""What holds for a call whatever happens to it, in whatever order."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import (
    Call,
    CodeState,
    Effect,
    Event,
    IllegalTransition,
    Queued,
    State,
    advance,
)
from tests.unit.calls import CALL_ID, events


def tried(happenings: list[Event]) -> list[tuple[Call, Call, Event, tuple[Effect, ...]]]:
    """The legal steps of a life: call before, call after, event, effects."""
    call, steps = Call(call_id=CALL_ID), []
    for event in happenings:
        try:
            after, effects = advance(call, event)
        except IllegalTransition:
            continue
        steps.append((call, after, event, effects))
        call = after
    return steps


lives = st.lists(events, max_size=40).map(tried)


@given(lives)
def test_there_is_one_response_exactly_when_the_call_is_done(
    steps: list[tuple[Call, Call, Event, tuple[Effect, ...]]],
) -> None:
    sent = 0
    for _, after, _, effects in steps:
        sent += effects.count(Effect.SEND_RESPONSE)
        assert sent == (after.state is State.DONE)


@given(lives)
def test_only_the_acceptance_sends_an_ack_and_only_once(
    steps: list[tuple[Call, Call, Event, tuple[Effect, ...]]],
) -> None:
    acks = [after for _, after, _, effects in steps for e in effects if e is Effect.SEND_ACK]
    assert len(acks) <= 1
    assert all(after.state is State.ACCEPTED and after.accepted_at for after in acks)
    assert all((after.uniqueid is not None) == bool(acks) for _, after, _, _ in steps[-1:])


@given(lives)
def test_a_slot_is_freed_exactly_as_often_as_one_was_taken(
    steps: list[tuple[Call, Call, Event, tuple[Effect, ...]]],
) -> None:
    count = Counter[str]()
    for _, after, event, effects in steps:
        count["taken"] += isinstance(event, Queued)
        count["freed"] += effects.count(Effect.FREE_PBX_SLOT)
        holds = after.pbx is not None and after.state not in (State.ENDED, State.DONE)
        assert count["taken"] - count["freed"] == holds


@given(lives)
def test_epochs_rise_and_codes_are_awaited_only_after_an_ack(
    steps: list[tuple[Call, Call, Event, tuple[Effect, ...]]],
) -> None:
    for before, after, event, _ in steps:
        assert after.epoch - before.epoch == isinstance(event, Queued)
        if after.code_state in (CodeState.AWAITED, CodeState.TIMED_OUT):
            assert after.accepted_at is not None
        assert (after.state is State.DONE) <= (after.code_state is not CodeState.AWAITED)
        assert (after.code_json != "null") == (after.code_state is CodeState.CAME)


@given(st.lists(events, max_size=30))
def test_the_same_events_give_the_same_call(happenings: list[Event]) -> None:
    assert tried(happenings) == tried(happenings)
