"""Compare the ledger with Asterisk's live channels whenever the AMI link comes up.

Finds the calls that Asterisk may have, asks for the channels and feeds the result to the calls.
`dialer.domain.follow` decides what it means for a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from redis.exceptions import RedisError

from dialer.domain.call import State
from dialer.domain.follow_events import ChannelListed, CheckDue, GapFound
from dialer.errors import AmiUnavailable
from dialer.store.entry import Entry
from dialer.store.ledger import WorkerLedger
from workers.ami import AmiLink
from workers.ami.events import channel_found, read_record
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.calls.journal import Journal
from workers.calls.tracker import Tracker
from workers.pbx.state import PbxState
from workers.recovery.replay import Replay

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Longest wait for a cell's Redis to list its calls; the other cells go on. In seconds.
CLAIMED_WITHIN_S: Final = 1.0

#: A record is kept this long after its call, for a worker that starts later. In seconds.
RECORD_KEPT_S: Final = 24 * 3600.0

#: Pause between two calls that are checked, in seconds.
CHECK_PAUSE_S: Final = 0.02

#: Calls handled in one turn of the event loop.
SLICE: Final = 50

_CLAIMED: Final = frozenset({State.ORIGINATING, State.ACCEPTED, State.ANSWERED})


@dataclass(slots=True)
class Reconciler:
    """Reconciler of one PBX. Belongs to the worker's event loop."""

    state: PbxState
    link: AmiLink
    cells: Cells
    calls: Calls
    tracker: Tracker
    journal: Journal
    replay: Replay
    claimed_within_s: float = CLAIMED_WITHIN_S
    check_pause_s: float = CHECK_PAUSE_S

    async def run(self) -> None:
        """Adopt the calls that are up and end those that are gone.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        with self.tracker.buffering():
            async for followed in _in_slices(self.calls.followed()):
                self.tracker.feed(followed.call.call_id, GapFound())
            self.state.boot = await self.link.boot()
            self.state.has_include = await self.link.has_include()
            live = await self.link.channels()
            async for entry in _in_slices(await self._claimed()):
                self._adopt_unknown(entry)
            await self._feed_lookups(
                [f.call.call_id for f in self.calls.followed() if f.sent], live
            )

    async def on_ledger_recovered(self, ledger: WorkerLedger) -> None:
        """Replay lost writes to a recovered ledger; adopt claimed calls that are not followed."""
        await ledger.fence_off()
        await self.replay.replay(ledger)
        unknown = [e for e in await ledger.claimed(self.state.name) if self._is_unknown(e)]
        if not unknown:
            return
        with self.tracker.buffering():  # not above: Redis may be unavailable for hours
            try:
                live = await self.link.channels()
            except AmiUnavailable:
                return  # the reconciliation after the reconnect does it
            adopted_ids = [entry.call.call_id for entry in unknown if self._adopt_unknown(entry)]
            await self._feed_lookups(adopted_ids, live)

    async def check_long_calls(self) -> None:
        """Ask for the channel of each long call; its Hangup may have been missed.

        Asks for each channel alone: a list of all channels would lock Asterisk for too long.
        """
        for followed in self.calls.followed():
            if self.tracker.feed(followed.call.call_id, CheckDue()):
                await asyncio.sleep(self.check_pause_s)

    async def delete_old_records(self) -> None:
        """Delete records of calls that ended long ago, left over when a link broke.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        now = datetime.now(UTC)
        for uniqueid, text in (await self.link.records()).items():
            record = read_record(text)
            last = (record.ended_at or record.answered_at) if record else None
            old = last is None or now - last > timedelta(seconds=RECORD_KEPT_S)
            if old and self.calls.by_uniqueid(uniqueid) is None:
                await self.link.delete_record(uniqueid)

    async def _claimed(self) -> list[Entry]:
        """Return the claimed calls of all cells whose Redis answers now; retry the others later."""
        found = await asyncio.gather(*(self._claimed_of(one) for one in self.cells.ledgers()))
        return [entry for entries in found for entry in entries]

    async def _claimed_of(self, ledger: WorkerLedger) -> list[Entry]:
        claimed: list[Entry] | None = None
        try:
            async with asyncio.timeout(self.claimed_within_s):
                claimed = await ledger.steps.or_none_if_down(self._fence_and_read(ledger))
        except (TimeoutError, RedisError) as error:
            logger.warning(
                "A cell's Redis does not list its calls; the PBX serves the other cells",
                extra={"pbx": self.state.name, "cell": ledger.cell, "error": repr(error)},
            )
        if claimed is None:
            self.journal.write(ledger.cell, "claimed", partial(self.on_ledger_recovered, ledger))
        return claimed or []

    async def _fence_and_read(self, ledger: WorkerLedger) -> list[Entry]:
        """Return the claimed calls; no older worker of this PBX can change them any longer."""
        await ledger.fence_off()
        return await ledger.claimed(self.state.name)

    def _is_unknown(self, entry: Entry) -> bool:
        call_id = entry.call.call_id
        is_known = call_id in self.calls or self.calls.remembered.get(call_id) is not None
        return entry.call.state in _CLAIMED and not is_known

    def _adopt_unknown(self, entry: Entry) -> bool:
        """Adopt a claimed call; return false if this worker follows or remembers it."""
        if self.calls.is_claiming(entry.call.call_id):
            return False  # its Originate is not sent yet
        if self._is_unknown(entry):
            self.tracker.adopt(entry)
            return True
        if entry.call.call_id not in self.calls:
            self.replay.resend(entry)
        return False

    async def _feed_lookups(self, call_ids: list[str], live: dict[str, dict[str, str]]) -> None:
        """Feed each call the result of the channel list."""
        adopted = 0
        async for call_id in _in_slices(call_ids):
            if (followed := self.calls.get(call_id)) is None:
                continue  # it ended in the meantime
            found = channel_found(live, followed.uniqueids, self.state.boot)
            adopted += isinstance(found, ChannelListed)
            self.tracker.feed(call_id, found)
        if call_ids:
            extra = {"adopted": adopted, "gone": len(call_ids) - adopted}
            logger.warning(
                "Reconciled ledger with Asterisk", extra={"pbx": self.state.name, **extra}
            )


async def _in_slices(items: Sequence[T]) -> AsyncIterator[T]:
    """Yield the items; let other tasks run after each slice."""
    for n, item in enumerate(items, 1):
        yield item
        if n % SLICE == 0:
            await asyncio.sleep(0)
