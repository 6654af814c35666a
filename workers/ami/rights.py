"""AMI permission checks and their error messages.

Pure; `link` sends the actions. A session keeps its permissions from the login, so they are checked
once per connection, before it dials. `read = user` and `agent` cannot be checked: none of the
user's actions causes such an event. The call's record has the same information.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Final

from dialer.settings import Pbx

#: The permission in `write` behind each action that no other permission grants. ListCommands lists
#: what the user may run (seen on 16 and 22). The other actions need `system` or `reporting`.
NEEDED: Final = MappingProxyType(
    {"DBDel": "system", "Getvar": "reporting", "Originate": "originate"}
)

#: An Originate that calls nobody: Asterisk has no such channel technology, so it creates no channel
#: and sends an OriginateResponse at once, an event of class `call` like all events of a call. It
#: logs "No channel type registered for 'DialerAsks'" (seen on 16 and 22).
PERMISSION_PROBE: Final = MappingProxyType(
    {
        "Action": "Originate",
        "ActionID": "dialer-asks-whether-it-hears-of-calls",
        "Channel": "DialerAsks/whether-it-hears-of-calls",
        "Application": "Hangup",
        "Async": "true",
    }
)


def is_probe_reply(event: Mapping[str, str]) -> bool:
    """True if the event was caused by PERMISSION_PROBE."""
    is_of_probe = event.get("ActionID") == PERMISSION_PROBE["ActionID"]
    return is_of_probe and event.get("Event") == "OriginateResponse"


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


def missing_call_events(pbx: Pbx) -> str:
    """Return the error for a missing reply to PERMISSION_PROBE."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} sends the AMI user {pbx.username!r} no call events: "
        "add call to its read in manager.conf, and reload that (and remove any eventfilter there "
        "that excludes OriginateResponse)"
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
