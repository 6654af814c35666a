"""What the answered calls of each cell need on this Asterisk, and what is missing.

A call whose target is missing would be cut off as soon as the customer answers. So the worker
dials no calls of such a cell, and its heartbeat says so: the bridge sends them to PBXs that have
what they need, or keeps them, as while a PBX is down.
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

#: Targets are checked this often, in seconds; less often if there are many to ask for.
CHECK_EVERY_S: Final = 3.0

#: So many questions a second may be asked for it, in the long run.
QUESTIONS_PER_S: Final = 10.0

Ask = Callable[..., Awaitable[bool]]


@dataclass(slots=True)
class Targets:
    """Checks targets and keeps `state.lacking`. Belongs to the worker's event loop."""

    state: PbxState
    link: AmiLink
    _asked: int = 0

    @property
    def pause_s(self) -> float:
        """The pause until the next check: long enough for the number of questions of the last."""
        return max(CHECK_EVERY_S, self._asked / QUESTIONS_PER_S)

    async def check(self, cells: Iterable[Cell]) -> bool:
        """Check that each cell's queue, context and AMD exist, and log what has changed.

        Return True if a cell no longer lacks anything.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        include = await self.link.has_include()
        if include != self.state.has_include:
            # Every call is sent to it, or none is: start again with what is true now.
            self.link.drop(f"the dialplan include is {'there now' if include else 'gone'}")
            return False
        known: dict[tuple[object, ...], bool] = {}  # cells share queues, and there is one app_amd

        async def ask(question: Ask, *names: str) -> bool:
            key = (question, *names)
            if key not in known:
                known[key] = await question(*names)
            return known[key]

        # No generator: each cell must be checked.
        restored = [self._note(cell, await self._lacks(cell, ask)) for cell in cells]
        self._asked = len(known) + 1
        return any(restored)

    def _note(self, cell: Cell, now: str | None) -> bool:
        """Keep and log what a cell lacks; return True if it no longer lacks anything."""
        before = self.state.lacking.pop(cell.name, None)
        if now is not None:
            self.state.lacking[cell.name] = now
        if now != before and self.state.name in cell.pbxs:
            extra = {"pbx": self.state.name, "cell": cell.name}
            if now is not None:
                logger.error(
                    "Calls of a cell are not dialed here: answered, they would be cut off",
                    extra={**extra, "reason": now},
                )
            else:
                logger.warning("Calls of a cell are dialed here again", extra=extra)
        return now is None and before is not None

    async def _lacks(self, cell: Cell, ask: Ask) -> str | None:
        """The first thing that is missing, as a sentence with the cure."""
        pbx = self.state.name
        has_include = self.state.has_include
        if cell.needs_include and not (has_include and await ask(self.link.has_hand_over)):
            return (
                f"{pbx} lacks the dialplan include, or has an old one; queue and amd of cell "
                f"{cell.name} need it: put the present deploy/asterisk/dialer.conf into "
                "extensions.conf"
            )
        if cell.amd != "off" and not await ask(self.link.has_amd):
            return (
                f"{pbx} cannot tell machines from people, as amd of cell {cell.name} wants: "
                "put deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so"
            )
        if cell.queue is not None and not await ask(self.link.has_queue, cell.queue):
            return (
                f"{pbx} has no queue {cell.queue}: add it to queues.conf and load it, or "
                f"correct queue of cell {cell.name}"
            )
        # Only a context that the cell names: otherwise each request may bring its own.
        named = cell.queue is None and "context" in cell.model_fields_set
        if named and not await ask(self.link.has_context, cell.context):
            return (
                f"{pbx} has no context {cell.context}: add it to the dialplan, or correct "
                f"context of cell {cell.name}"
            )
        return None
