"""A PBX in virtual time that starts calls at its capacity and lets the others wait.

The governor under test decides how many calls it gets.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dialer.domain.governor import Governor, Window, govern, is_window_over, p95

#: One step of virtual time, in seconds.
STEP_S = 0.01

#: A call that waited longer for its channel starved, in seconds.
STARVED_AFTER_S = 4.0


@dataclass(slots=True)
class GovernedPbx:
    """`capacity` is calls a second by time; `noise` adds to each latency, in seconds."""

    cps: float
    capacity: Callable[[float], float]
    demand: float
    noise: Callable[[random.Random], float] = lambda _: 0.0
    has_governor: bool = True
    seed: int = 1
    governor: Governor = field(init=False)
    now: float = 0.0
    limits: list[tuple[float, float]] = field(default_factory=list)
    started_at: list[float] = field(default_factory=list)
    starved_at: list[float] = field(default_factory=list)
    _queue: deque[float] = field(default_factory=deque)
    _random: random.Random = field(init=False)
    _offered: float = 0.0
    _served: float = 0.0

    def __post_init__(self) -> None:
        self.governor = Governor.of(self.cps)
        self._random = random.Random(self.seed)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            self._window()

    def _window(self) -> None:
        sent = started = 0
        answers: list[float] = []
        began = self.now
        while not is_window_over(self.now - began + 1e-9, max(sent, started)):
            self.now += STEP_S
            sent += self._send()
            fresh = self._start()
            started += len(fresh)
            answers += fresh
        ages = [self.now - at for at in self._queue]
        window = Window(
            length_s=self.now - began,
            sent=sent,
            started=started,
            waiting=len(self._queue),
            answer_s=p95([*answers, *ages]),
        )
        if self.has_governor:
            self.governor = govern(self.governor, window, self.now)
        self.limits.append((self.now, self.governor.limit.now))

    def _send(self) -> int:
        self._offered = min(
            self._offered + min(self.demand, self.governor.limit.now) * STEP_S, self.cps / 10 + 1
        )
        n = int(self._offered)
        self._offered -= n
        self._queue.extend([self.now] * n)
        return n

    def _start(self) -> list[float]:
        """Start as many calls as the capacity allows; return how long each waited."""
        self._served = min(
            self._served + self.capacity(self.now) * STEP_S, self.capacity(self.now) * STEP_S + 1
        )
        fresh = []
        while self._queue and self._served >= 1:
            self._served -= 1
            waited = self.now - self._queue.popleft()
            fresh.append(waited + 0.005 + self.noise(self._random))
            (self.starved_at if waited > STARVED_AFTER_S else self.started_at).append(self.now)
        return fresh

    def rate(self, since: float, until: float) -> float:
        """Calls that started well, a second."""
        return sum(since < at <= until for at in self.started_at) / (until - since)

    def starved(self, since: float) -> int:
        return sum(at > since for at in self.starved_at)
