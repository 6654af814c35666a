"""What a bridge says of itself: written again and again, its skew logged once."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from dialer.bridge import own_state
from dialer.bridge.own_state import OwnState
from dialer.store.registry import SKEW_WARNED_S, BridgeState
from tests.unit.stand_ins import Notes, a

DIFFERS = "Clock of this host differs from Redis; the time of Redis is used"
AGREES = "Clock of this host agrees with Redis again"


class Enough(Exception):
    """Ends a loop that has no end."""


def state(notes: Notes, *, skew_s: float = 0.0) -> OwnState:
    clock = a(measure=notes.of("measure"), skew_s=skew_s)
    registry = a(steps="its steps", bridge_beat=notes.of("beat"))
    return OwnState("its name", registry, a(problem="no broker"), clock)


async def test_a_bridge_writes_its_skew_and_its_broker() -> None:
    notes = Notes()
    await state(notes, skew_s=3.5).write()
    written = BridgeState(skew_s=3.5, broker="no broker")
    assert notes == [("measure", "its steps"), ("beat", "its name", written)]


async def test_a_bridge_writes_its_state_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notes, replies = Notes(), [None, ResponseError("no rights"), Enough()]
    monkeypatch.setattr(asyncio, "sleep", notes.of("sleep"))
    monkeypatch.setattr(OwnState, "write", notes.of("write", lambda *_: replies.pop(0)))
    with pytest.raises(Enough):
        await state(notes).run()
    assert notes.given("sleep") == [
        own_state.EVERY_S,
        own_state.REFUSED_PAUSE_S,
        own_state.EVERY_S,
    ]
    (record,) = caplog.records
    said = vars(record)
    assert said["message"] == "Redis refused a command; trying again"
    assert said["redis"] == "the registry's Redis"
    assert (said["part"], said["error"]) == ("own state", "no rights")


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_skewed_clock_is_logged_once(sign: int, caplog: pytest.LogCaptureFixture) -> None:
    one = state(Notes())
    for skew_s in (SKEW_WARNED_S, SKEW_WARNED_S + 1, SKEW_WARNED_S + 1, 0.0, 0.0):
        one.clock.skew_s = sign * skew_s
        await one.write()
    assert caplog.messages == [DIFFERS, AGREES]
    assert "clock" in vars(caplog.records[0])["problem"]
