"""Operators of the queues of one PBX: who is free, from what Asterisk's app_queue says. Pure.

Asterisk calls an operator an agent. An agent is a telephone (`PJSIP/1001`), also if it is a member
of several queues. Three things make the picture true although events get lost:

- Each queue is counted again and again: Asterisk says how many members are free. If that differs
  from the picture for longer than events take, the members are listed again.
- Asterisk sends no event when the wrap-up time ends, and does not tell how long it is. The same
  count says how many free members wrap up: they are those whose calls ended last.
- Device states say nothing of a telephone whose state is unknown, or does not follow its calls. A
  queue with such a one is listed again from time to time (`is_doubtful`).
- A queue that was not counted in agreement for `STALE_AFTER_S` is stale: none of its agents counts
  as available.

Facts of Asterisk 16 and 22 (tests/captures): `QUEUE_MEMBER(<queue>,free)` counts members that are
not in use and not paused, `ready` those of them that are not in the queue's `wrapuptime`, by whole
seconds since `LastCall`. `QueueCallerLeave` comes before `AgentConnect`. The name of a queue is the
same in any case; here it is in lower case.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

#: Device states of app_queue (`Status`): AST_DEVICE_NOT_INUSE, INUSE, BUSY, INVALID, UNAVAILABLE,
#: RINGING, RINGINUSE, ONHOLD. 0 is unknown: Asterisk rings such a telephone.
UNKNOWN: Final = 0
NOT_IN_USE: Final = 1
IN_USE: Final = frozenset({2, 3, 7, 8})
UNREACHABLE: Final = frozenset({4, 5})
RINGS: Final = 6

#: A queue that was not counted in agreement with the picture for so long is stale, in seconds.
STALE_AFTER_S: Final = 10.0

#: A count that differs from the picture for so long is no event on its way, in seconds.
DIFFERS_S: Final = 1.5

#: The caller has left the queue; the agent that rang for it gets its `AgentConnect` so soon.
CONNECTS_WITHIN_S: Final = 1.0

#: A telephone that is not in use so long after the call was offered does not ring, in seconds.
RING_BEGINS_S: Final = 0.5

#: A wrap-up time is known well enough within this, in seconds: Asterisk counts whole seconds.
KNOWN_WITHIN_S: Final = 1.0

#: What no count confirms of an agent is doubtful after this time, in seconds.
DOUBTFUL_S: Final = 60.0

#: An agent that logged out is shown for so long, in seconds.
GONE_SHOWN_S: Final = 12 * 3600.0


class AgentState(StrEnum):
    """What an agent does. The most useful one counts if an agent's queues differ."""

    AVAILABLE = "available"
    RINGING = "ringing"
    BUSY = "busy"
    WRAPUP = "wrapup"
    PAUSED = "paused"
    GONE = "gone"


_ORDER: Final = {state: n for n, state in enumerate(AgentState)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a queue, as QueueMember and QueueMemberStatus describe it.

    `status` is the device state, `last_call` when its last call in this queue ended, in seconds
    since 1970 by the clock of Asterisk, 0 if there was none. `wrapup_s` is a wrap-up time of its
    own, 0 if the queue's counts. `reason` is that of the pause.
    """

    queue: str
    interface: str
    name: str
    status: int
    is_paused: bool = False
    reason: str = ""
    is_in_call: bool = False
    last_call: int = 0
    wrapup_s: int = 0


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """QueueMemberAdded, QueueMemberStatus or QueueMemberPause."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberRemoved:
    """QueueMemberRemoved: the agent logged out of the queue."""

    queue: str
    interface: str


@dataclass(frozen=True, slots=True)
class AgentCalled:
    """A caller is offered to an agent. `caller` is the Uniqueid of the caller's channel."""

    queue: str
    interface: str
    caller: str


@dataclass(frozen=True, slots=True)
class AgentConnected:
    """AgentConnect: the agent has answered."""

    queue: str
    interface: str
    caller: str


@dataclass(frozen=True, slots=True)
class AgentCompleted:
    """AgentComplete or AgentDump: the agent's call is over."""

    queue: str
    interface: str


@dataclass(frozen=True, slots=True)
class AgentMissed:
    """AgentRingNoAnswer: the agent did not answer, or the caller gave up."""

    queue: str
    interface: str


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """QueueCallerLeave: the caller no longer waits."""

    caller: str


AgentEvent = (
    MemberChanged
    | MemberRemoved
    | AgentCalled
    | AgentConnected
    | AgentCompleted
    | AgentMissed
    | CallerLeft
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent as it is shown. Times are seconds since 1970.

    `queues` has the state in each queue, whose names are in lower case. `calls` is how many it has
    taken this `day`. `free_at` is when the wrap-up ends, None if that is not known. `reason` is
    that of the pause.
    """

    interface: str
    name: str
    state: AgentState
    since: float
    queues: Mapping[str, AgentState] = field(default_factory=dict)
    reason: str = ""
    calls: int = 0
    day: str = ""
    free_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """How many agents of one queue, or of several, are in each state.

    `stale` of them may be in another state: nothing confirms what was last known. They are in no
    state.
    """

    available: int = 0
    ringing: int = 0
    busy: int = 0
    wrapup: int = 0
    paused: int = 0
    gone: int = 0
    stale: int = 0

    @property
    def at_work(self) -> int:
        """How many have a call, or come from one: they will be free by themselves."""
        return self.ringing + self.busy + self.wrapup

    @property
    def logged_in(self) -> int:
        """How many are logged in, whatever they do."""
        return self.available + self.ringing + self.busy + self.wrapup + self.paused + self.stale

    def and_(self, other: Team) -> Team:
        """Return both together."""
        return Team(**{name: getattr(self, name) + getattr(other, name) for name in Team.__slots__})

    def in_words(self) -> str:
        """Return who is there but not available, as `3 talk, 1 wraps up, 2 are paused`."""
        parts = [
            _several(getattr(self, name), one, more)
            for name, one, more in (
                ("ringing", "rings", "ring"),
                ("busy", "talks", "talk"),
                ("wrapup", "wraps up", "wrap up"),
                ("paused", "is paused", "are paused"),
                ("gone", "is gone", "are gone"),
                ("stale", "is not known", "are not known"),
            )
            if getattr(self, name)
        ]
        return ", ".join(parts) or "none is logged in"


def calls_allowed(team: Team, per_agent: float) -> int:
    """Return how many calls a cell may have at once for operators that only Multcall knows.

    Each that talks or rings has one; each free one may get `per_agent`.
    """
    return int(per_agent * team.available) + team.ringing + team.busy


def _several(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"


@dataclass(slots=True)
class _Membership:
    """`ended_at` is when its last call in this queue ended, infinitely long ago if none did.

    `changed_at` is the time of the last news of it.
    """

    member: Member
    ended_at: float = -math.inf
    changed_at: float = -math.inf


@dataclass(slots=True)
class _Offer:
    """A call that rings at an agent, or that it talks to. `left_at`: the caller left the queue."""

    caller: str
    at: float
    left_at: float = math.inf


@dataclass(slots=True)
class _Known:
    """What is known of an agent; `state` and `since` as they were last shown.

    `left` has the queues that it logged out of.
    """

    interface: str
    name: str
    memberships: dict[str, _Membership] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    rings: _Offer | None = None
    talks: _Offer | None = None
    calls: int = 0
    day: str = ""
    state: AgentState = AgentState.GONE
    since: float = 0.0


@dataclass(slots=True)
class _Queue:
    """What the counts of a queue say. Its wrap-up time is over `least_s`, at most `most_s`."""

    agreed_at: float = -math.inf
    differs_since: float = math.inf
    least_s: float = 0.0
    most_s: float = math.inf

    def wraps_up(self, ended: Sequence[float], wrapping: int) -> None:
        """Note that those `wrapping` calls that ended last are followed by the wrap-up time.

        `ended` has the seconds since the call of each free member ended, the newest first.
        """
        least_s = ended[wrapping - 1] if wrapping else 0.0
        most_s = ended[wrapping] if wrapping < len(ended) else math.inf
        if max(self.least_s, least_s) > min(self.most_s, most_s) + KNOWN_WITHIN_S:
            self.least_s, self.most_s = least_s, most_s  # queues.conf has another one now
            return
        self.least_s = max(self.least_s, least_s)
        self.most_s = max(self.least_s, min(self.most_s, most_s))


@dataclass(slots=True)
class Agents:
    """The picture of all agents of some queues. Times are seconds since 1970, of one clock.

    `day` returns the day of a time, as the calls of an agent are counted.
    """

    queues: frozenset[str]
    day: Callable[[float], str]
    stale_after_s: float = STALE_AFTER_S
    _agents: dict[str, _Known] = field(default_factory=dict)
    _queues: dict[str, _Queue] = field(default_factory=dict)

    def watch(self, queues: frozenset[str]) -> None:
        """Follow these queues from now on. The members of new ones must be listed."""
        self.queues = queues
        for known in self._agents.values():
            for queue in known.memberships.keys() - queues:
                del known.memberships[queue]
            known.left &= queues
        self._queues = {name: one for name, one in self._queues.items() if name in queues}

    def restore(self, agents: Sequence[Agent]) -> None:
        """Take over what was shown before a restart: calls of the day, and since when."""
        for one in agents:
            self._agents[one.interface] = _Known(
                one.interface,
                one.name,
                calls=one.calls,
                day=one.day,
                state=one.state,
                since=one.since,
                left={*one.queues},
            )

    def on(self, event: AgentEvent, at: float) -> None:
        """Take note of an event of Asterisk."""
        match event:
            case MemberChanged(member):
                if member.queue in self.queues:
                    self._changed(member, at)
            case CallerLeft(caller):
                self._left(caller, at)
            case _:
                if (known := self._member(event.queue, event.interface)) is not None:
                    known.memberships[event.queue].changed_at = at
                    self._happened(known, event, at)

    def listed(
        self, queue: str, members: Sequence[Member], at: float, asked_at: float | None = None
    ) -> None:
        """Take note of all members of a queue: nothing else is true of them.

        Events that came since Asterisk was asked, at `asked_at`, are newer than the list.
        """
        asked_at = at if asked_at is None else asked_at
        newer = {
            known.interface
            for known, membership in self._members(queue)
            if membership.changed_at > asked_at
        }
        present = {member.interface for member in members} | newer
        for known in self._agents.values():
            if known.interface not in present:
                self._remove(known, queue)
        for member in members:
            if member.interface not in newer:
                self._changed(member, at, is_listed=True)
        counts = self._queues.setdefault(queue, _Queue())
        counts.agreed_at, counts.differs_since = at, math.inf

    def counted(self, queue: str, free: int, ready: int, at: float) -> bool:
        """Take note of a count of Asterisk; return false if the members must be listed again."""
        counts = self._queues.setdefault(queue, _Queue())
        mine = [m for _, m in self._members(queue) if _is_free(m.member)]
        if len(mine) != free:
            counts.differs_since = min(counts.differs_since, at)
            return at - counts.differs_since < DIFFERS_S
        counts.agreed_at, counts.differs_since = at, math.inf
        ended = sorted(at - m.ended_at for m in mine if m.ended_at > -math.inf)
        counts.wraps_up(ended, min(max(0, free - ready), len(ended)))
        return True

    def is_stale(self, queue: str, at: float) -> bool:
        """True if nothing confirms what is known of this queue."""
        counts = self._queues.get(queue)
        return counts is None or at - counts.agreed_at > self.stale_after_s

    def is_doubtful(self, queue: str, at: float) -> bool:
        """True if only a list tells what an agent does: no count does, and no news came for long.

        That is one that Asterisk counts as free although it seems to have a call, or one whose
        device state is unknown.
        """
        return any(
            at - m.changed_at > DOUBTFUL_S
            and (
                m.member.status == UNKNOWN
                or (_is_free(m.member) and (known.talks or known.rings or m.member.is_in_call))
            )
            for known, m in self._members(queue)
        )

    def shift(self, by_s: float) -> None:
        """The clock was set: move every time by so many seconds."""
        for counts in self._queues.values():
            counts.agreed_at += by_s
            counts.differs_since += by_s
        for known in self._agents.values():
            known.since += by_s
            for membership in known.memberships.values():
                membership.ended_at += by_s
                membership.changed_at += by_s
            for offer in (known.rings, known.talks):
                if offer is not None:
                    offer.at += by_s
                    offer.left_at += by_s

    def must_count(self, queue: str, at: float) -> bool:
        """True if only a count tells whether an agent of the queue still wraps up."""
        counts = self._queues.get(queue, _Queue())
        if counts.most_s - counts.least_s <= KNOWN_WITHIN_S:
            return False
        return any(
            counts.least_s <= at - m.ended_at <= counts.most_s and not m.member.wrapup_s
            for _, m in self._members(queue)
            if m.ended_at > -math.inf and _is_free(m.member)
        )

    def seen(self, at: float) -> list[Agent]:
        """Return every agent as it is now; forget those that are gone for long."""
        for interface, known in [*self._agents.items()]:
            if not known.memberships and at - known.since > GONE_SHOWN_S:
                del self._agents[interface]
        return [self._shown(known, at) for known in self._agents.values()]

    def team(self, queue: str, at: float) -> Team:
        """Return how many agents of a queue are in each state."""
        states = [self._state(known, m, at) for known, m in self._members(queue)]
        if self.is_stale(queue, at):
            there = sum(state is not AgentState.GONE for state in states)
            return Team(stale=there, gone=len(states) - there)
        return Team(**{state.value: n for state, n in Counter(states).items()})

    def groups(self, is_ours: Callable[[str], bool], at: float) -> Counter[frozenset[str]]:
        """Return how many agents can take a call now, by the queues in which they can.

        That are those who are available, or ring for one of ours: `is_ours` tells it of the
        Uniqueid of a caller. Agents of stale queues do not count.
        """
        fresh = {queue for queue in self.queues if not self.is_stale(queue, at)}
        found: Counter[frozenset[str]] = Counter()
        for known in self._agents.values():
            queues = frozenset(
                queue
                for queue, membership in known.memberships.items()
                if queue in fresh and self._is_for_us(known, membership, is_ours, at)
            )
            if queues:
                found[queues] += 1
        return found

    def _is_for_us(
        self, known: _Known, membership: _Membership, is_ours: Callable[[str], bool], at: float
    ) -> bool:
        state = self._state(known, membership, at)
        if state is AgentState.RINGING:
            return known.rings is not None and is_ours(known.rings.caller)
        return state is AgentState.AVAILABLE

    def has_operator(self, queue: str, at: float) -> bool | None:
        """True if a member of a queue takes calls, now or later; None if that is not known.

        It is not known if the last count of Asterisk differed.
        """
        counts = self._queues.get(queue)
        if counts is None or self.is_stale(queue, at) or counts.differs_since < math.inf:
            return None
        states = [self._state(known, m, at) for known, m in self._members(queue)]
        return any(state not in {AgentState.PAUSED, AgentState.GONE} for state in states)

    # --- one agent --------------------------------------------------------------------

    def _left(self, caller: str, at: float) -> None:
        for known in self._agents.values():
            if known.rings is not None and known.rings.caller == caller:
                known.rings.left_at = min(known.rings.left_at, at)

    def _happened(
        self,
        known: _Known,
        event: MemberRemoved | AgentCalled | AgentConnected | AgentCompleted | AgentMissed,
        at: float,
    ) -> None:
        match event:
            case MemberRemoved(queue):
                self._remove(known, queue)
            case AgentCalled(caller=caller):
                known.rings = _Offer(caller, at)
            case AgentConnected(caller=caller):
                self._connected(known, caller, at)
            case AgentCompleted(queue):
                known.talks = None
                membership = known.memberships[queue]
                membership.member = replace(membership.member, is_in_call=False)
                membership.ended_at = at
            case _:  # AgentMissed
                known.rings = None

    def _remove(self, known: _Known, queue: str) -> None:
        if known.memberships.pop(queue, None) is not None:
            known.left.add(queue)

    def _member(self, queue: str, interface: str) -> _Known | None:
        known = self._agents.get(interface)
        return known if known is not None and queue in known.memberships else None

    def _members(self, queue: str) -> Iterator[tuple[_Known, _Membership]]:
        for known in self._agents.values():
            if (membership := known.memberships.get(queue)) is not None:
                yield known, membership

    def _changed(self, member: Member, at: float, *, is_listed: bool = False) -> None:
        fresh = _Known(member.interface, member.name, since=at)
        known = self._agents.setdefault(member.interface, fresh)
        known.name = member.name or known.name
        known.left.discard(member.queue)
        before = known.memberships.get(member.queue)
        if before is None:
            ended_at = member.last_call if member.last_call else -math.inf
            before = known.memberships[member.queue] = _Membership(member, min(ended_at, at))
        elif member.last_call > before.member.last_call and at - before.ended_at > 1:
            before.ended_at = at
        before.member, before.changed_at = member, at
        if member.status != NOT_IN_USE or member.is_in_call:
            return
        if known.talks is not None and (is_listed or at - known.talks.at > RING_BEGINS_S):
            known.talks = None
        if known.rings is not None and (is_listed or at - known.rings.at > RING_BEGINS_S):
            known.rings = None

    def _connected(self, known: _Known, caller: str, at: float) -> None:
        known.rings, known.talks = None, _Offer(caller, at)
        today = self.day(at)
        known.calls = known.calls + 1 if known.day == today else 1
        known.day = today

    def _state(self, known: _Known, membership: _Membership, at: float) -> AgentState:
        member = membership.member
        if known.talks is not None or member.is_in_call or member.status in IN_USE:
            return AgentState.BUSY
        rings = known.rings is not None and at - known.rings.left_at < CONNECTS_WITHIN_S
        if rings or member.status == RINGS:
            return AgentState.RINGING
        if member.status in UNREACHABLE:
            return AgentState.GONE
        if member.is_paused:
            return AgentState.PAUSED
        wraps_up = at - membership.ended_at < self._wrapup_s(membership)
        return AgentState.WRAPUP if wraps_up else AgentState.AVAILABLE

    def _wrapup_s(self, membership: _Membership) -> float:
        """Return how long the wrap-up lasts at most; infinite if that is not known."""
        counts = self._queues.get(membership.member.queue, _Queue())
        return membership.member.wrapup_s or counts.most_s

    def _shown(self, known: _Known, at: float) -> Agent:
        queues = {name: self._state(known, m, at) for name, m in known.memberships.items()}
        state = min(queues.values(), key=_ORDER.__getitem__, default=AgentState.GONE)
        free_at = min(
            (
                m.ended_at + self._wrapup_s(m)
                for name, m in known.memberships.items()
                if queues[name] is AgentState.WRAPUP or known.state is AgentState.WRAPUP
            ),
            default=math.inf,
        )
        if state is not known.state:
            is_over = (known.state, state) == (AgentState.WRAPUP, AgentState.AVAILABLE)
            known.since = free_at if is_over and known.since < free_at < at else at
            known.state = state
        reasons = [m.member.reason for m in known.memberships.values() if m.member.is_paused]
        return Agent(
            interface=known.interface,
            name=known.name,
            state=state,
            since=known.since,
            queues=queues | dict.fromkeys(known.left, AgentState.GONE),
            reason=reasons[0] if reasons and state is AgentState.PAUSED else "",
            calls=known.calls if known.day == self.day(at) else 0,
            day=known.day,
            free_at=free_at if state is AgentState.WRAPUP and free_at < math.inf else None,
        )


def room_for(
    queue: str,
    per_agent: float,
    demands: Mapping[str, int],
    groups: Mapping[frozenset[str], int],
) -> int:
    """Return how many more calls of a queue its agents allow, negative if there are too many.

    `demands` has how many calls of each queue need an agent, `groups` how many agents can take a
    call, by their queues. An agent takes one call. Calls of other queues have their agents first,
    as many as there are for them; `per_agent` calls may be on their way for each of the others.
    """
    others = {name: n for name, n in demands.items() if name != queue}
    taken = _most_served(others, groups)
    free = _most_served({**others, queue: sum(groups.values())}, groups) - taken
    return int(per_agent * free) - demands.get(queue, 0)


def _most_served(demands: Mapping[str, int], groups: Mapping[frozenset[str], int]) -> int:
    """Return how many of these calls have an agent at best: the maximum flow."""
    free = dict(groups)
    taken: Counter[tuple[str, frozenset[str]]] = Counter()
    served = 0
    for queue, wanted in demands.items():
        while wanted and (path := _path(queue, free, taken)):
            freed = [(path[n + 1][0], path[n][1]) for n in range(len(path) - 1)]
            n = min(wanted, free[path[-1][1]], *(taken[one] for one in freed))
            taken.update(dict.fromkeys(path, n))
            taken.subtract(dict.fromkeys(freed, n))
            free[path[-1][1]] -= n
            wanted -= n
            served += n
    return served


def _path(
    queue: str,
    free: Mapping[frozenset[str], int],
    taken: Mapping[tuple[str, frozenset[str]], int],
) -> list[tuple[str, frozenset[str]]]:
    """Return how calls of a queue get an agent of a group with free ones; empty if they do not.

    Each step is a queue and the group that it takes agents of; the next one makes room there.
    """
    paths = [[(queue, group)] for group in free if queue in group]
    seen = {queue}
    for path in paths:
        _, group = path[-1]
        if free[group]:
            return path
        for (other, used), n in taken.items():
            if n > 0 and used == group and other not in seen:
                seen.add(other)
                paths += [[*path, (other, more)] for more in free if other in more]
    return []


def _is_free(member: Member) -> bool:
    """True if Asterisk counts the member as free."""
    return member.status == NOT_IN_USE and not member.is_paused
