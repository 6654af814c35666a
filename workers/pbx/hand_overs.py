"""Hold a cell back on this PBX if its answered calls do not reach their target.

After `MOST_FAILED` such calls in a row the cell's calls go to other PBXs. Then one call at a time
is tried: one that reaches its target ends the hold, and so does a new start of Asterisk.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dialer.domain.hand_over import LATE, not_handed_over
from workers.pbx.state import PbxState

logger = logging.getLogger(__name__)

#: Answered calls in a row that did not reach their target, before a cell is held back.
MOST_FAILED: Final = 3

#: Pause before each call that is tried, in seconds.
TRY_EVERY_S: Final = 30.0


@dataclass(slots=True)
class _Hold:
    """Why a cell is held back, when a call may be tried, and the call that is being tried."""

    sentence: str
    try_at: float
    trial: str | None = None


@dataclass(slots=True)
class HandOvers:
    """Hand-overs of one PBX's cells. Belongs to the worker's event loop.

    `monotonic` returns seconds of a monotonic clock.
    """

    state: PbxState
    try_every_s: float = TRY_EVERY_S
    monotonic: Callable[[], float] = time.monotonic
    _failed: Counter[str] = field(default_factory=Counter)
    _holds: dict[str, _Hold] = field(default_factory=dict)
    _late: set[str] = field(default_factory=set)
    _boot: str = ""

    def why_held(self, cell: str) -> str | None:
        """Return why no call of the cell may be dialed now; None if one may be."""
        self._forget_former_start()
        hold = self._holds.get(cell)
        if hold is None or (hold.trial is None and self.monotonic() >= hold.try_at):
            return None
        return hold.sentence

    def dialed(self, cell: str, call_id: str) -> None:
        """Take note of a call that is dialed now; of a held cell it is the one that is tried."""
        if (hold := self._holds.get(cell)) is not None:
            hold.trial = hold.trial or call_id
            self.state.lacking.setdefault(cell, hold.sentence)

    def ended(self, cell: str, call_id: str) -> None:
        """Take note of a call's end; if it was never answered, the next one may be tried."""
        self._late.discard(call_id)
        hold = self._holds.get(cell)
        if hold is not None and hold.trial == call_id:
            hold.trial = None

    def note(self, cell: str, call_id: str, handed: str) -> None:
        """Take note of what became of an answered call's hand-over."""
        self._forget_former_start()
        error = not_handed_over(handed)
        if error is None:
            if call_id in self._late:
                self._late.discard(call_id)
                self.state.results.take_back("not_handed_over")
                logger.warning(
                    "An answered call reached its target late",
                    extra={"pbx": self.state.name, "cell": cell, "call_id": call_id},
                )
            self._succeeded(cell)
            return
        self._failed[cell] += 1
        self.state.results.count("not_handed_over")
        if handed == LATE:
            self._late.add(call_id)
        extra = {"pbx": self.state.name, "cell": cell, "call_id": call_id, "reason": error.message}
        logger.error("An answered call did not reach its target", extra=extra)
        if self._failed[cell] < MOST_FAILED:
            return
        if cell not in self._holds:
            extra.pop("call_id")
            logger.error("Calls of a cell did not reach their target; it is held back", extra=extra)
        self._hold(cell, error.message)

    def _forget_former_start(self) -> None:
        """Begin again if Asterisk was started again: a stop cuts calls off, and ends faults."""
        if self._boot == self.state.boot:
            return
        self._boot = self.state.boot
        for cell in (*self._failed, *self._holds):
            if self._end_hold(cell):
                logger.warning(
                    "Asterisk was started again; a cell that was held back is dialed again",
                    extra={"pbx": self.state.name, "cell": cell},
                )

    def _hold(self, cell: str, message: str) -> None:
        sentence = (
            f"{self.state.name} did not hand over the last answered calls of cell {cell}: {message}"
        )
        self._holds[cell] = _Hold(sentence, self.monotonic() + self.try_every_s)
        self.state.lacking.setdefault(cell, sentence)

    def _succeeded(self, cell: str) -> None:
        if self._end_hold(cell):
            logger.warning(
                "Calls of a cell reach their target again",
                extra={"pbx": self.state.name, "cell": cell},
            )

    def _end_hold(self, cell: str) -> bool:
        """Forget the failures of a cell; return true if it was held back."""
        self._failed.pop(cell, None)
        hold = self._holds.pop(cell, None)
        if hold is None:
            return False
        if self.state.lacking.get(cell) == hold.sentence:
            del self.state.lacking[cell]
        self.state.new_instance()  # a verdict on what was before no longer holds
        return True
