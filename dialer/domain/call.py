"""State machine of one call: its states, its events, and the states in which each is legal.

`advance` and `LEGAL` are the specification. The ledger's Lua steps get their legal states from
`LEGAL`, so that Redis and this module cannot disagree. Does not know Redis, Celery, AMI or the
clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from dialer.errors import DialerError


class State(StrEnum):
    """State of a call. Only `DONE` is final. The Response is sent in the step to `DONE`."""

    ADMITTED = "admitted"
    QUEUED = "queued"
    ORIGINATING = "originating"
    ACCEPTED = "accepted"
    ANSWERED = "answered"
    ENDED = "ended"
    DONE = "done"


class CodeState(StrEnum):
    """State of the call code, Multcall's own number for the call (CODLIGACAO)."""

    NONE = "none"  # no ACK was sent yet, and no code arrived
    AWAITED = "awaited"
    CAME = "came"
    TIMED_OUT = "timed_out"


class Result(StrEnum):
    """`Resultado` of the Response."""

    ANSWERED = "ANSWERED"
    BUSY = "BUSY"
    NO_ANSWER = "NO_ANSWER"
    CONGESTION = "CONGESTION"
    REJECTED = "REJECTED"
    INVALID_NUMBER = "INVALID_NUMBER"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"
    INVALID_REQUEST = "INVALID_REQUEST"


class IllegalTransition(DialerError):
    """The event is not legal in the call's state; nothing was changed."""

    code = "illegal_transition"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """`Erro` of the Response: a stable code and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended.

    `cause` is the Q.850 hangup cause (0-127), None if unknown. `answered_at` is set only if
    recovery found an answer that the ledger may lack. `wait_s` is how long the answered customer
    waited for an agent, in seconds.
    """

    result: Result
    ended_at: datetime
    cause: int | None = None
    cause_text: str | None = None
    answered_at: datetime | None = None
    amd: str | None = None
    agent: str | None = None
    wait_s: float | None = None
    error: CallError | None = None


# --- events: what can happen to a call ---------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A PBX was chosen for an admitted call, or another one for a queued call. Epoch + 1."""

    pbx: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The PBX's worker claimed the call; from now on no other worker dials it."""

    pbx: str
    epoch: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclaimed:
    """The worker gave the call back; nothing of it was sent to Asterisk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Asterisk accepted the Originate; `attempts` is how many were sent (1 or more)."""

    at: datetime
    uniqueid: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The customer answered."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The call is over."""

    ending: Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCame:
    """The call code arrived; `code_json` is its unchanged JSON text."""

    code_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTimedOut:
    """The call code did not arrive within `timeout_command_ack`."""


Event = Queued | Claimed | Unclaimed | Accepted | Answered | Ended | CodeCame | CodeTimedOut

#: The legal states of each event.
LEGAL: Final[Mapping[type[Event], frozenset[State]]] = {
    Queued: frozenset({State.ADMITTED, State.QUEUED}),
    Claimed: frozenset({State.QUEUED}),
    Unclaimed: frozenset({State.ORIGINATING}),
    Accepted: frozenset({State.ORIGINATING}),
    Answered: frozenset({State.ACCEPTED}),
    Ended: frozenset(
        {State.ADMITTED, State.QUEUED, State.ORIGINATING, State.ACCEPTED, State.ANSWERED}
    ),
    CodeCame: frozenset(set(State) - {State.DONE}),
    CodeTimedOut: frozenset({State.ACCEPTED, State.ANSWERED, State.ENDED}),
}


class Effect(StrEnum):
    """What the caller must do for a transition, in the same atomic step."""

    SEND_ACK = "send_ack"
    SEND_RESPONSE = "send_response"
    FREE_PBX_SLOT = "free_pbx_slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, as in the ledger.

    `epoch` counts how often it was queued to a PBX; a task of an older epoch is void.
    """

    call_id: str
    state: State = State.ADMITTED
    epoch: int = 0
    pbx: str | None = None
    attempts: int = 0
    uniqueid: str | None = None
    code_state: CodeState = CodeState.NONE
    code_json: str = "null"
    dialed_at: datetime | None = None
    accepted_at: datetime | None = None
    answered_at: datetime | None = None
    ending: Ending | None = None


def advance(call: Call, event: Event) -> tuple[Call, tuple[Effect, ...]]:
    """Apply `event` to `call`; return the new call and the effects, in order.

    Raises:
        IllegalTransition: the event is not legal in the call's state, epoch, PBX or code state.
    """
    if call.state not in LEGAL[type(event)]:
        raise IllegalTransition(f"{type(event).__name__} is not legal for a call {call.state}")
    match event:
        case Queued(pbx=pbx):
            return _queued(call, pbx)
        case Claimed():
            return _claimed(call, event)
        case Unclaimed():
            unclaimed = replace(call, state=State.ADMITTED, pbx=None, dialed_at=None, attempts=0)
            return unclaimed, (Effect.FREE_PBX_SLOT,)
        case Accepted():
            return _accepted(call, event)
        case Answered(at=at):
            return replace(call, state=State.ANSWERED, answered_at=at), ()
        case Ended(ending=ending):
            return _ended(call, ending)
        case CodeCame(code_json=code_json):
            return _code_came(call, code_json)
        case CodeTimedOut():
            return _code_timed_out(call)
        case _:
            assert_never(event)


def _queued(call: Call, pbx: str) -> tuple[Call, tuple[Effect, ...]]:
    moved = call.state is State.QUEUED
    queued = replace(call, state=State.QUEUED, pbx=pbx, epoch=call.epoch + 1)
    return queued, (Effect.FREE_PBX_SLOT,) if moved else ()


def _claimed(call: Call, event: Claimed) -> tuple[Call, tuple[Effect, ...]]:
    if (call.pbx, call.epoch) != (event.pbx, event.epoch):
        raise IllegalTransition(
            f"a task for {event.pbx} epoch {event.epoch} is void: "
            f"the call is queued to {call.pbx} epoch {call.epoch}"
        )
    return replace(call, state=State.ORIGINATING, dialed_at=event.at, attempts=1), ()


def _accepted(call: Call, event: Accepted) -> tuple[Call, tuple[Effect, ...]]:
    early = call.code_state is CodeState.CAME
    accepted = replace(
        call,
        state=State.ACCEPTED,
        accepted_at=event.at,
        uniqueid=event.uniqueid,
        attempts=event.attempts,
        code_state=CodeState.CAME if early else CodeState.AWAITED,
    )
    return accepted, (Effect.SEND_ACK,)


def _ended(call: Call, ending: Ending) -> tuple[Call, tuple[Effect, ...]]:
    had_slot = (Effect.FREE_PBX_SLOT,) if call.pbx is not None else ()
    ended = replace(
        call,
        state=State.ENDED,
        ending=ending,
        answered_at=call.answered_at or ending.answered_at,
    )
    if ended.code_state is CodeState.AWAITED:
        return ended, had_slot
    return replace(ended, state=State.DONE), (*had_slot, Effect.SEND_RESPONSE)


def _code_came(call: Call, code_json: str) -> tuple[Call, tuple[Effect, ...]]:
    if call.code_state is CodeState.CAME:
        raise IllegalTransition("the call has its code already")
    coded = replace(call, code_state=CodeState.CAME, code_json=code_json)
    if coded.state is State.ENDED:
        return replace(coded, state=State.DONE), (Effect.SEND_RESPONSE,)
    return coded, ()


def _code_timed_out(call: Call) -> tuple[Call, tuple[Effect, ...]]:
    if call.code_state is not CodeState.AWAITED:
        raise IllegalTransition(f"no code is awaited: it is {call.code_state}")
    late = replace(call, code_state=CodeState.TIMED_OUT)
    if late.state is State.ENDED:
        return replace(late, state=State.DONE), (Effect.SEND_RESPONSE,)
    return late, ()
