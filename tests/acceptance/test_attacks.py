"""Requests that try to run a command or to dial a number of their own, on both Asterisks."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from redis import Redis

from dialer.multcall.keys import CellKeys
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab, Version, wait_for
from tests.acceptance.lab.redirector import Redirector
from tests.acceptance.test_dial_path import prefix
from tests.acceptance.test_recovery import STAYS
from tests.processes import Site
from tests.unit.hostile_requests import MEANT_BY_ASTERISK

#: What an attack that works leaves behind in an Asterisk.
TRACES = "/tmp/owned*"

#: Rings at the carrier if an attack dials; nobody else calls it.
ABROAD = "0044123456700"

VERSIONS: list[tuple[str, Version]] = [("pbx22", "22"), ("pbx16", "16")]

on_both = pytest.mark.parametrize(("pbx", "version"), VERSIONS)


def commands() -> list[dict[str, Any]]:
    """Attacks by variables: each known name, with the underscores of an inherited variable too."""
    found = []
    for name in MEANT_BY_ASTERISK:
        for spelling in (name, f"_{name}", f"__{name}", name.lower()):
            trace = f"/tmp/owned-{spelling}"
            value = f"/usr/bin/touch {trace}; #" if "EXEC" in name else trace
            found.append({"Variaveis": {spelling: value}})
    return found


def targets() -> list[dict[str, Any]]:
    """Attacks by a place of the dialplan."""
    return [
        {"Contexto": "internal", "Extensao": ABROAD},
        {"Contexto": "internal", "Extensao": "recorded"},
        {"Extensao": ABROAD},
        {"Contexto": "internal"},
        {"Variaveis": {"TRANSFER_CONTEXT": "internal", "FORWARD_CONTEXT": "internal"}},
        {"Variaveis": {"DIALER_CONTEXT": "internal", "DIALER_EXTEN": ABROAD}},
    ]


def request(request_id: str, number: str, **fields: Any) -> str:
    return json.dumps({"IdRequisicao": request_id, "Telefone": number, **fields})


def pushed(redis_url: str, site: Site, start: str, attacks: list[dict[str, Any]]) -> str:
    """Pushes the attacks and one sound request; return its number once its call is over."""
    good, good_id = f"{start}00001{STAYS}", f"good-{start[1:]}"
    wire = CellKeys(CELL)
    with Redis.from_url(redis_url) as redis:
        for n, fields in enumerate(attacks):
            redis.rpush(wire.request, request(f"attack-{n}", f"{start}1{n:04d}{STAYS}", **fields))
        redis.rpush(wire.request, request(good_id, good, Variaveis={"MC_NOTE": "x"}))
        site.wait_until(
            lambda: redis.llen(wire.response) == len(attacks) + 1, "a Response for each", 60.0
        )
        told = {r["IdRequisicao"]: r for r in map(json.loads, redis.lrange(wire.response, 0, -1))}
    assert told.pop(good_id)["Resultado"] == "ANSWERED"
    assert {r["Resultado"] for r in told.values()} == {"INVALID_REQUEST"}
    return good


@on_both
def test_the_labs_recorded_queue_runs_a_command(pbx: str, version: Version, lab: Lab) -> None:
    """The control: without this the next test would prove nothing."""
    lab.remove(version, TRACES)
    lab.cli(version, "channel originate Local/60@local-trunk/n extension recorded@internal")
    trace = "/tmp/owned-by-dialplan"
    wait_for(f"{trace} on {pbx}", lambda: lab.files(version, TRACES) == [trace], 15.0)
    lab.remove(version, TRACES)
    lab.hang_up_everything(version)


@on_both
def test_no_request_runs_a_command_on_a_recorded_queue(
    pbx: str, version: Version, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    lab.remove(version, TRACES)
    recordings = set(lab.files(version, "/var/spool/asterisk/monitor/*"))
    rings = lab.rings()
    site = make_site(pbxs=[pbx], queue="RECORDED", timeout_command_ack=1)
    good = pushed(redis_url, site, prefix(), commands())
    assert lab.rings() - rings == {good: 1}
    made = set(lab.files(version, "/var/spool/asterisk/monitor/*")) - recordings
    assert len(made) == 1  # the queue does record
    assert lab.files(version, TRACES) == []


@on_both
@pytest.mark.parametrize("queue", [{}, {"queue": "RECORDED"}], ids=["context", "queue"])
def test_no_request_chooses_where_an_answered_call_goes(
    pbx: str, version: Version, queue: dict[str, str], lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    lab.remove(version, TRACES)
    rings = lab.rings()
    site = make_site(pbxs=[pbx], timeout_command_ack=1, **queue)
    good = pushed(redis_url, site, prefix(), targets())
    assert lab.rings() - rings == {good: 1}
    assert lab.files(version, TRACES) == []


@on_both
@pytest.mark.parametrize("how", ["302", "REFER"])
def test_a_carrier_cannot_send_a_call_on(
    how: Literal["302", "REFER"],
    pbx: str,
    version: Version,
    lab: Lab,
    redis_url: str,
    make_site: MakeSite,
) -> None:
    rings = lab.rings()
    site = make_site(pbxs=[pbx], queue="COBRANCA", timeout_command_ack=1)
    wire = CellKeys(CELL)
    with Redirector(how, ABROAD) as carrier, Redis.from_url(redis_url) as redis:
        redis.rpush(wire.request, request("sent-on", f"{prefix()}0000161", Tronco="redirector"))
        site.wait_until(lambda: redis.llen(wire.response) == 1, "the Response", 60.0)
        told = json.loads(redis.lindex(wire.response, 0) or b"")
    assert any(line.startswith("INVITE") for line in carrier.heard)
    if how == "REFER":
        assert any(line.startswith("NOTIFY") for line in carrier.heard)
    result, code = ("ANSWERED", None) if how == "REFER" else ("FAILED", "forwarded")
    assert (told["Resultado"], (told["Erro"] or {}).get("Codigo")) == (result, code), told
    assert lab.rings() == rings
