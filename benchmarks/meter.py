"""Use of named processes over a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.usage import Used


class Meter:
    """The use of named groups of processes since it was made."""

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        self._pids = pids
        self._before = self._now()

    def read(self) -> dict[str, Used]:
        """Return the use since then."""
        return {name: used - self._before[name] for name, used in self._now().items()}

    def _now(self) -> dict[str, Used]:
        return {name: Used.by(*pids) for name, pids in self._pids.items()}
