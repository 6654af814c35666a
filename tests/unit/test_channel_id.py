"""The ChannelId: what Asterisk, CDR tables and file systems accept, and different for each call."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import State
from dialer.domain.channel import (
    ChannelCreated,
    ChannelUp,
    HungUp,
    OriginateEnded,
    channel_id,
    is_channel_id,
)
from dialer.domain.request import call_id
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.parts import Parts, entry, parts
from tests.unit.test_request import cells, request_ids

OLD = CALL_ID  # what a worker before the hash named the channel


@given(cells, request_ids)
def test_a_channel_id_is_short_and_plain(cell: str, request_id: str) -> None:
    name = channel_id(call_id(cell, request_id))
    assert len(f"{name};2") <= 32
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert is_channel_id(name)


@given(st.tuples(cells, request_ids), st.tuples(cells, request_ids))
def test_two_calls_have_two_channel_ids(one: tuple[str, str], other: tuple[str, str]) -> None:
    same_id = channel_id(call_id(*one)) == channel_id(call_id(*other))
    assert same_id == (one == other)


def test_ids_that_differ_in_case_alone_are_two_calls() -> None:
    assert channel_id("C:aB1") != channel_id("C:Ab1")
    assert channel_id("c:1") != channel_id("C:1")


def test_a_channel_id_never_changes_between_versions() -> None:
    """Calls that are up during an upgrade are found by it."""
    assert channel_id(CALL_ID) == UNIQUEID == "asr-tim.iavsbj64m5n3nyxbt4x4"


@pytest.mark.parametrize("other", ["1700000000.1", "pbx01-1700000000.22", "ASR_TIM:1001", "", "x"])
def test_asterisks_own_uniqueids_are_no_channel_ids(other: str) -> None:
    assert not is_channel_id(other)


# --- calls of a worker that used the call id ------------------------------------------------


def of_an_older_worker(state: State) -> Parts:
    made = parts()
    call = replace(entry(state).call, uniqueid=OLD if state is not State.ORIGINATING else None)
    made.written.has_claimed = [replace(entry(state), call=call)]
    return made


@pytest.mark.parametrize("state", [State.ORIGINATING, State.ACCEPTED])
async def test_a_call_with_the_older_id_is_adopted(state: State) -> None:
    made = of_an_older_worker(state)
    made.asterisk.listed = {OLD: {"Channel": "PJSIP/carrier-1", "ChannelState": "5"}}
    await made.reconciler.run()
    assert made.followed.call.uniqueid == OLD
    made.hear(ChannelUp(uniqueid=OLD), HungUp(uniqueid=OLD, cause=16, cause_text=None))
    await made.ending()
    assert made.asterisk.forgotten == [OLD]
    assert made.calls.by_uniqueid(OLD) is None


async def test_the_record_with_the_older_id_is_found() -> None:
    made = of_an_older_worker(State.ORIGINATING)
    made.asterisk.astdb = {OLD: "answered=1767225600.123 ended=1767225632.871 cause=16"}
    await made.reconciler.run()
    ending = await made.ending()
    assert (ending.result, ending.cause, ending.error) == ("ANSWERED", 16, None)
    assert OLD in made.asterisk.forgotten


async def test_events_with_either_id_reach_an_unlisted_call() -> None:
    for uniqueid in (OLD, UNIQUEID):
        made = of_an_older_worker(State.ORIGINATING)
        events = (
            ChannelCreated(uniqueid=uniqueid, channel="PJSIP/carrier-1"),
            OriginateEnded(action_id=f"{uniqueid}#1", answered=False, reason=5),
            HungUp(uniqueid=uniqueid, cause=17, cause_text=None),
        )

        def during_the_list(made: Parts = made, events: tuple[object, ...] = events) -> None:
            made.asterisk.while_listing = lambda: None
            made.hear(*events)  # type: ignore[arg-type]

        made.asterisk.while_listing = during_the_list
        await made.reconciler.run()
        assert (await made.ending()).result == "BUSY"


async def test_the_ack_has_the_uniqueid_of_the_channel() -> None:
    made = parts().claimed()
    made.hear(ChannelCreated(uniqueid=UNIQUEID, channel="PJSIP/carrier-1"))
    await made.reconciler.run()
    assert made.followed.call.uniqueid == UNIQUEID
