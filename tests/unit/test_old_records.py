"""AstDB records that nobody needs any more are deleted; those that may be needed stay."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.unit.parts import entry, parts

LONG_AGO = (datetime.now(UTC) - timedelta(hours=25)).timestamp()
NOW = datetime.now(UTC).timestamp()
TAIL = "cause=16 amd= agent="


async def test_only_records_of_calls_long_over_are_deleted() -> None:
    made = parts()
    made.asterisk.astdb = {
        "C:over": f"answered={LONG_AGO} ended={LONG_AGO} {TAIL}",
        "C:crashed": f"answered={LONG_AGO} ended= {TAIL}",
        "C:broken": "what is this",
        "C:fresh": f"answered={NOW} ended={NOW} {TAIL}",
        "C:up": f"answered={LONG_AGO} ended= {TAIL}",
    }
    up = made.tracker.follow(entry(), "t")
    made.calls.put(replace(up, call=replace(up.call, call_id="C:up")))
    await made.reconciler.delete_old_records()
    assert made.asterisk.forgotten == ["C:over", "C:crashed", "C:broken"]
