"""What is counted of a cell: how many Responses of each result, by PBX and minute, and more.

The step that sends a Response or an ACK counts it, so the numbers are exact, and survive restarts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from dialer.domain.call import Result
from dialer.store.keys import LedgerKeys
from dialer.store.steps import Steps

#: Results by their name.
RESULTS: Final = {result.value: result for result in Result}

#: The last step of the times until an ACK, in seconds, as in `_minute.lua`.
ACKS_MEASURED_S: Final = 30

#: Numbers with more digits are not ours.
DIGITS_MAX: Final = 16

#: PBX and result. The PBX is '' for requests that were answered without one.
Outcomes = Counter[tuple[str, Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What was counted in one minute of a cell.

    `peak` is the most calls at once, as a bridge saw them each second; 0 if there were none.
    `acks` says how many ACKs came within so many ms after the admission and not within the step
    before; infinite ms for those later than the last step. The steps are those of `_minute.lua`.
    """

    outcomes: Outcomes = field(default_factory=Outcomes)
    peak: int = 0
    acks: Mapping[float, int] = field(default_factory=dict)

    def acks_within_ms(self, share: float) -> float | None:
        """Return in how many ms at most this share of the ACKs came, None if there was no ACK."""
        wanted, so_far = share * sum(self.acks.values()), 0
        for bound in sorted(self.acks):
            so_far += self.acks[bound]
            if so_far >= wanted:
                return bound
        return None


@dataclass(frozen=True, slots=True)
class OutcomeReads:
    """The counted outcomes of one cell."""

    steps: Steps
    cell: str

    async def hours(self, hours: Iterable[int]) -> dict[int, Outcomes]:
        """Return the outcomes of these hours since 1970, by the clock of the cell's Redis."""
        keys = LedgerKeys(self.cell)
        names = {hour: keys.hour(hour) for hour in hours}
        rows = await self.steps.read_many([("HGETALL", name) for name in names.values()])
        return {at: minute_in(row).outcomes for at, row in zip(names, rows, strict=True)}


def by_result(outcomes: Outcomes) -> Counter[Result]:
    """Return the outcomes of all PBXs together."""
    total: Counter[Result] = Counter()
    for (_, result), n in outcomes.items():
        total[result] += n
    return total


def minute_in(row: Mapping[bytes, bytes]) -> Minute:
    """Return what the hash of a minute has; what is not ours is ignored."""
    outcomes, peak, acks = Outcomes(), 0, dict[float, int]()
    for name, value in row.items():
        if not value.isdigit() or len(value) > DIGITS_MAX:
            continue
        if (key := _key(name)) is not None:
            outcomes[key] = int(value)
        elif name == b"=peak":
            peak = int(value)
        elif (bound := _ack_bound(name)) is not None:
            acks[bound] = int(value)
    return Minute(outcomes=outcomes, peak=peak, acks=acks)


def _ack_bound(name: bytes) -> float | None:
    """Return the time in the name of a field that counts ACKs, in ms, None for other fields."""
    kind, _, bound = name.partition(b" ")
    if kind != b"=ack":
        return None
    if bound == b"more":
        return math.inf
    return float(bound) if bound.isdigit() and len(bound) <= DIGITS_MAX else None


@lru_cache(10_000)  # the same names come again each second
def _key(name: bytes) -> tuple[str, Result] | None:
    """Return PBX and result in the name of a field, None if it is not ours."""
    pbx, _, result = name.decode(errors="replace").rpartition(" ")
    return (pbx, RESULTS[result]) if result in RESULTS else None
