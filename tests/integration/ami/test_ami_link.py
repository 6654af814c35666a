"""The AMI link against a PBX that misbehaves, on real TCP connections."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from dialer.errors import (
    AmiLoginRefused,
    AmiUnavailable,
    ConfigError,
    Fenced,
    OriginateOutcomeUnknown,
    OriginateRefused,
)
from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.ami.rig import (
    SECRET,
    SHIPPED,
    RawPbx,
    down_reasons,
    fields_for,
    linked,
    pbx_at,
    reasons,
)
from tests.waiting import PATIENCE_S, wait_until
from workers.ami import AmiLink, connection
from workers.ami import link as ami
from workers.ami.connection import Connection
from workers.ami.events import WANTED_EVENTS
from workers.ami.frames import headers_of

# --- login ----------------------------------------------------------------------------


async def test_a_refused_login_ends_the_link_with_one_sentence(pbx: SimulatedPbx) -> None:
    pbx.exchange.secret = "another"
    async with linked(pbx_at(pbx.port)) as rig:
        await wait_until(rig.task.done, "the link has ended")
        with pytest.raises(AmiLoginRefused, match=r"refused the AMI login of 'dialer' for pbx01"):
            rig.task.result()
        assert SECRET not in str(rig.task.exception())
    await wait_until(lambda: pbx.connections == 0, "the connection is closed")


async def test_a_login_in_use_is_told_apart_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    """`allowmultiplelogin = no`, as Asterisk 16 and 22 reply; the other session may end."""
    async with RawPbx(answers_logins=False) as raw, linked(pbx_at(raw.port)) as rig:
        await wait_until(lambda: raw.actions("Login"), "it logs in")
        action_id = raw.actions("Login")[0].partition("ActionID: ")[2].partition("\r\n")[0]
        refusal = f"Response: Error\r\nActionID: {action_id}\r\nMessage: Login Already In Use\r\n"
        await raw.say((refusal + "\r\n").encode())
        await wait_until(
            lambda: "another session of the AMI user" in rig.link.trouble, "it is said"
        )
        assert "secret" not in rig.link.trouble
        raw.answers_logins = True
        await rig.up()
        assert rig.link.trouble == ""
    assert "another session" in down_reasons(caplog)[0]


async def test_login_refused_later_is_retried_until_granted(
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


async def test_login_refused_by_a_late_pbx_does_not_end_the_link(
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


async def test_secret_file_that_vanishes_does_not_end_the_link(
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


async def test_pbx_that_never_answers_the_login_is_retried(
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


async def test_a_lost_link_is_logged_and_reconnected(pbx: SimulatedPbx) -> None:
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


async def test_a_link_that_is_dropped_says_why_and_comes_back(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        rig.link.drop("the include is gone")
        rig.link.drop("a later reason")
        await rig.lost(1)
        await wait_until(lambda: rig.link.ready, "the link is back")
        assert rig.link.session == 2
    assert down_reasons(caplog) == ["the include is gone"]


async def test_a_fenced_worker_does_not_connect_again(pbx: SimulatedPbx) -> None:
    async def fenced(_: AmiLink) -> None:
        raise Fenced("a newer worker")

    async with linked(pbx_at(pbx.port), on_up=fenced) as rig:
        with pytest.raises(Fenced, match="a newer worker"):
            await rig.task
        assert rig.link.session == 1


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


async def test_hanging_asterisk_is_dropped_and_taken_when_it_goes_on(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.3)
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        pbx.hang()
        await wait_until(lambda: rig.downs, "no pong came")
        pbx.unhang()
        await rig.up()
    assert "does not answer pings" in reasons(caplog)


async def test_the_times_of_pings_are_kept(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        times = await wait_until(rig.link.take_ping_times, "a pong came")
        assert 0 < times[0] < 1
        pbx.hang()
        rig.link.take_ping_times()
        await wait_until(lambda: rig.link._unanswered, "a ping waits for its pong")
        assert rig.link.take_ping_times() == [], "an age is no measurement"
        pbx.unhang()
        await wait_until(rig.link.take_ping_times, "its pong came")


async def test_bytes_that_asterisk_does_not_read_are_counted(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        assert rig.link.unread_bytes == 0
        await rig.up()
        assert rig.link.unread_bytes == 0
        pbx.hang()
        much: dict[str, str | list[str]] = {"Action": "Ping", "Text": ["x" * 900] * 8000}
        asking = asyncio.create_task(rig.link.ask(much))
        await wait_until(lambda: rig.link.unread_bytes > 0, "they wait")
        asking.cancel()


async def test_an_asterisk_that_says_nothing_is_noticed_soon(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ami, "SILENT_AFTER_S", 0.2)
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 20)
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        assert rig.link.silence == ""
        pbx.hang()
        asking = asyncio.create_task(rig.link.ask({"Action": "Ping"}))
        await wait_until(lambda: rig.link.silence, "its silence is noticed")
        assert "the Asterisk of pbx01 does not answer" in rig.link.silence
        pbx.unhang()
        await asking
        assert rig.link.silence == ""


async def test_a_half_open_connection_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.2)
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        raw.answers_pings = False  # as a peer that is gone without a word: no FIN, no RST
        await wait_until(lambda: rig.downs, "it was found out")
        raw.answers_pings = True
        await rig.up()
        assert raw.connections >= 2


async def test_absent_pbx_is_logged_once_and_taken_when_it_appears(
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


async def test_an_error_after_every_login_is_logged_once_and_backs_off(
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


async def test_unexpected_error_at_the_start_is_logged_and_retried(
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


async def test_two_hundred_reconnects_leave_nothing_behind(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ami, "BACKOFF_S", (0.0, 0.0))

    def connections() -> list[Connection]:
        gc.collect()
        # Not isinstance: it would wake the lazy objects of other libraries.
        return [o for o in gc.get_objects() if type(o) is Connection]

    def sockets() -> int:
        return len(os.listdir("/proc/self/fd"))

    def has_pings() -> bool:
        return any(t.get_name().endswith("pings") for t in asyncio.all_tasks())

    async with linked(pbx_at(pbx.port), on_up=AmiLink.channels) as rig:
        await rig.up()
        await wait_until(has_pings, "all tasks of the link have started")
        tasks, files = len(asyncio.all_tasks()), sockets()
        for losses in range(1, 201):
            asking = asyncio.create_task(rig.link.ask({"Action": "Ping"}))
            pbx.drop_links()
            await rig.lost(losses)
            await asyncio.gather(asking, return_exceptions=True)
            await rig.up()
        assert len(rig.ups) == 201
        await wait_until(lambda: pbx.connections == 1, "one connection is left")
        await wait_until(lambda: len(asyncio.all_tasks()) <= tasks, "no task is left over")
        assert len(connections()) <= 3  # the last one's frame may still be held
        assert sockets() <= files + 1
    await wait_until(lambda: pbx.connections == 0, "the connection is closed")
    assert {t.get_name() for t in asyncio.all_tasks() if "AMI" in t.get_name()} == set()


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


async def test_exception_in_an_event_callback_keeps_the_link_up(
    pbx: SimulatedPbx, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(fields: Mapping[str, str]) -> None:
        if fields["Event"] == "Newchannel":
            raise KeyError("a bug")

    async with linked(pbx_at(pbx.port), on_event=stumble) as rig:
        await rig.up()
        await rig.originate("1190000070")
        await rig.originate("1190000070", n=2)
        await wait_until(lambda: any(e["Event"] == "Hangup" for e in rig.events), "events go on")
        assert rig.downs == []
    assert caplog.messages.count("AMI message failed; the link stays up") == 1


async def test_unwanted_events_are_not_even_parsed(
    pbx: SimulatedPbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def counted(frame: bytes) -> dict[str, str]:
        parsed.append(frame)
        return headers_of(frame)

    monkeypatch.setattr(connection, "headers_of", counted)
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        await rig.originate("1190000000")
        await wait_until(lambda: any(e["Event"] == "Hangup" for e in rig.events), "it is over")
    first = (frame.decode().partition("\r\n")[0] for frame in parsed)
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
        assert (await rig.link.record("ASR_TIM:1") or "").startswith("answered=")
        assert await rig.link.record("ASR_TIM:9") is None
        await rig.link.delete_record("ASR_TIM:1")
        assert await rig.link.record("ASR_TIM:1") is None


async def test_record_that_was_not_deleted_is_deleted_after_reconnect(
    pbx: SimulatedPbx,
) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        await rig.originate("1190000090")
        await wait_until(lambda: pbx.astdb, "the call is answered")
        pbx.refuse_connections(True)
        pbx.drop_links()
        await rig.down()
        await rig.link.delete_record("ASR_TIM:1")
        pbx.refuse_connections(False)
        await rig.up()
        assert pbx.astdb == {}


@pytest.mark.parametrize(("response", "has_amd"), [("Success", True), ("Error", False)])
async def test_a_loaded_amd_is_known(response: str, has_amd: bool) -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        asking = asyncio.create_task(rig.link.has_amd())
        (question,) = await wait_until(lambda: raw.actions("ModuleCheck"), "it is asked")
        action_id = question.partition("ActionID: ")[2].partition("\r\n")[0]
        await raw.say(f"Response: {response}\r\nActionID: {action_id}\r\n\r\n".encode())
        assert await asking is has_amd
        assert "Module: app_amd.so" in question


async def test_a_missing_include_is_known() -> None:
    async with (
        SimulatedPbx(secret=SECRET, include=False) as pbx,
        linked(pbx_at(pbx.port)) as rig,
    ):
        await rig.up()
        assert not await rig.link.has_include()
        assert not await rig.link.has_current_include()


async def test_an_asterisk_says_what_it_has(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        assert await rig.link.has_include()
        assert await rig.link.has_current_include()
        assert await rig.link.has_queue("sales")
        assert not await rig.link.has_queue("not-there")
        assert await rig.link.has_context("ivr")
        assert not await rig.link.has_context("not-there")
        assert await rig.link.has_amd() is False, "the simulated one lacks app_amd"
        await rig.originate("1190000090", n=1)
        await wait_until(lambda: pbx.live == 1, "a call is up")
        assert await rig.link.has_channel("ASR_TIM:1")
        assert not await rig.link.has_channel("ASR_TIM:2")


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


async def test_accepted_originate_returns_before_the_call_ends(
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


async def test_an_originate_without_a_reply_has_an_unknown_outcome(pbx: SimulatedPbx) -> None:
    async with linked(pbx_at(pbx.port)) as rig:
        await rig.up()
        with pytest.raises(OriginateOutcomeUnknown, match=r"no answer within 0\.2 s"):
            await rig.originate("1190000087", within_s=0.2)
        await rig.link.ask({"Action": "Ping"})
        assert rig.downs == []


async def test_originate_is_not_sent_again_after_the_link_was_lost() -> None:
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


async def test_link_lost_while_sending_has_an_unknown_outcome(
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
