"""How long things take on a simulated PBX: ranges, and the seeded dice that draw from them.

It knows no clock: it only says how many seconds lie between two steps of a call.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from dialer.simulation.pbx.outcomes import Outcome, Version

_Told = TypeVar("_Told")

RINGBACK_AFTER_S: Final = 0.5
"""A carrier that answers sooner sends no 180."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHabits:
    """What one PBX's calls are like. Ranges are (shortest, longest) in seconds."""

    version: Version = "22"
    ring_time_s: tuple[float, float] = (1.0, 4.0)
    talk_time_s: tuple[float, float] = (2.0, 8.0)
    reject_time_s: tuple[float, float] = (0.05, 0.3)
    long_talk_s: float = 300.0
    is_dialplan_included: bool = True


class Timing:
    """Draws the times of call after call; the same seed gives the same times."""

    def __init__(self, habits: CallHabits, seed: int | None) -> None:
        self._habits = habits
        self._dice = random.Random(seed)

    def reject_s(self) -> float:
        """From the invitation to the carrier's refusal."""
        return self._dice.uniform(*self._habits.reject_time_s)

    def ring_s(self, outcome: Outcome) -> float:
        """From the invitation to the answer."""
        return outcome.ring_s or self._dice.uniform(*self._habits.ring_time_s)

    def talk_s(self, outcome: Outcome) -> float:
        """From the answer to the clearing."""
        if outcome.is_long:
            return self._habits.long_talk_s
        return self._dice.uniform(*self._habits.talk_time_s)

    def interleave(self, *threads: Sequence[_Told]) -> list[_Told]:
        """Mix what several of Asterisk's threads tell; each one's own order stays."""
        waiting = [list(reversed(thread)) for thread in threads if thread]
        mixed: list[_Told] = []
        while waiting:
            thread = self._dice.choice(waiting)
            mixed.append(thread.pop())
            if not thread:
                waiting.remove(thread)
        return mixed
