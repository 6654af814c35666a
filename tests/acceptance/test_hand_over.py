"""We cut off no answered customer. If Asterisk does, the Response says so. On 16 and 22."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

import pytest
from redis import Redis

from dialer.domain.limits import Limit
from dialer.monitor.why import why
from dialer.multcall.keys import CellKeys
from dialer.settings import load
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab, Version
from tests.acceptance.test_dial_path import prefix
from tests.acceptance.test_recovery import STAYS
from tests.processes import Site

VERSIONS: Final[list[tuple[str, Version]]] = [("pbx22", "22"), ("pbx16", "16")]
on_both = pytest.mark.parametrize(("pbx", "version"), VERSIONS)

#: Last two digits of a number that rings for 2 s before it answers.
RINGS_FIRST: Final = "95"

#: A member for a queue: answers after 0.3 s and clears after 1 s.
OPERATOR: Final = "Local/1001@lab-operators/n"


class Wire:
    """Multcall's side of one site."""

    def __init__(self, redis_url: str, site: Site) -> None:
        self.redis = Redis.from_url(redis_url, decode_responses=True)
        self.site, self.keys, self.start, self.sent = site, CellKeys(CELL), prefix(), 0

    def push(self, last_digits: str, **fields: Any) -> str:
        """Ask for one call; return its number."""
        self.sent += 1
        number = f"{self.start}{self.sent:05d}{last_digits}"
        element = {"IdRequisicao": f"{number[1:]}", "Telefone": number, **fields}
        self.redis.rpush(self.keys.request, json.dumps(element))
        return number

    def until_accepted(self) -> None:
        self.site.wait_until(lambda: self.redis.llen(self.keys.ack) > 0, "the ACK")

    def told(self, n: int = 1, within_s: float = 60.0) -> list[dict[str, Any]]:
        """The Responses of n calls."""
        self.site.wait_until(
            lambda: self.redis.llen(self.keys.response) >= n, f"{n} Responses", within_s
        )
        return [json.loads(one) for one in self.redis.lrange(self.keys.response, 0, -1)]

    def heartbeat(self, pbx: str, field: str) -> str:
        return str(self.redis.hget(f"dialer:pbx:{pbx}", field) or "")

    def limit(self) -> Limit:
        """What keeps the cell from dialing, as `dialer why` says."""
        return asyncio.run(why(load(self.site.folder / "dialer.toml"), CELL)).decision.limit

    def lacking(self, pbx: str) -> str:
        """Why calls of the cell are not dialed on that PBX."""
        return str(json.loads(self.heartbeat(pbx, "lacking") or "{}").get(CELL, ""))


def error_of(told: dict[str, Any]) -> tuple[str, str | None]:
    return told["Resultado"], (told["Erro"] or {}).get("Codigo")


@on_both
def test_maxcalls_cuts_nobody_off_unsaid(
    pbx: str, version: Version, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    with lab.limited(version, maxcalls=2) as asterisk:
        ports = {pbx: asterisk.ami_port}
        site = make_site(pbxs=[pbx], ports=ports, max_calls=10, timeout_command_ack=1)
        wire = Wire(redis_url, site)
        site.wait_until(lambda: wire.heartbeat(pbx, "cap") == "2", "maxcalls is known")
        assert "maxcalls of asterisk.conf leaves room for fewer" in site.programs[pbx].said()
        wire.push(RINGS_FIRST)
        wire.until_accepted()
        asterisk.take_rooms(2)  # others do, while it rings
        (told,) = wire.told()
        assert error_of(told) == ("ANSWERED", "not_handed_over")
        assert told["FaladoSeg"] < 0.5
        assert "maxcalls" in told["Erro"]["Mensagem"]
        site.wait_until(lambda: "as many calls as maxcalls" in wire.lacking(pbx), "it is full")


@on_both
def test_a_cell_dials_only_while_its_queue_has_an_operator(
    pbx: str, version: Version, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    said = f"queue EMPTY of {pbx} has no available member"
    site = make_site(pbxs=[pbx], queue="EMPTY", timeout_command_ack=1)
    wire = Wire(redis_url, site)
    site.wait_until(lambda: said in wire.lacking(pbx), "nobody is there")
    number = wire.push(STAYS)
    site.wait_until(lambda: wire.limit() is Limit.NO_AGENTS, "why names it")
    try:
        lab.cli(version, f"queue add member {OPERATOR} to EMPTY")
        assert error_of(wire.told()[0]) == ("ANSWERED", None)
        assert lab.rings()[number] == 1
        lab.cli(version, f"queue pause member {OPERATOR} queue EMPTY")
        began = time.monotonic()
        site.wait_until(lambda: wire.limit() is Limit.NO_AGENTS, "why names the pause")
        assert said in wire.lacking(pbx)
        named_s, began = time.monotonic() - began, time.monotonic()
        lab.cli(version, f"queue unpause member {OPERATOR} queue EMPTY")
        site.wait_until(lambda: wire.limit() is not Limit.NO_AGENTS, "the operator is back")
        gone_s = time.monotonic() - began
        print(
            f"Asterisk {version}: no_agents named after {named_s:.1f} s, gone after {gone_s:.1f} s"
        )
        assert wire.lacking(pbx) == ""
        wire.redis.delete(wire.keys.ack, wire.keys.response)
        wire.push(RINGS_FIRST)
        wire.until_accepted()
    finally:
        lab.cli(version, f"queue remove member {OPERATOR} from EMPTY")
    (told,) = wire.told()  # it rang while the last operator left
    assert error_of(told) == ("ANSWERED", "not_handed_over")
    assert "operator" in told["Erro"]["Mensagem"]


@on_both
@pytest.mark.parametrize("last_digits", ["85", "86"], ids=["before 180", "after 180"])
def test_a_redirected_call_fails_as_forwarded(
    last_digits: str, pbx: str, version: Version, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    rings = lab.rings()
    site = make_site(pbxs=[pbx], timeout_command_ack=1)
    wire = Wire(redis_url, site)
    number = wire.push(last_digits)
    assert error_of(wire.told()[0]) == ("FAILED", "forwarded")
    assert lab.rings() - rings == {number: 1}
    assert lab.live_channels(version) == 0


def test_a_trunk_that_dials_on_is_found_on_22(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    trunks = {"carrier": "PJSIP/{number}@dials-on"}
    site = make_site(pbxs=["pbx22"], trunks=trunks, timeout_command_ack=1)
    wire = Wire(redis_url, site)
    said = "trunk carrier of pbx22 dials on if the carrier forwards a call"
    site.wait_until(lambda: said in wire.lacking("pbx22"), "the worker says it")


def test_a_call_that_16_dials_on_is_no_silent_success(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    """Asterisk 16 does not tell redirect_method."""
    trunks = {"carrier": "PJSIP/{number}@dials-on"}
    site = make_site(pbxs=["pbx16"], trunks=trunks, timeout_command_ack=1)
    wire = Wire(redis_url, site)
    wire.push("86")
    (told,) = wire.told()
    assert error_of(told) == ("ANSWERED", "not_handed_over")
    assert "redirect_method = user" in told["Erro"]["Mensagem"]


@on_both
def test_a_missing_extension_is_dialed_by_no_cell_and_no_request(
    pbx: str, version: Version, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    rings = lab.rings()
    site = make_site(pbxs=[pbx], extensions=["78"], timeout_command_ack=1)
    wire = Wire(redis_url, site)
    wire.push(STAYS, Extensao="78")
    assert error_of(wire.told()[0]) == ("FAILED", "no_extension")
    assert lab.rings() == rings


@on_both
def test_a_cell_with_a_missing_extension_waits(
    pbx: str, version: Version, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site(pbxs=[pbx], context="dialer-ura", exten="78")
    wire = Wire(redis_url, site)
    said = f"{pbx} has no extension 78, priority 1 in context dialer-ura"
    site.wait_until(lambda: said in wire.lacking(pbx), "the worker says it")
