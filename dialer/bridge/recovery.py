"""Mends what died: lost messages, dead bridges, dead PBXs, leaked slots. Any bridge may do it.

Every step is the ledger's own and harmless when two bridges take it at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dialer import watchdog
from dialer.bridge.cell import BridgeCell
from dialer.bridge.dispatch import Nudge
from dialer.bridge.intake import nudge
from dialer.domain.call import LEGAL, CallError, Ended, Ending, Queued, Result, State
from dialer.domain.request import cell_of
from dialer.domain.routing import Turns, plan
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

#: A call that nobody has claimed, and one that somebody has: who may end it for which reason.
_WAITING: Final = LEGAL[Queued]
_CLAIMED: Final = LEGAL[Ended] - _WAITING


@dataclass(slots=True)
class Recovery:
    """The recovery of one cell. `took_over` is called when another bridge's hand came to us.

    `is_alone` tells whether no cell of the same name is served on another Redis meanwhile.
    `moving` is held while calls get another PBX, or their message again.
    """

    site: BridgeCell
    pbx_lost_after_s: float
    took_over: Callable[[], None]
    is_alone: Callable[[], bool] = lambda: True
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    _turns: Turns = field(default_factory=Turns)
    _instances: dict[str, str] = field(default_factory=dict)
    #: Since when the registry has known nothing of a PBX that has calls, by the loop's clock.
    _unheard: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Mends calls, for ever."""
        while True:
            states = await self.site.registry.pbxs(self.site.pbxs, self.site.cell.name)
            async with self.moving:
                await self.send_again(states)
                await self.move_from_unready_pbxs(states)
            await self.give_up_lost(states)
            await asyncio.sleep(EVERY_S)

    async def run_heartbeat(self) -> None:
        """Says that this bridge lives and takes over from dead ones, for ever.

        A task of its own, for the others wait where a broker or a Redis is away.
        """
        await watchdog.process.keep_beating(
            f"heartbeat {self.site.cell.name}",
            self.take_over,
            every_s=EVERY_S,
            is_down=lambda: self.site.ledger.steps.outage,
        )

    async def run_reaper(self) -> None:
        """Mends leaked slots, for ever."""
        while True:
            await self.reap()
            await asyncio.sleep(REAP_EVERY_S)

    async def take_over(self) -> None:
        """Takes what dead bridges had in hand."""
        for bridge, n in await self.site.ledger.take_over(self.site.bridge):
            logger.warning(
                "Took over what a dead bridge had in hand",
                extra={"cell": self.site.cell.name, "bridge": bridge, "elements": n},
            )
            self.took_over()

    async def send_again(self, states: Mapping[str, PbxState]) -> None:
        """Publishes calls again whose message was lost, and places those that have no PBX.

        Those whose PBX is not ready get their answer here where they never may be dialed.
        """
        due = await self.site.ledger.due(older_than_s=REPUBLISH_AFTER_S)
        for name, state in states.items():
            known = self._instances.get(name)
            if state.load.ready and state.instance != known:
                self._instances[name] = state.instance
                if known is not None:  # its worker started anew: what it had taken is lost
                    due += await self.site.ledger.due(older_than_s=0, pbx=name)
        entries = {e.call.call_id: e for e in await self._unexpired(due)}
        ready = {name for name, state in states.items() if state.load.ready}
        there = [w for w in due if w.pbx in ready]
        homeless = [w for w in due if w.pbx not in states]  # none, or one the cell had once
        await self._publish([(w, w.pbx or "", w.epoch) for w in there], entries)
        await self._move(homeless, states)

    async def move_from_unready_pbxs(self, states: Mapping[str, PbxState]) -> None:
        """Moves unclaimed calls from PBXs that take none to others of the cell."""
        if not any(state.load.ready for state in states.values()):
            return
        for name, state in states.items():
            if not state.load.ready:
                await self._move(await self.site.ledger.due(older_than_s=0, pbx=name), states)

    async def give_up_lost(self, states: Mapping[str, PbxState]) -> None:
        """Answers for claimed calls of PBXs that have been gone for too long."""
        for name, state in states.items():
            if state.unready_s >= self.pbx_lost_after_s:
                await self._give_up(name)

    async def reap(self) -> None:
        """Holds the slots of the PBXs against the calls; mends what is on PBXs that are no more."""
        held = await self.site.ledger.slot_holders(await self.site.ledger.live())
        await self.release_leaked(older_than_s=REAP_EVERY_S)
        for pbx in self.site.all_pbxs:
            await self._restore_lost(pbx, {i for i, name in held.items() if name == pbx})
        for name in set(held.values()) - {pbx.name for pbx in self.site.pbxs}:
            await self._move_from_former_pbx(name)
            await self._give_up(name)

    async def _move_from_former_pbx(self, pbx: str) -> None:
        """Moves unclaimed calls from a PBX that is none of the cell's any more."""
        states = await self.site.registry.pbxs(self.site.pbxs, self.site.cell.name)
        if any(state.load.ready for state in states.values()):
            async with self.moving:
                await self._move(await self.site.ledger.due(older_than_s=0, pbx=pbx), states)

    async def _give_up(self, pbx: str) -> None:
        """Answers for what a PBX has claimed, unless it came back this moment."""
        claimed = [
            entry
            for entry in await self.site.ledger.claimed(pbx)
            if entry.call.pbx == pbx and entry.call.state not in _WAITING
        ]
        # Asked again now: what was known before may be old where this process was held up.
        if not claimed or await self._unready_s(pbx) < self.pbx_lost_after_s:
            return
        error = CallError(
            code="pbx_lost",
            message=f"{pbx} or its worker has been gone for "
            f"{self.pbx_lost_after_s:g} s; nobody can say how the call ended",
        )
        for entry in claimed:
            await self._end(entry, Result.UNKNOWN, error, within=_CLAIMED)

    async def _unready_s(self, pbx: str) -> float:
        """How long the PBX has not been ready.

        Counted from now on where the registry knows nothing of it: it may have lost its data.
        """
        unready_s = await self.site.registry.unready_s(pbx)
        if unready_s < math.inf:
            self._unheard.pop(pbx, None)
            return unready_s
        now = asyncio.get_running_loop().time()
        return now - self._unheard.setdefault(pbx, now)

    async def release_leaked(self, *, older_than_s: float) -> None:
        """Gives back slots, held for that long, that belong to no call that is up on their PBX.

        Looks at every PBX of the settings: the cell may have had it once. Does nothing while the
        cell is served on another Redis too, for a slot does not tell which of them its call is in.
        """
        if not self.is_alone():
            return
        cell = self.site.cell.name
        for pbx in self.site.all_pbxs:
            old = await self.site.registry.slots(pbx, older_than_s=older_than_s)
            leaked = await self.site.give_back(pbx, [i for i in old if cell_of(i) == cell])
            if leaked:
                logger.warning(
                    "Gave back slots that no call held any more",
                    extra={"cell": cell, "pbx": pbx, "slots": leaked},
                )

    async def _restore_lost(self, pbx: str, held: Set[str]) -> None:
        """Gives calls that are up their slots back, where the registry lost them."""
        missing = held - set(await self.site.registry.slots(pbx, older_than_s=0))
        still = await self.site.ledger.slot_holders(
            missing
        )  # those that ended in the meantime are left out
        restored = await self.site.registry.restore_slots(
            pbx, [i for i in still if still[i] == pbx]
        )
        if restored:
            logger.warning(
                "Calls that are up had lost their slots and have them again",
                extra={"cell": self.site.cell.name, "pbx": pbx, "slots": restored},
            )

    # --- moving --------------------------------------------------------------------

    async def _move(self, waiting: Sequence[Waiting], states: Mapping[str, PbxState]) -> None:
        """Queues calls to PBXs that have room; those that find none stay where they are."""
        site = self.site
        entries = {e.call.call_id: e for e in await self._unexpired(waiting)}
        moving = [w for w in waiting if w.call_id in entries]
        chosen = plan(
            [site.trunk(entries[w.call_id].request) for w in moving],
            [states[p.name].load for p in site.pbxs],
            self._turns,
        )
        sent: list[tuple[Waiting, str, int]] = []
        for w, name in zip(moving, chosen, strict=True):
            if name is None:
                continue
            lease = await site.registry.lease(site.pbx(name), [w.call_id])
            if not lease.granted:
                continue
            epoch = await site.ledger.assign(w, name)
            if not epoch:
                await site.give_back(name, lease.new)
                continue
            logger.warning(
                "Call moved to another PBX",
                extra={"call_id": w.call_id, "from": w.pbx, "pbx": name},
            )
            if w.pbx is not None:
                await site.give_back(w.pbx, [w.call_id])
            sent.append((w, name, epoch))
        await self._publish(sent, entries)

    async def _publish(
        self, calls: Sequence[tuple[Waiting, str, int]], entries: Mapping[str, Entry]
    ) -> None:
        nudges: list[Nudge] = [
            nudge(entries[w.call_id].request, pbx, epoch)
            for w, pbx, epoch in calls
            if w.call_id in entries
        ]
        await self.site.dispatcher.publish(nudges)

    async def _unexpired(self, waiting: Sequence[Waiting]) -> list[Entry]:
        """The entries of waiting calls that may be dialed now; answers those that never may."""
        now = datetime.now(UTC)
        limits = self.site.cell.limits
        over = limits.outside_hours == "expire" and not limits.is_open(now)
        fresh: list[Entry] = []
        for entry in await self.site.ledger.entries(w.call_id for w in waiting):
            if entry.expires_at is not None and entry.expires_at <= now:
                error = CallError(code="expired", message="ValidadeSeg passed before it was dialed")
                await self._end(entry, Result.EXPIRED, error, within=_WAITING)
            elif over:
                error = CallError(code="outside_hours", message="the cell's calling hours are over")
                await self._end(entry, Result.EXPIRED, error, within=_WAITING)
            elif not self.site.is_paused_by_hours(now):
                fresh.append(entry)
        return fresh

    async def _end(
        self, entry: Entry, result: Result, error: CallError, *, within: Set[State]
    ) -> None:
        call = entry.call
        ending = Ending(result=result, ended_at=datetime.now(UTC), error=error)
        reply = await self.site.ledger.end(call, entry.request, ending, within=within)
        if reply != "void":
            logger.warning(
                "Call answered by the bridge",
                extra={"call_id": call.call_id, "pbx": call.pbx, "error": error.code},
            )
        if call.pbx is not None:
            await self.site.give_back(call.pbx, [call.call_id])
