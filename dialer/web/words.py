"""English texts of codes, for the translation: limits, outcomes, states of calls, knobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dialer.domain.agents import AgentState
from dialer.domain.call import Result
from dialer.domain.limits import Limit
from dialer.domain.roles import Role
from dialer.domain.why import SENTENCES, Decision
from dialer.store.people import Did
from dialer.web.phrases import PHRASES

LIMITS: Final[Mapping[Limit, str]] = {
    Limit.NONE: "dialing",
    Limit.NO_REQUESTS: "no requests",
    Limit.THREADS_FULL: "threads full",
    Limit.MAX_CALLS: "PBXs full",
    Limit.CPS: "limit of calls a second",
    Limit.GOVERNED: "slowed down",
    Limit.PAUSED: "paused",
    Limit.DRAINED: "PBXs drained",
    Limit.OUTSIDE_HOURS: "outside hours",
    Limit.NO_BRIDGE: "no bridge",
    Limit.NO_WORKER: "no worker",
    Limit.NOT_CONSUMING: "worker takes no tasks",
    Limit.NOT_CLAIMING: "worker claims no calls",
    Limit.AMI_DOWN: "AMI down",
    Limit.CLOCK_SKEW: "wrong clock",
    Limit.TWO_WORKERS: "two workers",
    Limit.UNKNOWN_TRUNK: "unknown trunk",
    Limit.MISSING_TARGET: "target missing",
    Limit.ASTERISK_FULL: "Asterisk full",
    Limit.NO_AGENTS: "no operators",
    Limit.STALE_AGENTS: "operators not known",
    Limit.AGENTS_RESERVED: "operators called",
    Limit.AGENTS_BUSY: "operators busy",
    Limit.DO_NOT_CALL: "do not call",
    Limit.REFUSED: "requests refused",
    Limit.REDIS_AWAY: "Redis away",
    Limit.REDIS_REFUSES: "Redis refuses",
    Limit.BROKER_AWAY: "broker away",
}

RESULTS: Final[Mapping[Result, str]] = {
    result: result.value.replace("_", " ").lower() for result in Result
}

#: States of a call, as its story has them.
STATES: Final[Mapping[str, str]] = {
    "admitted": "admitted",
    "queued": "queued",
    "originating": "originating",
    "accepted": "accepted",
    "answered": "answered",
    "ended": "ended",
    "done": "done",
}

#: What an operator does.
AGENTS: Final[Mapping[str, str]] = {
    AgentState.AVAILABLE: "free",
    AgentState.RINGING: "rings",
    AgentState.BUSY: "talks",
    AgentState.WRAPUP: "wraps up",
    AgentState.PAUSED: "pauses",
    AgentState.GONE: "gone",
    "stale": "not known",
}

#: What a live parameter is.
KNOBS: Final[Mapping[str, str]] = {
    "threads": "most calls at once",
    "pbxs": "PBXs, in order",
    "trunk": "trunk",
    "retries": "tries after a failure",
    "ring_timeout": "longest ringing, s",
    "queue_timeout": "longest wait for an operator, s",
    "amd": "answering machines",
    "mode": "calls for operators",
    "power_ratio": "calls for each free operator (power)",
    "timeout_command_response": "wait for CODLIGACAO, s",
    "timeout_command_ack": "lifetime of an ACK, s",
    "calling_hours": "calling hours",
    "outside_hours": "outside the hours",
    "max_calls": "most calls at once",
    "cps": "calls a second",
    "governor": "governor",
    "trunks": "trunks, in order",
}

DEEDS: Final[Mapping[Did, str]] = {
    Did.SIGNED_IN: "signed in",
    Did.SIGNED_OUT: "signed out",
    Did.SIGN_IN_FAILED: "could not sign in",
    Did.USER_ADDED: "added a user",
    Did.USER_CHANGED: "changed a user",
    Did.USER_REMOVED: "removed a user",
    Did.LINK_MADE: "made a one-time link",
    Did.NUMBER_SEEN: "looked at a telephone number",
    Did.HUNG_UP: "hung up a call",
    Did.DEAD_SENT: "sent a dead request again",
    Did.DEAD_DISCARDED: "discarded dead requests",
}

ROLES: Final[Mapping[Role, str]] = {
    Role.VIEW: "may look",
    Role.OPERATE: "may look and steer",
    Role.ADMIN: "may do everything, also manage users",
}


def names() -> list[str]:
    """Return every text here that a page translates."""
    tables = (LIMITS, RESULTS, STATES, AGENTS, KNOBS, DEEDS, ROLES, SENTENCES)
    return [*PHRASES, *(text for table in tables for text in table.values())]


def limit_of(decision: Decision) -> str:
    """Return the state of a cell in a few words."""
    return LIMITS[decision.limit]
