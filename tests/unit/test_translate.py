"""What Asterisk's messages mean, held against what Asterisk 16 and 22 really said."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import Result
from dialer.domain.channel import (
    AgentJoined,
    AmdReported,
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    DialEnded,
    HungUp,
    OriginateEnded,
    QueueJoined,
    QueueLeft,
)
from dialer.domain.follow_events import ChannelListed, ChannelNotListed
from tests.unit.captured import UNIQUEID, VERSIONS, Version, messages, scenarios
from workers.ami.events import TEXT_MAX, WANTED_EVENTS, channel_found, read_record, translate

FIRST, SECOND = f"{UNIQUEID}#1", f"{UNIQUEID}#2"

#: What a scenario tells of a refusal: DialEnd, Reason, and the Hangup's cause on 16 and on 22.
REFUSALS: dict[str, tuple[str | None, int, tuple[int, int]]] = {
    "busy": ("BUSY", 0, (17, 17)),
    "rejected_403": ("NOANSWER", 0, (21, 21)),
    "rejected_603": ("NOANSWER", 0, (21, 21)),
    "unknown_number_404": ("NOANSWER", 0, (1, 1)),
    "congestion_503": ("CONGESTION", 0, (34, 34)),
    "rings_out": (None, 3, (0, 19)),
    "local_busy": ("BUSY", 5, (0, 0)),
    "local_rings_out": (None, 3, (0, 19)),
}
ANSWERED: dict[str, tuple[int, int]] = {
    "answered_far_end_clears": (16, 16),
    "answered_far_end_clears_no_reason": (16, 0),
    "answered_pbx_clears": (16, 16),
    "answered_after_ringing": (16, 16),
    "amd_userevent": (16, 16),
    "local_answered": (16, 16),
    "channel_id_in_use": (16, 16),
    "core_show_channels": (16, 16),
    "db_get_found": (16, 16),
    "queue_operator_takes_the_call": (16, 16),
    "queue_customer_gives_up": (16, 16),
    "queue_nobody_takes_the_call": (16, 16),
}
NO_CHANNEL = ("no_channel", "originate_error_technology")


def translated(version: Version, scenario: str) -> list[AmiEvent]:
    return [event for m in messages(version, scenario) if (event := translate(m)) is not None]


def of_the_call(version: Version, scenario: str) -> list[AmiEvent]:
    return [
        event
        for event in translated(version, scenario)
        if isinstance(event, OriginateEnded) or event.uniqueid == UNIQUEID
    ]


def only(events: list[AmiEvent], kind: type[AmiEvent]) -> AmiEvent:
    (event,) = (e for e in events if isinstance(e, kind))
    return event


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", REFUSALS)
def test_a_refused_call_tells_its_dial_status_reason_and_cause(
    version: Version, scenario: str
) -> None:
    status, reason, causes = REFUSALS[scenario]
    events = of_the_call(version, scenario)
    ends = [e.status for e in events if isinstance(e, DialEnded)]
    assert ends == ([status] if status else [])
    assert only(events, OriginateEnded) == OriginateEnded(
        action_id=FIRST, answered=False, reason=reason
    )
    hangup = only(events, HungUp)
    assert isinstance(hangup, HungUp)
    assert hangup.cause == causes[VERSIONS.index(version)]
    assert hangup.cause_text
    assert not any(isinstance(e, ChannelUp) for e in events)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", ANSWERED)
def test_an_answered_call_comes_up_once_and_hangs_up_once(version: Version, scenario: str) -> None:
    events = of_the_call(version, scenario)
    only(events, ChannelUp)
    answers = [e for e in events if isinstance(e, OriginateEnded) and e.action_id == FIRST]
    assert answers == [OriginateEnded(action_id=FIRST, answered=True, reason=4)]
    hangup = only(events, HungUp)
    assert isinstance(hangup, HungUp)
    assert hangup.cause == ANSWERED[scenario][VERSIONS.index(version)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", NO_CHANNEL)
def test_originate_without_channel_only_says_that_it_failed(
    version: Version, scenario: str
) -> None:
    assert translated(version, scenario) == [
        OriginateEnded(action_id=FIRST, answered=False, reason=0)
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_refusal_of_a_used_channel_id_is_matched_by_action_id(version: Version) -> None:
    ends = [e for e in translated(version, "channel_id_in_use") if isinstance(e, OriginateEnded)]
    assert ends == [
        OriginateEnded(action_id=FIRST, answered=True, reason=4),
        OriginateEnded(action_id=SECOND, answered=False, reason=0),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_far_half_of_a_local_channel_is_another_channel(version: Version) -> None:
    others = {
        e.uniqueid
        for e in translated(version, "local_busy")
        if not isinstance(e, OriginateEnded) and e.uniqueid != UNIQUEID
    }
    assert others == {f"{UNIQUEID};2"}


@pytest.mark.parametrize("version", VERSIONS)
def test_amd_and_agent_come_decoded(version: Version) -> None:
    events = of_the_call(version, "amd_userevent")
    assert only(events, AmdReported) == AmdReported(uniqueid=UNIQUEID, status="MACHINE")
    assert only(events, AgentJoined) == AgentJoined(
        uniqueid=UNIQUEID, agent="João Silva", wait_s=None
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_queue_events_tell_who_waits_leaves_and_answers(version: Version) -> None:
    events = of_the_call(version, "queue_operator_takes_the_call")
    told = [e for e in events if isinstance(e, QueueJoined | QueueLeft | AgentJoined)]
    joined = only(events, AgentJoined)
    assert isinstance(joined, AgentJoined)
    assert joined.wait_s in (0, 1)  # whole seconds
    assert told == [
        QueueJoined(uniqueid=UNIQUEID),
        QueueLeft(uniqueid=UNIQUEID),
        AgentJoined(uniqueid=UNIQUEID, agent="Maria José", wait_s=joined.wait_s),
    ]
    for scenario in ("queue_customer_gives_up", "queue_nobody_takes_the_call"):
        told = [e for e in of_the_call(version, scenario) if isinstance(e, QueueLeft | AgentJoined)]
        assert told == [QueueLeft(uniqueid=UNIQUEID)], scenario


def test_an_operator_without_a_name_is_known_by_its_interface() -> None:
    message = {"Event": "AgentConnect", "Uniqueid": "A:1", "Interface": "PJSIP/1001"}
    assert translate(message) == AgentJoined(uniqueid="A:1", agent="PJSIP/1001", wait_s=None)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_event_of_a_channel_is_its_creation(version: Version) -> None:
    for scenario in (*REFUSALS, *ANSWERED):
        own = [e for e in of_the_call(version, scenario) if not isinstance(e, OriginateEnded)]
        assert isinstance(own[0], ChannelCreated), scenario
        assert isinstance(own[-1], HungUp), scenario


@pytest.mark.parametrize("version", VERSIONS)
def test_replies_to_actions_are_no_events_of_a_call(version: Version) -> None:
    for scenario in (
        "ping",
        "fullybooted",
        "core_status_settings",
        "db_get_missing",
        "getvar_dialplan_exists",
        "originate_error",
        "wrong_secret",
    ):
        assert translated(version, scenario) == [], scenario


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", scenarios())
def test_no_event_with_a_meaning_is_dropped_unparsed(version: Version, scenario: str) -> None:
    for message in messages(version, scenario):
        if translate(message) is not None:
            assert message["Event"] in WANTED_EVENTS


# --- single messages ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "known"),
    [
        ("17", 17),
        ("0", 0),
        ("127", 127),
        ("128", None),
        ("-1", None),
        ("", None),
        ("x", None),
        ("9" * 5000, None),
        ("٣", None),
    ],
)
def test_a_cause_is_a_number_of_q850_or_unknown(cause: str, known: int | None) -> None:
    event = translate({"Event": "Hangup", "Uniqueid": "A:1", "Cause": cause})
    assert event == HungUp(uniqueid="A:1", cause=known, cause_text=None)


def test_a_channel_that_only_rings_is_not_up() -> None:
    assert translate({"Event": "Newstate", "Uniqueid": "A:1", "ChannelState": "5"}) is None


def test_a_channel_list_tells_whether_a_call_is_there_and_up() -> None:
    ringing = {"Channel": "PJSIP/1", "ChannelState": "5"}
    live = {"r": ringing, "u": ringing | {"ChannelState": "6"}, "e": {}}
    names = {"r": "PJSIP/1", "u": "PJSIP/1", "e": ""}
    for uniqueid, name in names.items():
        found = ChannelListed(uniqueid=uniqueid, channel=name, is_up=uniqueid == "u")
        assert channel_found(live, ["older", uniqueid], "b") == found
    assert channel_found(live, ["gone"], "b") == ChannelNotListed(boot="b")


@pytest.mark.parametrize("wait", ["nan", "inf", "-1", "1e9", "soon", ""])
def test_a_wait_that_is_no_number_of_seconds_is_unknown(wait: str) -> None:
    message = {"Event": "UserEvent", "Uniqueid": "A:1", "UserEvent": "DialerAgent", "Wait": wait}
    assert translate(message) == AgentJoined(uniqueid="A:1", agent="", wait_s=None)


def test_user_events_of_others_mean_nothing() -> None:
    assert translate({"Event": "UserEvent", "Uniqueid": "A:1", "UserEvent": "Queue"}) is None


def test_long_texts_are_cut_off() -> None:
    long = "x" * 100_000
    sent = {"Event": "UserEvent", "Uniqueid": "A:1", "Status": long, "Agent": long}
    amd = translate({**sent, "UserEvent": "DialerAmd"})
    agent = translate({**sent, "UserEvent": "DialerAgent"})
    member = translate({"Event": "AgentConnect", "Uniqueid": "A:1", "MemberName": long})
    hangup = translate({"Event": "Hangup", "Uniqueid": "A:1", "Cause-txt": long})
    assert isinstance(amd, AmdReported)
    assert amd.status == "x" * TEXT_MAX
    assert isinstance(agent, AgentJoined)
    assert agent.agent == "x" * TEXT_MAX
    assert isinstance(member, AgentJoined)
    assert member.agent == "x" * TEXT_MAX
    assert isinstance(hangup, HungUp)
    assert hangup.cause_text == "x" * TEXT_MAX
    record = read_record(f"answered=1 ended=2 amd={long} agent={long}")
    assert record is not None
    assert (record.amd, record.agent) == ("x" * TEXT_MAX, "x" * TEXT_MAX)


@pytest.mark.parametrize("name", ["DialerAmd", "DialerAgent"])
def test_a_user_event_of_another_ami_user_is_no_event(name: str) -> None:
    """Asterisk puts what the AMI user wrote after `UserEvent` (seen on 16 and 22)."""
    sent = {"Event": "UserEvent", "Privilege": "user,all", "UserEvent": name, "Uniqueid": "A:1"}
    assert translate({**sent, "Status": "MACHINE", "Agent": "x"}) is None
    assert translate({"Event": "UserEvent", "Uniqueid": "A:1"}) is None


HEADERS = (
    "Event",
    "UserEvent",
    "Uniqueid",
    "DestUniqueid",
    "ChannelState",
    "Cause",
    "Reason",
    "Status",
    "Agent",
    "Wait",
    "ActionID",
    "DialStatus",
    "Response",
)


@given(
    st.sampled_from(sorted(WANTED_EVENTS)),
    st.dictionaries(st.sampled_from(HEADERS[1:]), st.text()),
)
def test_no_message_is_too_odd_to_be_read(event: str, headers: dict[str, str]) -> None:
    translate({"Event": event, **headers})


# --- the record that the dialplan leaves in AstDB --------------------------------------


def note_values(version: Version) -> list[str]:
    return [
        m["Val"] for m in messages(version, "db_get_found") if m.get("Event") == "DBGetResponse"
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_of_a_call_that_is_up_has_no_end(version: Version) -> None:
    up, _ = note_values(version)
    found = read_record(up)
    assert found is not None
    assert found.answered_at.year == 2026
    assert (found.ended_at, found.cause, found.amd, found.agent) == (None, None, None, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_of_an_ended_call_has_its_end_and_cause(version: Version) -> None:
    _, over = note_values(version)
    found = read_record(over)
    assert found is not None
    assert found.ended_at is not None
    assert 0 < (found.ended_at - found.answered_at).total_seconds() < 60
    ending = found.ending(fallback_end=datetime.now(UTC))
    assert (ending.result, ending.cause) == (Result.ANSWERED, 16)
    assert (ending.answered_at, ending.ended_at) == (found.answered_at, found.ended_at)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_of_a_call_from_a_queue_names_the_operator(version: Version) -> None:
    told = messages(version, "queue_operator_takes_the_call")
    (record,) = (m["Val"] for m in told if m.get("Event") == "DBGetResponse")
    found = read_record(record)
    assert found is not None
    ending = found.ending(fallback_end=datetime.now(UTC))
    assert ending.agent == "Maria José"
    assert ending.wait_s in (0, 1)


def test_a_record_is_percent_decoded() -> None:
    found = read_record(
        "answered=1.5 ended=2.25 cause=16 amd=HUMAN agent=Jo%C3%A3o%20%3D%20Silva%0A"
    )
    assert found is not None
    assert (found.amd, found.agent) == ("HUMAN", "João = Silva\n")
    assert found.ended_at == datetime(1970, 1, 1, 0, 0, 2, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "answered= ended= cause= amd= agent=",
        "answered",
        "answered=soon",
        "answered=nan",
        "answered=inf",
        "answered=1e400",
        "answered=999999999999.0",
        "answered=-5",
    ],
)
def test_what_is_no_record_is_not_read_as_one(value: str) -> None:
    assert read_record(value) is None


def test_first_value_of_a_record_field_counts() -> None:
    found = read_record("answered=1.5 ended=2.0 cause=16 amd= agent= wait=1 ended=9.0 cause=17")
    assert found is not None
    assert (found.cause, found.ended_at) == (16, datetime.fromtimestamp(2, UTC))


def test_of_a_broken_record_what_can_be_read_is_kept() -> None:
    found = read_record("answered=100.0 ended=inf cause=999 amd=%E2%82 agent=%zz")
    assert found is not None
    assert (found.ended_at, found.cause) == (None, None)
    assert found.agent == "%zz"
    fallback = datetime(2026, 1, 1, tzinfo=UTC)
    assert found.ending(fallback_end=fallback).ended_at == fallback


@given(st.text() | st.from_regex(r"answered=\S* ended=\S* cause=\S* amd=\S* agent=\S*"))
def test_no_record_is_too_odd_to_be_read(value: str) -> None:
    found = read_record(value)
    if found is not None:
        found.ending(fallback_end=datetime.now(UTC))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_event_that_is_understood_is_wanted(version: Version) -> None:
    """The link drops all others before they are read."""
    understood = {
        message["Event"]
        for scenario in scenarios()
        for message in messages(version, scenario)
        if translate(message) is not None
    }
    assert understood <= set(WANTED_EVENTS)
    assert {"QueueCallerJoin", "QueueCallerLeave", "AgentConnect", "HangupRequest"} <= understood
