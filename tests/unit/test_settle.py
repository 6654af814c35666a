"""A call that hung up and whose answer nobody saw: its record in AstDB decides."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from dialer.domain.call import Call, Ending, Result, State
from dialer.domain.request import CallRequest
from workers.ami.events import HungUp, OriginateEnded
from workers.calls.tracker import Followed
from workers.recovery.reconcile import Reconciler

AT = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
ANSWERED, ENDED = AT.timestamp() - 20, AT.timestamp() - 1


def hung_up(state: State = State.ACCEPTED, *, cause: int = 16) -> Followed:
    """A call of which the hangup was heard, and of what came before it this much."""
    return Followed(
        call=Call(call_id="C:1", state=state),
        request=CallRequest(cell="C", request_id="1", request_id_json="1", number="5511987654321"),
        boot="b",
        hangup=HungUp(uniqueid="C:1", cause=cause, cause_text=None),
    )


async def settled(
    note: str | None,
    *,
    cause: int = 16,
    originate: bool = True,
    followed: Followed | None = None,
) -> tuple[list[datetime], list[Ending]]:
    """What becomes of such a call: ended by its events, or by what else is known."""
    by_events: list[datetime] = []
    by_record: list[Ending] = []
    followed = followed or hung_up(cause=cause)
    if originate:
        followed.originate = OriginateEnded(action_id="C:1#1", answered=False, reason=3)

    async def read(_: str) -> str | None:
        return note

    tracker = SimpleNamespace(
        calls={"C:1": followed},
        over=lambda _, at: by_events.append(at),
        end=lambda _, ending: by_record.append(ending),
    )
    reconciler = Reconciler(cast(Any, SimpleNamespace(note=read)), cast(Any, tracker))
    reconciler.has_include = True
    await reconciler.settle(followed, AT)
    return by_events, by_record


async def test_a_call_with_a_record_was_answered_and_has_its_true_times() -> None:
    _, endings = await settled(f"answered={ANSWERED} ended={ENDED} cause=16 amd= agent=1001")
    (ending,) = endings
    assert ending.result is Result.ANSWERED
    assert ending.answered_at is not None
    assert (ending.ended_at - ending.answered_at).total_seconds() == 19
    assert (ending.cause, ending.agent, ending.error) == (16, "1001", None)


async def test_a_call_without_a_record_ends_by_what_its_events_said() -> None:
    assert await settled(None) == ([AT], [])
    assert await settled(None, cause=17, originate=False) == ([AT], [])


async def test_a_call_of_which_neither_record_nor_events_tell_was_not_answered() -> None:
    _, (ending,) = await settled(None, cause=0, originate=False)
    assert ending.error is not None
    assert (ending.result, ending.error.code) == (Result.FAILED, "end_not_seen")


async def test_an_adopted_call_learns_its_operator_from_its_record() -> None:
    followed = hung_up(State.ANSWERED)
    record = f"answered={ANSWERED} ended={ENDED} cause=16 amd=HUMAN agent=Maria wait=4"
    assert await settled(record, followed=followed) == ([AT], [])
    assert (followed.amd, followed.agent, followed.wait_s) == ("HUMAN", "Maria", 4.0)


async def test_what_was_heard_of_an_operator_counts_before_the_record() -> None:
    followed = hung_up(State.ANSWERED)
    followed.agent, followed.wait_s = "Ana", 4.25
    record = f"answered={ANSWERED} ended={ENDED} cause=16 amd= agent=Maria wait=4"
    await settled(record, followed=followed)
    assert (followed.agent, followed.wait_s) == ("Ana", 4.25)


async def test_an_adopted_answered_call_without_a_record_ends_by_its_events() -> None:
    followed = hung_up(State.ANSWERED, cause=0)
    assert await settled(None, originate=False, followed=followed) == ([AT], [])


async def test_a_wait_that_was_heard_stays_where_the_record_knows_of_no_agent() -> None:
    followed = hung_up(State.ANSWERED)
    followed.wait_s = 12.3
    await settled(
        f"answered={ANSWERED} ended={ENDED} cause=16 amd= agent= wait=", followed=followed
    )
    assert (followed.agent, followed.wait_s) == (None, 12.3)


async def test_what_was_heard_is_in_the_ending_that_nobody_heard() -> None:
    followed = hung_up()
    followed.amd, followed.agent, followed.wait_s = "HUMAN", "Ana", 4.25
    record = f"answered={ANSWERED} ended={ENDED} cause=16 amd= agent= wait="
    _, (ending,) = await settled(record, followed=followed)
    assert (ending.amd, ending.agent, ending.wait_s) == ("HUMAN", "Ana", 4.25)
