"""No bytes from AMI end a link, answer another question or reach another call."""

from __future__ import annotations

import asyncio

import pytest

from dialer.errors import AmiUnavailable
from tests.integration.ami.hostile_frames import hostile_frames
from tests.integration.ami.rig import RawPbx, linked, pbx_at
from tests.waiting import wait_until
from workers.ami.rights import NEEDED_EVENTS, Probe

CHANNELS = "Response: Success\r\nActionID: {id}\r\nEventList: start\r\nMessage: will follow\r\n\r\n"
CHANNEL = "Event: CoreShowChannel\r\nActionID: {id}\r\nUniqueid: {n}\r\nChannelState: 6\r\n\r\n"
END = (
    "Event: CoreShowChannelsComplete\r\nActionID: {id}\r\nEventList: Complete\r\n"
    "ListItems: {n}\r\n\r\n"
)


async def asked(raw: RawPbx, name: str) -> str:
    """The ActionID of that action, once it has come."""
    await wait_until(lambda: raw.actions(name), f"{name} came")
    return raw.actions(name)[-1].partition("ActionID: ")[2].partition("\r\n")[0]


async def test_an_event_with_two_action_ids_keeps_the_link() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        await raw.say(
            b"Event: UserEvent\r\nUniqueid: A:1\r\nUserEvent: X\r\n"
            b"ActionID: 1\r\nActionID: 2\r\n\r\n"
        )
        await raw.say(b"Event: Hangup\r\nUniqueid: A:1\r\nUniqueid: A:2\r\n\r\n")
        await wait_until(lambda: len(rig.events) == 2, "both events came")
        assert rig.events[1]["Uniqueid"] == "A:1"
        assert (raw.connections, rig.downs) == (1, [])


async def test_a_user_event_does_not_answer_a_question() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        asking = asyncio.create_task(rig.link.boot())
        action_id = await asked(raw, "CoreStatus")
        forged = f"ActionID: {action_id}\r\nResponse: Success\r\nCoreStartupDate: forged\r\n\r\n"
        await raw.say(b"Event: UserEvent\r\nUserEvent: X\r\n" + forged.encode())
        await raw.say(f"Event: XComplete\r\nActionID: {action_id}\r\n\r\n".encode())
        reply = f"Response: Success\r\nActionID: {action_id}\r\nCoreStartupDate: D\r\n"
        await raw.say((reply + "CoreStartupDate: E\r\nCoreStartupTime: T\r\n\r\n").encode())
        assert await asking == "D T"


@pytest.mark.parametrize("fault", ["a channel is missing", "a second reply", "nothing"])
async def test_a_channel_list_with_a_gap_is_no_list(fault: str) -> None:
    """A channel that is not listed counts as gone, and its call ends."""
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        asking = asyncio.create_task(rig.link.channels())
        action_id = await asked(raw, "CoreShowChannels")
        said = [CHANNELS, *(CHANNEL.replace("{n}", f"c{n}") for n in range(3))]
        said.append(END.replace("{n}", "3"))
        if fault == "a channel is missing":
            del said[2]
        if fault == "a second reply":
            said.insert(2, CHANNELS)
        await raw.say("".join(said).replace("{id}", action_id).encode())
        if fault == "a channel is missing":
            with pytest.raises(AmiUnavailable, match="only 2 of 3 channels"):
                await asking
        else:
            assert set(await asking) == {"c0", "c1", "c2"}


@pytest.mark.parametrize("event", ["UserEvent", "OriginateResponse"])
async def test_an_event_with_the_id_of_a_list_is_an_event(event: str) -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        asking = asyncio.create_task(rig.link.channels())
        action_id = await asked(raw, "CoreShowChannels")
        foreign = f"Event: {event}\r\nActionID: {{id}}\r\nUniqueid: A:1\r\n\r\n"
        said = CHANNELS + CHANNEL.replace("{n}", "c1") + foreign + END.replace("{n}", "1")
        await raw.say(said.replace("{id}", action_id).encode())
        assert set(await asking) == {"c1"}
        assert [e["Event"] for e in rig.events] == [event]


def test_a_forged_probe_reply_grants_nothing() -> None:
    probe = Probe()
    for other in (Probe().name, "", probe.name[:-1]):
        assert not probe.hears({"Event": "Hangup", "ActionID": other, "Uniqueid": other})
    assert probe.hears({"Event": "UserEvent", "ActionID": probe.name})
    assert probe.hears({"Event": "OriginateResponse", "ActionID": probe.name})
    assert not probe.is_complete
    for event in NEEDED_EVENTS:
        assert probe.hears({"Event": event, "Uniqueid": f"{probe.name};2"})
    assert probe.is_complete


async def test_hostile_frames_keep_the_link_up(caplog: pytest.LogCaptureFixture) -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        for frame in hostile_frames(seed=22, count=2_000, uniqueids=lambda: ["asr-tim.up"]):
            await raw.say(frame)
        await raw.say(b"Event: Hangup\r\nUniqueid: last\r\n\r\n")
        await wait_until(
            lambda: rig.events and rig.events[-1].get("Uniqueid") == "last", "the last"
        )
        assert (raw.connections, rig.downs) == (1, [])
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1, caplog.messages
    assert caplog.messages.count("AMI message too long, skipped; the link stays up") == 1
