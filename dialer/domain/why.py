"""Why a cell does not dial: the limit that binds, in one sentence with numbers and cure.

`decide` is the only place that orders the limits. The bridge calls it every 0.75 s for the
decision log, `dialer why` and the monitor for the present.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dialer.domain.agents import Team, calls_allowed
from dialer.domain.limits import DIALING, Limit
from dialer.domain.room import PbxLoad, Room

#: What a bridge did counts as present for so long, in seconds.
LATELY_S: Final = 1.0

#: A worker sends its heartbeat each second. One that is late by so much is named, in seconds.
LATE_HEARTBEAT_S: Final = 1.8

#: A call that a ready PBX does not claim for so long is named, in seconds.
UNCLAIMED_S: Final = 1.5

#: One that waits for a free operator may be unclaimed for so long, in seconds.
RESERVED_S: Final = 60.0

#: A bridge sends its heartbeat each second. One that is late by so much is named, in seconds.
LATE_BRIDGE_S: Final = 1.8

#: Reasons of PBXs, the one to cure first. If all PBXs of a cell take no calls, it is named first.
_FIRST: Final = (
    Limit.AGENTS_RESERVED,  # that PBX dials as much as its operators allow
    Limit.AGENTS_BUSY,
    Limit.CLOCK_SKEW,
    Limit.AMI_DOWN,
    Limit.NO_WORKER,
    Limit.TWO_WORKERS,
    Limit.NOT_CONSUMING,
    Limit.BROKER_AWAY,
    Limit.REDIS_REFUSES,
    Limit.REDIS_AWAY,
    Limit.NOT_CLAIMING,
    Limit.ASTERISK_FULL,
    Limit.MISSING_TARGET,
    Limit.STALE_AGENTS,
    Limit.NO_AGENTS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a PBX takes no calls of a cell. `reason` is one sentence, with the cure if it has one."""

    limit: Limit
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxFacts:
    """One PBX as a cell sees it. `obstacle` is why it takes no calls of the cell, None if it does.

    `cps` is calls a second by the settings, `governed` by the governor, 0 if it limits nothing.
    `late_s` is how long the oldest call of the cell waits to be claimed there, in seconds.
    `is_capped`: asterisk.conf leaves room for fewer calls than `max_calls`.
    """

    load: PbxLoad
    obstacle: Obstacle | None = None
    cps: float = 0.0
    governed: float = 0.0
    late_s: float = 0.0
    is_capped: bool = False

    @property
    def is_late(self) -> bool:
        """True if it leaves calls unclaimed, and neither its governor nor operators are why."""
        within_s = UNCLAIMED_S if self.load.agents is None else RESERVED_S
        return self.late_s >= within_s and not self.governed

    @property
    def name(self) -> str:
        """The name of the PBX."""
        return self.load.name


@dataclass(slots=True)
class Lately:
    """What one bridge did with a cell's requests lately. Times are those of one monotonic clock."""

    _started_at: float = -math.inf
    _stopped_by: Limit = Limit.NONE
    _stopped_at: float = -math.inf
    _refused: Counter[Limit] = field(default_factory=Counter)
    _refused_at: float = -math.inf

    def started(self, at: float) -> None:
        """Note that a call was admitted."""
        self._started_at = at

    def stopped(self, by: Limit, at: float) -> None:
        """Note what ended a round of admissions."""
        self._stopped_by, self._stopped_at = by, at

    def refused(self, why: Limit, at: float) -> None:
        """Note that a request was refused."""
        if at - self._refused_at > LATELY_S:
            self._refused.clear()
        self._refused[why] += 1
        self._refused_at = at

    def seen(self, now: float) -> Took:
        """Return what counts as present now."""
        is_stopped = now - self._stopped_at <= LATELY_S
        is_refusing = now - self._refused_at <= LATELY_S
        return Took(
            has_started=now - self._started_at <= LATELY_S,
            stopped_by=self._stopped_by if is_stopped else Limit.NONE,
            refused=dict(self._refused) if is_refusing else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What the bridges of a cell did in the last `LATELY_S` seconds.

    `has_started`: a call was admitted. `stopped_by` ended the last round of admissions. `refused`
    counts the requests that were refused since the last pause between refusals.
    """

    has_started: bool = False
    stopped_by: Limit = Limit.NONE
    refused: Mapping[Limit, int] = field(default_factory=dict)

    def and_(self, other: Took) -> Took:
        """Return what both together did."""
        refused = Counter(self.refused)
        refused.update(other.refused)
        return Took(
            has_started=self.has_started or other.has_started,
            stopped_by=other.stopped_by if self.stopped_by is Limit.NONE else self.stopped_by,
            refused=dict(refused),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What decides whether a cell may start a call now.

    `live` are its calls, `waiting` its requests; `parked` says how many of them wait for each
    trunk. `paused` says who paused the cell, `closed` is its time zone outside the calling hours,
    `redis` why a Redis cannot be used, `broker` why the broker takes no tasks; '' otherwise.
    `agents` is why operators that Multcall tells prevent calls, None if they do not.
    `bridge_silent_s` is the time since the last heartbeat of a bridge, infinite if there never was
    one. `pbxs` are those of the cell in its order.
    """

    cell: str
    threads: int
    live: int = 0
    waiting: int = 0
    parked: Mapping[str, int] = field(default_factory=dict)
    paused: str = ""
    closed: str = ""
    agents: Obstacle | None = None
    redis: Obstacle | None = None
    broker: str = ""
    bridge_silent_s: float = 0.0
    pbxs: Sequence[PbxFacts] = ()
    took: Took = field(default_factory=Took)

    @property
    def taking(self) -> list[PbxFacts]:
        """The PBXs that take calls."""
        return [pbx for pbx in self.pbxs if pbx.obstacle is None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The limit that binds. `numbers` are values of JSON; `sentence` is for people."""

    cell: str
    limit: Limit
    numbers: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def is_dialing(self) -> bool:
        """True if calls are placed, also if a limit allows no further ones now."""
        if self.limit is Limit.NONE:
            return bool(self.numbers.get("calls") or self.numbers.get("started"))
        return self.limit in DIALING

    @property
    def sentence(self) -> str:
        """One sentence with the numbers and the cure."""
        return self.sentence_in(lambda english: english)

    def sentence_in(
        self, translate: Callable[[str], str], say: Callable[[str], str | None] = str
    ) -> str:
        """Return the sentence in another language.

        `say` translates the reason, which remains English if that returns None.
        """
        reason = say(self.reason) or self.reason
        known = {**self.numbers, "cell": self.cell, "reason": reason}
        return translate(SENTENCES[self.limit]).format_map(_Numbers(known))


class _Numbers(dict[str, Any]):
    """Numbers of a sentence; one that an entry of another release lacks is a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"


#: The sentence of each limit.
SENTENCES: Final[Mapping[Limit, str]] = {
    Limit.NONE: "nothing limits {cell}: {calls} calls are up and {waiting} requests wait",
    Limit.NO_REQUESTS: (
        "Multcall's list of {cell} is empty, and {calls} calls are up: there is nothing to dial "
        "until Multcall writes requests"
    ),
    Limit.THREADS_FULL: (
        "{cell} has {calls} calls of at most {threads} and {waiting} requests wait: "
        "'dialer cells set {cell} threads=N' allows more"
    ),
    **dict.fromkeys(
        (Limit.MAX_CALLS, Limit.CPS, Limit.GOVERNED),
        "{reason}; {waiting} requests of {cell} wait",
    ),
    Limit.PAUSED: "{cell} is {reason}; {waiting} requests wait",
    Limit.OUTSIDE_HOURS: (
        "{cell} is outside its calling hours (time zone {reason}), and {waiting} requests wait: "
        "'dialer config show' has the hours"
    ),
    Limit.NO_BRIDGE: ("no bridge serves {cell} ({reason}): start 'dialer bridge', or see its log"),
    Limit.UNKNOWN_TRUNK: (
        "the last requests of {cell} were refused ({refused} in a row), most because none of its "
        "PBXs has their trunk: correct Tronco in Multcall, or add the trunk to dialer.toml"
    ),
    Limit.DO_NOT_CALL: (
        "the last requests of {cell} were refused ({refused} in a row), most because their numbers "
        "are on the do-not-call set: 'dialer dnc check NUMBER' looks one up"
    ),
    Limit.REFUSED: (
        "the last requests of {cell} were refused ({refused} in a row): 'dialer dead list {cell}' "
        "and their Responses say why"
    ),
    **dict.fromkeys(
        (
            *(Limit.NO_WORKER, Limit.NOT_CONSUMING, Limit.NOT_CLAIMING, Limit.AMI_DOWN),
            *(Limit.CLOCK_SKEW, Limit.TWO_WORKERS, Limit.MISSING_TARGET, Limit.NO_AGENTS),
            *(Limit.DRAINED, Limit.ASTERISK_FULL, Limit.STALE_AGENTS),
        ),
        "no PBX takes calls of {cell}: {reason}",
    ),
    Limit.AGENTS_RESERVED: (
        "each free operator of {cell} has a call on its way, and {waiting} requests wait: {reason}"
    ),
    Limit.AGENTS_BUSY: ("the operators of {cell} are busy, and {waiting} requests wait: {reason}"),
    Limit.REDIS_AWAY: "{reason}",
    Limit.REDIS_REFUSES: "{reason}",
    Limit.BROKER_AWAY: "the broker takes no tasks of {cell}: {reason}",
}


def decide(now: Situation) -> Decision:
    """Return the limit that binds a cell: the first in the order in which people can cure them."""
    found = next((one for look in _LOOKS if (one := look(now)) is not None), _NOTHING)
    numbers: dict[str, Any] = {
        "waiting": now.waiting,
        "calls": now.live,
        "threads": now.threads,
        "pbxs": {p.name: p.obstacle.limit for p in now.pbxs if p.obstacle is not None},
    }
    if now.took.has_started:
        numbers["started"] = True
    if now.took.refused:
        numbers["refused"] = sum(now.took.refused.values())
    return Decision(cell=now.cell, limit=found.limit, reason=found.reason, numbers=numbers)


def stopped_by(room: Room) -> Limit:
    """Return what ended a round that left this room, `NONE` if there is room."""
    if not room.cell.to_admit:
        return Limit.THREADS_FULL
    ready = [pbx for pbx in room.pbxs if pbx.is_taking_calls]
    if room.of_pbxs or not ready:
        return Limit.NONE
    if all(pbx.agents == 0 for pbx in ready):
        return Limit.AGENTS_RESERVED
    has_slot = any(pbx.calls < pbx.max_calls for pbx in ready)
    return Limit.CPS if has_slot else Limit.MAX_CALLS


def _of_programs(now: Situation) -> Obstacle | None:
    """Return why nothing decides on the cell's requests."""
    if now.redis is not None:
        return now.redis
    if now.bridge_silent_s < LATE_BRIDGE_S:
        return None
    is_known = not math.isinf(now.bridge_silent_s)
    words = f"no heartbeat for {now.bridge_silent_s:.0f} s" if is_known else "none ever did"
    return Obstacle(limit=Limit.NO_BRIDGE, reason=words)


def _of_cell(now: Situation) -> Obstacle | None:
    """Return why the cell is not to dial."""
    if now.paused:
        return Obstacle(limit=Limit.PAUSED, reason=now.paused)
    return Obstacle(limit=Limit.OUTSIDE_HOURS, reason=now.closed) if now.closed else None


def _of_pbxs(now: Situation) -> Obstacle | None:
    """Return why no PBX takes calls: the reason to cure first, and what is wrong with each."""
    if now.taking:
        return None
    limits = [pbx.obstacle.limit for pbx in now.pbxs if pbx.obstacle is not None]
    if not limits:
        return Obstacle(limit=Limit.NO_WORKER, reason="the cell has no PBX")
    if now.broker and set(limits) <= {Limit.NOT_CONSUMING, Limit.DRAINED}:
        return Obstacle(limit=Limit.BROKER_AWAY, reason=now.broker)
    first = next((limit for limit in _FIRST if limit in limits), limits[0])
    return Obstacle(limit=first, reason=_reasons(now.pbxs))


def _reasons(pbxs: Sequence[PbxFacts]) -> str:
    """Return what is wrong with each of these PBXs."""
    return "; ".join(f"{p.name}: {p.obstacle.reason}" for p in pbxs if p.obstacle is not None)


def _of_claims(now: Situation) -> Obstacle | None:
    """Return why calls that the cell has are not dialed: no PBX claims them."""
    if not all(pbx.is_late for pbx in now.taking):
        return None
    words = ", ".join(f"{pbx.name} does not claim its calls" for pbx in now.taking)
    waits_s = max(pbx.late_s for pbx in now.taking)
    reason = f"{words}, and the oldest waits {waits_s:.0f} s: see the log of its worker"
    return Obstacle(limit=Limit.NOT_CLAIMING, reason=reason)


def of_operators(team: Team, per_agent: float, live: int) -> Obstacle | None:
    """Return why operators that Multcall tells prevent the next of `live` calls, None if not."""
    if live < calls_allowed(team, per_agent):
        return None
    if not team.available:
        limit = Limit.STALE_AGENTS if team.stale else Limit.NO_AGENTS
        limit = Limit.AGENTS_BUSY if team.at_work else limit
        words = team.in_words()
        return Obstacle(limit=limit, reason=f"nobody is free, as Multcall tells it: {words}")
    reason = f"all free operators ({team.available}), as Multcall tells it, have calls on their way"
    return Obstacle(limit=Limit.AGENTS_RESERVED, reason=reason)


def _of_operators(now: Situation) -> Obstacle | None:
    return now.agents


def _of_waiting(now: Situation) -> Obstacle | None:
    """Return why requests wait although PBXs take calls."""
    if not now.waiting:
        return None
    if now.live >= now.threads or now.took.stopped_by is Limit.THREADS_FULL:
        return Obstacle(limit=Limit.THREADS_FULL, reason="")
    if now.parked and not now.took.has_started:
        # Only the trunk counts that most wait for; those behind it may need another one.
        trunk = max(now.parked, key=lambda name: now.parked[name])
        return _of_trunk(now, trunk) if trunk else _of_room(now.taking, now.took)
    return _of_room(now.taking, now.took)


def _of_requests(now: Situation) -> Obstacle | None:
    """Return why no request becomes a call although nothing prevents it."""
    if now.took.has_started:
        return None
    if refused := now.took.refused:
        return Obstacle(limit=max(refused, key=lambda limit: refused[limit]), reason="")
    return None if now.waiting else Obstacle(limit=Limit.NO_REQUESTS, reason="")


def _of_trunk(now: Situation, trunk: str) -> Obstacle | None:
    """Return why requests for a trunk wait, None if they can move.

    A bridge refuses requests for a trunk that no PBX has any longer.
    """
    having = [pbx for pbx in now.pbxs if pbx.load.has_trunk(trunk)]
    taking = [pbx for pbx in having if pbx.obstacle is None]
    words = f"{now.parked[trunk]} requests wait for trunk {trunk}"
    if having and not taking:
        limits = [pbx.obstacle.limit for pbx in having if pbx.obstacle is not None]
        limit = next((one for one in _FIRST if one in limits), limits[0])
        return Obstacle(limit=limit, reason=f"{words}; {_reasons(having)}")
    if taking and all(pbx.load.trunk_starts.get(trunk, 1) <= 0 for pbx in taking):
        names = ", ".join(pbx.name for pbx in taking)
        reason = f"{words}, and its carrier refuses calls for lack of capacity on {names}"
        return Obstacle(limit=Limit.GOVERNED, reason=f"{reason}: see 'dialer monitor'")
    found = _of_room(taking, now.took) if taking else None
    return found and Obstacle(limit=found.limit, reason=f"{words}; {found.reason}")


def _of_room(taking: Sequence[PbxFacts], took: Took) -> Obstacle | None:
    """Return why none of these PBXs, which take calls, has room; None if one has."""
    if took.stopped_by is Limit.AGENTS_RESERVED or all(pbx.load.agents == 0 for pbx in taking):
        names = ", ".join(pbx.name for pbx in taking)
        reason = f"calls are queued on {names} for all of them"
        return Obstacle(limit=Limit.AGENTS_RESERVED, reason=reason)
    free = [pbx for pbx in taking if pbx.load.calls < pbx.load.max_calls]
    if not free or took.stopped_by is Limit.MAX_CALLS:
        return Obstacle(limit=Limit.MAX_CALLS, reason=", ".join(map(_full, taking)))
    if any(pbx.load.room for pbx in free) and took.stopped_by is not Limit.CPS:
        return None
    if slowed := [pbx for pbx in free if pbx.governed]:
        words = ", ".join(
            f"the Asterisk of {pbx.name} is slow and gets {pbx.governed:.3g} calls a second: see "
            "'dialer monitor'"
            for pbx in slowed
        )
        return Obstacle(limit=Limit.GOVERNED, reason=words)
    words = ", ".join(
        f"{pbx.name} starts {pbx.cps:g} calls a second, and 'dialer pbx set {pbx.name} cps=N' "
        "allows more"
        for pbx in free
    )
    return Obstacle(limit=Limit.CPS, reason=words)


def _full(pbx: PbxFacts) -> str:
    cure = (
        "raise maxcalls in its asterisk.conf"
        if pbx.is_capped
        else f"'dialer pbx set {pbx.name} max_calls=N' allows more"
    )
    return f"{pbx.name} has {pbx.load.calls} of {pbx.load.max_calls} calls, and {cure}"


_NOTHING: Final = Obstacle(limit=Limit.NONE, reason="")

#: In this order.
_LOOKS: Final[Sequence[Callable[[Situation], Obstacle | None]]] = (
    _of_programs,
    _of_cell,
    _of_pbxs,
    _of_claims,
    _of_operators,
    _of_waiting,
    _of_requests,
)
