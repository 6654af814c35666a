"""The AMI link over TLS, as it is trusted and as it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dialer.errors import (
    ConfigError,
)
from dialer.simulation.pbx.server import SimulatedPbx
from tests.conftest import RequireService
from tests.integration.ami.rig import (
    down_reasons,
    linked,
    pbx_at,
    reasons,
)
from tests.tls import OPENSSL_MISSING, certificate, tls_in_front_of
from tests.waiting import wait_until


@pytest.fixture
def openssl(require_service: RequireService) -> None:
    require_service("openssl", OPENSSL_MISSING)


@pytest.mark.usefixtures("openssl")
async def test_calls_are_dialed_over_tls_with_the_pbxs_certificate(
    pbx: SimulatedPbx, tmp_path: Path
) -> None:
    cert, key = await certificate(tmp_path)
    async with (
        tls_in_front_of(pbx.port, cert, key) as port,
        linked(pbx_at(port, tls=True, tls_ca_file=cert)) as rig,
    ):
        await rig.up()
        await rig.originate("1190000090")
        assert pbx.live == 1


@pytest.mark.usefixtures("openssl")
async def test_untrusted_certificate_is_logged_with_its_cure(
    pbx: SimulatedPbx,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cert, key = await certificate(tmp_path)
    other, _ = await certificate(tmp_path, "DNS:other")
    copied = tmp_path / "copied.pem"
    shutil.copy(other, copied)
    async with tls_in_front_of(pbx.port, cert, key) as port:
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
            assert "next to dialer.toml and set tls_ca_file to it" in down_reasons(caplog)[1]
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        async with linked(pbx_at(port, tls=True)) as rig:
            await rig.up()


@pytest.mark.usefixtures("openssl")
async def test_a_certificate_for_another_name_is_refused_and_said(
    pbx: SimulatedPbx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = await certificate(tmp_path, "DNS:pbx01.example,IP:127.0.0.2")
    async with tls_in_front_of(pbx.port, cert, key) as port:
        async with linked(pbx_at(port, tls=True, tls_ca_file=cert)):
            await wait_until(lambda: down_reasons(caplog), "it was refused")
        assert pbx.connections == 0
    assert down_reasons(caplog) == [
        f"the certificate of pbx01 at 127.0.0.1:{port} is for another name: set host in "
        "dialer.toml to a name in the certificate, or create a certificate whose "
        "subjectAltName contains 127.0.0.1"
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
