"""One cell with its ledger, registry and PBXs, as every part of the bridge uses it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.nudges import Nudge
from dialer.domain.agents import STALE_AFTER_S, Team, calls_allowed
from dialer.domain.request import CallRequest, mask
from dialer.domain.room import PbxLimits
from dialer.multcall.wire import STRICT, Wire
from dialer.settings import Cell
from dialer.store.clock import RedisClock
from dialer.store.ledger import BridgeLedger
from dialer.store.redis_url import REPLY_TIMEOUT_S
from dialer.store.registry import PbxState, Registry


@dataclass(slots=True, kw_only=True, eq=False)
class BridgeCell:
    """One cell that a bridge serves.

    `bridge` is the name of this process in the ledger. `pbxs` are those of the cell, in its
    order; `all_pbxs` are the names of all PBXs of the settings. `wire` is how Multcall writes.
    `clock` has the time of the cell's Redis, which must reply within `reply_within_s`.

    Live parameters change `settings`, `pbxs` and `paused` at any await: who needs the same value
    twice keeps it. `paused` says who paused the cell, '' if nobody did. `operators` are those that
    Multcall tells, with the time of the event loop when they were read.
    """

    bridge: str
    settings: Cell
    pbxs: tuple[PbxLimits, ...]
    all_pbxs: tuple[str, ...]
    ledger: BridgeLedger
    registry: Registry
    dispatcher: Dispatcher
    wire: Wire = STRICT
    clock: RedisClock = field(default_factory=RedisClock)
    reply_within_s: float = REPLY_TIMEOUT_S
    paused: str = ""
    operators: tuple[Team, float] = (Team(), -math.inf)

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.settings.name

    @property
    def threads(self) -> int:
        """How many calls the cell may have at once: by its settings, and by Multcall's operators.

        It is 0 while nobody knows what they do.
        """
        threads = self.settings.threads
        if not self.settings.asks_multcall:
            return threads
        team, read_at = self.operators
        if asyncio.get_running_loop().time() - read_at > STALE_AFTER_S:
            return 0
        return min(threads, calls_allowed(team, self.settings.calls_per_agent))

    @property
    def is_on_one_server(self) -> bool:
        """True if the cell's ledger and the registry are on one Redis server."""
        return self.ledger.steps is self.registry.steps

    @property
    def trunks(self) -> frozenset[str]:
        """All trunks of the cell's PBXs."""
        return frozenset[str]().union(*(pbx.trunks for pbx in self.pbxs))

    async def states(self, *, max_age_s: float = 0.0) -> dict[str, PbxState]:
        """Return the state of each PBX for the calls of this cell, read at most so long ago."""
        states = await self.registry.pbxs(self.pbxs, self.name, max_age_s=max_age_s)
        if not self.settings.asks_asterisk:
            return states
        return {name: state.reserving(self.name) for name, state in states.items()}

    def pbx(self, name: str) -> PbxLimits | None:
        """Return the PBX of that name; None if the cell no longer lists it."""
        return next((p for p in self.pbxs if p.name == name), None)

    def trunk(self, request: CallRequest) -> str | None:
        """Return the trunk that a PBX must have for this call, None for any."""
        return request.trunk or self.settings.trunk

    def is_paused(self, at: datetime) -> bool:
        """True if an operator paused the cell, or outside calling hours if its policy is `hold`."""
        limits = self.settings.limits
        return bool(self.paused) or (limits.outside_hours == "hold" and not limits.is_open(at))

    async def release_unused(self, pbx: str, call_ids: Iterable[str]) -> int:
        """Release slots of a PBX, except those that the calls use now; return how many.

        Another bridge may have leased, admitted or moved the same call in the meantime: a slot
        belongs to the call and not to the bridge.
        """
        ids = list(call_ids)
        if not ids:
            return 0
        held = await self.ledger.slot_holders(ids)
        unused = [call_id for call_id in ids if held.get(call_id) != pbx]
        await self.registry.release(pbx, unused)
        return len(unused)


def nudge(request: CallRequest, pbx: str, epoch: int) -> Nudge:
    """Return the Celery task of a call, with the arguments that Flower shows."""
    shown = f"({request.cell!r}, {request.request_id!r}, {mask(request.number)!r})"
    return Nudge(call_id=request.call_id, pbx=pbx, epoch=epoch, shown=shown)
