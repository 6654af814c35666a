"""The bridge's steps for waiting calls and for recovery, in slices.

Parsing many calls at once would block the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from dialer.domain.call import Call, State
from dialer.domain.taking import Trial
from dialer.store.entry import Entry
from dialer.store.ledger.call_steps import CallSteps, Waiting
from dialer.store.ledger.in_flight import state_in
from dialer.store.ledger.reads import is_of_one_element, names_in

logger = logging.getLogger(__name__)

#: Calls read at once. Parsing 50 takes about 5 ms, so the event loop is not blocked for long.
SLICE: Final = 50

#: Waiting calls that are looked at to find one for a PBX.
_LOOKED_AT: Final = 200

#: A call without a PBX is due again after this time, in ms.
_NO_PBX_AGAIN_MS: Final = 250

#: What is wrong with a call that cannot be moved or ended as it is.
DESTROYED: Final = (
    "its entry in Redis lost its state or epoch: see which other program writes to or deletes "
    "dialer:call:… there"
)

#: All states, each between blanks, for Lua.
_STATES: Final = f" {' '.join(State)} "


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A call whose entry cannot be read. `raw` is its request as Multcall pushed it."""

    call: Call
    raw: bytes
    error: Exception


def slices(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield the ids in lists of at most `SLICE`."""
    names = list(ids)
    for start in range(0, len(names), SLICE):
        yield names[start : start + SLICE]


class WaitingCalls(CallSteps):
    """One cell's ledger, with the reads and steps for the recovery of a bridge."""

    __slots__ = ()

    async def due(
        self,
        *,
        older_than_s: float,
        pbx: str = "",
        at_most: int | None = None,
        but: str = "",
    ) -> AsyncIterator[list[Waiting]]:
        """Yield slices of waiting calls that are due, and mark them as published now.

        Args:
            older_than_s: a call is due this long after it was last published.
            pbx: only calls queued to this PBX, '' for any.
            at_most: total number of calls, None for no limit.
            but: id of a call that is left alone, '' for none.
        """
        since, left = "", at_most
        while left is None or left > 0:
            n = SLICE if left is None else min(SLICE, left)
            since, found = await self._due_slice(since, older_than_s, n, pbx, but)
            if found:
                yield found
            if len(found) < n:
                return
            left = None if left is None else left - n

    async def _due_slice(
        self, since: str, older_than_s: float, n: int, pbx: str, but: str
    ) -> tuple[str, list[Waiting]]:
        keys = self.keys
        reply = await self.steps.run(
            "due",
            [keys.queued],
            [since, int(older_than_s * 1000), keys.call(""), n, pbx, _NO_PBX_AGAIN_MS, but],
        )
        since, *text = [
            v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in reply
        ]
        # One that lacks its state or epoch, or has another, cannot be moved or ended.
        return since, [
            Waiting(call_id=i, state=State(s), epoch=int(e), pbx=p or None)
            for i, s, e, p in zip(text[::4], text[1::4], text[2::4], text[3::4], strict=True)
            if s in set(State) and e.isdecimal()
        ]

    async def trial(self, call_id: str) -> Trial:
        """Return what the ledger says of a trial call, without its times."""
        fields = await self.steps.read(
            "HMGET", self.keys.call(call_id), "state", "pbx", "result", "error"
        )
        _, pbx, result, error = [(v or b"").decode(errors="replace") for v in fields]
        return Trial(state=state_in(fields[0]), pbx=pbx or None, result=result, error=error)

    async def first_queued(self, pbxs: Collection[str]) -> dict[str, str]:
        """Return the call that has been queued longest to each of these PBXs, if there is one."""
        ids = await self.steps.read("ZRANGE", self.keys.queued, 0, _LOOKED_AT - 1)
        names = names_in(ids)
        holders = await self.slot_holders(names)
        found: dict[str, str] = {}
        for name in names:
            if (pbx := holders.get(name, "")) in pbxs:
                found.setdefault(pbx, name)
        return found

    # --- reads in slices -------------------------------------------------------------

    async def slot_holders(self, ids: Iterable[str]) -> dict[str, str]:
        """Read in slices; otherwise as `LedgerReads.slot_holders`."""
        found: dict[str, str] = {}
        for part in slices(ids):
            found |= await super().slot_holders(part)
        return found

    async def destroyed(self, ids: Iterable[str]) -> set[str]:
        """Return the calls among these whose entry lacks its state or epoch, or is gone."""
        found: set[str] = set()
        for part in slices(ids):
            places = await self.steps.run("destroyed", [self.keys.call(i) for i in part], [_STATES])
            found |= {part[place - 1] for place in places}
        return found

    async def mend(self, call_id: str) -> Unreadable | None:
        """Make a call whose entry was destroyed one that can be ended, and return it.

        None if its entry is sound, or the call is over.
        """
        epoch = await self.steps.run(
            "mend", [self.keys.call(call_id), self.keys.live], [call_id, _STATES, State.ORIGINATING]
        )
        if not epoch:
            return None
        found = await self._unreadable(call_id, ValueError(DESTROYED))
        return next(iter(found), None)

    async def claimed_ids(self, pbx: str) -> list[str]:
        """Return the calls claimed by this PBX's worker that have not ended."""
        return names_in(await self.steps.read("SMEMBERS", self.keys.claimed(pbx)))

    async def readable(self, ids: Sequence[str]) -> tuple[list[Entry], list[Unreadable]]:
        """Return the entries of the calls that are not done, and the calls that cannot be read."""
        try:
            return await self.entries(ids), []
        except Exception as error:
            if not is_of_one_element(error):
                raise
        entries: list[Entry] = []
        unreadable: list[Unreadable] = []
        for one in ids:
            try:
                entries += await self.entries([one])
            except Exception as error:
                if not is_of_one_element(error):
                    raise
                unreadable += await self._unreadable(one, error)
        return entries, unreadable

    async def _unreadable(self, call_id: str, error: Exception) -> list[Unreadable]:
        field, epoch, pbx, raw = await self.steps.read(
            "HMGET", self.keys.call(call_id), "state", "epoch", "pbx", "request"
        )
        state = state_in(field)
        if state is None or not (epoch or b"").isdigit():
            return []  # the reaper finds it
        call = Call(
            call_id=call_id,
            state=state,
            epoch=int(epoch),
            pbx=pbx.decode(errors="replace") if pbx else None,
        )
        return [Unreadable(call=call, raw=raw or b"", error=error)]

    async def bury_call(self, call_id: str, dead: str) -> None:
        """Put the request of an unreadable call on the dead list, once."""
        keys = self.keys
        dropped = await self.steps.run(
            "bury_call", [keys.call(call_id), keys.dead, keys.dropped], [dead]
        )
        self._check_dropped(int(dropped))

    # --- the dead list -------------------------------------------------------------

    def _check_dropped(self, dropped: int) -> None:
        """Log a warning if the dead list was full, once for each cell."""
        if dropped > 0:
            _warn_dead_list_full(self.cell)


@cache
def _warn_dead_list_full(cell: str) -> None:
    logger.warning(
        "Dead list full; its oldest entries are dropped. Read it, correct what Multcall sends, "
        "then delete it",
        extra={"cell": cell},
    )
