"""Checks of this host: its name, files, secrets and services."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dialer.doctor.findings import Finding, doubtful, good, split_sentence, wrong
from dialer.errors import ConfigError
from dialer.settings import Pbx, Settings, config_path, stray_variables
from dialer.settings.advice import has_public_secrets, on_urls
from dialer.settings.ami_tls import context_of
from dialer.settings.environment import public_files

#: A host name that needs longer slows every PJSIP call down. In seconds.
NAME_WITHIN_S: Final = 0.5

#: The fastest of so many lookups counts, because a busy host is slow at times.
LOOKUPS: Final = 3

#: After this time the host name counts as unknown. In seconds.
NAME_GIVEN_UP_S: Final = 5.0

#: systemd is running if this folder exists.
SYSTEMD: Final = Path("/run/systemd/system")

UNIT_PROPERTIES: Final = ("ActiveState", "Type", "WatchdogUSec", "LoadState")


def check_file(settings: Settings) -> list[Finding]:
    """Check the settings file and the variables around it."""
    path = config_path()
    findings = []
    if has_public_secrets(path):
        findings.append(
            doubtful("host.file", str(path), "every user can read its secrets", f"chmod o-r {path}")
        )
    else:
        findings.append(good("host.file", str(path), "is valid, and no secret is public"))
    # In a container there are no other users, and Docker's secrets are readable for all.
    public = public_files(os.environ) if SYSTEMD.is_dir() else []
    findings += [
        doubtful("host.secret", str(file), "every user can read it", f"chmod o= {file}")
        for file in public
    ]
    findings += [
        doubtful("host.variable", variable, "has no effect", f"did you mean {meant}?")
        for variable, meant in stray_variables(settings)
    ]
    findings += [
        doubtful("redis.unverified", warning.field, *split_sentence(warning.text))
        for warning in on_urls(settings.urls)
    ]
    return findings


def check_log(settings: Settings) -> list[Finding]:
    """Check that the log folder can be written."""
    folder = settings.log.location
    if not folder:
        return []
    if Path(folder).is_dir() and os.access(folder, os.W_OK):
        return [good("host.log", folder, "can be written")]
    cure = "make it, and give it to the user of the programs (install -d -o dialer FOLDER)"
    return [wrong("host.log", folder, "log.location cannot be written by this user", cure)]


def check_secret(pbx: Pbx) -> list[Finding]:
    """Check that the PBX's AMI secret and CA file are here, and not public."""
    where = f"secret of {pbx.name}"
    for needed in (lambda: pbx.secret, lambda: context_of(pbx)):
        try:
            needed()
        except ConfigError as error:
            what, _, cure = str(error).rpartition("; ")
            cure += f"; if the worker of {pbx.name} runs elsewhere, use --pbx or --no-pbx"
            return [wrong("host.secret", where, what or str(error), cure)]
    path = pbx.secret_file
    if path is not None and path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return [doubtful("host.secret", where, f"every user can read {path}", f"chmod o= {path}")]
    return [good("host.secret", where, "is here")]


async def check_name(name: str | None = None, *, within_s: float = NAME_WITHIN_S) -> list[Finding]:
    """Check that this host knows its own name: Asterisk looks it up for each PJSIP call."""
    name = name or socket.gethostname()
    where = f"host name {name}"
    cure = f"write the line '127.0.1.1 {name}' into /etc/hosts"
    try:
        async with asyncio.timeout(NAME_GIVEN_UP_S):
            took_s = min([await _lookup_s(name) for _ in range(LOOKUPS)])
    except (OSError, TimeoutError):
        what = "cannot be resolved here; each PJSIP call of an Asterisk here stalls for seconds"
        return [wrong("host.name", where, what, cure)]
    if took_s > within_s:
        what = f"takes {took_s:.1f} s to resolve; each PJSIP call of an Asterisk here waits for it"
        return [doubtful("host.name", where, what, cure)]
    return [good("host.name", where, "resolves at once")]


async def _lookup_s(name: str) -> float:
    began = time.monotonic()
    await asyncio.get_running_loop().getaddrinfo(name, None)
    return time.monotonic() - began


async def check_services(units: Sequence[str]) -> list[Finding]:
    """Check the systemd units that exist here: active, and supervised by the watchdog."""
    if not SYSTEMD.is_dir() or shutil.which("systemctl") is None:
        return []
    return [found for unit in units for found in await _unit(unit)]


async def _unit(unit: str) -> list[Finding]:
    show = ["systemctl", "show", unit, *(f"-p{name}" for name in UNIT_PROPERTIES)]
    process = await asyncio.create_subprocess_exec(*show, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return unit_findings(unit, dict(line.split("=", 1) for line in out.decode().splitlines()))


def unit_findings(unit: str, shown: dict[str, str]) -> list[Finding]:
    """Judge what `systemctl show` says of one unit; nothing if it is not installed."""
    if shown.get("LoadState") != "loaded":
        return []
    if shown.get("Type") != "notify" or shown.get("WatchdogUSec", "infinity") in ("infinity", "0"):
        return [
            doubtful(
                "host.watchdog",
                unit,
                "is not watched: systemd would leave it hanging",
                "install our unit file again (Type=notify, WatchdogSec=60); changes go into a "
                "drop-in",
            )
        ]
    if shown.get("ActiveState") == "active":
        return [good("host.service", unit, "is active and watched")]
    what = f"is {shown.get('ActiveState')}"
    return [doubtful("host.service", unit, what, f"systemctl start {unit}; journalctl -u {unit}")]
