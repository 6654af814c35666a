"""A worker keeps nothing of a call that is over, except what it remembers on purpose."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dialer.domain.channel import ChannelCreated, ChannelUp, HungUp, OriginateEnded, channel_id
from dialer.domain.follow_events import OriginateAccepted, OriginateSent
from dialer.domain.request import call_id
from tests.unit.lives import CELL
from tests.unit.parts import Parts, entry, parts
from workers.calls.remembered import Remembered


async def live(made: Parts, numbers: range, *, ends: bool = True) -> None:
    """Calls one after the other: answered, and over unless `ends` is false."""
    for n in numbers:
        one, of = call_id(CELL, f"r-{n}"), entry(request_id=f"r-{n}")
        uniqueid = channel_id(one)
        made.tracker.follow(
            dataclasses.replace(of, call=dataclasses.replace(of.call, call_id=one)), "t"
        )
        made.tracker.feed(one, OriginateSent(attempt=1))
        made.tracker.feed(one, OriginateAccepted())
        made.hear(
            ChannelCreated(uniqueid=uniqueid, channel=f"PJSIP/carrier-{n}"),
            ChannelUp(uniqueid=uniqueid),
            OriginateEnded(action_id=f"{uniqueid}#1", answered=True, reason=4),
        )
        if ends:
            made.hear(HungUp(uniqueid=uniqueid, cause=16, cause_text="Normal Clearing"))
    await made.journal.wait_done()


def held(made: Parts) -> dict[str, int]:
    """How much each container of the worker's parts holds, by part and name."""
    kept: list[Any] = [made.calls, made.tracker, made.journal, made.hand_overs, made.originator]
    kept += [made.reconciler, made.replay, made.calls.remembered]
    return {
        f"{type(part).__name__}.{one.name}": len(value)
        for part in kept
        for one in dataclasses.fields(part)
        if isinstance(value := getattr(part, one.name), dict | set | list)
    }


@pytest.fixture
def remembering_ten() -> Parts:
    made = parts()
    made.calls.remembered = Remembered(most=10)
    return made


async def test_a_worker_holds_no_more_after_more_calls(remembering_ten: Parts) -> None:
    made = remembering_ten
    await live(made, range(20))
    before = held(made)
    await live(made, range(20, 320))
    assert held(made) == before
    assert [name for name, size in before.items() if size] == ["Remembered._calls"]
    assert len(made.written.endings) == 320


async def test_calls_that_are_up_are_seen_by_this_count(remembering_ten: Parts) -> None:
    await live(remembering_ten, range(5), ends=False)
    assert held(remembering_ten)["Calls._followed"] == 5
