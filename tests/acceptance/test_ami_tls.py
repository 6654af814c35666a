"""AMI over TLS with a self-signed certificate, as a PBX whose worker runs elsewhere has it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from dialer.domain.call import Result
from dialer.settings.tables import Pbx
from dialer.simulation.multcall.player import report
from tests.acceptance.conftest import CELL, PBXS, TRUNKS, running
from tests.acceptance.lab.lab import AMI_SECRET, VERSIONS, Lab
from tests.acceptance.test_dial_path import played
from tests.conftest import require_service
from tests.processes import PbxPlace, Site, site_toml
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.ami.events import WANTED_EVENTS

CALLS = 30


def make_certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate `<name>.pem` for 127.0.0.1 as the shipped example makes it."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "3650"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:pbx.example,IP:127.0.0.1"]
    command += ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.pem"


@pytest.fixture(scope="module")
def certificates(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificate of each PBX, which it uses, and `other.pem`."""
    require_service("openssl", None if shutil.which("openssl") else "not installed")
    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder, "other")
    for version in VERSIONS:
        cert = make_certificate(folder, f"pbx{version}")
        lab.use_certificate(version, cert, cert.with_suffix(".key"))
    return folder


def test_calls_are_placed_over_tls(
    lab: Lab, redis_url: str, certificates: Path, tmp_path: Path
) -> None:
    places = [
        PbxPlace(
            name=name,
            port=lab.ami_tls_port("22" if version == "22" else "16"),
            secret=AMI_SECRET,
            trunks=TRUNKS,
            more={"tls": True, "tls_ca_file": f"{name}.pem"},
        )
        for name, version in PBXS.items()
    ]
    for place in places:
        shutil.copy(certificates / f"{place.name}.pem", tmp_path)  # beside dialer.toml
    broker_url = redis_url.removesuffix("/0") + "/1"
    toml = site_toml(redis_url, broker_url, places, cells={CELL: {"ring_timeout": 5}})
    with running(Site(tmp_path, toml, redis_url, list(PBXS))) as site:
        summary, _ = played(lab, redis_url, CALLS, 10.0, mix={"answered": 3, "busy": 1})
        assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert set(summary.results) == {Result.ANSWERED, Result.BUSY}
    assert set(summary.pbxs) == set(PBXS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("host", "trusted", "said"),
    [
        ("127.0.0.1", "other.pem", "is not trusted (self"),
        ("localhost", "own", "is for another name: set host in dialer.toml"),
    ],
)
async def test_who_is_not_the_pbx_is_refused_with_the_cure(
    lab: Lab, certificates: Path, version: str, host: str, trusted: str, said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    port = lab.ami_tls_port("22" if version == "22" else "16")
    ca = certificates / (f"pbx{version}.pem" if trusted == "own" else trusted)
    pbx = Pbx(name="pbx", host=host, port=port, max_calls=1, cps=1, secret=SecretStr(AMI_SECRET),
              tls=True, tls_ca_file=ca, trunks={"t": "PJSIP/{number}@carrier"})  # fmt: skip

    async def on_up() -> None:
        raise AssertionError("the link must not come up")

    link = AmiLink(pbx, WANTED_EVENTS, lambda _: None, on_up, lambda: None)
    task = asyncio.create_task(link.run())
    try:
        down = await wait_until(
            lambda: [vars(r)["reason"] for r in caplog.records if "reason" in vars(r)], "refused"
        )
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert down[0].startswith(f"the certificate of pbx at {host}:{port} {said}")
