"""`dialer doctor` against real Asterisk: what only a real dialplan, queue or endpoint can show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import docker
import pytest
from pydantic import SecretStr

from dialer.doctor.broker import check_broker
from dialer.doctor.findings import Finding, Level
from dialer.settings import Cell, Pbx
from tests.acceptance.lab.lab import AMI_SECRET, NETWORK, Lab, Version
from tests.acceptance.lab.rabbitmq import LOGIN, VHOST, RabbitMq
from workers.doctor import check_pbx

ON_BOTH = pytest.mark.parametrize("version", ["22", "16"])

SOUND_CELL: dict[str, Any] = {"queue": "COBRANCA", "amd": "hangup"}

#: What is wrong: changed fields of the PBX, changed fields of the cell, and the only finding.
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "AMI user without system": ({"username": "no-write-system"}, {}, "ami.rights"),
    "AMI user without reporting": ({"username": "no-write-reporting"}, {}, "ami.rights"),
    "AMI user without originate": ({"username": "no-write-originate"}, {}, "ami.rights"),
    "AMI user without call events": ({"username": "no-read-call"}, {}, "ami.events"),
    "AMI user without system events": ({"username": "no-read-system"}, {}, "ami.events"),
    "unknown AMI user": ({"username": "nobody"}, {}, "ami.login"),
    "queue": ({}, {"queue": "NOT_THERE"}, "ami.queue"),
    "operators": ({}, {"queue": "EMPTY"}, "ami.members"),
    "context": ({}, {"queue": None, "amd": "off", "context": "not-there"}, "ami.context"),
    "extension": (
        {},
        {"queue": None, "amd": "off", "context": "dialer-ura", "exten": "not-there"},
        "ami.context",
    ),
    "endpoint": ({"trunks": {"t": "PJSIP/{number}@not-there"}}, {}, "ami.trunk"),
    "trunk context": ({"trunks": {"t": "Local/{number}@not-there/n"}}, {}, "ami.trunk"),
}


async def findings(port: int, pbx: dict[str, Any], cell: dict[str, Any]) -> list[Finding]:
    place: dict[str, Any] = {
        "name": "pbx01",
        "port": port,
        "secret": SecretStr(AMI_SECRET),
        "max_calls": 10,
        "cps": 1,
        "trunks": {"t": "PJSIP/{number}@carrier"},
    }
    fields = {"nome": "ASR_TIM", "threads": 1, "pbxs": ("pbx01",), **SOUND_CELL, **cell}
    given = {name: value for name, value in fields.items() if value is not None}
    return await check_pbx(Pbx(**{**place, **pbx}), [Cell(**given)])


def unsound(found: list[Finding]) -> list[tuple[str, str]]:
    return [(f.code, f.what) for f in found if f.level is not Level.GOOD]


@pytest.fixture(scope="module")
def rabbitmq(docker_client: docker.DockerClient) -> Iterator[RabbitMq]:
    server = RabbitMq(docker_client, NETWORK)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@ON_BOTH
async def test_sound_asterisk_has_no_finding(lab: Lab, version: Version) -> None:
    found = await findings(lab.ami_port(version), {}, {})
    assert unsound(found) == []
    assert {f.code for f in found} >= {"ami.version", "ami.include", "ami.target", "ami.trunk"}


@ON_BOTH
@pytest.mark.parametrize("wrong", WRONG)
async def test_only_what_is_wrong_is_named(lab: Lab, version: Version, wrong: str) -> None:
    pbx, cell, code = WRONG[wrong]
    found = unsound(await findings(lab.ami_port(version), pbx, cell))
    assert [one[0] for one in found] == [code], found


async def test_trunk_that_dials_on_is_named(lab: Lab) -> None:
    """Asterisk 16 does not tell redirect_method."""
    trunks = {"t": "PJSIP/dials-on/sip:{number}@carrier"}
    found = unsound(await findings(lab.ami_port("22"), {"trunks": trunks}, {}))
    assert [one[0] for one in found] == ["ami.forward"]


async def test_probe_goes_through_a_real_rabbitmq(rabbitmq: RabbitMq) -> None:
    (finding,) = await check_broker(rabbitmq.url)
    assert (finding.code, finding.level) == ("broker.probe", Level.GOOD)
    assert "dialer-doctor" not in rabbitmq.ctl("list_queues", "-p", VHOST, "name")
    assert "dialer-doctor" not in rabbitmq.ctl("list_exchanges", "-p", VHOST, "name")


async def test_what_a_rabbitmq_refuses_is_named(rabbitmq: RabbitMq) -> None:
    async def code(url: str) -> str:
        (finding,) = await check_broker(url)
        return finding.code

    assert await code(rabbitmq.url.replace(LOGIN, "dialer:wrong")) == "broker.login"
    assert await code(rabbitmq.url.replace(f"/{VHOST}", "/nowhere")) == "broker.login"
    assert await code(rabbitmq.url.replace("amqp://", "amqps://")) == "broker.tls"
    rabbitmq.ctl("set_permissions", "-p", VHOST, "dialer", "^$", ".*", ".*")
    try:
        assert await code(rabbitmq.url) == "broker.rights"
    finally:
        rabbitmq.ctl("set_permissions", "-p", VHOST, "dialer", ".*", ".*", ".*")
