"""The simulated PBX as an AMI server: sessions, faults, and panoramisk's own Manager."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator

import panoramisk
import pytest

from dialer.simulation.pbx.control import ControlPort
from tests.unit.simulated_pbx_client import LONG, PATIENCE_S, Client, MakePbx, note, quick_pbxs


@pytest.fixture
async def make_pbx() -> AsyncIterator[MakePbx]:
    async with quick_pbxs() as make:
        yield make


# Logging in -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "banner"),
    [("16", "Asterisk Call Manager/5.0.4"), ("22", "Asterisk Call Manager/11.0.0")],
)
async def test_each_version_greets_with_its_own_banner(
    make_pbx: MakePbx, version: str, banner: str
) -> None:
    client = await Client.connect(await make_pbx(version=version))
    assert await client.banner() == banner


async def test_login_is_followed_by_fully_booted_with_the_uptime(make_pbx: MakePbx) -> None:
    client = await Client.logged_in(await make_pbx())
    booted = await client.event("FullyBooted")
    assert booted["Status"] == "Fully Booted"
    assert int(booted["Uptime"]) >= 3600


async def test_a_wrong_secret_is_refused_and_the_connection_closed(make_pbx: MakePbx) -> None:
    client = await Client.connect(await make_pbx())
    await client.banner()
    refusal = await client.ask(Action="Login", Username="dialer", Secret="guess")
    assert (refusal["Response"], refusal["Message"]) == ("Error", "Authentication failed")
    assert await client.is_cut()


async def test_nothing_but_login_is_permitted_before_login(make_pbx: MakePbx) -> None:
    client = await Client.connect(await make_pbx())
    await client.banner()
    answer = await client.ask(Action="CoreStatus")
    assert (answer["Response"], answer["Message"]) == ("Error", "Permission denied")


async def test_user_without_originate_permission_is_refused(make_pbx: MakePbx) -> None:
    client = await Client.logged_in(await make_pbx(write="system,reporting"))
    answer = await client.ask(Action="Originate", Channel="PJSIP/1100@tim")
    assert answer["Message"] == "Permission denied"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Nothing": "here"}, "Missing action in request"),
        ({"Action": "Originate"}, "Channel not specified"),
        ({"Action": "Originate", "Channel": "1100"}, "Invalid channel"),
        ({"Action": "Originate", "Channel": "PJSIP/1", "Timeout": "soon"}, "Invalid timeout"),
        ({"Action": "Hangup", "Channel": "PJSIP/gone-00000001"}, "No such channel"),
        ({"Action": "DBGet", "Family": "dialer", "Key": "x"}, "Database entry not found"),
        ({"Action": "DBDel", "Family": "dialer", "Key": "x"}, "Database entry not found"),
        ({"Action": "Filter", "Operation": "Drop"}, "Unknown operation"),
        ({"Action": "Ping", "Junk": "x" * 1100}, "Failed to parse message: line too long"),
        (
            {"Action": "Dance"},
            "Invalid/unknown command: Dance. Use Action: ListCommands to show available commands.",
        ),
    ],
)
async def test_errors_have_asterisks_wording(
    make_pbx: MakePbx, headers: dict[str, str], message: str
) -> None:
    client = await Client.logged_in(await make_pbx())
    answer = await client.ask(**headers)
    assert (answer["Response"], answer["Message"]) == ("Error", message)


async def test_ping_and_core_responses_have_asterisks_fields(
    make_pbx: MakePbx,
) -> None:
    client = await Client.logged_in(await make_pbx(version="16"))
    pong = await client.ask(Action="Ping")
    settings = await client.ask(Action="CoreSettings")
    status = await client.ask(Action="CoreStatus")
    assert list(pong) == ["Response", "ActionID", "Ping", "Timestamp"]
    assert settings["AMIversion"] == "5.0.4"
    assert settings["AsteriskVersion"].startswith("16.")
    assert status["CoreCurrentCalls"] == "0"
    assert len(status["CoreStartupDate"]) == 10


async def test_logoff_says_goodbye_and_closes(make_pbx: MakePbx) -> None:
    client = await Client.logged_in(await make_pbx())
    assert (await client.ask(Action="Logoff"))["Response"] == "Goodbye"
    assert await client.is_cut()


async def test_actions_in_any_packet_size_are_answered(
    make_pbx: MakePbx,
) -> None:
    client = await Client.logged_in(await make_pbx())
    client.writer.write(b"Action: Pi")
    await client.writer.drain()
    client.writer.write(b"ng\r\nActionID: 1\r\n\r\nAction: Ping\nActionID: 2\n\n")
    assert (await client.until(lambda m: m.get("Ping") == "Pong"))["ActionID"] == "1"
    assert (await client.until(lambda m: m.get("Ping") == "Pong"))["ActionID"] == "2"


# Events of a session ----------------------------------------------------------------


async def test_events_of_unsubscribed_classes_are_not_sent(make_pbx: MakePbx) -> None:
    pbx = await make_pbx()
    narrow = await Client.logged_in(pbx, "system,call,user")
    wide = await Client.logged_in(pbx, "on")
    silent = await Client.logged_in(pbx, "off")
    narrow.originate("1100", "c1", Variable="COLOUR=blue")
    await narrow.event("Hangup")
    await wide.event("Hangup")
    await silent.ask(Action="Ping")
    assert {"VarSet", "Newexten"} <= set(wide.names())
    assert not {"VarSet", "Newexten"} & set(narrow.names())
    assert silent.names() == []


async def test_the_events_action_changes_the_mask(make_pbx: MakePbx) -> None:
    client = await Client.logged_in(await make_pbx(), "on")
    assert (await client.ask(Action="Events", EventMask="off"))["Events"] == "Off"
    client.originate("1186", "c1")
    await client.until(lambda m: m.get("ActionID") == "act-c1")
    await client.ask(Action="Ping")
    assert set(client.names()) <= {"FullyBooted"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Filter": "!Event: Newchannel"},
        {"MatchCriteria": "action(exclude),name(Newchannel)"},
        {"MatchCriteria": "name(Hangup),header(Uniqueid),method(exact)", "Filter": "c1"},
    ],
)
async def test_filters_of_both_syntaxes_block_events(
    make_pbx: MakePbx, headers: dict[str, str]
) -> None:
    client = await Client.logged_in(await make_pbx(), "call")
    assert (await client.ask(Action="Filter", Operation="Add", **headers))["Response"] == "Success"
    client.originate("1100", "c1")
    await client.event("Hangup")
    assert "Newchannel" not in client.names()


# Faults -----------------------------------------------------------------------------


async def test_dropped_links_leave_the_calls_alive(make_pbx: MakePbx) -> None:
    pbx = await make_pbx(**LONG)
    client = await Client.logged_in(pbx, "call")
    client.originate("1100", "c1")
    await client.event("OriginateResponse")
    pbx.drop_links()
    assert await client.is_cut()
    again = await Client.logged_in(pbx, "call")
    await again.ask(Action="CoreShowChannels")
    assert (await again.event("CoreShowChannel"))["Uniqueid"] == "c1"


async def test_hung_pbx_sends_nothing_until_unhung(make_pbx: MakePbx) -> None:
    pbx = await make_pbx()
    client = await Client.logged_in(pbx, "call")
    client.originate("1190", "c1")
    call = await client.event("OriginateResponse")
    pbx.hang()
    client.send(Action="Ping", ActionID="p1")
    await client.writer.drain()
    live = pbx.exchange.floor.find(call["Channel"])
    assert live is not None
    pbx.exchange.floor.hang_up(live, cause=16)
    late = await Client.connect(pbx)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(late.reader.read(1), 0.1)
    assert not client.reader.at_eof()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.event("Hangup"), 0.05)
    pbx.unhang()
    await client.event("Hangup", Uniqueid="c1")
    assert (await client.until(lambda m: "Ping" in m))["ActionID"] == "p1"
    assert (await late.banner()).startswith("Asterisk Call Manager/")


async def test_restart_drops_calls_silently_and_keeps_astdb(make_pbx: MakePbx) -> None:
    pbx = await make_pbx(**LONG)
    client = await Client.logged_in(pbx, "call")
    client.originate("1100", "c1")
    await client.event("OriginateResponse")
    before = await client.ask(Action="CoreStatus")
    pbx.restart()
    assert await client.is_cut()
    again = await Client.logged_in(pbx, "system")
    booted = await again.event("FullyBooted")
    after = await again.ask(Action="CoreStatus")
    assert int(booted["Uptime"]) < 60
    assert before["CoreStartupTime"] != after["CoreStartupTime"]
    assert after["CoreCurrentCalls"] == "0"
    assert (await note(again, "c1")).endswith(" wait= handed=yes")
    assert "Hangup" not in client.names()


async def test_pbx_that_refuses_connections_keeps_its_port(
    make_pbx: MakePbx,
) -> None:
    pbx = await make_pbx()
    port = pbx.port
    pbx.refuse_connections(True)
    with pytest.raises(ConnectionError):
        await Client.connect(pbx)
    pbx.refuse_connections(False)
    await Client.logged_in(pbx)
    assert pbx.port == port


async def test_control_port_switches_faults_and_reports_counts(
    make_pbx: MakePbx,
) -> None:
    pbx = await make_pbx()
    client = await Client.logged_in(pbx, "call")
    client.originate("1100", "c1")
    await client.event("Hangup")
    control = ControlPort(pbx, stop=lambda: None)
    await control.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", control.port)
    writer.write(b"stats\ndrop\nnonsense\n")
    stats = json.loads(await reader.readline())
    assert await reader.readline() == b"ok\n"
    assert (await reader.readline()).startswith(b"error: unknown command")
    assert await client.is_cut()
    assert (stats["rings"], stats["live"], stats["peak_live"]) == ({"1100": 1}, 0, 1)
    writer.close()
    control.stop()


# panoramisk -------------------------------------------------------------------------


async def test_panoramisk_can_originate_and_sees_the_hangup(
    make_pbx: MakePbx,
) -> None:
    pbx = await make_pbx()
    manager = panoramisk.Manager(
        loop=asyncio.get_running_loop(),
        host=pbx.host,
        port=pbx.port,
        username="dialer",
        secret="secret",
        events="system,call,user",
        forgetable_actions=("ping", "login", "originate"),
    )
    booted, ended = (asyncio.get_running_loop().create_future() for _ in range(2))
    for name, future in {"FullyBooted": booted, "Hangup": ended}.items():
        manager.register_event(name, lambda _m, event, f=future: f.done() or f.set_result(event))
    await manager.connect()
    await asyncio.wait_for(booted, PATIENCE_S)
    pong = await asyncio.wait_for(manager.send_action({"Action": "Ping"}), PATIENCE_S)
    originate = {
        "Action": "Originate",
        "Channel": "PJSIP/5511999990000@tim",
        "Context": "dialer-enter",
        "Exten": "s",
        "Priority": "1",
        "Async": "true",
        "ChannelId": "ASR_TIM:1",
        "Variable": ["DIALER_CONTEXT=dialer-ura", "DIALER_EXTEN=s"],
    }
    words = await asyncio.wait_for(manager.send_action(originate), PATIENCE_S)
    hangup = await asyncio.wait_for(ended, PATIENCE_S)
    channels = await manager.send_action({"Action": "CoreShowChannels"})
    note_of_call = await manager.send_action(
        {"Action": "DBGet", "Family": "dialer", "Key": "ASR_TIM:1"}
    )
    manager.close()
    assert manager.authenticated
    assert (pong.response, pong.ping) == ("Success", "Pong")
    assert [m.response for m in words] == ["Success", "Success"]
    assert (hangup.uniqueid, hangup.cause) == ("ASR_TIM:1", "16")
    assert channels[-1].listitems == "0"
    assert note_of_call[1].val.startswith("answered=")


# As a program -----------------------------------------------------------------------

PROGRAM = """
import asyncio
from dialer.simulation.pbx.control import SimulatedPbxConfig, serve
asyncio.run(serve(SimulatedPbxConfig(port=0, control_port=0, ring_time=(0.01, 0.02))))
"""


async def test_program_prints_ports_and_obeys_signals() -> None:
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdout=pipe, stderr=pipe
    )
    assert program.stdout is not None
    assert program.stderr is not None
    ports = json.loads(await asyncio.wait_for(program.stdout.readline(), PATIENCE_S))
    reader, writer = await asyncio.open_connection(ports["host"], ports["port"])
    assert (await reader.readline()).startswith(b"Asterisk Call Manager/11")
    control, commands = await asyncio.open_connection(ports["host"], ports["control_port"])
    program.send_signal(signal.SIGUSR1)
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    commands.write(b"stats\n")
    assert json.loads(await control.readline())["connections"] == 0
    program.terminate()
    assert await asyncio.wait_for(program.wait(), PATIENCE_S) == 0
    assert await program.stderr.read() == b""
    writer.close()
    commands.close()
