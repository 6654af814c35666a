"""Effects of the shipped dialplan on a simulated call: the note in AstDB, the user events.

Owns the note's format as defined in `deploy/asterisk/dialer.conf`. Pure; times are arguments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

ENTRY_CONTEXT: Final = "dialer-enter"
NOTE_FAMILY: Final = "dialer"
INCLUDED_CONTEXTS: Final = frozenset(
    {
        ENTRY_CONTEXT,
        "dialer-hand-over",
        "dialer-handed",
        "dialer-end",
        "dialer-amd",
        "dialer-agent",
    }
)
ABSENT_START: Final = "not-"
"""The simulated call centre has every context and queue except those with this prefix."""
NOWHERE_END: Final = "@dialer-nowhere"
"""No dialplan has this context: a Local channel to it ends at once."""
DETECTING_CONTEXT_END: Final = "-amd"
"""A call whose DIALER_CONTEXT has this suffix gets AMD and an agent, as in the lab's dialplan."""


def detects(variables: Mapping[str, str]) -> bool:
    """True if this call's dialplan runs AMD and connects an agent."""
    return variables.get("DIALER_CONTEXT", "").endswith(DETECTING_CONTEXT_END)


def detection(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables set by detection; values given in the Originate have precedence."""
    if not detects(variables):
        return {}
    return {
        "AMDSTATUS": variables.get("AMDSTATUS") or "HUMAN",
        "DIALER_AGENT": variables.get("DIALER_AGENT") or "1001",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEventStep:
    """One UserEvent of the dialplan: its context and priority, name and headers."""

    context: str
    priority: int
    name: str
    headers: dict[str, str]


def user_events(variables: Mapping[str, str]) -> list[UserEventStep]:
    """Return the user events of an answered call's dialplan, in order."""
    handed = UserEventStep(
        context="dialer-handed", priority=2, name="DialerHanded", headers={"Handed": "yes"}
    )
    if not detects(variables):
        return [handed]
    found = detection(variables)
    amd, agent = (quote(found[name], safe="") for name in ("AMDSTATUS", "DIALER_AGENT"))
    return [
        handed,
        UserEventStep(context="dialer-amd", priority=1, name="DialerAmd", headers={"Status": amd}),
        UserEventStep(
            context="dialer-agent",
            priority=4,
            name="DialerAgent",
            headers={"Agent": agent, "Wait": ""},
        ),
    ]


def answer_note(*, answered_at: float) -> str:
    """Return the note of a call that is up; `answered_at` in seconds since 1970 UTC."""
    return f"answered={_moment(answered_at)} ended= cause= amd= agent= wait= handed=yes"


def end_note(
    *, answered_at: float, ended_at: float, cause: int, variables: Mapping[str, str]
) -> str:
    """Return the note of an ended call; times in seconds since 1970 UTC."""
    amd = quote(variables.get("AMDSTATUS", ""), safe="")
    agent = quote(variables.get("DIALER_AGENT", ""), safe="")
    return (
        f"answered={_moment(answered_at)} ended={_moment(ended_at)} cause={cause} "
        f"amd={amd} agent={agent} wait= handed=yes"
    )


def _moment(seconds: float) -> str:
    """Return `%s.%3q` of Asterisk's STRFTIME, which cuts off what is less than a millisecond."""
    ms = math.floor(seconds * 1000)
    return f"{ms // 1000}.{ms % 1000:03d}"


def exists(expression: str, *, is_included: bool) -> str | None:
    """Evaluate what the worker asks of dialplan and queues; None for other functions."""
    function, opened, rest = expression.strip().partition("(")
    if not opened or not rest.endswith(")"):
        return None
    name, *position = [part.strip() for part in rest[:-1].split(",")]
    if function == "DIALPLAN_EXISTS" and name in INCLUDED_CONTEXTS:
        return "1" if is_included and (not position or position[0] == "s") else "0"
    if function in ("DIALPLAN_EXISTS", "QUEUE_EXISTS", "QUEUE_MEMBER"):
        return "0" if name.startswith(ABSENT_START) else "1"
    return None
