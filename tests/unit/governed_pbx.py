"""A PBX in virtual time with the governor of its worker, that decides how many calls it gets.

It starts calls at its capacity and lets the others wait; its carrier refuses some. The worker's
`PbxGovernor` is the real one; the link, the bridges, the queue of turns and the clock are
simulated. The bridges lease by the heartbeat, that is up to a second old.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, cast

import pytest

from dialer.domain.channel import AmiEvent, ChannelCreated, HungUp
from workers.ami import AmiLink
from workers.pbx.governor import EVERY_S, PbxGovernor
from workers.pbx.turns import Turns

#: For tests that run for minutes of virtual time: coverage makes them take three times as long.
in_virtual_time = pytest.mark.no_cover

#: One step of virtual time, in seconds.
STEP_S: Final = 0.01

#: A call that waited longer for its channel starved, in seconds.
STARVED_AFTER_S: Final = 4.0

#: AMI itself is never slower than this, whatever waits.
REPLIES_WITHIN_S: Final = 1.0

#: The bridges learn a new limit this often, in seconds.
BEAT_EVERY_S: Final = 1.0

#: Pause between a pong and the next ping, in seconds.
PING_EVERY_S: Final = 2.0

#: Cause (Q.850) of SIP 503, and when the carrier gives it, in seconds.
REFUSED: Final = 34
REFUSED_WITHIN_S: Final = (0.1, 0.4)


@dataclass(slots=True)
class PongsOnly:
    """An AMI link that is up, with the pongs that the test says."""

    ready: bool = True
    session: int = 1
    unread_bytes: int = 0
    pings: list[float] = field(default_factory=list)

    def take_ping_times(self) -> list[float]:
        times, self.pings = self.pings, []
        return times


@dataclass(slots=True)
class Queue:
    """Calls that wait for their turn."""

    waiting: int = 0

    def __len__(self) -> int:
        return self.waiting

    def give(self) -> None:
        """The PBX in virtual time gives the turns itself."""


@dataclass(slots=True)
class GovernedPbx:
    """A PBX, its carrier and the demand. Functions of time take seconds since the start.

    `capacity` is calls a second. `noise` adds to the latency of a call, `ami_s` to each answer of
    AMI, `channel_s` to each Newchannel, in seconds. `refused` is the share of calls that the
    carrier refuses; the others end after `call_s`. `idle_s`: no calls before that time.
    """

    cps: float
    capacity: Callable[[float], float]
    demand: float
    noise: Callable[[random.Random], float] = lambda _: 0.0
    ami_s: Callable[[float], float] = lambda _: 0.0
    channel_s: float = 0.0
    refused: Callable[[float], float] = lambda _: 0.0
    call_s: tuple[float, float] = (0.0, 0.0)
    idle_s: float = 0.0
    lost: float = 0.0
    has_governor: bool = True
    beat_every_s: float = BEAT_EVERY_S
    seed: int = 1
    link: PongsOnly = field(default_factory=PongsOnly)
    governor: PbxGovernor = field(init=False)
    now: float = 0.0
    limits: list[tuple[float, float]] = field(default_factory=list)
    trunk_limits: list[tuple[float, float]] = field(default_factory=list)
    started_at: list[float] = field(default_factory=list)
    starved_at: list[float] = field(default_factory=list)
    turns_waiting: list[tuple[float, int]] = field(default_factory=list)
    _turns: Queue = field(default_factory=lambda: Queue())
    _leased: float = 0.0
    _beat: float = 0.0
    _queue: deque[tuple[str, float]] = field(default_factory=deque)
    _due: list[tuple[float, int, AmiEvent]] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _calls: int = 0
    _events: int = 0
    _offered: float = 0.0
    _served: float = 0.0
    _looked: float = 0.0
    _pinged: float = 0.0
    _pong_due: float = 0.0

    def __post_init__(self) -> None:
        self.governor = PbxGovernor(
            "pbx01",
            self.cps,
            cast(AmiLink, self.link),
            is_on=self.has_governor,
            monotonic=lambda: self.now,
        )
        self.governor.turns = cast(Turns, self._turns)
        self._random = random.Random(self.seed)
        self.governor.look()  # the link is new

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now += STEP_S
            self._send()
            self._start()
            self._ping()
            while self._due and self._due[0][0] <= self.now:
                self._hear(heappop(self._due)[2])
            if self.now >= self._looked + EVERY_S:
                self._look()

    def _look(self) -> None:
        self._looked = self.now
        self.governor.look()
        self.limits.append((self.now, self.governor.state.allowed))
        self.turns_waiting.append((self.now, len(self._turns)))
        self.trunk_limits.append((self.now, self._trunk_limit()))

    def _trunk_limit(self) -> float:
        trunk = self.governor.trunks.get("tim")
        return self.cps if trunk is None else trunk.limit.allowed

    def _send(self) -> None:
        if self.now >= self._beat:
            self._beat = self.now + self.beat_every_s
            self._leased = self.governor.state.leased(len(self._turns)) or self.cps
        allowed = min(self._leased, self._trunk_limit())
        rate = min(self.demand, allowed) if self.now > self.idle_s else 0.0
        self._offered = min(self._offered + rate * STEP_S, self.cps / 10 + 1)
        while self._offered >= 1:
            self._offered -= 1
            self._turns.waiting += 1
        while self._turns.waiting and self.governor.room() >= 1:
            self._turns.waiting -= 1
            self._calls += 1
            uniqueid = f"u{self._calls}"
            self.governor.sent(uniqueid, "tim")
            if self._random.random() >= self.lost:
                self._queue.append((uniqueid, self.now))

    def _start(self) -> None:
        """Start as many calls as the capacity allows."""
        rate = self.capacity(self.now) * STEP_S
        self._served = min(self._served + rate, rate + 1)
        while self._queue and self._served >= 1:
            self._served -= 1
            uniqueid, sent_at = self._queue.popleft()
            waited = self.now - sent_at
            (self.starved_at if waited > STARVED_AFTER_S else self.started_at).append(self.now)
            took = 0.005 + self.noise(self._random) + self.ami_s(self.now) + self.channel_s
            self._later(took, ChannelCreated(uniqueid=uniqueid, channel=uniqueid))

    def _later(self, after_s: float, event: AmiEvent) -> None:
        self._events += 1
        heappush(self._due, (self.now + after_s, self._events, event))

    def _hear(self, event: AmiEvent) -> None:
        self.governor.on_event(event)
        if isinstance(event, ChannelCreated):
            self.governor.accepted(event.uniqueid)
            is_refused = self._random.random() < self.refused(self.now)
            ends_in = REFUSED_WITHIN_S if is_refused else self.call_s
            cause = REFUSED if is_refused else 16
            ended = HungUp(uniqueid=event.uniqueid, cause=cause, cause_text=None)
            self._later(self._random.uniform(*ends_in), ended)

    def _ping(self) -> None:
        """Ping `PING_EVERY_S` after each pong; AMI is as late as the oldest call, within bounds."""
        if self._pong_due:
            if self.now >= self._pong_due:
                self.link.pings.append(self._pong_due - self._pinged)
                self._pong_due, self._pinged = 0.0, self.now
        elif self.now >= self._pinged + PING_EVERY_S:
            waits_s = self.now - self._queue[0][1] if self._queue else 0.0
            self._pinged = self.now
            self._pong_due = self.now + self.ami_s(self.now) + min(REPLIES_WITHIN_S, waits_s) + 1e-3

    def rate(self, since: float, until: float) -> float:
        """Calls that started well, a second."""
        return sum(since < at <= until for at in self.started_at) / (until - since)

    def starved(self, since: float) -> int:
        return sum(at > since for at in self.starved_at)
