"""Every state against every event, and the rules of epoch, PBX and code beside them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from dialer.domain.call import (
    LEGAL,
    Accepted,
    Answered,
    Call,
    Claimed,
    CodeCame,
    CodeState,
    CodeTimedOut,
    Effect,
    Ended,
    Event,
    IllegalTransition,
    Queued,
    State,
    Unclaimed,
    advance,
)
from tests.unit.calls import CALL_ID, CODE, ENDING, EVENTS, T0, WAY_TO, call_in, lived

#: Written here a second time, by hand: what the table of the code must say.
AFTER = {
    (State.ADMITTED, Queued): State.QUEUED,
    (State.ADMITTED, Ended): State.DONE,
    (State.ADMITTED, CodeCame): State.ADMITTED,
    (State.QUEUED, Queued): State.QUEUED,
    (State.QUEUED, Claimed): State.ORIGINATING,
    (State.QUEUED, Ended): State.DONE,
    (State.QUEUED, CodeCame): State.QUEUED,
    (State.ORIGINATING, Unclaimed): State.ADMITTED,
    (State.ORIGINATING, Accepted): State.ACCEPTED,
    (State.ORIGINATING, Ended): State.DONE,
    (State.ORIGINATING, CodeCame): State.ORIGINATING,
    (State.ACCEPTED, Answered): State.ANSWERED,
    (State.ACCEPTED, Ended): State.ENDED,
    (State.ACCEPTED, CodeCame): State.ACCEPTED,
    (State.ACCEPTED, CodeTimedOut): State.ACCEPTED,
    (State.ANSWERED, Ended): State.ENDED,
    (State.ANSWERED, CodeCame): State.ANSWERED,
    (State.ANSWERED, CodeTimedOut): State.ANSWERED,
    (State.ENDED, CodeCame): State.DONE,
    (State.ENDED, CodeTimedOut): State.DONE,
}
EVERY = [(state, kind) for state in State for kind in get_args(Event)]


def test_the_samples_name_every_state_and_every_event() -> None:
    assert set(WAY_TO) == set(State)
    assert set(EVENTS) == set(LEGAL) == set(get_args(Event))
    assert all(call_in(state).state is state for state in State)


@pytest.mark.parametrize(("state", "kind"), EVERY, ids=lambda x: getattr(x, "__name__", str(x)))
def test_an_event_is_legal_only_in_the_states_of_the_table(state: State, kind: type[Event]) -> None:
    call = call_in(state)
    assert (state in LEGAL[kind]) == ((state, kind) in AFTER)
    if (state, kind) in AFTER:
        assert advance(call, EVENTS[kind])[0].state is AFTER[state, kind]
    else:
        before = replace(call)
        with pytest.raises(IllegalTransition) as refused:
            advance(call, EVENTS[kind])
        assert call == before
        assert kind.__name__ in str(refused.value)
        assert refused.value.code == "illegal_transition"


def test_a_new_call_was_neither_queued_nor_dialed() -> None:
    call = Call(call_id=CALL_ID)
    assert (call.state, call.epoch, call.attempts) == (State.ADMITTED, 0, 0)


def test_queueing_an_admitted_call_has_no_effects() -> None:
    call, effects = advance(Call(call_id=CALL_ID), Queued(pbx="pbx01"))
    assert (call.pbx, call.epoch, effects) == ("pbx01", 1, ())


def test_a_move_raises_the_epoch_and_frees_the_slot() -> None:
    call, effects = advance(call_in(State.QUEUED), Queued(pbx="pbx02"))
    assert (call.pbx, call.epoch, effects) == ("pbx02", 2, (Effect.FREE_PBX_SLOT,))


@pytest.mark.parametrize(("pbx", "epoch"), [("pbx02", 1), ("pbx01", 0), ("pbx01", 2)])
def test_a_claim_of_another_pbx_or_epoch_is_void(pbx: str, epoch: int) -> None:
    with pytest.raises(IllegalTransition, match=rf"{pbx} epoch {epoch} is void"):
        advance(call_in(State.QUEUED), Claimed(pbx=pbx, epoch=epoch, at=T0))


def test_a_call_given_back_has_no_pbx_and_was_never_dialed() -> None:
    claimed = call_in(State.ORIGINATING)
    assert (claimed.dialed_at, claimed.attempts) == (T0, 1)
    call, effects = advance(claimed, Unclaimed())
    assert (call.pbx, call.dialed_at, effects) == (None, None, (Effect.FREE_PBX_SLOT,))
    assert (call.epoch, call.attempts) == (1, 0)
    again, _ = advance(call, Queued(pbx="pbx01"))
    assert again.epoch == 2


def test_an_accepted_call_sends_its_ack_and_awaits_its_code() -> None:
    call, effects = advance(call_in(State.ORIGINATING), EVENTS[Accepted])
    assert effects == (Effect.SEND_ACK,)
    assert (call.uniqueid, call.attempts) == (CALL_ID, 1)
    assert (call.accepted_at, call.code_state) == (T0 + timedelta(seconds=1), CodeState.AWAITED)


def test_a_code_that_came_before_the_ack_is_kept_and_not_awaited() -> None:
    early, _ = advance(call_in(State.ORIGINATING), CODE)
    call, effects = advance(early, EVENTS[Accepted])
    assert (call.code_state, call.code_json) == (CodeState.CAME, '"C-1"')
    assert effects == (Effect.SEND_ACK,)
    done, effects = advance(call, Ended(ending=ENDING))
    assert done.state is State.DONE
    assert effects == (Effect.FREE_PBX_SLOT, Effect.SEND_RESPONSE)


def test_a_call_that_ends_before_its_code_frees_its_slot_at_once() -> None:
    ended, effects = advance(call_in(State.ACCEPTED), Ended(ending=ENDING))
    assert (ended.state, ended.ending, effects) == (State.ENDED, ENDING, (Effect.FREE_PBX_SLOT,))
    done, effects = advance(ended, CODE)
    assert (done.state, done.code_json) == (State.DONE, '"C-1"')
    assert effects == (Effect.SEND_RESPONSE,)


def test_a_late_code_lets_the_ended_call_go_without_it() -> None:
    done, effects = advance(call_in(State.ENDED), CodeTimedOut())
    assert (done.code_state, done.code_json) == (CodeState.TIMED_OUT, "null")
    assert effects == (Effect.SEND_RESPONSE,)


def test_a_call_whose_code_timed_out_is_answered_at_its_end() -> None:
    late, effects = advance(call_in(State.ANSWERED), CodeTimedOut())
    assert (late.state, effects) == (State.ANSWERED, ())
    done, effects = advance(late, Ended(ending=ENDING))
    assert done.state is State.DONE
    assert Effect.SEND_RESPONSE in effects


def test_a_late_code_counts_if_the_call_has_not_ended() -> None:
    late, _ = advance(call_in(State.ACCEPTED), CodeTimedOut())
    coded, effects = advance(late, CODE)
    assert (coded.code_state, coded.code_json, effects) == (CodeState.CAME, '"C-1"', ())


def test_a_second_code_is_refused() -> None:
    coded, _ = advance(call_in(State.ACCEPTED), CODE)
    with pytest.raises(IllegalTransition, match="has its code already"):
        advance(coded, CodeCame(code_json="2"))


@pytest.mark.parametrize("first", [CODE, CodeTimedOut()])
def test_no_code_can_time_out_that_is_not_awaited(first: Event) -> None:
    call, _ = advance(call_in(State.ACCEPTED), first)
    with pytest.raises(IllegalTransition, match="no code is awaited"):
        advance(call, CodeTimedOut())


def test_a_call_without_a_pbx_ends_with_only_a_response() -> None:
    _, effects = advance(Call(call_id=CALL_ID), Ended(ending=ENDING))
    assert effects == (Effect.SEND_RESPONSE,)


def test_an_answer_that_only_the_ending_knows_of_is_noted() -> None:
    answered_at = T0 + timedelta(seconds=3)
    told = replace(ENDING, answered_at=answered_at)
    call, _ = advance(call_in(State.ACCEPTED), Ended(ending=told))
    assert call.answered_at == answered_at


def test_a_recorded_answer_has_precedence_over_the_ending() -> None:
    told = replace(ENDING, answered_at=T0 + timedelta(seconds=8))
    call, _ = advance(call_in(State.ANSWERED), Ended(ending=told))
    assert call.answered_at == T0 + timedelta(seconds=5)


def test_a_whole_life_sends_one_ack_and_one_response() -> None:
    call, effects = lived(EVENTS[kind] for kind in WAY_TO[State.DONE])
    assert call.state is State.DONE
    assert effects == [Effect.SEND_ACK, Effect.FREE_PBX_SLOT, Effect.SEND_RESPONSE]
