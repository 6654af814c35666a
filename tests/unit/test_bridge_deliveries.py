"""Codes of a cell: delivered, or buried with a reason; and what a wait for one does."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dialer.bridge import codes
from dialer.bridge.codes import Codes
from dialer.errors import StoreUnavailable
from dialer.multcall.wire import STRICT
from dialer.store.ledger import Delivery
from tests.unit.stand_ins import Notes, a

CODE = b'{"IdRequisicao": "r-1", "CodLigacao": 7}'


def its_codes(notes: Notes, delivery: Any = Delivery.STORED) -> Codes:
    keys = a(code_hand=lambda bridge: f"hand of {bridge}")
    ledger = a(
        cell="C",
        keys=keys,
        wire=a(code="codes"),
        head="LEFT",
        code=notes.of("code", delivery),
        bury=notes.of("bury"),
    )
    clock = a(now=lambda: datetime(2026, 5, 4, 12, 0, tzinfo=UTC))
    cell = a(bridge="b", name="C", ledger=ledger, wire=STRICT, clock=clock)
    client: Any = "its client"
    return Codes(cell, client)


async def test_a_code_is_delivered_to_its_call() -> None:
    notes = Notes()
    await its_codes(notes)._deliver_or_bury(CODE)
    assert notes == [("code", "b", CODE, {"call_id": "C:r-1", "code_json": "7"})]


@pytest.mark.parametrize(
    ("raw", "reply", "reason"),
    [
        (CODE, Delivery.ORPHAN, "orphan_code"),
        (CODE, Delivery.SECOND, "duplicate_code"),
        (CODE, ValueError("a defect"), "internal_error"),
        (b"no code", Delivery.STORED, "invalid_code"),
    ],
)
async def test_a_code_that_nobody_can_have_is_buried(
    raw: bytes, reply: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    await its_codes(notes, reply)._deliver_or_bury(raw)
    name, hand, buried, entry = notes[-1]
    assert (name, hand, buried) == ("bury", "hand of b", raw)
    said = json.loads(entry)
    assert (said["reason"], said["source"]) == (reason, "code")
    assert notes.names == (["bury"] if raw != CODE else ["code", "bury"])
    logged = reason in ("internal_error", "invalid_code")
    assert [vars(r)["cell"] for r in caplog.records] == (["C"] if logged else [])


async def test_an_error_of_redis_is_not_the_code_s() -> None:
    notes = Notes()
    with pytest.raises(ResponseError):
        await its_codes(notes, ResponseError("no rights"))._deliver_or_bury(CODE)
    assert notes.names == ["code"]


@pytest.mark.parametrize("is_lost", [True, False])
async def test_redis_moves_the_next_code_to_the_hand(
    monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    notes = Notes()
    lost = StoreUnavailable("lost") if is_lost else None
    monkeypatch.setattr(codes, "wait_and_move", notes.of("wait", lost))
    monkeypatch.setattr(asyncio, "sleep", notes.of("sleep"))
    await its_codes(notes)._wait()
    more = {"head": "LEFT", "within_s": codes.BLOCK_S}
    waited = ("wait", "its client", "codes", "hand of b", more)
    assert notes == [waited, *([("sleep", codes.LATE_EVERY_S)] if is_lost else [])]
