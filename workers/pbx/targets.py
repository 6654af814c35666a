"""What the answered calls of each cell need of this Asterisk, and what of it is missing.

A call whose target is missing would be cut off as soon as the customer answers. So the worker
takes no calls of such a cell, and its heartbeat says so: the bridge sends them to PBXs that have
what they need, or leaves them where they are, as while a PBX is down.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dialer.settings import Cell
from workers.ami.link import AmiLink

logger = logging.getLogger(__name__)

#: How often it is looked whether all is there still, and what was missing by now, in seconds.
LOOK_EVERY_S: Final = 3.0


@dataclass(slots=True)
class Targets:
    """Belongs to the worker's event loop.

    `has_include` tells whether the dialplan include was there when the link came up, for calls are
    sent by that. `lacking` has a sentence, with the cure, for each cell that lacks something.
    """

    pbx: str
    link: AmiLink
    has_include: Callable[[], bool]
    lacking: dict[str, str] = field(default_factory=dict)

    async def look(self, cells: Iterable[Cell]) -> bool:
        """Looks whether everything is there for these cells, and says what has changed.

        Returns true where a cell lacks nothing any more.

        Raises:
            AmiUnavailable: the link was lost meanwhile.
        """
        include = await self.link.has_include()
        if include != self.has_include():
            # Every call is sent to it, or none is: all begins anew with what is true now.
            self.link.drop(f"the dialplan include is {'there now' if include else 'gone'}")
            return False
        restored = False
        said: dict[tuple[object, ...], bool] = {}  # cells share queues, and there is one app_amd

        async def ask(question: Callable[..., Awaitable[bool]], *names: str) -> bool:
            key = (question, *names)
            if key not in said:
                said[key] = await question(*names)
            return said[key]

        for cell in cells:
            now = await self._lacks(cell, ask)
            before = self.lacking.pop(cell.name, None)
            if now is not None:
                self.lacking[cell.name] = now
            restored |= now is None and before is not None
            if now == before or self.pbx not in cell.pbxs:
                continue
            extra = {"pbx": self.pbx, "cell": cell.name}
            if now is not None:
                logger.error(
                    "Calls of a cell are not dialed here: answered, they would be cut off",
                    extra={**extra, "reason": now},
                )
            else:
                logger.warning("Calls of a cell are dialed here again", extra=extra)
        return restored

    async def _lacks(self, cell: Cell, ask: Callable[..., Awaitable[bool]]) -> str | None:
        """The first thing that is missing, as a sentence with the cure."""
        if cell.needs_include and not (self.has_include() and await ask(self.link.has_hand_over)):
            return (
                f"{self.pbx} lacks the dialplan include, or has an old one; queue and amd of cell "
                f"{cell.name} need it: put the present deploy/asterisk/dialer.conf into "
                "extensions.conf"
            )
        if cell.amd != "off" and not await ask(self.link.has_amd):
            return (
                f"{self.pbx} cannot tell machines from people, as amd of cell {cell.name} wants: "
                "put deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so"
            )
        if cell.queue is not None and not await ask(self.link.has_queue, cell.queue):
            return (
                f"{self.pbx} has no queue {cell.queue}: add it to queues.conf and load it, or "
                f"correct queue of cell {cell.name}"
            )
        # Only a context that the cell names: where it does not, each request may bring its own.
        named = cell.queue is None and "context" in cell.model_fields_set
        if named and not await ask(self.link.has_context, cell.context):
            return (
                f"{self.pbx} has no context {cell.context}: add it to the dialplan, or correct "
                f"context of cell {cell.name}"
            )
        return None
