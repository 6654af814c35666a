"""A call that hung up and whose answer nobody saw: its record in AstDB decides."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from dialer.domain.call import Ending, Result
from workers.reconcile import Reconciler

AT = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
ANSWERED, ENDED = AT.timestamp() - 20, AT.timestamp() - 1


async def settled(note: str | None) -> tuple[list[datetime], list[Ending]]:
    """What becomes of such a call: ended by its events, or by its record."""
    by_events: list[datetime] = []
    by_record: list[Ending] = []
    followed = SimpleNamespace(call=SimpleNamespace(call_id="C:1"))

    async def read(_: str) -> str | None:
        return note

    tracker = SimpleNamespace(
        calls={"C:1": followed},
        over=lambda _, at: by_events.append(at),
        end=lambda _, ending: by_record.append(ending),
    )
    reconciler = Reconciler(cast(Any, SimpleNamespace(note=read)), cast(Any, tracker))
    await reconciler.settle(cast(Any, followed), AT)
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
