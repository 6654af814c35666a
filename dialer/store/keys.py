"""Our own Redis keys, each with its type, its lifetime and its owner.

Multcall's keys are in `dialer.multcall.keys`. Each Lua step changes the state of a call together
with its place in the indexes below. The sizes of the indexes are the slots and counters, so these
cannot differ from the calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dialer.domain.numbers import BY_DIGITS, Numbering

#: The entry of a done call is kept this long, to catch repeats of its request. In seconds.
DONE_RETENTION_S: Final = 24 * 3600

#: The hand of a dead bridge is checked for this long, because the bridge may only have been slow,
#: or its last command may still arrive. In seconds.
BRIDGE_FORGOTTEN_AFTER_S: Final = 3600

#: A repeated change of the do-not-call set is recognized for this long. In seconds.
DNC_REPLY_RETENTION_S: Final = 3600

#: A verdict that no bridge confirms, because no call tries the PBX, ends after this. In seconds.
VERDICT_RETENTION_S: Final = 600

#: A worker counts its results over this time, in seconds.
RESULTS_OF_S: Final = 60

#: The starts of a PBX are forgotten after this time without a start. In seconds.
STARTS_RETENTION_S: Final = 3600

#: A worker shows each second that it serves a cell; this long it counts. In seconds.
PRESENT_S: Final = 5

#: What a bridge says of itself is kept this long. In seconds.
BRIDGE_SHOWN_S: Final = 60

#: Outcomes are kept by minute for so long, then by hour. In seconds, as in `_minute.lua` and
#: `_finish.lua`.
MINUTES_RETENTION_S: Final = 7 * 24 * 3600
HOURS_RETENTION_S: Final = 400 * 24 * 3600

#: Agents are shown for so long after the last change of one of them. In seconds.
AGENTS_RETENTION_S: Final = 24 * 3600

#: What a bridge did lately is kept this long. In seconds.
TOOK_S: Final = 60

#: The decision log goes back so far, in seconds, and has at most so many entries of a cell.
DECISIONS_RETENTION_S: Final = 24 * 3600
DECISIONS_MAX: Final = 5_000

#: So many dead elements that operators sent again or discarded are kept.
DEAD_TRAIL_KEPT: Final = 1_000

#: A session of the web page ends after this time without use, and this long after its beginning at
#: the latest. In seconds.
SESSION_IDLE_S: Final = 8 * 3600
SESSION_MAX_S: Final = 24 * 3600

#: A one-time link to the web page can be used for this long. In seconds.
LINK_S: Final = 3600

#: So many deeds of the users of the web page are kept, at least.
DEEDS_KEPT: Final = 10_000

#: So many failed sign-ins are kept, at least. Anybody can make them.
FAILURES_KEPT: Final = 1_000

#: A repeated deed is recognized for this long. In seconds.
DEED_REPLY_RETENTION_S: Final = 3600

#: Prefix of every call's key.
CALL_PREFIX: Final = "dialer:call:"

#: Prefixes of keys that a Lua step builds from a cell's name.
LIVE: Final = "dialer:live:"
HAND: Final = "dialer:hand:"
CODE_HAND: Final = "dialer:codehand:"
BRIDGES: Final = "dialer:bridges:"
PARKING: Final = "dialer:parking:"

#: The parked list of requests that need no particular trunk has this name instead of a trunk's.
ANY_TRUNK: Final = ""

#: Keys of processes and cells expire this long after their last update. In seconds.
IDLE_RETENTION_S: Final = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class LedgerKeys:
    """The ledger of one cell, in that cell's Redis."""

    cell: str
    numbering: Numbering = BY_DIGITS

    def call(self, call_id: str) -> str:
        """Hash; one call. No lifetime while it lives, `DONE_RETENTION_S` once done."""
        return f"{CALL_PREFIX}{call_id}"

    @property
    def live(self) -> str:
        """Sorted set: call id by admission, ms; the cell's slots. Gone when empty."""
        return f"{LIVE}{self.cell}"

    @property
    def queued(self) -> str:
        """Sorted set: unclaimed call id by last nudge, ms (0: due now). Gone when empty."""
        return f"dialer:queued:{self.cell}"

    @property
    def ended(self) -> str:
        """List: `<ended, ms> <result> <pbx> <call id>` of calls that are done, the newest first.

        The newest `ENDED_KEPT` of `_finish.lua`. `DONE_RETENTION_S`.
        """
        return f"dialer:ended:{self.cell}"

    @property
    def awaiting(self) -> str:
        """Sorted set: call id by the deadline of its code, ms. Gone when empty."""
        return f"dialer:awaiting:{self.cell}"

    def claimed(self, pbx: str) -> str:
        """Set: ids of calls claimed by this PBX's worker that have not ended. Gone when empty."""
        return f"dialer:claimed:{self.cell}:{pbx}"

    def fence(self, pbx: str) -> str:
        """String: greatest fencing number of this PBX's workers. `IDLE_RETENTION_S`."""
        return f"dialer:fence:{self.cell}:{pbx}"

    def worker(self, pbx: str) -> str:
        """String: the worker that serves this PBX for the cell. `PRESENT_S`."""
        return f"dialer:worker:{self.cell}:{pbx}"

    def hand(self, bridge: str) -> str:
        """List: requests that a bridge has not yet admitted or refused. Gone when empty."""
        return f"{HAND}{self.cell}:{bridge}"

    @property
    def parking(self) -> str:
        """Set: trunks that have parked requests. Gone when empty."""
        return f"{PARKING}{self.cell}"

    def parked(self, trunk: str) -> str:
        """List: requests that wait for this trunk (or ANY_TRUNK), oldest first. Gone when empty."""
        return f"dialer:parked:{self.cell}:{trunk}"

    def code_hand(self, bridge: str) -> str:
        """List: codes that a bridge has not yet delivered. Gone when empty."""
        return f"{CODE_HAND}{self.cell}:{bridge}"

    @property
    def bridges(self) -> str:
        """Sorted set: bridge by last heartbeat, ms, `BRIDGE_FORGOTTEN_AFTER_S` beyond its death.

        `IDLE_RETENTION_S`.
        """
        return f"{BRIDGES}{self.cell}"

    @property
    def dead(self) -> str:
        """List: refused elements with the reason; the newest `DEAD_MAX` of `_dead.lua`.

        Kept until an operator deletes it.
        """
        return f"dialer:dead:{self.cell}"

    @property
    def dropped(self) -> str:
        """String: number of entries that the full dead list dropped. Kept until it is deleted."""
        return f"dialer:dropped:{self.cell}"

    def replaced(self, request_id: str) -> str:
        """String: what the request of that id replaces, and who sent it. `IDLE_RETENTION_S`."""
        return f"dialer:replaced:{self.cell}:{request_id}"

    @property
    def dead_trail(self) -> str:
        """List: dead elements that operators sent again or discarded, the newest first.

        At most `DEAD_TRAIL_KEPT`. `IDLE_RETENTION_S`.
        """
        return f"dialer:deadtrail:{self.cell}"

    def minute(self, minute: int | str) -> str:
        """Hash: what `_minute.lua` counts in a minute since 1970. `MINUTES_RETENTION_S`."""
        return f"dialer:minute:{self.cell}:{minute}"

    def hour(self, hour: int | str) -> str:
        """Hash: Responses of an hour since 1970, by `<pbx> <result>`. `HOURS_RETENTION_S`."""
        return f"dialer:hour:{self.cell}:{hour}"

    @property
    def took(self) -> str:
        """Hash: what each bridge did with the cell's requests in the last seconds. `TOOK_S`."""
        return f"dialer:took:{self.cell}"

    @property
    def decisions(self) -> str:
        """Sorted set: limits that bound the cell by the time when they began, ms.

        Those of `DECISIONS_RETENTION_S`, at most `DECISIONS_MAX`. `IDLE_RETENTION_S`.
        """
        return f"dialer:decisions:{self.cell}"

    def number(self, number: str) -> str:
        """Sorted set: calls to one number by admission, ms. Lives as long as the window."""
        return f"dialer:number:{self.cell}:{self.numbering.same(number)}"


LOGGERS: Final = "dialer:loggers"
"""Sorted set in each cell's Redis: bridge by when it last kept decision logs, ms; of 24 hours.

`IDLE_RETENTION_S`.
"""

CELLS: Final = "dialer:cells"
"""Hash in each cell's Redis: cell to its last settings, as text. `IDLE_RETENTION_S`."""


def pbx(name: str) -> str:
    """Hash in the registry: heartbeat and lease of a PBX's worker. `IDLE_RETENTION_S`."""
    return f"dialer:pbx:{name}"


def agents(pbx_name: str) -> str:
    """Hash in the registry: agents of the PBX's queues by interface, as JSON.

    `AGENTS_RETENTION_S` after the last change of one.
    """
    return f"dialer:agents:{pbx_name}"


def slots(pbx_name: str) -> str:
    """Sorted set in the registry: call id by lease, ms; the PBX's slots. Gone when empty."""
    return f"dialer:slots:{pbx_name}"


def pace(pbx_name: str) -> str:
    """String in the registry: time of the next allowed start on the PBX, µs. Expires when past."""
    return f"dialer:pace:{pbx_name}"


def starts(pbx_name: str) -> str:
    """Hash in the registry: decaying number of starts on the PBX. `STARTS_RETENTION_S`.

    `trunk:<name>` is the time of the next allowed start over a limited trunk, µs.
    """
    return f"dialer:starts:{pbx_name}"


def verdict(pbx_name: str) -> str:
    """Hash in the registry: why a PBX that says it is ready takes no calls, and its trial call.

    Written by the bridges. `VERDICT_RETENTION_S`; after a successful trial `RESULTS_OF_S`.
    """
    return f"dialer:verdict:{pbx_name}"


def bridge(name: str) -> str:
    """Hash in the registry: a bridge's clock and broker, for the monitor. `BRIDGE_SHOWN_S`."""
    return f"dialer:bridge:{name}"


def dnc_reply(change_id: str) -> str:
    """String in the registry: how many numbers a change of the do-not-call set changed.

    Lives for `DNC_REPLY_RETENTION_S`.
    """
    return f"dialer:dncreply:{change_id}"


def session(digest: str) -> str:
    """Hash in the registry: one session of the web page, by the SHA-256 of its token.

    `SESSION_IDLE_S` after its last use.
    """
    return f"dialer:session:{digest}"


def link(digest: str) -> str:
    """Hash in the registry: a one-time link to the web page, by the SHA-256 of its token. `LINK_S`.

    A used one stays until then.
    """
    return f"dialer:link:{digest}"


def deed_reply(token: str) -> str:
    """String in the registry: what a deed or a change of a user returned. It catches repeats.

    `DEED_REPLY_RETENTION_S`.
    """
    return f"dialer:deedreply:{token}"


USERS: Final = "dialer:users"
"""Hash in the registry: users of the web page, as in `_user.lua`. Kept: the operator owns it."""

DEEDS: Final = "dialer:deeds"
"""Stream in the registry: the trail of deeds, what users of the web page did.

The newest `DEEDS_KEPT`; kept.
"""

SIGN_IN_FAILURES: Final = "dialer:signinfailures"
"""Stream in the registry: failed sign-ins, which are deeds that strangers can do at will.

Apart, so that they push no other deed out. The newest `FAILURES_KEPT`; kept.
"""

PARAMETERS: Final = "dialer:parameters"
"""Hash in the registry: live parameters. Kept: the operator owns them.

`version` is the number of the last change, `mark` that number and the token of the change.
`cell:<name>:<knob>` and `pbx:<name>:<knob>` are `<change> <ms> <JSON>`; without JSON the value of
the file is in force.
"""

CHANGES: Final = "dialer:changes"
"""Stream in the registry: the audit trail. The id of an entry is `<change>-0`.

The newest `CHANGES_KEPT`; kept.
"""

#: So many changes of live parameters are kept, at least.
CHANGES_KEPT: Final = 10_000

PROBE: Final = "dialer:probe"
"""String in any of the servers: whether it takes writes. A second."""

DO_NOT_CALL: Final = "dialer:dnc"
"""Set in the registry: numbers that are never called. Kept: the operator owns it."""
