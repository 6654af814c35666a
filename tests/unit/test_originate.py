"""The last checks before a call is dialed, and what becomes of one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dialer.domain.call import Result, State
from dialer.domain.channel import ChannelCreated, HungUp
from dialer.domain.endings import HUNG_UP
from dialer.domain.follow_events import HangUpAsked
from dialer.domain.hand_over import CUT_OFF
from dialer.errors import AmiUnavailable, OriginateOutcomeUnknown, OriginateRefused
from dialer.store.ledger import WorkerLedger
from tests.unit.captured import CALL_ID, UNIQUEID
from tests.unit.lives import CELL
from tests.unit.parts import Parts, entry, parts
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.calls.originate import STALE_CLAIM_S
from workers.pbx.hand_overs import MOST_FAILED

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def waiting(*replies: Exception | None, cell: dict[str, Any] | None = None, **fields: Any) -> Parts:
    """A call that waits to be claimed; Asterisk's `replies` to its Originates."""
    made = parts(**(cell or {}))
    made.written.to_claim = entry(**fields)
    made.asterisk.replies = [*replies]
    made.state.clock.host = lambda: NOON
    return made


async def dial(made: Parts) -> Parts:
    await made.originator.dial(CALL_ID, 1)
    await made.journal.wait_done()
    return made


def is_given_back(made: Parts) -> bool:
    return (
        made.asterisk.sent == []
        and made.written.done == ["claim", "unclaim"]
        and made.written.released == [CALL_ID]
        and CALL_ID not in made.calls
    )


async def test_a_claimed_call_is_dialed_and_followed() -> None:
    made = await dial(waiting())
    assert [action_id for action_id, _ in made.asterisk.sent] == [f"{UNIQUEID}#1"]
    assert made.followed.call.state is State.ACCEPTED
    assert made.written.done == ["claim", "accept"]
    assert not made.calls.is_claiming(CALL_ID)
    counted = made.state.results.last_minute()
    assert (counted["claimed"], counted["accepted"]) == (1, 1)


async def test_a_stale_claim_is_given_back() -> None:
    made = waiting()
    ticks: Iterator[float] = iter([0.0, STALE_CLAIM_S + 0.1])
    made.originator.monotonic = lambda: next(ticks)
    assert is_given_back(await dial(made))


async def test_a_claim_of_10_s_is_not_stale() -> None:
    made = waiting()
    ticks: Iterator[float] = iter([0.0, STALE_CLAIM_S])
    made.originator.monotonic = lambda: next(ticks)
    assert len((await dial(made)).asterisk.sent) == 1


async def test_a_claim_under_an_older_asterisk_is_given_back() -> None:
    made = waiting()
    made.written.while_claiming = lambda: setattr(made.state, "boot", "c")
    assert is_given_back(await dial(made))


async def test_a_call_out_of_hours_is_given_back() -> None:
    hours = {"days": ["mon"], "from": "13:00", "to": "14:00"}
    limits = {"calling_hours": [hours], "time_zone": "UTC"}
    assert is_given_back(await dial(waiting(cell={"limits": limits})))
    open_now = {"calling_hours": [{**hours, "from": "12:00"}], "time_zone": "UTC"}
    assert len((await dial(waiting(cell={"limits": open_now}))).asterisk.sent) == 1


async def test_an_expired_call_is_answered_and_never_dialed() -> None:
    made = waiting()
    assert made.written.to_claim is not None
    made.written.to_claim = replace(made.written.to_claim, expires_at=NOON)
    await dial(made)
    ending = await made.ending()
    assert (ending.result, made.asterisk.sent) == (Result.EXPIRED, [])
    assert made.done[0].attempts == 0
    assert made.state.results.last_minute()["expired"] == 1
    later = waiting()
    assert later.written.to_claim is not None
    expires_at = NOON + timedelta(seconds=1)
    later.written.to_claim = replace(later.written.to_claim, expires_at=expires_at)
    assert len((await dial(later)).asterisk.sent) == 1


async def test_a_revoked_call_is_answered_and_never_dialed() -> None:
    made = waiting(trunk="oi")  # whatever else is wrong with it
    made.originator.is_revoked = {CALL_ID}.__contains__
    await dial(made)
    ending = await made.ending()
    assert ending.error is not None
    assert (ending.result, ending.error.code) == (Result.CANCELLED, "revoked")
    assert (made.asterisk.sent, made.done[0].attempts) == ([], 0)
    other = waiting()
    other.originator.is_revoked = {"ASR_TIM:another"}.__contains__
    assert len((await dial(other)).asterisk.sent) == 1


async def test_a_call_for_an_unknown_trunk_is_answered() -> None:
    made = await dial(waiting(trunk="oi"))
    ending = await made.ending()
    assert ending.error is not None
    assert (ending.error.code, made.asterisk.sent) == ("no_trunk", [])
    assert "pbx01 has no trunk 'oi'" in ending.error.message


async def test_a_call_names_its_trunk_or_gets_the_default() -> None:
    (_, fields), *_ = (await dial(waiting())).asterisk.sent
    assert fields["Channel"] == "PJSIP/5511987650@tim"
    (_, fields), *_ = (await dial(waiting(trunk="vivo"))).asterisk.sent
    assert fields["Channel"] == "SIP/5511987650@vivo"


async def fields_of(made: Parts) -> dict[str, Any]:
    ((_, fields),) = (await dial(made)).asterisk.sent
    return fields


async def test_the_originate_of_a_cell_without_wishes() -> None:
    made = waiting(cell={"context": "ivr", "exten": "9", "priority": 3, "ring_timeout": 45})
    made.state.has_include = False
    assert await fields_of(made) == {
        "Channel": "PJSIP/5511987650@tim",
        "ChannelId": UNIQUEID,
        "Account": CALL_ID,
        "Context": "ivr",
        "Exten": "9",
        "Priority": "3",
        "Timeout": "45000",
        "Variable": [
            "FORWARD_CONTEXT=dialer-nowhere",
            "TRANSFER_CONTEXT=dialer-nowhere",
            f"__DIALER_CALL_ID={CALL_ID}",
        ],
    }


async def test_the_originate_has_the_wishes_of_its_request() -> None:
    wishes = {"ring_timeout_s": 20, "caller_id": "1133334444", "variables": (("MC_A", "1"),)}
    amd = {"amd": "message", "amd_message": "beep"}
    fields = await fields_of(waiting(cell={"queue": "Q", "queue_timeout": 7, **amd}, **wishes))
    assert (fields["Timeout"], fields["CallerID"]) == ("20000", "1133334444")
    assert (fields["Context"], fields["Exten"], fields["Priority"]) == ("dialer-enter", "s", "1")
    assert fields["Variable"] == [
        "MC_A=1",
        "FORWARD_CONTEXT=dialer-nowhere",
        "TRANSFER_CONTEXT=dialer-nowhere",
        f"__DIALER_CALL_ID={CALL_ID}",
        "DIALER_CONTEXT=dialer-ura",
        "DIALER_EXTEN=s",
        "DIALER_PRIORITY=1",
        "DIALER_AMD=message",
        "DIALER_AMD_MESSAGE=beep",
        "DIALER_QUEUE=Q",
        "DIALER_QUEUE_TIMEOUT=7",
    ]


async def test_a_request_with_a_context_is_not_for_the_queue() -> None:
    made = waiting(cell={"queue": "Q", "contexts": ["ivr"]}, context="ivr")
    lines = (await fields_of(made))["Variable"]
    assert "DIALER_CONTEXT=ivr" in lines
    assert not any(line.startswith("DIALER_QUEUE") for line in lines)


@pytest.mark.parametrize("why", ["lacking", "link", "stopping"])
async def test_a_call_that_cannot_be_dialed_here_is_not_claimed(why: str) -> None:
    made = waiting()
    if why == "lacking":
        made.state.lacking = {made.cell.name: "no queue"}
    elif why == "link":
        made.asterisk.ready = False
    else:
        made.state.is_stopping = True
    assert (await dial(made)).written.done == []


async def test_what_is_missing_by_the_claims_reply_gives_it_back() -> None:
    made = waiting()
    made.written.while_claiming = lambda: made.state.lacking.update({made.cell.name: "no queue"})
    assert is_given_back(await dial(made))


async def test_a_link_lost_before_the_originate_gives_the_call_back() -> None:
    made = waiting(AmiUnavailable("down"))
    await dial(made)
    assert made.written.done == ["claim", "unclaim"]
    assert made.written.released == [CALL_ID]
    assert CALL_ID not in made.calls


async def test_a_reconnect_does_not_adopt_a_call_being_given_back() -> None:
    """The registry's Redis may be away, and the unclaim waits for it."""
    made = waiting(AmiUnavailable("down"))
    made.written.refusals = {"release": 10_000}
    await made.originator.dial(CALL_ID, 1)
    made.written.has_claimed = [entry()]
    await made.reconciler.run()
    assert CALL_ID not in made.calls
    made.written.refusals.clear()
    await made.journal.wait_done()
    assert made.written.done == ["claim", "unclaim"]
    assert not made.calls.is_claiming(CALL_ID)


async def test_reconnect_during_a_claim_leaves_the_call_to_it() -> None:
    made = waiting()
    made.written.has_claimed = [entry()]

    def reconnect() -> None:
        assert made.calls.is_claiming(CALL_ID)
        assert not made.reconciler._adopt_unknown(entry())

    made.written.while_claiming = reconnect
    assert len((await dial(made)).asterisk.sent) == 1


def test_a_call_is_being_claimed_until_its_last_claim_ends() -> None:
    calls = waiting().calls
    with calls.claiming(CALL_ID):
        with calls.claiming(CALL_ID):
            pass
        assert calls.is_claiming(CALL_ID)
    assert not calls.is_claiming(CALL_ID)


async def test_a_refused_originate_is_tried_again() -> None:
    made = await dial(waiting(OriginateRefused("busy"), OriginateRefused("busy"), None))
    assert [action_id for action_id, _ in made.asterisk.sent] == [
        f"{UNIQUEID}#{n}" for n in (1, 2, 3)
    ]
    assert made.followed.call.attempts == 3


async def test_a_call_with_a_channel_is_not_originated_again() -> None:
    """A refusal that is not Asterisk's own: the telephone rings all the same."""
    made = waiting(OriginateRefused("forged"), None)
    made.originator.retry_pause_s = 0.05
    dialing = asyncio.create_task(dial(made))
    await wait_until(lambda: made.asterisk.sent, "it is sent")
    made.hear(ChannelCreated(uniqueid=UNIQUEID, channel="PJSIP/carrier-1"))
    await dialing
    assert len(made.asterisk.sent) == 1
    assert made.followed.call.state is State.ACCEPTED


async def test_an_originate_refused_to_the_end_is_answered() -> None:
    made = await dial(waiting(*[OriginateRefused("no")] * 3))
    ending = await made.ending()
    assert ending.error is not None
    assert (ending.error.code, made.done[0].attempts) == ("originate_refused", 3)


async def test_an_originate_without_reply_is_not_sent_again() -> None:
    made = await dial(waiting(OriginateOutcomeUnknown("no answer")))
    ending = await made.ending()
    assert ending.error is not None
    assert ending.error.code == "no_word"
    assert "within 20 s" in ending.error.message
    assert made.state.results.last_minute()["no_word"] == 1
    assert len(made.asterisk.sent) == 1


async def test_an_unsendable_request_is_answered() -> None:
    made = await dial(waiting(ValueError("line end")))
    ending = await made.ending()
    assert ending.error is not None
    assert ending.error.code == "not_sendable"
    assert "line end" in ending.error.message
    assert made.done[0].attempts == 1


async def test_a_link_lost_between_two_attempts_gives_the_call_back() -> None:
    made, sent = waiting(cell={"retries": 2}), []

    async def refuse(*_: Any, **more: Any) -> None:
        sent.append(more["action_id"])
        made.asterisk.ready = False
        raise OriginateRefused("no such channel")

    made.originator.link = cast(AmiLink, SimpleNamespace(originate=refuse))
    await dial(made)
    assert made.written.done == ["claim", "unclaim"]
    assert sent == [f"{UNIQUEID}#1"]


async def test_a_reconnect_between_two_attempts_misses_nothing() -> None:
    """What Asterisk refused is no call whose channel could be looked for."""
    made = waiting(OriginateRefused("busy"), None)
    made.originator.retry_pause_s = 0.05
    dialing = asyncio.create_task(dial(made))
    await wait_until(lambda: made.asterisk.sent, "it is sent")
    await made.reconciler.run()
    await dialing
    assert len(made.asterisk.sent) == 2
    assert not made.followed.missed


async def test_a_call_claimed_again_is_given_back_with_its_new_token() -> None:
    """The ledger failed over during the Originate, and the worker claimed the call again."""
    made = waiting()
    at_ledger = entry(State.QUEUED)
    made.written.known = [at_ledger]

    async def lose(*_: Any, **__: Any) -> None:
        await made.replay.replay(cast(WorkerLedger, made.written))
        raise AmiUnavailable("down")

    made.originator.link = cast(AmiLink, SimpleNamespace(originate=lose))
    await dial(made)
    assert made.written.done == ["claim", "claim", "unclaim"]
    assert made.written.unclaimed_as == {
        "pbx": "pbx01",
        "token": made.written.claimed_as["token"],
    }


async def test_a_void_task_dials_nothing() -> None:
    made = waiting()
    made.written.to_claim = None
    await dial(made)
    assert (made.asterisk.sent, len(made.calls)) == ([], 0)


async def test_a_call_claimed_twice_is_dialed_once() -> None:
    made = await dial(waiting())
    await dial(made)
    assert len(made.asterisk.sent) == 1


async def test_a_call_of_a_cell_that_no_file_has_is_never_dialed() -> None:
    made = waiting()
    made.cells.add_removed(made.cell, cast(WorkerLedger, made.written))
    ending = await (await dial(made)).ending()
    assert ending.error is not None
    assert (ending.error.code, made.asterisk.sent) == ("not_allowed", [])
    assert f"{CELL} is not in dialer.toml" in ending.error.message


async def test_a_variable_the_cell_does_not_allow_is_never_dialed() -> None:
    made = await dial(waiting(variables=(("MONITOR_EXEC", "/bin/true"),)))
    ending = await made.ending()
    assert ending.error is not None
    assert (ending.error.code, made.asterisk.sent) == ("not_allowed", [])


# --- the call's own place in the dialplan, and cells that are held back ----------------------

MISSING = {"DIALPLAN_EXISTS(ivr,77,1)": "0", "DIALPLAN_EXISTS(ivr,i,1)": "0"}
OWN: dict[str, Any] = {"contexts": ("ivr",), "extensions": ("77",)}


async def test_a_call_to_a_missing_extension_is_not_dialed() -> None:
    made = waiting(cell=OWN, context="ivr", exten="77")
    made.asterisk.values = MISSING
    ending = await (await dial(made)).ending()
    assert made.asterisk.sent == []
    assert ending.error is not None
    assert (ending.result, ending.error.code) == (Result.FAILED, "no_extension")
    assert "pbx01 has no extension 77, priority 1 in context ivr" in ending.error.message


async def test_only_a_place_that_was_found_is_known_for_10_s() -> None:
    made, now = waiting(cell=OWN, context="ivr", exten="77"), [100.0]
    made.originator.monotonic = lambda: now[0]
    assert made.written.to_claim is not None
    request, asked = made.written.to_claim.request, made.asterisk.asked
    made.asterisk.values = MISSING
    for _ in range(2):
        assert not await made.originator._has_place(request, made.cell)
    made.asterisk.values = {}
    for now[0] in (100.0, 109.9, 110.0):
        assert await made.originator._has_place(request, made.cell)
    assert asked.count("DIALPLAN_EXISTS(ivr,77,1)") == 4


async def test_an_extension_i_takes_what_its_context_lacks() -> None:
    made = waiting(cell=OWN, context="ivr", exten="77")
    made.asterisk.values = {**MISSING, "DIALPLAN_EXISTS(ivr,i,1)": "1"}
    assert len((await dial(made)).asterisk.sent) == 1


async def test_a_known_place_is_asked_for_once() -> None:
    made = await dial(waiting(cell=OWN, context="ivr", exten="77"))
    await dial(made)
    assert made.asterisk.asked.count("DIALPLAN_EXISTS(ivr,77,1)") == 1


async def test_a_lost_link_while_asking_gives_the_call_back() -> None:
    made = waiting(AmiUnavailable("down"), cell=OWN, context="ivr", exten="77")
    made.asterisk.is_lost = True
    await dial(made)
    assert made.written.done == ["claim", "unclaim"]


async def test_of_a_held_cell_one_call_is_tried() -> None:
    made = waiting()
    for n in range(MOST_FAILED):
        made.hand_overs.note(CELL, f"{CELL}:{n}", CUT_OFF)
    made.hand_overs.monotonic = lambda: float("inf")
    made.state.lacking.clear()  # as the check of targets does when a call may be tried
    await dial(made)
    assert len(made.asterisk.sent) == 1
    assert CELL in made.state.lacking
    made.hear(HungUp(uniqueid=UNIQUEID, cause=17, cause_text=None))
    await made.ending()
    assert made.hand_overs.why_held(CELL) is None


async def test_after_a_trial_that_is_given_back_the_next_is_tried() -> None:
    made = waiting(AmiUnavailable("down"))
    for n in range(MOST_FAILED):
        made.hand_overs.note(CELL, f"{CELL}:{n}", CUT_OFF)
    made.hand_overs.monotonic = lambda: float("inf")
    made.state.lacking.clear()
    await dial(made)
    assert made.written.done == ["claim", "unclaim"]
    assert made.hand_overs.why_held(CELL) is None


# --- live parameters --------------------------------------------------------------------


async def test_a_new_trunk_of_the_cell_is_read_before_a_call_fails() -> None:
    """The bridge knew it first, and chose a PBX that has it."""
    made = waiting(cell={"trunk": "oi"})
    read: list[str] = []

    async def refresh() -> None:
        read.append("")
        cell = made.cells.get(CELL)
        assert cell is not None
        made.cells.change(cell.model_copy(update={"trunk": None}))

    made.originator.refresh = refresh
    assert len((await dial(made)).asterisk.sent) == 1
    assert read == [""]


@pytest.mark.parametrize("age_s", [2.9, 3.1])
async def test_a_call_is_given_back_while_parameters_change(age_s: float) -> None:
    """The bridge does not know the new trunk yet; later the settings are wrong."""
    made = waiting(cell={"trunk": "oi"})
    made.originator.monotonic = lambda: 100.0
    made.state.changed_at = 100.0 - age_s
    await dial(made)
    if age_s < 3:
        assert is_given_back(made)
    else:
        ending = await made.ending()
        assert ending.error is not None
        assert ending.error.code == "no_trunk"


async def test_a_trunk_of_the_request_is_not_read_again() -> None:
    made = waiting(trunk="oi")
    made.originator.refresh = lambda: pytest.fail("its request names the trunk")
    assert (await (await dial(made)).ending()).error is not None


@pytest.mark.parametrize("replies", [1, 3])
async def test_a_call_that_is_hung_up_is_not_tried_again(replies: int) -> None:
    """Also if the last attempt was refused: it is the operator's doing."""
    made = waiting(*[OriginateRefused("no")] * replies, cell={"retries": replies - 1})
    made.originator.retry_pause_s = 0.3
    dialing = asyncio.create_task(dial(made))
    await wait_until(lambda: len(made.asterisk.sent) == replies, "the last Originate")
    made.tracker.feed(CALL_ID, HangUpAsked())
    await dialing
    ending = await made.ending()
    assert len(made.asterisk.sent) == replies
    assert ending.error is not None
    assert (ending.result, ending.error.code) == (Result.CANCELLED, HUNG_UP)
