"""Calls in every state and events of every kind, for tests of the state machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from hypothesis import strategies as st

from dialer.domain.call import (
    Accepted,
    Answered,
    Call,
    CallError,
    Claimed,
    CodeCame,
    CodeTimedOut,
    Effect,
    Ended,
    Ending,
    Event,
    Queued,
    Result,
    State,
    Unclaimed,
    advance,
)

CALL_ID: Final = "ASR_TIM:r-1"
T0: Final = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ENDING: Final = Ending(result=Result.BUSY, ended_at=T0 + timedelta(seconds=9), cause=17)
CODE: Final = CodeCame(code_json='"C-1"')

#: One event of each kind, legal for the call of `call_in` wherever its state admits the kind.
EVENTS: Final[Mapping[type[Event], Event]] = {
    Queued: Queued(pbx="pbx01"),
    Claimed: Claimed(pbx="pbx01", epoch=1, at=T0),
    Unclaimed: Unclaimed(),
    Accepted: Accepted(at=T0 + timedelta(seconds=1), uniqueid=CALL_ID, attempts=1),
    Answered: Answered(at=T0 + timedelta(seconds=5)),
    Ended: Ended(ending=ENDING),
    CodeCame: CODE,
    CodeTimedOut: CodeTimedOut(),
}

#: The shortest way from an admitted call to each state.
WAY_TO: Final[Mapping[State, Sequence[type[Event]]]] = {
    State.ADMITTED: (),
    State.QUEUED: (Queued,),
    State.ORIGINATING: (Queued, Claimed),
    State.ACCEPTED: (Queued, Claimed, Accepted),
    State.ANSWERED: (Queued, Claimed, Accepted, Answered),
    State.ENDED: (Queued, Claimed, Accepted, Answered, Ended),
    State.DONE: (Queued, Claimed, Accepted, Answered, Ended, CodeTimedOut),
}


def lived(events: Iterable[Event]) -> tuple[Call, list[Effect]]:
    """A call after those events, and every effect on the way."""
    call = Call(call_id=CALL_ID)
    effects: list[Effect] = []
    for event in events:
        call, new = advance(call, event)
        effects += new
    return call, effects


def call_in(state: State) -> Call:
    return lived(EVENTS[kind] for kind in WAY_TO[state])[0]


pbxs = st.sampled_from(["pbx01", "pbx02"])
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
)
endings = st.builds(
    Ending,
    result=st.sampled_from(Result),
    ended_at=moments,
    cause=st.none() | st.integers(0, 127),
    answered_at=st.none() | moments,
    error=st.none() | st.just(CallError(code="pbx_lost", message="gone")),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Queued, pbx=pbxs),
    st.builds(Claimed, pbx=pbxs, epoch=st.integers(0, 3), at=moments),
    st.just(Unclaimed()),
    st.builds(Accepted, at=moments, uniqueid=st.just(CALL_ID), attempts=st.integers(1, 3)),
    st.builds(Answered, at=moments),
    st.builds(Ended, ending=endings),
    st.builds(CodeCame, code_json=st.sampled_from(['"C-1"', "7", '"ç"'])),
    st.just(CodeTimedOut()),
)
