"""What can be done to a site, and the seeded plan of doing it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

BRIDGES = ("bridge1", "bridge2")
WORKERS = ("pbx22", "pbx16")

#: The named steps, each with a failure point before and after it, by who takes them.
STEPS = {
    "bridge": (
        "take", "admit", "refuse", "due", "place", "takeover", "code", "late_codes", "lease",
        "loads", "publish", "release", "old_slots", "end",
    ),
    "worker": ("claim", "accept", "answer", "end", "release", "heartbeat", "originate", "unclaim"),
}  # fmt: skip

#: Steps that every run passes often; the others are armed too, and met when faults bring them.
OFTEN = {"take", "admit", "due", "takeover", "code", "lease", "loads", "publish", "late_codes",
         "claim", "accept", "answer", "end", "release", "heartbeat", "originate"}  # fmt: skip


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
    ("terminate bridge", 1, BRIDGES, (0, 0)),
    ("terminate worker", 1, WORKERS, (0, 0)),
)


def plan(rng: random.Random) -> Iterator[Fault]:
    """Faults without end, in the order that the seed gives."""
    weights = [weight for _, weight, _, _ in KINDS]
    while True:
        kind, _, targets, (low, high) = rng.choices(KINDS, weights)[0]
        yield Fault(kind=kind, target=rng.choice(targets), length_s=rng.uniform(low, high))


def failpoints(rng: random.Random, who: str) -> Iterator[str]:
    """What to arm at each start of a bridge or worker, without end: every point in turn."""
    points = [f"{step}.{side}" for step in STEPS[who] for side in ("before", "after")]
    rng.shuffle(points)
    for point in cycle(points):
        often = point.partition(".")[0] in OFTEN
        action = "stop" if rng.random() < 0.15 else "kill"
        yield f"{point}:{action}@{rng.randint(2, 40) if often else 1}"
