"""All checks of a host that need no AMI, in the order of the table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from dialer.doctor.broker import check_broker
from dialer.doctor.findings import Finding, Level
from dialer.doctor.host import check_file, check_log, check_name, check_secret, check_services
from dialer.doctor.redis import check_server
from dialer.doctor.servers import Server, servers_of
from dialer.settings import Pbx, Settings

#: With one of these the broker on that server cannot work either, and is not tried.
_STOPS_THE_BROKER: Final = frozenset(
    {
        *("redis.reach", "redis.tls", "redis.login", "redis.version", "redis.cluster"),
        *("redis.replica", "redis.memory", "redis.disk"),
    }
)


async def check_host(settings: Settings, pbxs: Sequence[Pbx]) -> list[Finding]:
    """Check files, name and services of this host; `pbxs` are those whose worker runs here."""
    units = ["dialer-bridge", *(f"dialer-worker@{pbx.name}" for pbx in pbxs)]
    return [
        *check_file(settings),
        *check_log(settings),
        *(finding for pbx in pbxs for finding in check_secret(pbx)),
        *(await check_name() if pbxs else []),
        *await check_services(units),
    ]


async def check_servers(settings: Settings) -> list[Finding]:
    """Check every Redis that the settings name, and the broker."""
    servers = servers_of(settings)
    results = await asyncio.gather(*(check_server(server) for server in servers))
    findings = [finding for result in results for finding in result]
    url = settings.broker.url
    if not _is_hopeless(url, servers, findings):
        findings += await check_broker(url)
    return findings


def _is_hopeless(url: str, servers: Sequence[Server], findings: Sequence[Finding]) -> bool:
    """True if the broker's server has a fault that the broker would only repeat."""
    named = {server.name for server in servers if any(use.url == url for use in server.uses)}
    return any(
        finding.where in named
        and finding.code in _STOPS_THE_BROKER
        and finding.level is Level.WRONG
        for finding in findings
    )
