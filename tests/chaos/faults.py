"""What can be done to a site, and the seeded plan of doing it."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

BRIDGES = ("bridge1", "bridge2")
WORKERS = ("pbx22", "pbx16")

#: The named steps, each with a failure point before and after it, by who takes them.
STEPS = {
    "bridge": (
        "fetch", "fetch_codes", "check", "park", "admit_many", "admit", "refuse", "bury",
        "bury_call", "due",
        "assign", "takeover", "return_hand", "code", "late_codes",
        "lease", "loads", "publish", "release", "old_slots", "end", "remember_cell",
        "unserved_cells", "bridge_beat", "condemn", "try", "tried", "pulse", "slot_cells",
        "parameters", "decided",
    ),
    "worker": ("claim", "accept", "answer", "end", "end_release", "release", "heartbeat",
               "originate", "unclaim", "hold", "let_go", "fence", "unannounced", "present",
               "parameters"),
}  # fmt: skip

#: Steps met at the first chance, for only other faults bring them.
RARE = {
    "bridge": {
        *("refuse", "bury", "bury_call", "park", "assign", "return_hand", "end", "old_slots"),
        *("release", "condemn", "try", "tried", "takeover", "slot_cells", "lease"),
    },
    "worker": {"unclaim", "hold", "let_go", "fence"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to do to one target, for `length_s` where it lasts; the `n`th of all in a run."""

    kind: str
    target: str
    length_s: float = 0.0
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of fault. `needs` names what a run must have for it; empty: nothing."""

    name: str
    weight: int
    targets: Sequence[str]
    length_s: tuple[float, float] = (0, 0)
    needs: str = ""


#: A run has either one Redis, before which proxies stand, or a master that sentinels watch.
ONE_REDIS = "one Redis"
SENTINEL = "Sentinel"
COMPILER = "a C compiler"

KINDS = (
    Kind(name="kill bridge", weight=4, targets=BRIDGES),
    Kind(name="stop bridge", weight=2, targets=BRIDGES, length_s=(0.2, 4.0)),
    Kind(name="stop bridge long", weight=1, targets=BRIDGES, length_s=(11.0, 14.0)),
    Kind(name="terminate bridge", weight=2, targets=BRIDGES),
    Kind(name="kill worker", weight=4, targets=WORKERS),
    Kind(name="stop worker", weight=3, targets=WORKERS, length_s=(0.2, 4.0)),
    Kind(name="stop worker long", weight=1, targets=WORKERS, length_s=(11.0, 14.0)),
    Kind(name="terminate worker", weight=1, targets=WORKERS),
    Kind(name="worker frozen and replaced", weight=1, targets=WORKERS, length_s=(30.0, 30.0)),
    Kind(name="second worker", weight=2, targets=WORKERS),
    Kind(name="second worker, other Asterisk", weight=1, targets=WORKERS),
    Kind(name="cut AMI link", weight=6, targets=WORKERS),
    Kind(name="AMI link half open", weight=2, targets=WORKERS, length_s=(1.0, 8.0)),
    Kind(name="AMI frames broken", weight=3, targets=WORKERS, length_s=(3.0, 12.0)),
    Kind(name="kill Asterisk", weight=1, targets=WORKERS),
    Kind(name="pause Asterisk", weight=2, targets=WORKERS, length_s=(0.5, 7.0)),
    Kind(name="consumer cancelled", weight=2, targets=WORKERS, length_s=(3.0, 8.0)),
    Kind(name="consumer added to all", weight=1, targets=WORKERS, length_s=(3.0, 8.0)),
    Kind(name="broker cut off", weight=2, targets=WORKERS, length_s=(2.0, 15.0), needs=ONE_REDIS),
    Kind(name="registry cut off", weight=2, targets=WORKERS, length_s=(2.0, 15.0), needs=ONE_REDIS),
    Kind(
        name="cell's Redis cut off", weight=2, targets=WORKERS, length_s=(2.0, 8.0), needs=ONE_REDIS
    ),
    Kind(name="clock skew", weight=2, targets=WORKERS, length_s=(4.0, 8.0), needs=COMPILER),
    Kind(name="kill Redis", weight=3, targets=("redis",), length_s=(0.2, 2.0), needs=ONE_REDIS),
    Kind(name="pause Redis", weight=2, targets=("redis",), length_s=(0.3, 7.0), needs=ONE_REDIS),
    Kind(name="Redis at maxmemory", weight=2, targets=("redis",), length_s=(0.5, 5.0)),
    Kind(name="Sentinel failover", weight=5, targets=("redis",), needs=SENTINEL),
)


def plan(rng: random.Random, has: Container[str], only: Sequence[str] = ()) -> Iterator[Fault]:
    """Faults without end, in the order that the seed gives.

    `has` is what the run has; `only` are the kinds to choose from, all if there are none.
    """
    kinds = [k for k in KINDS if (not k.needs or k.needs in has) and (not only or k.name in only)]
    weights = [kind.weight for kind in kinds]
    while True:
        kind = rng.choices(kinds, weights)[0]
        yield Fault(
            kind=kind.name, target=rng.choice(kind.targets), length_s=rng.uniform(*kind.length_s)
        )


#: Rare points armed beside an often met one at each start. Those of the worker are met while it
#: starts, so more of them would keep it from ever working.
RARE_AT_ONCE = {"bridge": 4, "worker": 1}


class Points:
    """Failure points to be armed: each comes up until it has fired, then the round begins again."""

    def __init__(self, who: str, rng: random.Random) -> None:
        self._rare, self._rare_at_once = RARE[who], RARE_AT_ONCE[who]
        self.all = [f"{step}.{side}" for step in STEPS[who] for side in ("before", "after")]
        self.fired: Counter[str] = Counter()
        self._rng = rng
        self._waiting: dict[bool, deque[str]] = {True: deque(), False: deque()}

    def arm(self) -> list[str]:
        """The next points, as the environment variable wants them: one often met, some rare."""
        return [
            self._next(rare=False),
            *{self._next(rare=True): None for _ in range(self._rare_at_once)},
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
