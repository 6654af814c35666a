"""What can be done to a site, and the seeded plan of doing it."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BRIDGES = ("bridge1", "bridge2")
WORKERS = ("pbx22", "pbx16")

#: The named steps, each with a failure point before and after it, by who takes them.
STEPS = {
    "bridge": (
        "fetch", "fetch_codes", "check", "park", "admit", "refuse", "bury", "bury_call", "due",
        "assign", "takeover", "return_hand", "code", "late_codes",
        "lease", "loads", "publish", "release", "old_slots", "end", "remember_cell",
        "unserved_cells",
    ),
    "worker": ("claim", "accept", "answer", "end", "release", "heartbeat", "originate", "unclaim",
               "hold", "let_go", "fence", "unannounced"),
}  # fmt: skip

#: Steps met at the first chance, for only other faults bring them.
RARE = {
    "bridge": {
        *("refuse", "bury", "bury_call", "park", "assign", "return_hand", "end", "old_slots"),
        "release",
    },
    "worker": {"unclaim", "hold", "let_go", "fence"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to do to one target, for `length_s` where it lasts."""

    kind: str
    target: str
    length_s: float = 0.0


#: Kind, its weight, its targets, how long it lasts in seconds.
KINDS: Sequence[tuple[str, int, Sequence[str], tuple[float, float]]] = (
    ("kill bridge", 5, BRIDGES, (0, 0)),
    ("stop bridge", 3, BRIDGES, (0.2, 4.0)),
    ("stop bridge long", 1, BRIDGES, (11.0, 14.0)),
    ("kill worker", 4, WORKERS, (0, 0)),
    ("stop worker", 3, WORKERS, (0.2, 4.0)),
    ("stop worker long", 1, WORKERS, (11.0, 14.0)),
    ("cut AMI link", 6, WORKERS, (0, 0)),
    ("AMI link half open", 2, WORKERS, (1.0, 8.0)),
    ("kill Asterisk", 1, WORKERS, (0, 0)),
    ("pause Asterisk", 2, WORKERS, (0.5, 7.0)),
    ("kill Redis", 3, ("redis",), (0.2, 2.0)),
    ("pause Redis", 2, ("redis",), (0.3, 7.0)),
    ("terminate bridge", 3, BRIDGES, (0, 0)),
    ("terminate worker", 1, WORKERS, (0, 0)),
)


def plan(rng: random.Random) -> Iterator[Fault]:
    """Faults without end, in the order that the seed gives."""
    weights = [weight for _, weight, _, _ in KINDS]
    while True:
        kind, _, targets, (low, high) = rng.choices(KINDS, weights)[0]
        yield Fault(kind=kind, target=rng.choice(targets), length_s=rng.uniform(low, high))


#: Rare points armed beside an often met one at each start.
RARE_AT_ONCE = 4


class Points:
    """Failure points to be armed: each comes up until it has fired, then the round begins again."""

    def __init__(self, who: str, rng: random.Random) -> None:
        self._rare = RARE[who]
        self.all = [f"{step}.{side}" for step in STEPS[who] for side in ("before", "after")]
        self.fired: Counter[str] = Counter()
        self._rng = rng
        self._waiting: dict[bool, deque[str]] = {True: deque(), False: deque()}

    def arm(self) -> list[str]:
        """The next points, as the environment variable wants them: one often met, some rare."""
        return [
            self._next(rare=False),
            *{self._next(rare=True): None for _ in range(RARE_AT_ONCE)},
        ]

    def _next(self, *, rare: bool) -> str:
        waiting = self._waiting[rare]
        if not waiting:
            kind = [point for point in self.all if self._is_rare(point) is rare]
            waiting.extend(self._rng.sample(kind, len(kind)))
        point = waiting.popleft()
        action = "stop" if self._rng.random() < 0.15 else "kill"
        return f"{point}:{action}@{1 if rare else self._rng.randint(1, 15)}"

    def result(self, armed: Sequence[str], fired: str | None) -> None:
        """What became of armed points; those that did not fire come up again."""
        for point in (item.partition(":")[0] for item in armed):
            if point == fired:
                self.fired[point] += 1
            elif point not in self._waiting[self._is_rare(point)]:
                self._waiting[self._is_rare(point)].append(point)

    def _is_rare(self, point: str) -> bool:
        return point.partition(".")[0] in self._rare
