"""AMI permission checks and their error messages.

Pure; `link` asks. A session keeps the permissions that it logged in with, so they are checked once
per connection, before it dials. `read = user` and `agent` cannot be checked: no action that the
user may run brings an event of them. The call's record has what those events say.
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

#: An Originate that calls nobody: Asterisk has no such channel technology, so it makes no channel
#: and says so at once in an OriginateResponse, an event of class `call` like all events of a call.
#: It logs "No channel type registered for 'DialerAsks'" (seen on 16 and 22).
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
    """True for the event that PERMISSION_PROBE causes."""
    return event.get("ActionID") == PERMISSION_PROBE["ActionID"]


def not_allowed(pbx: Pbx, commands: Container[str]) -> str:
    """What to add to `write` if these are the actions allowed; empty if nothing is missing."""
    missing = [right for action, right in NEEDED.items() if action not in commands]
    if not missing:
        return ""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} does not allow the AMI user {pbx.username!r} all that "
        f"calls take: add {','.join(missing)} to its write in manager.conf, and reload that"
    )


def missing_call_events(pbx: Pbx) -> str:
    """The message if the reply to PERMISSION_PROBE does not come."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} tells the AMI user {pbx.username!r} nothing of calls: "
        "add call to its read in manager.conf, and reload that (nor may an eventfilter there "
        "leave OriginateResponse out)"
    )


def not_booted(pbx: Pbx) -> str:
    """The message if FullyBooted, an event of class `system`, does not come."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} has not said that it is fully booted: wait for it; "
        f"if it is, add system to the read of the AMI user {pbx.username!r} in manager.conf, and "
        "reload that"
    )
