"""AMI permission checks and their error messages.

Pure; `link` sends the actions. A session keeps its permissions from the login, so they are checked
once per connection, before it dials. `read = user` and `agent` cannot be checked: none of the
user's actions causes such an event. The call's record has the same information.
"""

from __future__ import annotations

import secrets
from collections.abc import Container, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from dialer.domain.originate import NOWHERE
from dialer.settings import Pbx

#: The permission in `write` behind each action that no other permission grants. ListCommands lists
#: what the user may run (seen on 16 and 22). The other actions need `system` or `reporting`.
NEEDED: Final = MappingProxyType(
    {"DBDel": "system", "Getvar": "reporting", "Originate": "originate"}
)

#: The events of a call without which its end or outcome is not seen.
NEEDED_EVENTS: Final = frozenset({"Newchannel", "OriginateResponse", "Hangup"})


@dataclass(frozen=True, slots=True)
class Probe:
    """An Originate that calls nobody, and the events that were heard of it.

    It dials a place that no dialplan has: Asterisk creates both halves of a Local channel, hangs
    them up at once and sends an OriginateResponse. It logs "No such extension/context" (seen on
    22). All sessions hear these events, so that each probe has ids of its own.
    """

    name: str = field(default_factory=lambda: f"dialer-asks-{secrets.token_hex(6)}")
    heard: set[str] = field(default_factory=set)

    @property
    def action(self) -> dict[str, str]:
        """The Originate."""
        return {
            "Action": "Originate",
            "ActionID": self.name,
            "Channel": f"Local/s@{NOWHERE}",
            "ChannelId": self.name,
            "Application": "Hangup",
            "Async": "true",
        }

    def hears(self, event: Mapping[str, str]) -> bool:
        """Take note of an event; return false if it is not of this probe."""
        of_channel = event.get("Uniqueid", "").partition(";")[0]
        if self.name not in (event.get("ActionID"), of_channel):
            return False
        self.heard.add(event.get("Event", ""))
        return True

    @property
    def is_complete(self) -> bool:
        """True if all needed events were heard."""
        return self.heard >= NEEDED_EVENTS


def not_allowed(pbx: Pbx, commands: Container[str]) -> str:
    """Return the error if these allowed actions are not enough; empty if they are."""
    missing = [right for action, right in NEEDED.items() if action not in commands]
    if not missing:
        return ""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} does not allow the AMI user {pbx.username!r} all "
        f"actions that calls need: add {','.join(missing)} to its write in manager.conf, and "
        "reload that"
    )


def missing_call_events(pbx: Pbx, heard: Set[str]) -> str:
    """Return the error if only these events of a `Probe` were heard."""
    who = f"Asterisk at {pbx.host}:{pbx.port} sends the AMI user {pbx.username!r}"
    if not heard & NEEDED_EVENTS:
        return (
            f"{who} no call events: add call to its read in manager.conf, and reload that (and "
            "remove any eventfilter there that excludes OriginateResponse)"
        )
    hidden = " and ".join(sorted(NEEDED_EVENTS - heard))
    stopping = "" if "Newchannel" in heard else ", unless Asterisk is stopping"
    return (
        f"{who} no {hidden} events{stopping}: take them out of its eventfilter lines in "
        "manager.conf, and reload that (if they are in disabledevents there, restart Asterisk)"
    )


#: What Asterisk 16 and 22 reply to a login while another session is logged in as the same user, if
#: `allowmultiplelogin = no`. They reply the same to a wrong secret then.
LOGIN_IN_USE: Final = "Login Already In Use"


def login_in_use(pbx: Pbx) -> str:
    """Return the error for the reply LOGIN_IN_USE."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} has another session of the AMI user {pbx.username!r}, "
        "and allows one: end that program, give each its own user in manager.conf, or set "
        "allowmultiplelogin = yes there"
    )


def login_refused(pbx: Pbx) -> str:
    """Return the error for a refused login."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} refused the AMI login of {pbx.username!r} for "
        f"{pbx.name}: make username and secret in dialer.toml equal to manager.conf, and check "
        "that its permit line allows this host"
    )


def too_old(pbx: Pbx, version: str) -> str:
    """Return the error for an Asterisk that ignores `ChannelId`."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} is version {version or 'unknown'}; the dialer needs 12 "
        "or later: update Asterisk, or take this PBX out of dialer.toml"
    )


def not_booted(pbx: Pbx) -> str:
    """Return the error for a missing FullyBooted, an event of class `system`."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} has not sent FullyBooted: wait until it has booted; "
        f"if it has, add system to the read of the AMI user {pbx.username!r} in manager.conf, and "
        "reload that"
    )
