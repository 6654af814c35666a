"""docker-compose.yml trimmed as a site has it: a central machine, and the worker on a PBX's host.

Two projects play the two machines; their only way to each other is Redis with its password.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dialer.simulation.multcall.player import play, report
from tests.acceptance.compose_stack.compose import ComposeSite
from tests.acceptance.containers import CELL, TRUNKS
from tests.acceptance.lab.lab import AMI_SECRET, Lab
from tests.acceptance.test_dial_path import prefix
from tests.processes import ROOT, PbxPlace, site_toml

PASSWORD = "site/secret"
QUOTED = "site%2Fsecret"
#: The dialer's user in its image: whom a secret belongs to, for nobody else may read it.
DIALER_UID = 10001
REDIS_CONF = f"""
requirepass {PASSWORD}
appendonly yes
appendfsync always
maxmemory-policy noeviction
dir /data
"""


def machine(
    folder: Path, project: str, trimmed: str, redis: str, toml: str, **files: str
) -> ComposeSite:
    """One machine of the site: its settings, its secrets, and where it finds Redis."""
    folder.mkdir()
    site = ComposeSite(folder, project=project, redis_port=26380, flower_port=25556, web_port=28081)
    site.files.append(ROOT / "deploy" / "compose" / trimmed)
    site.toml.write_text(toml, encoding="utf-8")
    secrets = folder / "secrets"
    for n, name in enumerate(("DIALER_MULTCALL__REDIS_URL", "DIALER_BROKER__URL")):
        (secrets / name).write_text(f"redis://:{QUOTED}@{redis}/{n}\n")
    for name, text in files.items():
        (secrets / name.replace("__conf", ".conf")).write_text(text)
    _hand_over(site, secrets)
    return site


def _hand_over(site: ComposeSite, secrets: Path) -> None:
    """Give each secret to the user who needs it, and to nobody else, as docs/install.md does."""
    redis = int(site.docker("run", "--rm", "--user", "redis", "redis:8", "id", "-u"))
    for secret in secrets.iterdir():
        secret.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(secret, redis if secret.suffix == ".conf" else DIALER_UID, -1)


@pytest.fixture
def machines(lab: Lab, tmp_path: Path) -> Iterator[tuple[ComposeSite, ComposeSite]]:
    place = PbxPlace(name="pbx01", port=lab.ami_port("22"), secret="not here", trunks=TRUNKS)
    toml = site_toml("redis://in-a-credential/0", "redis://in-a-credential/1", [place],
                     cells={CELL: {"ring_timeout": 5}})  # fmt: skip
    toml = toml.replace('secret = "not here"\n', "")
    central = machine(
        tmp_path / "central", "dialer-central", "central.yml", "redis:6379", toml,
        redis__conf=REDIS_CONF,
    )  # fmt: skip
    host = machine(
        tmp_path / "host", "dialer-pbx-host", "pbx-host.yml", "127.0.0.1:26380", toml,
        DIALER_PBX01_SECRET=AMI_SECRET,
    )  # fmt: skip
    try:
        yield central, host
    finally:
        host.down()
        central.down()


def test_a_central_machine_and_a_pbx_host_dial_calls(
    lab: Lab, image: str, machines: tuple[ComposeSite, ComposeSite]
) -> None:
    central, host = machines
    central.up("redis", "bridge", "web", "flower")
    assert set(central.containers()) == {"redis", "bridge", "web", "flower"}
    host.up("worker-pbx01")
    assert set(host.containers()) == {"worker-pbx01"}
    central.wait_healthy("bridge", "web", "flower")
    host.wait_healthy("worker-pbx01")
    start = prefix()
    url = f"redis://:{QUOTED}@127.0.0.1:26380/0"
    summary = asyncio.run(
        play(url, [CELL], 20, 10.0, number_prefix=start, mix={"answered": 3, "busy": 1})
    )
    assert summary.is_right, "\n".join([*report(summary), central.logs(), host.logs()])
    assert summary.pbxs == {"pbx01": 20}
    assert sum(n for number, n in lab.rings().items() if number.startswith(start)) == 20
