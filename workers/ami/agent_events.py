"""Conversion of the AMI messages of app_queue about its members to the domain's types. Pure.

Header names are those of Asterisk 16 and 22 (tests/captures/*/agent_*.ami). `QueueMember`, a row of
the answer to QueueStatus, names the interface `Location` and the member `Name`. The name of a queue
is the same in any case, so that it is in lower case here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from dialer.domain.agents import (
    AgentCalled,
    AgentCompleted,
    AgentConnected,
    AgentEvent,
    AgentMissed,
    CallerLeft,
    Member,
    MemberChanged,
    MemberRemoved,
)
from workers.ami.events import TEXT_MAX

#: Events that `translate_agent` uses. They are of class `agent`.
AGENT_EVENTS: Final = frozenset(
    {
        *("QueueMemberAdded", "QueueMemberRemoved", "QueueMemberPause", "QueueMemberStatus"),
        *("AgentCalled", "AgentConnect", "AgentComplete", "AgentDump", "AgentRingNoAnswer"),
        "QueueCallerLeave",
    }
)

_WHOLE: Final = re.compile(r"[0-9]{1,12}")


def translate_agent(message: Mapping[str, str]) -> AgentEvent | None:
    """Return what an AMI event says about an agent, None if it says nothing."""
    get = message.get
    queue, interface = get("Queue", "").casefold(), get("Interface", "")
    match get("Event"):
        case "QueueMemberAdded" | "QueueMemberPause" | "QueueMemberStatus":
            return MemberChanged(member_of(message))
        case "QueueMemberRemoved":
            return MemberRemoved(queue, interface)
        case "AgentCalled":
            return AgentCalled(queue, interface, get("Uniqueid", ""))
        case "AgentConnect":
            return AgentConnected(queue, interface, get("Uniqueid", ""))
        case "AgentComplete" | "AgentDump":
            return AgentCompleted(queue, interface)
        case "AgentRingNoAnswer":
            return AgentMissed(queue, interface)
        case "QueueCallerLeave":
            return CallerLeft(get("Uniqueid", ""))
    return None


def member_of(message: Mapping[str, str]) -> Member:
    """Return the member that a QueueMember… event or a row of QueueStatus describes."""
    get = message.get
    interface = get("Interface") or get("Location") or ""
    return Member(
        queue=get("Queue", "").casefold(),
        interface=interface,
        name=(get("MemberName") or get("Name") or interface)[:TEXT_MAX],
        status=_whole(get("Status")),
        is_paused=get("Paused") == "1",
        reason=(get("PausedReason") or "")[:TEXT_MAX],
        is_in_call=get("InCall") == "1",
        last_call=_whole(get("LastCall")),
        wrapup_s=_whole(get("Wrapuptime")),
    )


def _whole(text: str | None) -> int:
    return int(text) if text and _WHOLE.fullmatch(text) else 0
