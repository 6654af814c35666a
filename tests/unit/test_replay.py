"""What a failed-over Redis lost is written again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dialer.domain.call import Ending, Result, State
from dialer.domain.channel import ChannelUp
from dialer.domain.follow_events import OriginateAccepted
from dialer.store.ledger import WorkerLedger
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.lives import T0
from tests.unit.parts import Parts, entry, parts

BUSY = Ending(result=Result.BUSY, ended_at=T0, cause=17)


async def answered() -> Parts:
    """An answered call of which all is written."""
    made = parts().claimed()
    made.tracker.feed(CALL_ID, OriginateAccepted())
    made.hear(ChannelUp(uniqueid=UNIQUEID))
    await made.journal.wait_done()
    made.written.done.clear()
    return made


async def replay(made: Parts, state: State) -> list[str]:
    """The steps that are taken if the ledger has the call in `state`."""
    known = entry(state)
    made.written.known = [replace(known, call=replace(known.call, epoch=4))]
    made.written.to_claim = entry()
    await made.replay.replay(made.cells.ledger(made.cell.name))
    await made.journal.wait_done()
    return made.written.done


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (State.ADMITTED, ["assign", "claim", "accept", "answer"]),
        (State.QUEUED, ["claim", "accept", "answer"]),
        (State.ORIGINATING, ["accept", "answer"]),
        (State.ACCEPTED, ["answer"]),
        (State.ANSWERED, []),
    ],
)
async def test_a_lost_course_is_written_again(state: State, steps: list[str]) -> None:
    assert await replay(await answered(), state) == steps


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (State.ADMITTED, ["assign", "claim", "end"]),
        (State.QUEUED, ["claim", "end"]),
        (State.ANSWERED, ["end"]),
        (State.ENDED, []),
        (State.DONE, []),
    ],
)
async def test_a_lost_end_is_written_again(state: State, steps: list[str]) -> None:
    made = parts()
    made.calls.end(entry().call, BUSY)
    assert await replay(made, state) == steps


async def test_a_new_claim_of_a_followed_call_has_its_token() -> None:
    made = await answered()
    await replay(made, State.QUEUED)
    assert made.followed.token != "t"
    assert made.written.claims == [(CALL_ID, 4)]


async def test_a_call_of_another_pbx_is_left_alone() -> None:
    made = await answered()
    moved = entry(State.ORIGINATING)
    made.written.known = [replace(moved, call=replace(moved.call, pbx="pbx02"))]
    ledger: WorkerLedger = made.cells.ledger(made.cell.name)
    await made.replay.replay(ledger)
    assert made.written.done == []


async def test_a_ledger_that_is_back_has_its_calls_adopted() -> None:
    made = parts()
    made.written.has_claimed = [entry()]
    made.asterisk.listed = {CALL_ID: {"Channel": "PJSIP/1", "ChannelState": "5"}}
    await made.reconciler.on_ledger_recovered(made.cells.ledger(made.cell.name))
    assert made.followed.call.state is State.ACCEPTED
    asked = len(made.asterisk.asked)
    await made.reconciler.on_ledger_recovered(made.cells.ledger(made.cell.name))
    assert len(made.asterisk.asked) == asked, "nothing is unknown"


async def test_a_ledger_that_is_back_is_told_what_it_lost() -> None:
    made = await answered()
    made.written.known = [entry()]
    await made.reconciler.on_ledger_recovered(made.cells.ledger(made.cell.name))
    await made.journal.wait_done()
    assert made.written.done == ["accept", "answer"]
