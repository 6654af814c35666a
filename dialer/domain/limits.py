"""The codes of what can limit a cell's dialing. Other programs rely on them; none is renamed."""

from __future__ import annotations

from enum import StrEnum


class Limit(StrEnum):
    """What prevents the next call of a cell. `NONE`: nothing, or Multcall has no request."""

    NONE = "none"
    NO_REQUESTS = "no_requests"
    THREADS_FULL = "threads_full"
    MAX_CALLS = "max_calls"
    CPS = "cps"
    GOVERNED = "governed"
    PAUSED = "paused"
    DRAINED = "drained"
    OUTSIDE_HOURS = "outside_hours"
    NO_BRIDGE = "no_bridge"
    NO_WORKER = "no_worker"
    NOT_CONSUMING = "not_consuming"
    NOT_CLAIMING = "not_claiming"
    AMI_DOWN = "ami_down"
    CLOCK_SKEW = "clock_skew"
    TWO_WORKERS = "two_workers"
    UNKNOWN_TRUNK = "unknown_trunk"
    MISSING_TARGET = "missing_target"
    ASTERISK_FULL = "asterisk_full"
    NO_AGENTS = "no_agents"
    STALE_AGENTS = "stale_agents"
    AGENTS_RESERVED = "agents_reserved"
    AGENTS_BUSY = "agents_busy"
    DO_NOT_CALL = "do_not_call"
    REFUSED = "refused"
    REDIS_AWAY = "redis_away"
    REDIS_REFUSES = "redis_refuses"
    BROKER_AWAY = "broker_away"


#: With these limits calls are placed, as many as they allow.
DIALING: frozenset[Limit] = frozenset(
    {
        *(Limit.NONE, Limit.THREADS_FULL, Limit.MAX_CALLS, Limit.CPS, Limit.GOVERNED),
        *(Limit.AGENTS_RESERVED, Limit.AGENTS_BUSY),
    }
)
