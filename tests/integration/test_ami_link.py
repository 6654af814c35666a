"""The AMI link against a PBX that misbehaves, on real TCP connections."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from panoramisk.message import Message
from pydantic import SecretStr

from dialer.errors import (
    AmiLoginRefused,
    AmiUnavailable,
    ConfigError,
    OriginateOutcomeUnknown,
    OriginateRefused,
)
from dialer.settings import Pbx
from dialer.simulation import pbx_events as events
from dialer.simulation.pbx import SimulatedPbx
from tests.conftest import RequireService
from tests.waiting import PATIENCE_S, wait_until
from workers.ami import AmiLink
from workers.ami import link as ami
from workers.ami.connection import Connection
from workers.translate import WANTED_EVENTS

SECRET = "a-pbx-secret"

#: The constants as they are shipped; these tests run with shorter ones.
SHIPPED: dict[str, Any] = dict(vars(ami))


def pbx_at(port: int, **fields: Any) -> Pbx:
    if "secret_file" not in fields:
        fields["secret"] = SecretStr(SECRET)
    trunks = {"tim": "PJSIP/{number}@tim"}
    return Pbx(name="pbx01", port=port, max_calls=10, cps=100, trunks=trunks, **fields)


def fields_for(number: str, call_id: str = "ASR_TIM:1") -> dict[str, str | list[str]]:
    return {
        "Channel": f"PJSIP/{number}@tim",
        "ChannelId": call_id,
        "Context": "dialer-enter",
        "Exten": "s",
        "Priority": "1",
        "Timeout": "30000",
    }


@dataclass(slots=True)
class Rig:
    """A running link and what it told."""

    link: AmiLink
    task: asyncio.Task[None]
    events: list[dict[str, str]]
    ups: list[float]
    downs: list[float]

    async def up(self) -> None:
        await wait_until(lambda: self.link.ready or self.task.done(), "the link is up")
        assert not self.task.done(), self.task

    async def down(self) -> None:
        await wait_until(lambda: not self.link.ready, "the link is down")

    async def lost(self, times: int) -> None:
        await wait_until(lambda: len(self.downs) == times, f"the loss {times} was told")

    async def originate(self, number: str, *, within_s: float = 5.0, n: int = 1) -> None:
        call_id = f"ASR_TIM:{n}"
        await self.link.originate(
            fields_for(number, call_id), action_id=f"{call_id}#1", within_s=within_s
        )


@asynccontextmanager
async def linked(
    pbx: Pbx,
    *,
    on_up: Callable[[AmiLink], Awaitable[Any]] | None = None,
    on_event: Callable[[Mapping[str, str]], None] | None = None,
) -> AsyncIterator[Rig]:
    """A link that runs; `on_up` is what it does before it is ready."""
    events: list[dict[str, str]] = []
    ups: list[float] = []
    downs: list[float] = []

    async def came_up() -> None:
        if on_up is not None:
            await on_up(link)
        ups.append(time.monotonic())

    def heard(fields: Mapping[str, str]) -> None:
        events.append(dict(fields))
        if on_event is not None:
            on_event(fields)

    link = AmiLink(pbx, WANTED_EVENTS, heard, came_up, lambda: downs.append(time.monotonic()))
    task = asyncio.create_task(link.run(), name="the link")
    try:
        yield Rig(link, task, events, ups, downs)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def pbx() -> AsyncIterator[SimulatedPbx]:
    async with SimulatedPbx(
        secret=SECRET,
        ring_time=(0.02, 0.05),
        talk_time=(0.05, 0.1),
        reject_time=(0.01, 0.02),
        read="system,call,user",
    ) as simulated:
        yield simulated


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami, "BACKOFF_S", (0.01, 0.05))
    monkeypatch.setattr(ami, "PING_EVERY_S", 0.2)
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 1.0)


FULLY_BOOTED = "Event: FullyBooted\r\nStatus: Fully Booted\r\n\r\n"


@dataclass(slots=True)
class RawPbx:
    """A manager that logs everybody in and answers pings, if it wants; the rest is the test's."""

    answers_pings: bool = True
    answers_logins: bool = True
    is_booted: bool = True
    received: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> RawPbx:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def say(self, data: bytes, *, in_pieces: bool = False) -> None:
        """Sends to the newest connection, byte by byte if asked."""
        writer = self._writers[-1]
        for piece in [data[i : i + 1] for i in range(len(data))] if in_pieces else [data]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    def actions(self, name: str) -> list[str]:
        return [text for text in self.received if f"Action: {name}\r\n" in text]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
        writer.write(b"Asterisk Call Manager/11.0.0\r\n")
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                text = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.received.append(text)
                writer.write(self._answer(text).encode())
        writer.close()

    def _answer(self, text: str) -> str:
        action_id = text.partition("ActionID: ")[2].partition("\r\n")[0]
        success = f"Response: Success\r\nActionID: {action_id}\r\n\r\n"
        if "Action: Login" in text and self.answers_logins:
            return success + (FULLY_BOOTED if self.is_booted else "")
        return success if "Action: Ping" in text and self.answers_pings else ""


# --- login ----------------------------------------------------------------------------


async def test_a_refused_login_ends_the_link_with_one_sentence(pbx: SimulatedPbx) -> None:
    pbx.exchange.secret = "another"
    async with linked(pbx_at(pbx.port)) as rig:
        await wait_until(rig.task.done, "the link has ended")
        with pytest.raises(AmiLoginRefused, match=r"refused the AMI login of 'dialer' for pbx01"):
            rig.task.result()
        assert SECRET not in str(rig.task.exception())
    await wait_until(lambda: pbx.connections == 0, "the connection is closed")


async def test_a_login_refused_later_is_tried_again_until_it_is_granted(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        pbx.exchange.secret = "changed"
        pbx.drop_links()
        await wait_until(lambda: "refused the AMI login" in reasons(caplog), "it was refused")
        assert not rig.task.done()
        pbx.exchange.secret = SECRET
        await rig.up()
    assert reasons(caplog).count("refused the AMI login") == 1


async def test_a_login_refused_by_a_pbx_that_appeared_late_does_not_end_the_link(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    pbx.exchange.secret = "another"
    pbx.refuse_connections(True)
    async with linked(pbx_at(pbx.port)) as rig:
        await wait_until(lambda: "no AMI at" in reasons(caplog), "it was said")
        pbx.refuse_connections(False)
        await wait_until(lambda: "refused the AMI login" in reasons(caplog), "it was refused")
        pbx.exchange.secret = SECRET
        await rig.up()


async def test_a_secret_file_that_vanishes_for_a_while_does_not_end_the_link(
    pbx: SimulatedPbx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "pbx01.secret"
    secret.write_text(SECRET)
    async with linked(pbx_at(pbx.port, secret_file=secret)) as rig:
        await rig.up()
        secret.unlink()
        pbx.drop_links()
        await wait_until(lambda: "cannot be read" in reasons(caplog), "it was said")
        secret.write_text(SECRET)
        await rig.up()


async def test_no_secret_at_the_start_ends_the_link(pbx: SimulatedPbx, tmp_path: Path) -> None:
    async with linked(pbx_at(pbx.port, secret_file=tmp_path / "none")) as rig:
        await wait_until(rig.task.done, "the link has ended")
        with pytest.raises(ConfigError, match="cannot be read"):
            rig.task.result()


async def test_a_pbx_that_never_answers_the_login_is_left_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.1)
    async with RawPbx(answers_logins=False) as raw, linked(pbx_at(raw.port)) as rig:
        await wait_until(lambda: raw.connections >= 3, "it was tried three times")
        raw.answers_logins = True
        await rig.up()
    assert reasons(caplog).count("no answer within 0.1 s") == 1
    assert [r for r in caplog.records if r.name == "asyncio"] == []


# --- the link's life ------------------------------------------------------------------


async def test_a_lost_link_is_told_and_remade(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        for losses in range(1, 4):
            pbx.drop_links()
            await rig.lost(losses)
            await rig.up()
            assert len(rig.ups) == losses + 1
        await rig.originate("1190000000")
        await wait_until(
            lambda: any(e["Event"] == "Hangup" for e in rig.events), "the new link tells events"
        )


async def test_an_asterisk_that_restarts_is_followed(pbx: SimulatedPbx) -> None:
    boots: list[str] = []

    async def note_boot(link: AmiLink) -> None:
        boots.append(await link.boot())

    async with linked(pbx_at(pbx.port), on_up=note_boot) as rig:
        await rig.up()
        pbx.restart(is_clean=True)
        await wait_until(lambda: len(rig.ups) == 2, "the link was remade")
    assert len(set(boots)) == 2


def test_an_asterisk_that_hangs_is_left_within_eight_seconds() -> None:
    longest = SHIPPED["PING_EVERY_S"] + SHIPPED["ANSWER_WITHIN_S"] + SHIPPED["BACKOFF_S"][0]
    assert longest <= 8.0


async def test_an_asterisk_that_hangs_is_left_and_taken_again_when_it_goes_on(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.3)
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        pbx.hang()
        await wait_until(lambda: rig.downs, "no pong came", within_s=3.0)
        pbx.unhang()
        await rig.up()
    assert "does not answer pings" in reasons(caplog)


async def test_a_half_open_connection_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.2)
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        raw.answers_pings = False  # as a peer that is gone without a word: no FIN, no RST
        await wait_until(lambda: rig.downs, "it was found out", within_s=3.0)
        raw.answers_pings = True
        await rig.up()
        assert raw.connections >= 2


async def test_a_pbx_that_is_not_there_is_said_once_and_taken_when_it_appears(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    pbx.refuse_connections(True)
    attempts = 0
    connect = AmiLink._connect

    async def counted(link: AmiLink) -> None:
        nonlocal attempts
        attempts += 1
        await connect(link)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AmiLink, "_connect", counted)
        async with linked(pbx_at(pbx.port)) as rig:
            await wait_until(lambda: attempts >= 5, "it was tried five times")
            pbx.refuse_connections(False)
            await rig.up()
    assert reasons(caplog).count("no AMI at 127.0.0.1") == 1
    assert "AMI link is back" in caplog.messages


async def test_trouble_after_every_login_is_said_once_and_backs_off(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "BACKOFF_S", (0.01, 0.2))
    tries: list[float] = []

    async def refuse(_: AmiLink) -> None:
        tries.append(time.monotonic())
        raise AmiUnavailable("no answer within 5 s")

    async with linked(pbx_at(pbx.port), on_up=refuse) as rig:
        await wait_until(lambda: len(tries) >= 7, "it was tried seven times")
        assert not rig.link.ready
    assert len(down_reasons(caplog)) == 1
    assert tries[6] - tries[5] > 0.15


async def test_an_unexpected_error_on_the_way_up_is_logged_and_the_link_tried_again(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def stumble(_: AmiLink) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise KeyError("a bug")

    async with linked(pbx_at(pbx.port), on_up=stumble) as rig:
        await rig.up()
    (record,) = [r for r in caplog.records if r.exc_info]
    assert record.getMessage() == "AMI link failed; trying again"


async def test_two_hundred_reconnects_leave_no_task_no_future_and_no_socket_behind(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ami, "BACKOFF_S", (0.0, 0.0))

    def connections() -> list[Connection]:
        gc.collect()
        # Not isinstance: it would wake the lazy objects of other libraries.
        return [o for o in gc.get_objects() if type(o) is Connection]

    def sockets() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with linked(pbx_at(pbx.port), on_up=AmiLink.channels) as rig:
        await rig.up()
        tasks, files = len(asyncio.all_tasks()), sockets()
        for losses in range(1, 201):
            asking = asyncio.create_task(rig.link.ask({"Action": "Ping"}))
            pbx.drop_links()
            await rig.lost(losses)
            await asyncio.gather(asking, return_exceptions=True)
            await rig.up()
        assert len(rig.ups) == 201
        await wait_until(lambda: pbx.connections == 1, "one connection is left")
        assert len(asyncio.all_tasks()) <= tasks
        assert len(connections()) <= 3  # the last one's frame may still be held
        assert sockets() <= files + 1
    await wait_until(lambda: pbx.connections == 0, "the connection is closed")
    assert {t.get_name() for t in asyncio.all_tasks() if "AMI" in t.get_name()} == set()


# --- rights of the AMI user -----------------------------------------------------------


@asynccontextmanager
async def with_rights(
    *,
    read: str = "system,call",
    write: str = "system,reporting,originate",
    on_up: Callable[[AmiLink], Awaitable[Any]] = AmiLink.check_rights,
) -> AsyncIterator[tuple[SimulatedPbx, Rig]]:
    async with (
        SimulatedPbx(secret=SECRET, read=read, write=write) as pbx,
        linked(pbx_at(pbx.port), on_up=on_up) as rig,
    ):
        yield pbx, rig


async def test_with_the_least_rights_the_link_comes_up_and_nobody_is_rung_to_find_out() -> None:
    async with with_rights() as (pbx, rig):
        await rig.up()
        assert (pbx.live, pbx.peak_live, pbx.rings) == (0, 0, {})
        assert rig.events == []


@pytest.mark.parametrize(
    ("write", "lacking"),
    [
        ("system,reporting", "originate"),
        ("system,originate", "reporting"),
        ("reporting,originate", "system"),
        ("call,originate", "system"),
        ("user", "system,reporting,originate"),
    ],
)
async def test_what_the_user_may_not_do_is_said_once_with_the_rights_to_add(
    write: str, lacking: str, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def on_up(link: AmiLink) -> None:
        nonlocal tries
        tries += 1
        await link.check_rights()

    async with with_rights(write=write, on_up=on_up) as (pbx, rig):
        await wait_until(lambda: tries == 3, "it was tried three times")
        assert down_reasons(caplog) == [
            f"Asterisk at 127.0.0.1:{pbx.port} does not allow the AMI user 'dialer' all that calls "
            f"take: add {lacking} to its write in manager.conf, and reload that"
        ]
        pbx.exchange.write_permissions = events.EVERYTHING
        await rig.up()
    assert "AMI link is back" in caplog.messages


@pytest.mark.parametrize("question", [AmiLink.channels, AmiLink.has_include])
async def test_a_question_that_the_user_may_not_ask_is_answered_with_the_rights_to_add(
    question: Callable[[AmiLink], Awaitable[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async with with_rights(write="originate", on_up=question) as (_, rig):
        await wait_until(lambda: down_reasons(caplog), "it was said")
        assert not rig.link.ready
    assert "add system,reporting to its write in manager.conf" in reasons(caplog)


async def test_a_user_who_is_told_nothing_of_calls_dials_none_until_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.1)
    async with with_rights(read="system,user") as (pbx, rig):
        await wait_until(lambda: down_reasons(caplog), "it was said")
        with pytest.raises(AmiUnavailable):
            await rig.originate("1190000090")
        assert down_reasons(caplog) == [
            f"Asterisk at 127.0.0.1:{pbx.port} tells the AMI user 'dialer' nothing of calls: add "
            "call to its read in manager.conf, and reload that (nor may an eventfilter there "
            "leave OriginateResponse out)"
        ]
        pbx.exchange.read_permissions = events.EVERYTHING
        await rig.up()
        assert pbx.rings == {}


async def test_a_link_that_is_lost_while_it_listens_is_not_taken_for_a_deaf_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with with_rights(read="system,user") as (pbx, rig):
        await wait_until(lambda: pbx.exchange.floor.originates, "it listens")
        pbx.drop_links()
        await wait_until(lambda: down_reasons(caplog), "it was said")
        assert not rig.link.ready
    assert "nothing of calls" not in reasons(caplog)


async def test_an_asterisk_that_boots_for_long_is_waited_for_and_the_right_is_named_meanwhile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "BOOTED_SOON_S", 0.05)
    async with RawPbx(is_booted=False) as raw, linked(pbx_at(raw.port)) as rig:
        await wait_until(lambda: down_reasons(caplog), "it was said")
        assert down_reasons(caplog) == [
            f"Asterisk at 127.0.0.1:{raw.port} has not said that it is fully booted: wait for it; "
            "if it is, add system to the read of the AMI user 'dialer' in manager.conf, and "
            "reload that"
        ]
        await raw.say(FULLY_BOOTED.encode())
        await rig.up()
        assert raw.connections == 1
    assert "AMI link is back" in caplog.messages


async def test_a_user_who_never_hears_that_asterisk_is_booted_is_told_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "BOOTED_SOON_S", 0.02)
    monkeypatch.setattr(ami, "BOOTED_WITHIN_S", 0.05)
    async with RawPbx(is_booted=False) as raw, linked(pbx_at(raw.port)) as rig:
        await wait_until(lambda: raw.connections == 3, "it was tried three times")
        assert len(down_reasons(caplog)) == 1
        raw.is_booted = True
        await rig.up()


def test_a_missing_right_is_said_within_ten_seconds() -> None:
    assert SHIPPED["BOOTED_SOON_S"] < 10
    assert SHIPPED["ANSWER_WITHIN_S"] < 10


# --- what is read ---------------------------------------------------------------------


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_character_that_a_read_cuts_arrives_whole(in_pieces: bool) -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        headers = {"Event": "UserEvent", "Uniqueid": "A:1", "Agent": "João 😀 Ω"}
        event = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await raw.say(f"{event}\r\n".encode(), in_pieces=in_pieces)
        await wait_until(lambda: rig.events, "the event came")
        assert rig.events == [headers]


async def test_bytes_that_are_no_text_do_not_end_the_link() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        await raw.say(b"Event: Hangup\r\nUniqueid: A:\xff\xfe\r\nCause\r\n: \r\n\r\n")
        await raw.say(b"\r\n\r\nnoise\r\n\r\n\xff\r\n\r\n")
        await raw.say(b"Event: Hangup\r\nUniqueid: A:2\r\n\r\n")
        await wait_until(lambda: len(rig.events) == 2, "both events came")
        assert rig.link.ready


async def test_an_exception_in_an_event_callback_does_not_close_the_link(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(fields: Mapping[str, str]) -> None:
        if fields["Event"] == "Newchannel":
            raise KeyError("a bug")

    async with linked(pbx_at(pbx.port), on_event=stumble) as rig:
        await rig.up()
        await rig.originate("1190000070")
        await wait_until(lambda: any(e["Event"] == "Hangup" for e in rig.events), "events go on")
        assert rig.downs == []
    assert "An AMI event could not be used" in caplog.messages


async def test_unwanted_events_are_not_even_parsed(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = Message.from_line

    def counted(line: str) -> Any:
        parsed.append(line)
        return parse(line)

    monkeypatch.setattr(Message, "from_line", counted)
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        await rig.originate("1190000000")
        await wait_until(lambda: any(e["Event"] == "Hangup" for e in rig.events), "it is over")
    first = (text.partition("\r\n")[0] for text in parsed)
    names = {line.removeprefix("Event: ") for line in first if line.startswith("Event: ")}
    assert {"Newchannel", "Hangup"} <= names <= WANTED_EVENTS


# --- questions ------------------------------------------------------------------------


async def test_live_channels_notes_and_versions_are_told(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        assert await rig.link.channels() == {}
        for n in range(3):
            await rig.originate("1190000090", n=n)
        await wait_until(lambda: len(pbx.astdb) == 3, "three calls are answered")
        channels = await rig.link.channels()
        assert set(channels) == {"ASR_TIM:0", "ASR_TIM:1", "ASR_TIM:2"}
        assert {c["ChannelState"] for c in channels.values()} == {"6"}
        assert (await rig.link.version()).startswith("22.")
        assert await rig.link.has_include()
        assert (await rig.link.note("ASR_TIM:1") or "").startswith("answered=")
        assert await rig.link.note("ASR_TIM:9") is None
        await rig.link.forget("ASR_TIM:1")
        assert await rig.link.note("ASR_TIM:1") is None


async def test_a_note_that_could_not_be_forgotten_is_forgotten_when_the_link_is_back(
    pbx: SimulatedPbx,
) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        await rig.originate("1190000090")
        await wait_until(lambda: pbx.astdb, "the call is answered")
        pbx.refuse_connections(True)
        pbx.drop_links()
        await rig.down()
        await rig.link.forget("ASR_TIM:1")
        pbx.refuse_connections(False)
        await rig.up()
        assert pbx.astdb == {}


async def test_a_missing_include_is_known() -> None:
    async with (
        SimulatedPbx(secret=SECRET, include=False) as pbx,
        linked(pbx_at(pbx.port)) as rig,
    ):
        await rig.up()
        assert not await rig.link.has_include()


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\0"])
@pytest.mark.parametrize("where", ["value", "list", "name"])
async def test_nothing_that_ends_a_line_reaches_the_wire(end: str, where: str) -> None:
    evil = f"x{end}Action: Command"
    fields = fields_for("1190000000")
    if where == "name":
        fields[evil] = "1"
    else:
        fields["Variable"] = [f"A={evil}"] if where == "list" else evil
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        with pytest.raises(ValueError, match="line end"):
            await rig.link.originate(fields, action_id="A:1#1", within_s=1.0)
        with pytest.raises(ValueError, match="line end"):
            await rig.link.ask({"Action": "Ping", "ActionID": evil})
        await rig.link.ask({"Action": "Ping"})
        assert "Command" not in "".join(raw.received)
        assert raw.actions("Originate") == []


async def test_text_that_has_no_bytes_is_refused_before_it_is_sent() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        fields = fields_for("1190000000") | {"Variable": ["A=\ud800"]}
        with pytest.raises(ValueError, match="surrogates"):
            await rig.link.originate(fields, action_id="A:1#1", within_s=1.0)
        assert raw.actions("Originate") == []


# --- originate ------------------------------------------------------------------------


async def test_an_originate_that_asterisk_takes_returns_before_the_call_is_over(
    pbx: SimulatedPbx,
) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        await rig.originate("1190000090")
        assert pbx.live == 1


async def test_a_refused_originate_gives_asterisks_reason(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        with pytest.raises(OriginateRefused, match="Extension does not exist"):
            await rig.originate("1190000085")


async def test_an_originate_without_a_word_is_of_unknown_outcome(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        with pytest.raises(OriginateOutcomeUnknown, match=r"no answer within 0\.2 s"):
            await rig.originate("1190000087", within_s=0.2)
        await rig.link.ask({"Action": "Ping"})
        assert rig.downs == []


async def test_an_originate_is_never_sent_again_after_the_link_was_lost() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        originate = asyncio.create_task(rig.originate("1190000000", within_s=PATIENCE_S))
        await wait_until(lambda: raw.actions("Originate"), "it was sent")
        raw.cut()
        with pytest.raises(OriginateOutcomeUnknown, match="link was lost"):
            await originate
        await rig.up()
        for _ in range(3):
            await rig.link.ask({"Action": "Ping"})
        assert raw.connections == 2
        assert len(raw.actions("Originate")) == 1


async def test_while_the_link_is_down_nothing_is_sent(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        pbx.refuse_connections(True)
        pbx.drop_links()
        await rig.down()
        with pytest.raises(AmiUnavailable):
            await rig.originate("1190000000")
        with pytest.raises(AmiUnavailable):
            await rig.link.ask({"Action": "Ping"})
        pbx.refuse_connections(False)
        await rig.up()
        await rig.link.ask({"Action": "Ping"})
    assert pbx.exchange.floor.originates == 0


async def test_nothing_is_dialed_before_the_link_is_ready(pbx: SimulatedPbx) -> None:
    tried: list[type[Exception]] = []

    async def too_early(link: AmiLink) -> None:
        try:
            await link.originate(fields_for("1190000000"), action_id="A:1#1", within_s=1.0)
        except AmiUnavailable as error:
            tried.append(type(error))

    async with linked(pbx_at(pbx.port), on_up=too_early) as rig:
        await rig.up()
    assert tried == [AmiUnavailable]
    assert pbx.exchange.floor.originates == 0


async def test_a_loss_in_the_same_moment_as_the_sending_is_of_unknown_outcome(
    pbx: SimulatedPbx,
) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        originates = [asyncio.create_task(rig.originate(f"11900{n:03d}90", n=n)) for n in range(50)]
        await asyncio.sleep(0)
        pbx.drop_links()
        outcomes = await asyncio.gather(*originates, return_exceptions=True)
        assert {type(o) for o in outcomes} <= {OriginateOutcomeUnknown, AmiUnavailable, type(None)}
        await rig.up()
        sent = pbx.exchange.floor.originates
        await rig.link.ask({"Action": "Ping"})
        assert pbx.exchange.floor.originates == sent <= 50


# --- TLS ------------------------------------------------------------------------------


async def certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate for that name, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=pbx"]
    command += ["-addext", f"subjectAltName={name}"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    return cert, key


@asynccontextmanager
async def tls_in_front_of(pbx: SimulatedPbx, cert: Path, key: Path) -> AsyncIterator[int]:
    """A TLS port that passes everything on to the PBX."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", pbx.port)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def openssl(require_service: RequireService) -> None:
    require_service("openssl", None if shutil.which("openssl") else "not installed")


@pytest.mark.usefixtures("openssl")
async def test_calls_are_placed_over_tls_with_a_certificate_of_the_pbx_itself(
    pbx: SimulatedPbx, tmp_path: Path
) -> None:
    cert, key = await certificate(tmp_path)
    async with (
        tls_in_front_of(pbx, cert, key) as port,
        linked(pbx_at(port, tls=True, tls_ca_file=cert)) as rig,
    ):
        await rig.up()
        await rig.originate("1190000090")
        assert pbx.live == 1


@pytest.mark.usefixtures("openssl")
async def test_a_certificate_that_is_not_trusted_is_said_with_the_cure_until_it_is(
    pbx: SimulatedPbx,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cert, key = await certificate(tmp_path)
    other, _ = await certificate(tmp_path, "DNS:other")
    copied = tmp_path / "copied.pem"
    shutil.copy(other, copied)
    async with tls_in_front_of(pbx, cert, key) as port:
        async with linked(pbx_at(port, tls=True, tls_ca_file=copied)) as rig:
            await wait_until(lambda: down_reasons(caplog), "it was refused")
            (reason,) = down_reasons(caplog)
            assert reason.startswith(
                f"the certificate of pbx01 at 127.0.0.1:{port} is not trusted (self"
            )
            assert reason.endswith(f": copy the PBX's tlscertfile, or its CA's, to {copied}")
            shutil.copy(cert, copied)
            await rig.up()
        async with linked(pbx_at(port, tls=True)) as rig:  # the system's own CAs
            await wait_until(lambda: len(down_reasons(caplog)) == 2, "it was refused")
            assert "beside dialer.toml and name it there in tls_ca_file" in down_reasons(caplog)[1]
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        async with linked(pbx_at(port, tls=True)) as rig:
            await rig.up()


@pytest.mark.usefixtures("openssl")
async def test_a_certificate_for_another_name_is_refused_and_said(
    pbx: SimulatedPbx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = await certificate(tmp_path, "DNS:pbx01.example,IP:127.0.0.2")
    async with tls_in_front_of(pbx, cert, key) as port:
        async with linked(pbx_at(port, tls=True, tls_ca_file=cert)):
            await wait_until(lambda: down_reasons(caplog), "it was refused")
        assert pbx.connections == 0
    assert down_reasons(caplog) == [
        f"the certificate of pbx01 at 127.0.0.1:{port} is for another name: host in dialer.toml "
        "must be a name that it has, or make one whose subjectAltName has 127.0.0.1"
    ]


async def test_a_port_without_tls_is_said(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(pbx_at(pbx.port, tls=True)):
        await wait_until(lambda: down_reasons(caplog), "it was refused")
    assert f"no TLS at 127.0.0.1:{pbx.port} (" in reasons(caplog)
    assert "must be that of tlsbindaddr" in reasons(caplog)


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\x00"])
async def test_a_useless_tls_ca_file_ends_the_link_with_one_sentence(
    pbx: SimulatedPbx, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "pbx01.pem"
    if content is not None:
        path.write_bytes(content)
    async with linked(pbx_at(pbx.port, tls=True, tls_ca_file=path)) as rig:
        await wait_until(rig.task.done, "the link has ended")
        with pytest.raises(ConfigError, match=rf"pbxs\[pbx01\]\.tls_ca_file: {path} "):
            rig.task.result()


def down_reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why the link was said to be down, each time that it was said."""
    return [
        str(vars(r)["reason"])
        for r in caplog.records
        if r.levelno >= logging.ERROR and r.getMessage().startswith("AMI link is down")
    ]


def reasons(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(down_reasons(caplog))
