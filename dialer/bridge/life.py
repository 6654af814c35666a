"""What a cell's parts know without asking Redis: whether there is anything for them to do.

`Pulse` finds it out for all cells of a server at once. Without a pulse the parts ask by themselves.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Final

from dialer.domain.taking import CLAIM_WITHIN_S
from dialer.store.ledger import Pulsed

#: Longest wait in Redis for a request or a code, in seconds.
BLOCK_S: Final = 1.25

#: The same in a quiet cell: nothing but that request or code can come, and each wait costs.
BLOCK_QUIET_S: Final = 5.0

#: A request or code is handled alone if its list was empty for so long before it, in seconds.
#: Otherwise more may have come, and one fetch takes them all.
ALONE_AFTER_S: Final = 0.005

#: What comes alone is handled by a reading of the hand and the PBXs that is at most so old, in
#: seconds.
ALONE_AGE_S: Final = 0.1


@dataclass(slots=True)
class Life:
    """The life of one cell, as of the last pulse. Times are of the event loop.

    `is_quiet`: the cell has no calls and no requests but those in Multcall's list. `is_known` is
    false while no pulse tells. `live` are its calls, `waiting` the requests in Multcall's list, 0
    while it is quiet. `_code_at` is when a code is overdue, `_call_at` when a worker is
    late with a call.
    """

    is_known: bool = False
    is_quiet: bool = False
    live: int = 0
    waiting: int = 0
    _code_at: float = 0.0
    _call_at: float = 0.0
    _sooner: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, pulsed: Pulsed) -> None:
        """Take over what a pulse has found."""
        now = asyncio.get_running_loop().time()
        self.is_known, self.is_quiet = True, pulsed.is_quiet
        self.live, self.waiting = pulsed.live, pulsed.waiting
        code_at = now + pulsed.code_in_s
        if code_at < self._code_at:
            self._sooner.set()
        self._code_at, self._call_at = code_at, now - pulsed.unclaimed_s + CLAIM_WITHIN_S

    def forget(self) -> None:
        """Let the parts ask by themselves, because no pulse tells."""
        self.is_known = self.is_quiet = False
        self._code_at = self._call_at = 0.0
        self._sooner.set()

    def stir(self) -> None:
        """Note that the cell has calls now; the next pulse tells more."""
        self.is_quiet = False

    @property
    def block_s(self) -> float:
        """Longest wait in Redis for a request or a code before the hand is read again."""
        return BLOCK_QUIET_S if self.is_quiet else BLOCK_S

    @property
    def has_late_calls(self) -> bool:
        """True if a worker may be late with a call."""
        return self._call_at <= asyncio.get_running_loop().time()

    async def until_code_late(self) -> None:
        """Wait until a code may be overdue."""
        while (left_s := self._code_at - asyncio.get_running_loop().time()) > 0:
            self._sooner.clear()
            timeout = None if math.isinf(left_s) else left_s
            try:
                async with asyncio.timeout(timeout):
                    await self._sooner.wait()
            except TimeoutError:
                return
