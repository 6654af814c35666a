"""The AMI user that we ship has the least rights: what real Asterisk does when one is lacking.

The lab's manager.conf has the user once more for each right, without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis

from dialer.domain.call import Result
from dialer.multcall.answers import Response
from dialer.multcall.keys import CellKeys
from dialer.settings import Pbx
from tests.acceptance.conftest import CELL, TRUNKS
from tests.acceptance.lab.lab import AMI_SECRET, Lab, Version
from tests.acceptance.test_dial_path import prefix
from tests.acceptance.test_recovery import STAYS, asked
from tests.processes import PbxPlace, Site, site_toml
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.ami import link as ami
from workers.ami.connection import Fields
from workers.ami.events import WANTED_EVENTS

#: What is said of each user less one right.
SAID = {
    "no-read-system": "add system to the read of the AMI user 'no-read-system'",
    "no-read-call": "sends the AMI user 'no-read-call' no call events: add call to its read",
    "no-write-system": "'no-write-system' all actions that calls need: add system",
    "no-write-reporting": "'no-write-reporting' all actions that calls need: add reporting",
    "no-write-originate": "'no-write-originate' all actions that calls need: add originate",
}

#: The one that we ship, and those whose lack Asterisk gives no way to ask for.
UP = ["dialer", "no-read-user", "no-read-agent"]

#: Of each user, the event and the Uniqueid of all that it was told.
Heard = dict[str, set[tuple[str, str]]]

on_both = pytest.mark.parametrize("version", ["22", "16"])


def link_of(lab: Lab, version: Version, user: str, heard: set[tuple[str, str]]) -> AmiLink:
    """A link that comes up as the worker's does."""
    pbx = Pbx(name=user, port=lab.ami_port(version), username=user, max_calls=1, cps=1,
              trunks={"t": "PJSIP/{number}@carrier"}, secret=SecretStr(AMI_SECRET))  # fmt: skip

    def hear(event: Fields) -> None:
        heard.add((event["Event"], event.get("Uniqueid", "")))

    link = AmiLink(pbx, WANTED_EVENTS, hear, lambda: link.check_rights(), lambda: None)
    return link


@asynccontextmanager
async def links(lab: Lab, version: Version, heard: Heard) -> AsyncIterator[dict[str, AmiLink]]:
    """The running links of these users."""
    found = {user: link_of(lab, version, user, told) for user, told in heard.items()}
    running = [asyncio.create_task(link.run()) for link in found.values()]
    try:
        yield found
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@on_both
async def test_missing_ami_rights_are_logged_before_the_first_call(
    version: Version, lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "BOOTED_SOON_S", 1.0)
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 2.0)
    before = len(lab.ring_log())

    def said() -> dict[str, str]:
        errors = (vars(r) for r in caplog.records if r.levelno >= logging.ERROR)
        return {fields["pbx"]: fields["reason"] for fields in errors}

    async with links(lab, version, {user: set() for user in [*SAID, *UP]}) as found:
        await wait_until(lambda: said().keys() >= SAID.keys(), "each has said its sentence")
        await wait_until(lambda: all(found[user].ready for user in UP), "the others are up")
        assert not any(found[user].ready for user in SAID)
    assert [user for user, sentence in SAID.items() if sentence not in said()[user]] == []
    assert len(lab.ring_log()) == before


@on_both
async def test_user_and_agent_rights_carry_amd_and_operator(version: Version, lab: Lab) -> None:
    heard: Heard = {user: set() for user in UP}
    start = prefix()
    talks, queues = f"{start}-talks", f"{start}-queues"
    places = {
        talks: {"Context": "dialer-ura-amd", "Variable": "LAB_TALK_S=1"},
        queues: {"Context": "dialer-queue", "Variable": "DIALER_QUEUE=COBRANCA"},
    }
    async with links(lab, version, heard) as found:
        await wait_until(lambda: all(link.ready for link in found.values()), "all are up")
        for channel_id, place in places.items():
            target = {"Channel": f"Local/{start[1:]}90@local-trunk/n", "ChannelId": channel_id}
            await found["dialer"].originate(
                {**target, **place, "Exten": "s", "Priority": "1"},
                action_id=channel_id,
                within_s=5.0,
            )
        ends = {("Hangup", channel_id) for channel_id in places}
        await wait_until(lambda: all(t >= ends for t in heard.values()), "all heard the ends")
    of_dialplan, of_queue = ("UserEvent", talks), ("AgentConnect", queues)
    assert {user: (of_dialplan in told, of_queue in told) for user, told in heard.items()} == {
        "dialer": (True, True),
        "no-read-user": (False, True),
        "no-read-agent": (True, False),
    }


@contextmanager
def site_of(
    lab: Lab, folder: Path, redis_url: str, users: dict[str, str], cells: dict[str, list[str]]
) -> Iterator[Site]:
    """A started site on Asterisk 22: PBXs with their AMI users, cells with their PBXs."""
    lab.hang_up_everything("22")
    places = [
        PbxPlace(name=n, port=lab.ami_port("22"), secret=AMI_SECRET, username=u, trunks=TRUNKS)
        for n, u in users.items()
    ]
    common = {"timeout_command_ack": 1, "ring_timeout": 5, "variables": ["LAB_*"]}
    fields = {cell: {"pbxs": pbxs, **common} for cell, pbxs in cells.items()}
    toml = site_toml(redis_url, redis_url.removesuffix("/0") + "/1", places, cells=fields)
    site = Site(folder, toml, redis_url, [*users])
    try:
        for program in site.programs.values():
            program.start()
        yield site
    finally:
        site.stop()


def test_calls_go_only_to_a_pbx_with_the_ami_rights(
    lab: Lab, redis_url: str, tmp_path: Path
) -> None:
    lame = {user: user for user in SAID}
    cells = {CELL: [*lame, "pbx22"], "WAITS": [*lame]}
    start = prefix()
    placed, waits = asked(1, f"{start}00001{STAYS}"), asked(2, f"{start}00002{STAYS}")
    with (
        Redis.from_url(redis_url) as redis,
        site_of(lab, tmp_path, redis_url, {**lame, "pbx22": "dialer"}, cells) as site,
    ):
        redis.rpush(CellKeys(CELL).request, placed.element)
        redis.rpush(CellKeys("WAITS").request, waits.element)

        def times() -> list[int]:
            return [site.programs[user].said().count(text) for user, text in SAID.items()]

        site.wait_until(lambda: all(times()), "each has said its sentence")
        site.wait_until(lambda: redis.llen(CellKeys(CELL).response) == 1, "the Response")
        assert redis.llen(CellKeys("WAITS").response) == 0
        assert times() == [1] * len(SAID)
    rings = lab.rings()
    assert (rings[placed.number], rings[waits.number]) == (1, 0)


def test_a_call_up_gets_its_response_after_a_right_is_lost(
    lab: Lab, redis_url: str, tmp_path: Path
) -> None:
    call = asked(1, f"{prefix()}00001{STAYS}", talk_s=60)
    wire = CellKeys(CELL)
    with (
        Redis.from_url(redis_url) as redis,
        site_of(lab, tmp_path, redis_url, {"pbx22": "dialer"}, {CELL: ["pbx22"]}) as site,
    ):
        redis.rpush(wire.request, call.element)
        key = f"dialer:call:{CELL}:{call.request_id}"
        site.wait_until(lambda: redis.hget(key, "state") == b"answered", "the call is up")
        worker = site.programs["pbx22"]
        worker.kill()
        worker.config.write_text(site.toml.replace('"dialer"', '"no-read-call"'), encoding="utf-8")
        worker.start()
        site.wait_until(lambda: SAID["no-read-call"] in worker.said(), "the lack is said")
        assert redis.llen(wire.response) == 0
        lab.hang_up_everything("22")
        site.wait_until(lambda: redis.llen(wire.response) == 1, "the Response")
        response = Response.model_validate_json(redis.lpop(wire.response) or b"")
    assert (response.result, response.error) == (Result.ANSWERED, None)
