"""Mends what died: lost messages, dead bridges, dead PBXs, leaked slots. Any bridge may do it.

Every step is the ledger's own and harmless when two bridges take it at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dialer.bridge.dispatch import Nudge
from dialer.bridge.intake import nudge
from dialer.bridge.site import CellSite
from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import cell_of
from dialer.domain.routing import plan
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting
from dialer.store.registry import PbxState

logger = logging.getLogger(__name__)

#: How often it looks, in seconds.
EVERY_S: Final = 0.5

#: A queued call that nobody claimed is published again after this long, in seconds.
REPUBLISH_AFTER_S: Final = 30.0

#: Slots are held against the ledger this often; younger ones are left alone, in seconds.
REAP_EVERY_S: Final = 10.0


@dataclass(slots=True)
class Recovery:
    """The recovery of one cell. `took_over` is called when another bridge's hand came to us."""

    site: CellSite
    pbx_lost_after_s: float
    took_over: Callable[[], None]
    _instances: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Runs for ever."""
        while True:
            await self.take_over()
            states = await self.site.registry.pbxs(self.site.pbxs)
            await self.send_again(states)
            await self.leave_unready(states)
            await self.give_up_lost(states)
            await asyncio.sleep(EVERY_S)

    async def run_reaper(self) -> None:
        """Mends leaked slots, for ever."""
        while True:
            await self.reap()
            await asyncio.sleep(REAP_EVERY_S)

    async def take_over(self) -> None:
        """Takes what dead bridges had in hand."""
        for bridge, n in await self.site.ledger.take_over(self.site.bridge):
            if n:
                logger.warning(
                    "Took over what a dead bridge had in hand",
                    extra={"cell": self.site.cell.name, "bridge": bridge, "elements": n},
                )
                self.took_over()

    async def send_again(self, states: Mapping[str, PbxState]) -> None:
        """Publishes calls again whose message was lost, and places those that have no PBX."""
        due = await self.site.ledger.due(older_than_s=REPUBLISH_AFTER_S)
        for name, state in states.items():
            known = self._instances.get(name)
            if state.load.ready and state.instance != known:
                self._instances[name] = state.instance
                if known is not None:  # its worker started anew: what it had taken is lost
                    due += await self.site.ledger.due(older_than_s=0, pbx=name)
        there = [w for w in due if w.pbx and states[w.pbx].load.ready]
        homeless = [w for w in due if not w.pbx]
        await self._publish([(w, w.pbx or "", w.epoch) for w in there])
        await self._move(homeless, states)

    async def leave_unready(self, states: Mapping[str, PbxState]) -> None:
        """Moves unclaimed calls from PBXs that take none to others of the cell."""
        if not any(state.load.ready for state in states.values()):
            return
        for name, state in states.items():
            if not state.load.ready:
                await self._move(await self.site.ledger.due(older_than_s=0, pbx=name), states)

    async def give_up_lost(self, states: Mapping[str, PbxState]) -> None:
        """Answers for claimed calls of PBXs that have been gone for too long."""
        for name, state in states.items():
            if state.unready_s < self.pbx_lost_after_s:
                continue
            for entry in await self.site.ledger.claimed(name):
                error = CallError(
                    code="pbx_lost",
                    message=f"{name} or its worker has been gone for "
                    f"{self.pbx_lost_after_s:g} s; nobody can say how the call ended",
                )
                await self._end(entry, Result.UNKNOWN, error)

    async def reap(self) -> None:
        """Gives back slots that belong to no call that is up on their PBX."""
        cell = self.site.cell.name
        for pbx in self.site.pbxs:
            old = await self.site.registry.slots(pbx.name, older_than_s=REAP_EVERY_S)
            mine = [call_id for call_id in old if cell_of(call_id) == cell]
            entries = await self.site.ledger.entries(mine)
            held = {
                e.call.call_id
                for e in entries
                if e.call.pbx == pbx.name and e.call.ending is None and e.call.state != "ended"
            }
            leaked = [call_id for call_id in mine if call_id not in held]
            if leaked:
                logger.warning(
                    "Gave back slots that no call held any more",
                    extra={"cell": cell, "pbx": pbx.name, "slots": len(leaked)},
                )
                await self.site.registry.release(pbx.name, leaked)

    # --- moving --------------------------------------------------------------------

    async def _move(self, waiting: Sequence[Waiting], states: Mapping[str, PbxState]) -> None:
        """Queues calls to PBXs that have room; those that find none stay where they are."""
        site = self.site
        entries = {e.call.call_id: e for e in await self._unexpired(waiting)}
        moving = [w for w in waiting if w.call_id in entries]
        chosen = plan(
            [entries[w.call_id].request.trunk for w in moving],
            [states[p.name].load for p in site.pbxs],
        )
        sent: list[tuple[Waiting, str, int]] = []
        for w, name in zip(moving, chosen, strict=True):
            if name is None:
                continue
            lease = await site.registry.lease(site.pbx(name), [w.call_id])
            epoch = await site.ledger.place(w, name) if lease.granted else 0
            if epoch:
                logger.warning(
                    "Call moved to another PBX",
                    extra={"call_id": w.call_id, "from": w.pbx, "pbx": name},
                )
                await site.registry.release(w.pbx or "", [w.call_id] if w.pbx != name else [])
                sent.append((w, name, epoch))
            else:
                await site.registry.release(name, lease.new)
        await self._publish(sent, entries)

    async def _publish(
        self,
        calls: Sequence[tuple[Waiting, str, int]],
        entries: Mapping[str, Entry] | None = None,
    ) -> None:
        if entries is None:
            found = await self._unexpired([w for w, _, _ in calls])
            entries = {e.call.call_id: e for e in found}
        nudges: list[Nudge] = [
            nudge(entries[w.call_id].request, pbx, epoch)
            for w, pbx, epoch in calls
            if w.call_id in entries
        ]
        await self.site.dispatcher.publish(nudges)

    async def _unexpired(self, waiting: Sequence[Waiting]) -> list[Entry]:
        """The entries of waiting calls; those whose time is over are answered."""
        now = datetime.now(UTC)
        fresh: list[Entry] = []
        for entry in await self.site.ledger.entries(w.call_id for w in waiting):
            if entry.expires_at is not None and entry.expires_at <= now:
                error = CallError(code="expired", message="ValidadeSeg passed before it was dialed")
                await self._end(entry, Result.EXPIRED, error)
            else:
                fresh.append(entry)
        return fresh

    async def _end(self, entry: Entry, result: Result, error: CallError) -> None:
        call = entry.call
        ending = Ending(result=result, ended_at=datetime.now(UTC), error=error)
        reply = await self.site.ledger.end(call, entry.request, ending)
        if reply != "void":
            logger.warning(
                "Call answered by the bridge",
                extra={"call_id": call.call_id, "pbx": call.pbx, "error": error.code},
            )
            await self.site.registry.release(call.pbx or "", [call.call_id] if call.pbx else [])
