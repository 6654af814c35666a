"""Outcomes of a cell's requests: how many Responses of each result, by PBX and minute.

The step that sends a Response counts it, so the numbers are exact, and survive restarts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from dialer.domain.call import Result
from dialer.store.keys import LedgerKeys
from dialer.store.steps import Steps

_RESULTS: Final = {result.value: result for result in Result}

#: Numbers with more digits are not ours.
DIGITS_MAX: Final = 16

#: PBX and result. The PBX is '' for requests that were answered without one.
Outcomes = Counter[tuple[str, Result]]


@dataclass(frozen=True, slots=True)
class OutcomeReads:
    """The counted outcomes of one cell."""

    steps: Steps
    cell: str

    async def minutes(self, minutes: Iterable[int]) -> dict[int, Outcomes]:
        """Return the outcomes of these minutes since 1970, by the clock of the cell's Redis."""
        return await self._read({minute: self._keys.minute(minute) for minute in minutes})

    async def hours(self, hours: Iterable[int]) -> dict[int, Outcomes]:
        """Return the outcomes of these hours since 1970."""
        return await self._read({hour: self._keys.hour(hour) for hour in hours})

    @property
    def _keys(self) -> LedgerKeys:
        return LedgerKeys(self.cell)

    async def _read(self, names: Mapping[int, str]) -> dict[int, Outcomes]:
        rows = await self.steps.read_many([("HGETALL", name) for name in names.values()])
        return {at: outcomes_in(row) for at, row in zip(names, rows, strict=True)}


def by_result(outcomes: Outcomes) -> Counter[Result]:
    """Return the outcomes of all PBXs together."""
    total: Counter[Result] = Counter()
    for (_, result), n in outcomes.items():
        total[result] += n
    return total


def outcomes_in(row: Mapping[bytes, bytes]) -> Outcomes:
    """Return the outcomes in a hash; what is not ours is ignored."""
    found = Outcomes()
    for name, value in row.items():
        if (key := _key(name)) is not None and value.isdigit() and len(value) <= DIGITS_MAX:
            found[key] = int(value)
    return found


@lru_cache(10_000)  # the same names come again each second
def _key(name: bytes) -> tuple[str, Result] | None:
    """Return PBX and result in the name of a field, None if it is not ours."""
    pbx, _, result = name.decode(errors="replace").rpartition(" ")
    return (pbx, _RESULTS[result]) if result in _RESULTS else None
