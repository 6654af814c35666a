"""Ledger and Asterisk compared after a gap, while Asterisk goes on dialing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from redis.exceptions import NoPermissionError

from dialer.domain.call import Ending, Result, State
from dialer.domain.channel import AmiEvent, ChannelCreated, ChannelUp, HungUp
from dialer.domain.follow_events import OriginateAccepted
from dialer.settings import Cell
from tests.loop_watch import LONGEST_CALLBACK_S, watched_loop
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.lives import CELL, T0
from tests.unit.parts import Parts, Written, entry, parts
from workers.recovery.reconcile import RECORD_KEPT_S, SLICE

CREATED = ChannelCreated(uniqueid=UNIQUEID, channel="PJSIP/carrier-1")
CHANNEL = {"Channel": "PJSIP/carrier-1", "ChannelState": "5"}


def hung_up(cause: int) -> HungUp:
    return HungUp(uniqueid=UNIQUEID, cause=cause, cause_text=None)


def code(ending: Ending) -> str | None:
    return ending.error.code if ending.error else None


def during_the_list(made: Parts, *events: AmiEvent) -> Parts:
    """These events come while the channels are listed for the first time."""

    def hear() -> None:
        made.asterisk.while_listing = lambda: None
        made.hear(*events)

    made.asterisk.while_listing = hear
    return made


async def reconcile(made: Parts, *events: AmiEvent) -> Parts:
    """Reconcile; these events come while the channels are listed."""
    await during_the_list(made, *events).reconciler.run()
    return made


def of_another_worker(state: State = State.ORIGINATING) -> Parts:
    """A call that the ledger has and this worker does not know."""
    made = parts()
    made.written.has_claimed = [entry(state)]
    return made


async def test_a_channel_that_comes_during_the_list_is_followed() -> None:
    made = await reconcile(parts().claimed(), CREATED)
    assert made.followed.call.state is State.ACCEPTED
    made.hear(ChannelUp(uniqueid=UNIQUEID), hung_up(16))
    assert (await made.ending()).result is Result.ANSWERED


async def test_events_during_the_list_reach_an_adopted_call() -> None:
    made = await reconcile(of_another_worker(), CREATED, hung_up(17))
    assert (await made.ending()).result is Result.BUSY


async def test_a_ledger_back_adopts_a_call_with_its_events() -> None:
    made = during_the_list(of_another_worker(), CREATED, hung_up(17))
    await made.reconciler.on_ledger_recovered(made.cells.ledger(made.cell.name))
    assert (await made.ending()).result is Result.BUSY


async def test_an_adopted_call_is_followed_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    made = of_another_worker()
    made.asterisk.listed = {CALL_ID: CHANNEL}
    await reconcile(made)
    (logged,) = [vars(r) for r in caplog.records if r.getMessage().startswith("Reconciled")]
    assert (logged["pbx"], logged["adopted"], logged["gone"]) == ("pbx01", 1, 0)
    assert made.followed.call.state is State.ACCEPTED
    made.hear(hung_up(17))
    assert (await made.ending()).result is Result.BUSY


async def test_a_call_adopted_during_the_list_is_not_looked_for_in_it() -> None:
    """Another reconciliation adopted it, by a list that is newer."""
    made = of_another_worker()
    made.state.boot = "of a later start"
    made.asterisk.while_listing = lambda: made.tracker.adopt(entry())
    await made.reconciler.on_ledger_recovered(made.cells.ledger(CELL))
    assert not made.followed.is_gone


@pytest.mark.parametrize("state", State)
async def test_only_a_claimed_call_is_adopted(state: State) -> None:
    made = await reconcile(of_another_worker(state))
    is_claimed = state in (State.ORIGINATING, State.ACCEPTED, State.ANSWERED)
    assert (CALL_ID in made.calls) is is_claimed


async def test_a_channel_that_is_gone_is_answered_for_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = parts().claimed().hear(CREATED)
    made.tracker.feed(CALL_ID, OriginateAccepted())
    await reconcile(made)
    assert code(await made.ending()) == "end_not_seen"
    (logged,) = [vars(r) for r in caplog.records if r.getMessage().startswith("Reconciled")]
    assert (logged["adopted"], logged["gone"]) == (0, 1)


async def test_a_reconciliation_without_calls_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await reconcile(parts())
    assert caplog.messages == []


async def test_a_call_without_channel_is_answered_for_later() -> None:
    made = await reconcile(parts().claimed())
    assert not made.written.endings
    ending = await made.ending()
    assert (ending.result, code(ending)) == (Result.FAILED, "end_not_seen")
    assert made.asterisk.asked.count("channels") == 2


async def test_a_restarted_asterisk_ends_calls_at_once() -> None:
    made = parts().claimed()
    made.asterisk.started = "c"
    assert code(await (await reconcile(made)).ending()) == "pbx_restarted"
    assert made.asterisk.asked.count("channels") == 1


async def test_a_lost_link_during_reconciliation_ends_nothing() -> None:
    made = parts().claimed()
    made.asterisk.is_lost = True
    with pytest.raises(Exception, match="the link was lost"):
        await reconcile(made)
    assert made.written.endings == []
    assert made.tracker._buffering == 0


async def test_a_claim_in_flight_is_not_adopted() -> None:
    made = of_another_worker()
    with made.calls.claiming(CALL_ID):
        await reconcile(made)
    assert CALL_ID not in made.calls


async def test_a_call_yet_to_be_sent_is_left_alone() -> None:
    made = of_another_worker()
    made.tracker.follow(entry(), "t")
    await reconcile(made)
    await made.journal.wait_done()
    assert made.written.endings == []
    assert not made.followed.missed


async def test_a_call_that_ended_here_is_resent_and_not_adopted() -> None:
    made = of_another_worker()
    made.calls.end(entry().call, Ending(result=Result.BUSY, ended_at=T0, cause=17))
    await reconcile(made)
    assert (await made.ending()).result is Result.BUSY
    assert CALL_ID not in made.calls


@pytest.mark.parametrize("fault", ["refuses", "is slow"])
async def test_a_redis_at_fault_keeps_no_other_cell_waiting(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = of_another_worker()
    made.reconciler.claimed_within_s = 0.05
    other = Written(cell="OTHER", has_claimed=NoPermissionError("NOPERM"))
    if fault == "is slow":
        other = Written(cell="OTHER")
        other.answers.clear()
    made.cells.add(Cell(nome="OTHER", threads=1, pbxs=("pbx01",)), other)  # type: ignore[arg-type]
    made.asterisk.listed = {CALL_ID: CHANNEL}
    async with asyncio.timeout(5):
        await reconcile(made)
    assert made.followed.call.state is State.ACCEPTED
    assert any(vars(r).get("cell") == "OTHER" for r in caplog.records)


async def test_only_old_records_of_no_call_are_deleted() -> None:
    made = parts().claimed()
    now = datetime.now(UTC).timestamp()
    old, new = now - RECORD_KEPT_S - 60, now - RECORD_KEPT_S + 60
    made.asterisk.astdb = {
        "C:old": f"answered={old:.3f} ended= cause=",
        "C:new": f"answered={new:.3f} ended= cause=",
        "C:ended": f"answered={old:.3f} ended={new:.3f} cause=16",
        "C:odd": "no record",
        CALL_ID: f"answered={old:.3f} ended= cause=",
    }
    await made.reconciler.delete_old_records()
    assert made.asterisk.forgotten == ["C:old", "C:odd"]


async def test_two_thousand_calls_do_not_block_the_loop() -> None:
    made = parts()
    one = entry()
    made.written.has_claimed = [
        replace(one, call=replace(one.call, call_id=f"ASR_TIM:{n}")) for n in range(2_000)
    ]
    made.asterisk.listed = {f"ASR_TIM:{n}": CHANNEL for n in range(2_000)}
    with watched_loop() as watched:
        await reconcile(made)
        await made.journal.wait_done()
    assert len(made.calls) == 2_000
    assert watched.longest_s < LONGEST_CALLBACK_S, watched


async def test_a_call_that_ends_between_two_slices_is_left_out() -> None:
    made = parts()
    one = entry()
    ids = [f"ASR_TIM:{n}" for n in range(SLICE + 2)]
    made.written.has_claimed = [replace(one, call=replace(one.call, call_id=i)) for i in ids]
    made.asterisk.listed = dict.fromkeys(ids, CHANNEL)

    async def end_the_last() -> None:
        first = made.calls.get
        while (f := first(ids[0])) is None or not f.appeared:  # noqa: ASYNC110  # its turn
            await asyncio.sleep(0)
        made.calls.drop(ids[-1])

    await asyncio.gather(reconcile(made), end_the_last())
    await made.journal.wait_done()
    assert len(made.calls) == SLICE + 1
    assert all(followed.appeared for followed in made.calls.followed())


async def test_no_events_are_kept_while_a_redis_is_away() -> None:
    """Calls of other cells go on, for hours perhaps."""
    made = of_another_worker()
    made.written.answers.clear()
    back = made.journal.start(made.reconciler.on_ledger_recovered(made.cells.ledger(CELL)))
    await asyncio.sleep(0)
    made.hear(CREATED)
    assert not made.tracker._unfollowed
    made.written.answers.set()
    await back
    assert made.followed.missed
