"""What reaches real Asterisk's dialplan and AstDB, byte for byte."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import unquote

import pytest
from pydantic import SecretStr
from redis import Redis

from dialer.multcall.keys import CellKeys
from dialer.settings.tables import Pbx
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import AMI_SECRET, Lab, Version
from tests.acceptance.test_dial_path import prefix
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.ami.events import WANTED_EVENTS
from workers.calls.calls import Calls
from workers.recovery.reconcile import Reconciler

NASTY = [
    'Silva, "João" \\ [a](b) ;c=d&e|f ç😀',
    " blanks around ",
    "a,INJECTED=yes",
    "unbalanced ([\"'",
    "trailing \\",
    "$ {not} $",
    "x" * 512,
]


async def _events(port: int) -> AsyncIterator[dict[str, str]]:
    """UserEvents of one Asterisk, as an observer sees them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    login = f"Action: Login\r\nUsername: observer\r\nSecret: {AMI_SECRET}\r\nEvents: user\r\n\r\n"
    writer.write(login.encode())
    try:
        while True:
            frame = (await reader.readuntil(b"\r\n\r\n")).decode()
            yield dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line)
    finally:
        writer.close()


@pytest.mark.parametrize(("pbx", "version"), [("pbx22", "22"), ("pbx16", "16")])
def test_every_value_arrives_in_the_dialplan_byte_for_byte(
    pbx: str, version: Version, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    make_site(pbxs=[pbx], context="dialer-ura-echo")
    start = prefix()

    async def heard() -> dict[str, str]:
        """What each call's dialplan says that its variable holds."""
        echoes: dict[str, str] = {}
        with Redis.from_url(redis_url) as redis:
            async with asyncio.timeout(30):
                async for event in _events(lab.ami_port(version)):
                    if event.get("Message") == "Authentication accepted":
                        for n, value in enumerate(NASTY):
                            redis.rpush(CellKeys(CELL).request, _request(start, n, value))
                    if event.get("UserEvent") == "LabEcho" and start[1:] in event["AccountCode"]:
                        echoes[event["AccountCode"].rpartition("-")[2]] = unquote(event["Value"])
                    if len(echoes) == len(NASTY):
                        break
        return echoes

    assert asyncio.run(heard()) == {str(n): value for n, value in enumerate(NASTY)}


def _request(start: str, n: int, value: str) -> str:
    return json.dumps(
        {
            "IdRequisicao": f"{start}-{n}".replace("+", ""),
            "Telefone": f"{start}{n:03d}00",
            "CallerID": "Cobrança João <1133334444>",
            "Variaveis": {"LAB_VALUE": value},
        }
    )


def deleter_of(link: AmiLink) -> Reconciler:
    """Make a reconciler for the deletion of old records, which uses only the link and the calls."""
    none = cast(Any, None)
    return Reconciler(none, link, none, Calls(), none, none, none)


@pytest.mark.parametrize("version", ["22", "16"])
async def test_records_of_calls_long_over_are_deleted_from_astdb(
    version: Version, lab: Lab
) -> None:
    now = datetime.now(UTC).timestamp()
    old = f"{CELL}:old-{time.time_ns()}"
    fresh = f"{CELL}:fresh-{time.time_ns()}"
    for call_id, at in ((old, now - 90_000), (fresh, now)):
        record = f"answered={at:.3f} ended={at:.3f} cause=16 amd= agent="
        lab.cli(version, f'database put dialer {call_id} "{record}"')

    pbx = Pbx(name="pbx", port=lab.ami_port(version), username="dialer", max_calls=1, cps=1,
              trunks={"t": "PJSIP/{number}@carrier"}, secret=SecretStr(AMI_SECRET))  # fmt: skip
    link: AmiLink

    async def on_up() -> None:
        await deleter_of(link).delete_old_records()
        assert await link.record(old) is None
        assert await link.record(fresh) is not None
        await link.delete_record(fresh)
        assert await link.record(fresh) is None

    link = AmiLink(pbx, WANTED_EVENTS, lambda _: None, on_up, lambda: None)
    running = asyncio.create_task(link.run())
    up = asyncio.create_task(link.up.wait())
    await asyncio.wait({running, up}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert up.done()
    running.cancel()


@pytest.mark.parametrize("version", ["22", "16"])
async def test_a_channel_is_found_by_its_uniqueid_alone(version: Version, lab: Lab) -> None:
    pbx = Pbx(name="pbx", port=lab.ami_port(version), username="dialer", max_calls=1, cps=1,
              trunks={"t": "PJSIP/{number}@carrier"}, secret=SecretStr(AMI_SECRET))  # fmt: skip
    call_id = f"{CELL}:there-{time.time_ns()}"

    async def on_up() -> None:
        assert not await link.has_channel(call_id)

    link = AmiLink(pbx, WANTED_EVENTS, lambda _: None, on_up)
    running = asyncio.create_task(link.run())
    await wait_until(lambda: link.ready or running.done(), "the link is up")
    fields: dict[str, str | list[str]] = {
        "Channel": f"PJSIP/{prefix()}30@carrier",  # answers and clears after three seconds
        "ChannelId": call_id,
        "Application": "Wait",
        "Data": "10",
    }
    await link.originate(fields, action_id=f"{call_id}#1", within_s=5)
    await wait_until(lambda: link.has_channel(call_id), "its channel is there")

    async def is_gone() -> bool:
        return not await link.has_channel(call_id)

    await wait_until(is_gone, "its channel is gone")
    running.cancel()
