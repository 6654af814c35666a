"""What the AMI link says of a user who lacks a right, before a call is dialed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from dialer.doctor.findings import Level
from dialer.errors import (
    AmiUnavailable,
)
from dialer.simulation.pbx import events
from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.ami.rig import (
    FULLY_BOOTED,
    SECRET,
    SHIPPED,
    RawPbx,
    Rig,
    down_reasons,
    linked,
    pbx_at,
    reasons,
)
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.ami import link as ami
from workers.doctor import check_pbx


@asynccontextmanager
async def with_rights(
    *,
    read: str = "system,call",
    write: str = "system,reporting,originate",
    eventfilter: Sequence[str] = (),
    on_up: Callable[[AmiLink], Awaitable[Any]] = AmiLink.check_rights,
) -> AsyncIterator[tuple[SimulatedPbx, Rig]]:
    async with (
        SimulatedPbx(secret=SECRET, read=read, write=write, eventfilter=eventfilter) as pbx,
        linked(pbx_at(pbx.port), on_up=on_up) as rig,
    ):
        yield pbx, rig


async def test_link_comes_up_with_the_least_permissions() -> None:
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
async def test_missing_permission_is_logged_once_with_its_cure(
    write: str, lacking: str, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def on_up(link: AmiLink) -> None:
        nonlocal tries
        tries += 1
        await link.check_rights()

    async with with_rights(write=write, on_up=on_up) as (pbx, rig):
        await wait_until(lambda: tries >= 3, "it was tried three times")
        assert down_reasons(caplog) == [
            f"Asterisk at 127.0.0.1:{pbx.port} does not allow the AMI user 'dialer' all "
            f"actions that calls need: add {lacking} to its write in manager.conf, and reload that"
        ]
        pbx.exchange.write_permissions = events.EVERYTHING
        await rig.up()
    assert "AMI link is back" in caplog.messages


@pytest.mark.parametrize("question", [AmiLink.channels, AmiLink.has_include])
async def test_refused_question_names_the_permissions_to_add(
    question: Callable[[AmiLink], Awaitable[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async with with_rights(write="originate", on_up=question) as (_, rig):
        await wait_until(lambda: down_reasons(caplog), "it was said")
        assert not rig.link.ready
    assert "add system,reporting to its write in manager.conf" in reasons(caplog)


async def test_a_refusal_that_is_no_missing_right_is_told() -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port)) as rig:
        await rig.up()
        asking = asyncio.create_task(rig.link.boot())
        for action in ("CoreStatus", "ListCommands"):
            (question,) = await wait_until(partial(raw.actions, action), "it is asked")
            action_id = question.partition("ActionID: ")[2].partition("\r\n")[0]
            reply = f"Response: Error\r\nActionID: {action_id}\r\nMessage: not now\r\n\r\n"
            await raw.say(reply.encode())
        with pytest.raises(AmiUnavailable, match="Asterisk refuses CoreStatus: not now"):
            await asking
        assert rig.link.ready


async def test_user_without_call_events_dials_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.1)
    async with with_rights(read="system,user") as (pbx, rig):
        await wait_until(lambda: down_reasons(caplog), "it was said")
        with pytest.raises(AmiUnavailable):
            await rig.originate("1190000090")
        assert down_reasons(caplog) == [
            f"Asterisk at 127.0.0.1:{pbx.port} sends the AMI user 'dialer' no call events: add "
            "call to its read in manager.conf, and reload that (and remove any eventfilter there "
            "that excludes OriginateResponse)"
        ]
        pbx.exchange.read_permissions = events.EVERYTHING
        await rig.up()
        assert pbx.rings == {}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["!Event: Hangup"], "no Hangup events: take"),
        (["!Event: OriginateResponse"], "no OriginateResponse events: take"),
        (["!Event: Newchannel"], "no Newchannel events, unless Asterisk is stopping: take"),
        (["Event: (FullyBooted|OriginateResponse)"],
         "no Hangup and Newchannel events, unless Asterisk is stopping: take"),
        (["Event: FullyBooted"], "no call events: add"),
    ],
)  # fmt: skip
async def test_events_that_a_filter_hides_are_named(
    lines: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 0.3)
    async with with_rights(eventfilter=lines) as (pbx, rig):
        await wait_until(lambda: down_reasons(caplog), "it was said")
        (reason,) = down_reasons(caplog)
        assert f"sends the AMI user 'dialer' {said}" in reason
        assert "eventfilter" in reason
        pbx.exchange.eventfilters.clear()
        await rig.up()
        assert (pbx.live, pbx.rings) == (0, {})


async def test_filters_of_other_events_hide_nothing() -> None:
    lines = ["!Event: Newexten", "!Event: VarSet", "!Event: RTCP", "!Event: Newstate"]
    async with with_rights(eventfilter=lines) as (_, rig):
        await rig.up()
        assert rig.events == []


async def test_link_lost_during_the_probe_is_no_missing_permission(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", SHIPPED["ANSWER_WITHIN_S"])
    async with with_rights(read="system,user") as (pbx, rig):
        await wait_until(lambda: pbx.exchange.floor.originates, "it listens")
        pbx.drop_links()
        await wait_until(lambda: down_reasons(caplog), "it was said")
        assert not rig.link.ready
    assert "no call events" not in reasons(caplog)


async def test_slow_boot_is_waited_for_and_names_the_permission(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "BOOTED_SOON_S", 0.05)
    async with RawPbx(is_booted=False) as raw, linked(pbx_at(raw.port)) as rig:
        await wait_until(lambda: down_reasons(caplog), "it was said")
        assert down_reasons(caplog) == [
            f"Asterisk at 127.0.0.1:{raw.port} has not sent FullyBooted: wait until it has booted; "
            "if it has, add system to the read of the AMI user 'dialer' in manager.conf, and "
            "reload that"
        ]
        await raw.say(FULLY_BOOTED.encode())
        await rig.up()
        assert raw.connections == 1
    assert "AMI link is back" in caplog.messages


async def test_missing_fully_booted_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami, "BOOTED_SOON_S", 0.02)
    monkeypatch.setattr(ami, "BOOTED_WITHIN_S", 0.05)
    async with RawPbx(is_booted=False) as raw, linked(pbx_at(raw.port)) as rig:
        await wait_until(lambda: raw.connections >= 3, "it was tried three times")
        assert len(down_reasons(caplog)) == 1
        raw.is_booted = True
        await rig.up()


def test_missing_permission_is_named_within_ten_seconds() -> None:
    assert SHIPPED["BOOTED_SOON_S"] < 10
    assert SHIPPED["ANSWER_WITHIN_S"] < 10


@pytest.mark.parametrize(
    ("versions", "is_refused"),
    [
        ("AMIversion: 1.3\r\nAsteriskVersion: 11.25.3", True),
        ("AMIversion: 1.1\r\nAsteriskVersion: SVN-trunk-r400000", True),
        ("AMIversion: 5.0.4\r\nAsteriskVersion: certified/18.9-cert5", False),
        ("AMIversion: 9.0.0\r\nAsteriskVersion: GIT-master-9f8c7d6", False),
    ],
)
async def test_an_asterisk_before_12_is_refused(
    versions: str, is_refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with RawPbx() as raw, linked(pbx_at(raw.port), on_up=AmiLink.check_version) as rig:
        await wait_until(lambda: raw.actions("CoreSettings"), "the version is asked for")
        action_id = raw.actions("CoreSettings")[0].partition("ActionID: ")[2].partition("\r\n")[0]
        reply = f"Response: Success\r\nActionID: {action_id}\r\n{versions}\r\n\r\n"
        await raw.say(reply.encode())
        await wait_until(lambda: rig.ups or rig.link.trouble, "it is judged")
        assert bool(rig.ups) is not is_refused
        if is_refused:
            version = versions.rpartition(" ")[2]
            assert rig.link.trouble == (
                f"Asterisk at 127.0.0.1:{raw.port} is version {version}; the dialer needs 12 or "
                "later: update Asterisk, or take this PBX out of dialer.toml"
            )
            assert rig.link.trouble in reasons(caplog)


async def test_a_link_lost_while_the_doctor_asks_is_told() -> None:
    async with RawPbx() as raw:
        checking = asyncio.create_task(check_pbx(pbx_at(raw.port), []))
        await wait_until(partial(raw.actions, "ListCommands"), "it asks")
        raw.cut()
        (finding,) = await checking
    assert (finding.code, finding.level) == ("ami.reach", Level.WRONG)
    assert finding.what.startswith("the link was lost")
