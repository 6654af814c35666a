"""What the AMI user may do and is told: how that is asked, and what is said where it lacks a right.

Pure; the asking is `link`'s. A session keeps the rights that it logged in with, so they are asked
once for each link, before it places a call. `read = user` and `agent` cannot be asked for: no
action that the user may do brings an event of them. What they tell is in the call's note too.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Final

from dialer.settings import Pbx

#: The right in `write` behind each action that nothing else grants: ListCommands lists what the
#: user may do (seen on 16 and 22). The others that are used need `system` or `reporting`.
NEEDED: Final = MappingProxyType(
    {"DBDel": "system", "Getvar": "reporting", "Originate": "originate"}
)

#: An Originate that calls nobody: of this technology there is none, so Asterisk makes no channel,
#: and tells so at once in an OriginateResponse, an event of the class `call` like all of a call's.
#: It logs "No channel type registered for 'DialerAsks'" (seen on 16 and 22).
HEARING: Final = MappingProxyType(
    {
        "Action": "Originate",
        "ActionID": "dialer-asks-whether-it-hears-of-calls",
        "Channel": "DialerAsks/whether-it-hears-of-calls",
        "Application": "Hangup",
        "Async": "true",
    }
)


def is_heard(event: Mapping[str, str]) -> bool:
    """True for the event that HEARING brings."""
    return event.get("ActionID") == HEARING["ActionID"]


def not_allowed(pbx: Pbx, commands: Container[str]) -> str:
    """What to add to `write` where these are the actions allowed; empty where nothing lacks."""
    lacking = [right for action, right in NEEDED.items() if action not in commands]
    if not lacking:
        return ""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} does not allow the AMI user {pbx.username!r} all that "
        f"calls take: add {','.join(lacking)} to its write in manager.conf, and reload that"
    )


def deaf(pbx: Pbx) -> str:
    """What is said where HEARING was not heard."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} tells the AMI user {pbx.username!r} nothing of calls: "
        "add call to its read in manager.conf, and reload that (nor may an eventfilter there "
        "leave OriginateResponse out)"
    )


def not_booted(pbx: Pbx) -> str:
    """What is said where FullyBooted, an event of the class `system`, does not come."""
    return (
        f"Asterisk at {pbx.host}:{pbx.port} has not said that it is fully booted: wait for it; "
        f"if it is, add system to the read of the AMI user {pbx.username!r} in manager.conf, and "
        "reload that"
    )
