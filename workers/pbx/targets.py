"""Check that the targets of each cell exist on this Asterisk: queue, context, AMD, include.

A call whose target is missing would be cut off as soon as the customer answers. So the worker
dials no calls of such a cell, and its heartbeat reports it: the bridge sends them to other PBXs of
the cell, or waits, as if the PBX were down.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dialer.settings import Cell
from workers.ami import AmiLink
from workers.pbx.state import PbxState

logger = logging.getLogger(__name__)

#: Shortest pause between two checks of the targets, in seconds; longer if there are many.
CHECK_EVERY_S: Final = 3.0

#: Average limit of AMI actions per second for these checks.
QUESTIONS_PER_S: Final = 10.0

Ask = Callable[..., Awaitable[bool]]


@dataclass(slots=True)
class Targets:
    """Checker of targets; updates `state.lacking`. Belongs to the worker's event loop."""

    state: PbxState
    link: AmiLink
    _asked: int = 0

    @property
    def pause_s(self) -> float:
        """Pause until the next check, by the number of actions of the last check."""
        return max(CHECK_EVERY_S, self._asked / QUESTIONS_PER_S)

    async def check(self, cells: Iterable[Cell]) -> bool:
        """Check that each cell's queue, context and AMD exist, and log what has changed.

        Return true if a cell's missing targets exist now.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        include = await self.link.has_include()
        if include != self.state.has_include:
            # All calls use the include, or none does: reconnect and begin with the new state.
            self.link.drop(f"the dialplan include is {'there now' if include else 'gone'}")
            return False
        known: dict[tuple[object, ...], bool] = {}  # cells may share a queue or context

        async def ask(question: Ask, *names: str) -> bool:
            key = (question, *names)
            if key not in known:
                known[key] = await question(*names)
            return known[key]

        # A list, not a generator: any() would skip cells.
        restored = [self._note(cell, await self._lacks(cell, ask)) for cell in cells]
        self._asked = len(known) + 1
        return any(restored)

    def _note(self, cell: Cell, now: str | None) -> bool:
        """Store and log what a cell lacks; return true if it lacked something before only."""
        before = self.state.lacking.pop(cell.name, None)
        if now is not None:
            self.state.lacking[cell.name] = now
        if now != before and self.state.name in cell.pbxs:
            extra = {"pbx": self.state.name, "cell": cell.name}
            if now is not None:
                logger.error(
                    "Calls of a cell are not dialed here, because answered calls would be cut off",
                    extra={**extra, "reason": now},
                )
            else:
                logger.warning("Calls of a cell are dialed here again", extra=extra)
        return now is None and before is not None

    async def missing(self, cell: Cell) -> str | None:
        """Return the first thing that a cell's answered calls lack here, None if nothing is."""

        async def ask(question: Ask, *names: str) -> bool:
            return await question(*names)

        return await self._lacks(cell, ask)

    async def _lacks(self, cell: Cell, ask: Ask) -> str | None:
        """Return the first missing thing as a sentence with the cure, None if nothing is."""
        pbx = self.state.name
        has_include = self.state.has_include
        if cell.needs_include and not (has_include and await ask(self.link.has_current_include)):
            return (
                f"{pbx} lacks the dialplan include, or has an old one; queue and amd of cell "
                f"{cell.name} need it: put the present deploy/asterisk/dialer.conf into "
                "extensions.conf"
            )
        if cell.amd != "off" and not await ask(self.link.has_amd):
            return (
                f"{pbx} cannot detect answering machines, but cell {cell.name} has amd: "
                "put deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so"
            )
        if cell.queue is not None and not await ask(self.link.has_queue, cell.queue):
            return (
                f"{pbx} has no queue {cell.queue}: add it to queues.conf and load it, or "
                f"correct queue of cell {cell.name}"
            )
        # Check only a context from the settings: without one each request may name its own.
        named = cell.queue is None and "context" in cell.model_fields_set
        if named and not await ask(self.link.has_context, cell.context):
            return (
                f"{pbx} has no context {cell.context}: add it to the dialplan, or correct "
                f"context of cell {cell.name}"
            )
        return None
