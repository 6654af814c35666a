"""AstDB records that nobody needs any more are deleted; those that may be needed stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from workers.recovery.reconcile import Reconciler

LONG_AGO = (datetime.now(UTC) - timedelta(hours=25)).timestamp()
NOW = datetime.now(UTC).timestamp()
TAIL = "cause=16 amd= agent="


@dataclass(slots=True)
class Link:
    """An AMI link that holds records and remembers what was deleted."""

    records: dict[str, str]
    deleted: list[str] = field(default_factory=list)

    async def notes(self) -> dict[str, str]:
        return self.records

    async def forget(self, call_id: str) -> None:
        self.deleted.append(call_id)


async def test_only_records_of_calls_long_over_are_deleted() -> None:
    link = Link(
        {
            "C:over": f"answered={LONG_AGO} ended={LONG_AGO} {TAIL}",
            "C:crashed": f"answered={LONG_AGO} ended= {TAIL}",
            "C:broken": "what is this",
            "C:fresh": f"answered={NOW} ended={NOW} {TAIL}",
            "C:up": f"answered={LONG_AGO} ended= {TAIL}",
        }
    )
    tracker = SimpleNamespace(calls={"C:up": object()})
    await Reconciler(cast(Any, link), cast(Any, tracker)).forget_old()
    assert link.deleted == ["C:over", "C:crashed", "C:broken"]
