"""What the doctor says of one Asterisk, by the answers that it gets over AMI."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, cast

import pytest

from dialer.doctor.findings import Finding
from dialer.errors import AsteriskTooOld
from dialer.settings import Cell, Pbx, Settings
from tests.unit.stand_ins import a
from workers.ami import AmiLink
from workers.doctor import _asterisk, check_pbxs, local_pbxs

ENDPOINT_MISSING = a(success=False, message="Unable to retrieve endpoint tim", value="")


class Link:
    """An Asterisk that has everything, but what the test says."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[dict[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        async def ask(*_: Any) -> Any:
            answer = self.answers.get(name, True)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    async def version(self) -> str:
        return "22.1.0"

    async def ask(self, action: dict[str, str], **_: Any) -> Any:
        self.asked.append(action)
        name = action.get("Variable", action["Action"])
        known = {
            "CoreSettings": a(coremaxcalls="0", coremaxloadavg="0.000000"),
            "CoreStatus": a(corecurrentcalls="0"),
            "PJSIP_ENDPOINT(tim,redirect_method)": a(value="user"),
        }
        return {**known, **self.answers}.get(name, a(value="1", success=True, message=""))


def pbx(*trunks: str, **fields: Any) -> Pbx:
    named = {f"t{n}": trunk for n, trunk in enumerate(trunks or ["PJSIP/{number}@tim"])}
    return Pbx(**{"name": "pbx01", "max_calls": 10, "cps": 5, "trunks": named, **fields})


def cell(**fields: Any) -> Cell:
    return Cell(nome="ASR", threads=10, pbxs=("pbx01",), **fields)


async def findings(link: Link, *trunks: str, **fields: Any) -> list[Finding]:
    return await _asterisk(cast(AmiLink, link), "here", pbx(*trunks), [cell(**fields)])


def codes(found: list[Finding]) -> list[str]:
    return [f"{f.level.name} {f.code}" for f in found]


GOOD = [
    "GOOD ami.version",
    "GOOD ami.limits",
    "GOOD ami.include",
    "GOOD ami.target",
    "GOOD ami.trunk",
    "GOOD ami.forward",
]


async def test_an_asterisk_that_has_everything_is_good() -> None:
    found = await findings(Link())
    assert codes(found) == GOOD
    assert found[0].what == "Asterisk 22.1.0"
    assert {f.where for f in found} == {"here"}


async def test_an_asterisk_that_is_too_old_is_asked_nothing_more() -> None:
    (finding,) = await findings(Link(check_version=AsteriskTooOld("it is 11; install 16")))
    assert (finding.code, finding.what, finding.cure) == ("ami.version", "it is 11", "install 16")


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ({"has_include": False}, "the dialplan include is missing"),
        ({"has_current_include": False}, "the dialplan include is an old one"),
        ({"has_include": False, "has_current_include": False}, "the dialplan include is missing"),
    ],
)
async def test_without_the_include_no_target_is_asked_for(
    answers: dict[str, bool], what: str
) -> None:
    found = await findings(Link(**answers))
    assert codes(found) == [*GOOD[:2], "WRONG ami.include", *GOOD[4:]]
    assert found[2].what == what
    assert "deploy/asterisk/dialer.conf" in found[2].cure


@pytest.mark.parametrize(
    ("calls", "load", "said"),
    [
        ("9", "0.0", ["DOUBTFUL ami.maxcalls"]),
        ("10", "0.0", ["GOOD ami.limits"]),
        ("0", "0.5", ["DOUBTFUL ami.maxload"]),
        ("1", "4.0", ["DOUBTFUL ami.maxcalls", "DOUBTFUL ami.maxload"]),
    ],
)
async def test_limits_of_asterisk_are_doubtful(calls: str, load: str, said: list[str]) -> None:
    settings = a(coremaxcalls=calls, coremaxloadavg=load)
    found = await findings(Link(CoreSettings=settings))
    assert codes(found)[1 : 1 + len(said)] == said
    assert len(found) == len(GOOD) - 1 + len(said)


@pytest.mark.parametrize(
    ("answers", "fields", "said"),
    [
        ({"has_amd": False}, {"amd": "hangup"}, "WRONG ami.amd"),
        ({"has_queue": False}, {"queue": "sales"}, "WRONG ami.queue"),
        ({"has_context": False}, {"context": "ivr"}, "WRONG ami.context"),
        (
            {f"DIALPLAN_EXISTS(ivr,{place})": a(value="0") for place in ("s,1", "i,1")},
            {"context": "ivr"},
            "WRONG ami.context",
        ),
        (
            {f"QUEUE_MEMBER(sales,{what})": a(value="0") for what in ("free", "logged")},
            {"queue": "sales"},
            "DOUBTFUL ami.members",
        ),
    ],
)
async def test_a_target_that_is_missing_is_named(
    answers: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    found = await findings(Link(**answers), **fields)
    assert codes(found) == [said if c == "GOOD ami.target" else c for c in GOOD]
    assert found[3].cure


@pytest.mark.parametrize(
    ("trunk", "answers", "what"),
    [
        (
            "PJSIP/{number}@tim",
            {"PJSIPShowEndpoint": [ENDPOINT_MISSING, a(success=True, message="")]},
            "there is no PJSIP endpoint tim (Unable to retrieve endpoint tim)",
        ),
        (
            "sip/tim/{number}",
            {"SIPshowpeer": a(success=False, message="Peer tim not found.")},
            "there is no SIP peer tim (Peer tim not found.)",
        ),
        ("Local/{number}@ctx/n", {"has_context": False}, "there is no context ctx"),
    ],
)
async def test_a_trunk_that_is_missing_is_named(
    trunk: str, answers: dict[str, Any], what: str
) -> None:
    found = await findings(Link(**answers), trunk)
    (finding,) = [f for f in found if f.code == "ami.trunk"]
    assert (finding.level.name, finding.what) == ("WRONG", f"trunk t0: {what}")
    assert "correct trunks of pbx01" in finding.cure


@pytest.mark.parametrize("said", ["Invalid/unknown command: X", "Permission denied"])
async def test_a_trunk_that_cannot_be_checked_is_good(said: str) -> None:
    answers = {"PJSIPShowEndpoint": a(success=False, message=said)}
    assert codes(await findings(Link(**answers))) == GOOD


@pytest.mark.parametrize(
    ("trunk", "question"),
    [
        ("PJSIP/{number}@tim", {"Action": "PJSIPShowEndpoint", "Endpoint": "tim"}),
        ("SIP/tim/{number}", {"Action": "SIPshowpeer", "Peer": "tim"}),
        ("Local/{number}@ctx/n", None),
    ],
)
async def test_a_trunk_is_asked_for_by_its_name(
    trunk: str, question: dict[str, str] | None
) -> None:
    link = Link()
    assert "GOOD ami.trunk" in codes(await findings(link, trunk))
    assert question is None or question in link.asked


@pytest.mark.parametrize("trunk", ["PJSIP/{number}", "DAHDI/g1/{number}", "IAX2/tim/{number}"])
async def test_only_a_trunk_with_a_name_is_asked_for(trunk: str) -> None:
    link = Link()
    found = await findings(link, trunk)
    assert "GOOD ami.trunk" in codes(found)
    assert not {"PJSIPShowEndpoint", "SIPshowpeer"} & {one["Action"] for one in link.asked}


async def test_a_trunk_that_dials_on_by_itself_is_wrong() -> None:
    answers = {"PJSIP_ENDPOINT(tim,redirect_method)": a(value="uri_core")}
    found = await findings(Link(**answers))
    assert codes(found) == [*GOOD[:-1], "WRONG ami.forward"]
    assert "redirect_method" in found[-1].cure


# --- which PBXs are checked ---------------------------------------------------------------


def site(tmp_path: Path, *pbxs: dict[str, Any]) -> Settings:
    (tmp_path / "secret").write_text("s")
    table = {"max_calls": 10, "cps": 5, "trunks": {"tim": "PJSIP/{number}@tim"}}
    return Settings.model_validate(
        {
            "multcall": {"redis_url": "redis://127.0.0.1:9/0"},
            "broker": {"url": "redis://127.0.0.1:9/1"},
            "pbxs": [{**table, "name": f"pbx{n}", **one} for n, one in enumerate(pbxs)],
            "cells": [{"nome": "ASR", "threads": 10, "pbxs": ["pbx0"]}],
        }
    )


def local(settings: Settings) -> list[str]:
    return [one.name for one in local_pbxs(settings)]


ELSEWHERE = "192.0.2.1"  # for documentation: no host has it
SECRET, NO_SECRET = {"secret": "s"}, {"secret_file": "/nowhere/secret"}


def test_the_pbxs_of_this_host_with_a_secret_are_local(tmp_path: Path) -> None:
    here, there = {"host": "127.0.0.1"}, {"host": ELSEWHERE}
    assert local(site(tmp_path, here | SECRET, there | SECRET, here | NO_SECRET)) == ["pbx0"]
    assert local(site(tmp_path, here | NO_SECRET, there | SECRET)) == ["pbx0"]
    assert local(site(tmp_path, there | NO_SECRET, there | SECRET)) == ["pbx1"]
    assert local(site(tmp_path, there | NO_SECRET)) == ["pbx0"]


def test_a_host_without_an_address_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def look_up(host: str, *args: Any, **more: Any) -> Any:
        if host == "pbx.example":
            raise OSError("Name or service not known")
        return known(host, *args, **more)

    settings = site(tmp_path, {"host": "pbx.example", **SECRET}, {"host": "127.0.0.1", **SECRET})
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert local(settings) == ["pbx1"]


async def test_a_pbx_is_checked_for_its_own_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[str]] = {}

    async def note(pbx: Pbx, cells: list[Cell]) -> list[Finding]:
        asked[pbx.name] = [one.name for one in cells]
        return []

    monkeypatch.setattr("workers.doctor.check_pbx", note)
    settings = site(tmp_path, SECRET, SECRET)
    assert await check_pbxs(settings, settings.pbxs) == []
    assert asked == {"pbx0": ["ASR"], "pbx1": []}


async def test_a_pbx_without_a_secret_is_left_out(tmp_path: Path) -> None:
    settings = site(tmp_path, {"host": "127.0.0.1", "port": 9, **SECRET}, NO_SECRET)
    found = await check_pbxs(settings, settings.pbxs)
    assert {f.where.partition(" ")[0] for f in found} == {"pbx0"}
