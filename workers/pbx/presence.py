"""A worker shows itself in the Redis of its cells, and finds one that has another registry.

The lease is in the registry. Two workers of one PBX whose settings name different registries both
get one; the second would take the calls of the first for its own and end them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dialer.errors import PbxHeld
from dialer.store.keys import PRESENT_S, LedgerKeys
from dialer.store.registry import Holder
from dialer.store.steps import Steps
from workers.pbx.lease import Pulse

#: Pause between two looks, in seconds.
LOOK_EVERY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Presence:
    """The presence of one worker. `pulse` tells whether another process of this host lives."""

    pbx: str
    me: Holder
    pulse: Pulse

    async def show(self, steps: Steps, cells: Iterable[str], *, ended: bool = False) -> None:
        """Show that this worker serves these cells, all on one server, or that it has ended."""
        keys = [LedgerKeys(cell).worker(self.pbx) for cell in cells]
        if keys:
            await steps.run("present", keys, [self._text, 0 if ended else PRESENT_S])

    async def require_alone(self, steps: Steps, cell: str) -> None:
        """Wait until no other worker shows itself in this cell.

        Raises:
            PbxHeld: another one goes on to do so; it has another registry.
        """
        deadline = asyncio.get_running_loop().time() + PRESENT_S + 1
        while (other := await self._other(steps, cell)) is not None:
            if self.pulse.is_here(other) or asyncio.get_running_loop().time() > deadline:
                raise PbxHeld(
                    f"cell {cell} has a worker of {self.pbx} already: pid {other.pid} on host "
                    f"{other.host}, which uses another registry: make [registry] redis_url, and "
                    "that of [multcall], equal on both hosts, or stop that worker"
                )
            await asyncio.sleep(LOOK_EVERY_S)

    async def _other(self, steps: Steps, cell: str) -> Holder | None:
        raw = await steps.read("GET", LedgerKeys(cell).worker(self.pbx))
        other = _holder(raw or b"")
        if other is None or other.name == self.me.name or self.pulse.is_dead(other):
            return None
        return other

    @property
    def _text(self) -> str:
        me = self.me
        return json.dumps([me.name, me.host, me.pid, me.place])


def _holder(raw: bytes) -> Holder | None:
    try:
        name, host, pid, place = map(str, json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return None
    return Holder(name=name, host=host, pid=pid, place=place)
