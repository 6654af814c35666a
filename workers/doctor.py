"""Checks of one PBX for `dialer doctor`: log in over AMI and ask for everything that calls need.

Nothing is dialed. The worker of the PBX may run meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final

from dialer.doctor.findings import Finding, Level, doubtful, exit_code, good, split_sentence, wrong
from dialer.errors import (
    AmiLoginRefused,
    AmiPermissionMissing,
    AmiUnavailable,
    AsteriskTooOld,
    ConfigError,
)
from dialer.settings import Cell, Pbx, Settings
from workers.ami import AmiLink
from workers.ami.connection import Fields
from workers.ami.events import WANTED_EVENTS
from workers.pbx.hand_overs import HandOvers
from workers.pbx.questions import Limits, Questions
from workers.pbx.state import PbxState
from workers.pbx.targets import Targets

#: Time limit of connection and login; a user without `system` is noticed before. In seconds.
UP_WITHIN_S: Final = 12.0


def local_pbxs(settings: Settings) -> list[Pbx]:
    """Return the PBXs whose worker seems to run here: an address of this host, and a secret.

    If no secret is here, return all with an address of this host: one of them lacks its secret.
    """
    near = [pbx for pbx in settings.pbxs if _is_here(pbx.host)] or list(settings.pbxs)
    return [pbx for pbx in near if _has_secret(pbx)] or near


def _has_secret(pbx: Pbx) -> bool:
    try:
        return bool(pbx.secret)
    except ConfigError:
        return False


def _is_here(host: str) -> bool:
    """True if this host has that address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_can_bind(family, address) for family, _, _, _, address in found)


def _can_bind(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address[0], 0))
        except OSError:
            return False
    return True


async def check_pbx(pbx: Pbx, cells: Sequence[Cell]) -> list[Finding]:
    """Check one PBX for the cells that may use it; stop at the first fault of the link."""
    where = f"{pbx.name} {pbx.host}:{pbx.port}"
    link = AmiLink(pbx, WANTED_EVENTS, _ignore, _nothing)
    running = asyncio.create_task(link.run())
    try:
        if trouble := await _link_trouble(link, running, where):
            return [trouble]
        try:
            findings = await _link(link, where)
            if exit_code(findings) != Level.WRONG:
                findings += await _asterisk(link, where, pbx, cells)
            return findings
        except AmiUnavailable as error:
            cure = "see Asterisk's log, and try again"
            return [wrong("ami.reach", where, f"the link was lost ({error})", cure)]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _ignore(_fields: Fields) -> None:
    """Take an event; none is needed here."""


async def _nothing() -> None:
    """Do nothing when the link is up."""


async def _link_trouble(link: AmiLink, running: asyncio.Task[None], where: str) -> Finding | None:
    """Wait until the link is up; return what prevents it."""
    up = asyncio.create_task(link.up.wait())
    troubled = asyncio.create_task(_until_trouble(link))
    await asyncio.wait(
        {up, running, troubled}, timeout=UP_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
    )
    for task in (up, troubled):
        task.cancel()
    if link.up.is_set():
        return None
    error = running.exception() if running.done() else None
    if isinstance(error, AmiLoginRefused):
        return wrong("ami.login", where, *split_sentence(str(error)))
    sentence = str(error or link.trouble or f"no AMI at {where}: no answer")
    what, cure = split_sentence(sentence)
    if "certificate" in sentence or "no TLS" in sentence:
        return wrong("ami.tls", where, what, cure)
    if "FullyBooted" in sentence:
        return wrong("ami.events", where, what, cure)
    cure = "start Asterisk; manager.conf needs enabled = yes; correct host and port in dialer.toml"
    return wrong("ami.reach", where, sentence, cure)


async def _until_trouble(link: AmiLink) -> None:
    while not link.trouble:  # noqa: ASYNC110  # the link has no event for it
        await asyncio.sleep(0.05)


async def _link(link: AmiLink, where: str) -> list[Finding]:
    try:
        await link.check_rights()
    except AmiPermissionMissing as error:
        code = "ami.events" if "sends the AMI user" in str(error) else "ami.rights"
        return [wrong(code, where, *split_sentence(str(error)))]
    return [
        good("ami.login", where, "logged in"),
        good("ami.rights", where, "the AMI user has every right"),
        good("ami.events", where, "call events are heard"),
    ]


async def _asterisk(link: AmiLink, where: str, pbx: Pbx, cells: Sequence[Cell]) -> list[Finding]:
    try:
        await link.check_version()
    except AsteriskTooOld as error:
        return [wrong("ami.version", where, *split_sentence(str(error)))]
    questions = Questions(link)
    state = PbxState(pbx.name, link)
    state.has_include = await link.has_include()
    state.confirms = state.has_include and await link.has_current_include()
    targets = Targets(pbx, state, link, HandOvers(state), questions)
    return [
        good("ami.version", where, f"Asterisk {await link.version()}"),
        *_limits(where, pbx, await questions.limits()),
        *await _targets(targets, where, cells),
        *await _trunks(link, where, pbx),
        *await _forwarding(targets, where),
    ]


def _limits(where: str, pbx: Pbx, limits: Limits) -> list[Finding]:
    findings = []
    if 0 < limits.max_calls < pbx.max_calls:
        findings.append(
            doubtful(
                "ami.maxcalls",
                where,
                f"asterisk.conf has maxcalls = {limits.max_calls}, less than max_calls = "
                f"{pbx.max_calls}",
                f"raise maxcalls above {pbx.max_calls}, or leave it out, and restart Asterisk",
            )
        )
    if limits.max_load:
        findings.append(
            doubtful(
                "ami.maxload",
                where,
                f"asterisk.conf has maxload = {limits.max_load:g}: above that load answered "
                "customers are cut off",
                "leave maxload out and limit the calls with max_calls and cps",
            )
        )
    return findings or [good("ami.limits", where, "asterisk.conf limits no calls")]


async def _targets(targets: Targets, where: str, cells: Sequence[Cell]) -> list[Finding]:
    """Check what answered calls need, with the worker's own checker."""
    findings = [_include(where, targets.state.has_include, targets.state.confirms)]
    if findings[0].level is Level.WRONG:
        return findings
    for cell in cells:
        sentence = await targets.missing(cell)
        if sentence is None:
            findings.append(good("ami.target", where, f"cell {cell.name}: answered calls arrive"))
        elif "no available member" in sentence:  # at night that is right
            findings.append(doubtful("ami.members", where, *split_sentence(sentence)))
        else:
            findings.append(wrong(_target_code(sentence), where, *split_sentence(sentence)))
    return findings


async def _forwarding(targets: Targets, where: str) -> list[Finding]:
    if sentence := await targets.dials_forwarded_calls():
        return [wrong("ami.forward", where, *split_sentence(sentence))]
    return [good("ami.forward", where, "no trunk dials on by itself")]


def _target_code(sentence: str) -> str:
    for word, code in (
        ("answering machines", "ami.amd"),
        ("queue", "ami.queue"),
        ("extension", "ami.context"),
        ("context", "ami.context"),
    ):
        if word in sentence:
            return code
    return "ami.target"


def _include(where: str, is_there: bool, is_current: bool) -> Finding:
    cure = "put the present deploy/asterisk/dialer.conf into extensions.conf, dialplan reload"
    if not is_there:
        return wrong("ami.include", where, "the dialplan include is missing", cure)
    if not is_current:
        return wrong("ami.include", where, "the dialplan include is an old one", cure)
    return good("ami.include", where, "the dialplan include is there and current")


async def _trunks(link: AmiLink, where: str, pbx: Pbx) -> list[Finding]:
    findings = []
    for name, template in pbx.trunks.items():
        missing = await _missing_trunk(link, template)
        if missing is None:
            findings.append(good("ami.trunk", where, f"trunk {name} exists"))
        else:
            cure = f"add it to Asterisk's configuration, or correct trunks of {pbx.name}"
            findings.append(wrong("ami.trunk", where, f"trunk {name}: {missing}", cure))
    return findings


def trunk_target(template: str) -> tuple[str, str]:
    """Return technology and endpoint, peer or context of a dial string.

    `PJSIP/{number}@tim`, `PJSIP/tim/sip:{number}@host`, `SIP/tim/{number}`, `Local/{number}@ctx/n`.
    """
    technology, _, rest = template.partition("/")
    return technology.upper(), rest.partition("/")[0].rpartition("@")[2]


async def _missing_trunk(link: AmiLink, template: str) -> str | None:
    """Return what the trunk lacks; None if it is there, or cannot be checked."""
    technology, name = trunk_target(template)
    if not name or "{number}" in name:
        return None
    if technology == "LOCAL":
        return None if await link.has_context(name) else f"there is no context {name}"
    actions = {
        "PJSIP": {"Action": "PJSIPShowEndpoint", "Endpoint": name},
        "SIP": {"Action": "SIPshowpeer", "Peer": name},
    }
    if technology not in actions:
        return None
    reply = await link.ask(actions[technology])
    first = reply[0] if isinstance(reply, list) else reply
    said = str(first.message or "")
    if first.success or "nvalid/unknown command" in said or "ermission" in said:
        return None
    kind = "endpoint" if technology == "PJSIP" else "peer"
    return f"there is no {technology} {kind} {name} ({said})"


async def check_pbxs(settings: Settings, pbxs: Sequence[Pbx]) -> list[Finding]:
    """Check these PBXs, each for the cells that may use it; those without a secret are left out."""
    results = await asyncio.gather(
        *(
            check_pbx(pbx, [cell for cell in settings.cells if pbx.name in cell.pbxs])
            for pbx in pbxs
            if _has_secret(pbx)
        )
    )
    return [finding for result in results for finding in result]
