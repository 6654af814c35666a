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
from dialer.bridge.life import ALONE_AFTER_S, ALONE_AGE_S, BLOCK_QUIET_S, BLOCK_S
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
    cell = a(bridge="b", name="C", ledger=ledger, wire=STRICT, clock=clock, reply_within_s=7.0)
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


@pytest.mark.parametrize(("is_quiet", "within_s"), [(False, BLOCK_S), (True, BLOCK_QUIET_S)])
async def test_redis_moves_the_next_code_to_the_hand(
    monkeypatch: pytest.MonkeyPatch, is_quiet: bool, within_s: float
) -> None:
    notes = Notes()
    monkeypatch.setattr(codes, "wait_and_move", notes.of("wait", CODE))
    one = its_codes(notes)
    one.life.is_quiet = is_quiet
    assert await one._wait_once() == CODE
    more = {"head": "LEFT", "within_s": within_s, "reply_within_s": 7.0}
    assert notes == [("wait", "its client", "codes", "hand of b", more)]


class Waits:
    """Stands for the waits: `found` has the seconds that each took, and the code that it found."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: tuple[float, Any]) -> None:
        self.found, self.now, self.slept = list(found), 100.0, list[float]()
        monkeypatch.setattr(codes, "wait_and_move", self.wait)
        clock = a(time=lambda: self.now)
        loop = a(get_running_loop=lambda: clock, sleep=self.sleep, gather=asyncio.gather)
        monkeypatch.setattr(codes, "asyncio", loop)

    async def wait(self, *_: Any, **__: Any) -> Any:
        took_s, found = self.found.pop(0)
        self.now += took_s
        if isinstance(found, Exception):
            raise found
        return found

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize(
    ("found", "delivered"),
    [
        ([(0.04, CODE), (0.04, CODE), (BLOCK_S, None)], 2),  # each alone, until none comes
        ([(0.04, CODE), (ALONE_AFTER_S / 2, CODE)], 1),  # more may have come with the second
        ([(0.04, CODE), (ALONE_AGE_S, CODE)], 1),  # the hand was read long ago
        ([(0.1, StoreUnavailable("lost"))], 0),
    ],
)
async def test_a_code_that_comes_alone_is_delivered_at_once(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[float, Any]], delivered: int
) -> None:
    notes = Notes()
    waits = Waits(monkeypatch, *found)
    await its_codes(notes)._deliver_each_alone()
    assert notes.names == ["code"] * delivered
    assert waits.found == []
    is_lost = isinstance(found[-1][1], Exception)
    assert waits.slept == ([codes.LATE_EVERY_S] if is_lost else [])


async def test_the_codes_of_a_quiet_cell_wait_on(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits(monkeypatch, (BLOCK_QUIET_S, None), (BLOCK_QUIET_S, None), (1.0, CODE))
    one = its_codes(Notes())
    one.life.is_quiet = True
    await one._deliver_each_alone()
    assert waits.found == []
