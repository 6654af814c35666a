"""Long answers of Asterisk: none blocks the event loop, and none is kept after its use."""

from __future__ import annotations

import asyncio

import pytest

from dialer.errors import AmiUnavailable
from tests.integration.ami.rig import RawPbx, linked, pbx_at
from tests.loop_watch import LONGEST_CALLBACK_S, watched_loop
from tests.waiting import wait_until
from workers.ami import AmiLink, connection
from workers.ami import link as ami

#: As many calls as one PBX may have (`max_calls`).
CHANNELS = 10_000


def channel(n: int, action_id: str) -> str:
    """An item of a channel list, with the headers of Asterisk 22."""
    more = "".join(f"Header{i}: some value of it\r\n" for i in range(15))
    return (
        f"Event: CoreShowChannel\r\nActionID: {action_id}\r\nChannel: PJSIP/carrier-{n:08x}\r\n"
        f"ChannelState: 6\r\nUniqueid: C:{n}\r\nLinkedid: C:{n}\r\n{more}\r\n"
    )


async def list_channels(raw: RawPbx) -> None:
    """Answers the question for all channels, item by item."""
    (question,) = await wait_until(lambda: raw.actions("CoreShowChannels"), "it is asked")
    action_id = question.partition("ActionID: ")[2].partition("\r\n")[0]
    start = f"Response: Success\r\nActionID: {action_id}\r\nEventList: start\r\n"
    await raw.say(f"{start}Message: Channels will follow\r\n\r\n".encode())
    for n in range(CHANNELS):
        await raw.say(channel(n, action_id).encode())
    end = f"Event: CoreShowChannelsComplete\r\nActionID: {action_id}\r\nEventList: Complete\r\n"
    await raw.say(f"{end}ListItems: {CHANNELS}\r\n\r\n".encode())


async def test_a_long_channel_list_does_not_block_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 10.0)
    monkeypatch.setattr(ami, "LIST_WITHIN_S", 100.0)  # a busy machine sends it slowly
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        with watched_loop() as watched:
            found, _ = await asyncio.gather(rig.link.channels(), list_channels(raw))
        assert len(found) == CHANNELS
        assert watched.longest_s < LONGEST_CALLBACK_S, watched


async def test_a_flood_of_events_waits_at_asterisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be handled yet is not read: the worker's memory is bounded."""
    monkeypatch.setattr(connection, "WAITING_MAX_BYTES", 10_000)
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 10.0)
    reading: set[bool] = set()

    def look(_: object) -> None:
        link = rig.link._connection
        assert link is not None
        reading.add(link.protocol.transport.is_reading())

    async with RawPbx() as raw, linked(pbx_at(raw.port), on_event=look) as rig:
        await rig.up()
        await raw.say(
            b"".join(b"Event: Hangup\r\nUniqueid: A:%d\r\n\r\n" % n for n in range(5_000))
        )
        await wait_until(lambda: len(rig.events) == 5_000, "all events came")
        assert [event["Uniqueid"] for event in rig.events] == [f"A:{n}" for n in range(5_000)]
        assert False in reading
        reading.clear()
        await raw.say(b"Event: Hangup\r\nUniqueid: last\r\n\r\n")
        await wait_until(lambda: rig.events[-1]["Uniqueid"] == "last", "it reads on")
        assert reading == {True}


async def test_a_question_that_timed_out_is_not_kept() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        connection = rig.link._connection
        assert connection is not None
        with pytest.raises(AmiUnavailable, match="no answer within"):
            await rig.link.ask({"Action": "CoreShowChannels"}, within_s=0.05)
        kept = [action["action"] for action in connection.protocol.responses.values()]
        assert "CoreShowChannels" not in kept


async def test_a_question_is_not_kept_when_it_has_its_reply() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        connection = rig.link._connection
        assert connection is not None
        for _ in range(3):
            await rig.link.ask({"Action": "Ping"})
        assert (connection.protocol.responses, rig.link._unanswered) == ({}, {})


async def test_questions_fail_at_once_when_the_link_is_lost() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        question = {"Action": "CoreShowChannels"}  # this manager does not answer it
        asked = [asyncio.create_task(rig.link.ask(question, within_s=60)) for _ in range(2)]
        await wait_until(lambda: len(raw.actions("CoreShowChannels")) == 2, "it was asked")
        raw.cut()
        for one in asked:
            with pytest.raises(AmiUnavailable, match="the link was lost"):
                await one
        assert rig.link._unanswered == {}


async def test_no_call_waits_for_the_deletion_of_old_records() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        rig.link._undeleted |= {f"C:{n}" for n in range(100)}
        raw.cut()
        await rig.lost(1)
        await rig.up()  # this manager answers no DBDel, and each would take a second
        await wait_until(lambda: raw.actions("DBDel"), "a deletion is asked for")


async def test_records_are_listed_by_call() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        records = asyncio.create_task(rig.link.records())
        (question,) = await wait_until(lambda: raw.actions("DBGetTree"), "it is asked")
        assert "Family: dialer\r\n" in question
        action_id = question.partition("ActionID: ")[2].partition("\r\n")[0]
        await raw.say(
            f"Response: Success\r\nActionID: {action_id}\r\nEventList: start\r\n"
            "Message: Result will follow\r\n\r\n"
            f"Event: DBGetTreeResponse\r\nActionID: {action_id}\r\nKey: /dialer/C:1\r\n"
            "Val: answered=1.000\r\n\r\n"
            f"Event: DBGetTreeComplete\r\nActionID: {action_id}\r\nEventList: Complete\r\n"
            "ListItems: 1\r\n\r\n".encode()
        )
        assert await records == {"C:1": "answered=1.000"}


async def test_old_records_are_deleted_only_once_the_link_is_up() -> None:
    asked: list[int] = []

    async def on_up(link: AmiLink) -> None:
        await link.ask({"Action": "Ping"})
        asked.append(len(raw.actions("DBDel")))

    async with RawPbx() as raw, linked(pbx_at(raw.port), on_up=on_up) as rig:
        rig.link._undeleted.add("C:1")
        await wait_until(lambda: raw.actions("DBDel"), "a deletion is asked for")
        assert asked == [0]
