"""Where the answered calls of each cell go on this PBX, and what is missing there.

A call whose target is missing would be cut off as soon as the customer answers: it is not dialed.
What is missing is said when the link comes up and again for each call that is refused, and is
looked for anew then, so that a repaired configuration takes calls at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dialer.errors import AmiUnavailable
from dialer.settings import Cell
from workers.ami.link import AmiLink

logger = logging.getLogger(__name__)

#: What was missing is looked for again no sooner than this, in seconds.
LOOK_AGAIN_S: Final = 2.0


@dataclass(slots=True)
class Targets:
    """What the cells need of one PBX. Belongs to the worker's event loop.

    `has_include` tells whether the dialplan include is loaded.
    """

    pbx: str
    link: AmiLink
    has_include: Callable[[], bool]
    _missing: dict[str, tuple[float, str]] = field(default_factory=dict)

    async def look(self, cell: Cell) -> None:
        """Looks whether the cell's target is there, and says so where it is not.

        Raises:
            AmiUnavailable: the link was lost meanwhile.
        """
        trouble = await self._trouble(cell)
        if trouble is None:
            self._missing.pop(cell.name, None)
            return
        if self._missing.get(cell.name, (0.0, ""))[1] != trouble:
            logger.error(
                "Calls of a cell are not dialed here: answered, they would be cut off",
                extra={"pbx": self.pbx, "cell": cell.name, "reason": trouble},
            )
        self._missing[cell.name] = (time.monotonic(), trouble)

    async def missing(self, cell: Cell) -> str | None:
        """What an answered call of the cell lacks here, with the cure; None where it has all."""
        looked_at, trouble = self._missing.get(cell.name, (0.0, ""))
        if not trouble:
            return None
        if time.monotonic() - looked_at > LOOK_AGAIN_S:
            try:
                await self.look(cell)
            except AmiUnavailable:
                return trouble
        return self._missing[cell.name][1] if cell.name in self._missing else None

    async def _trouble(self, cell: Cell) -> str | None:
        """The first thing that is missing, as a sentence with the cure."""
        if cell.needs_include and not self.has_include():
            return (
                f"{self.pbx} lacks the dialplan include, which queue and amd of cell {cell.name} "
                "need: put deploy/asterisk/dialer.conf into extensions.conf"
            )
        if cell.amd != "off" and not await self.link.has_module("app_amd"):
            return (
                f"{self.pbx} cannot tell machines from people, as amd of cell {cell.name} wants: "
                "put deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so"
            )
        if cell.queue is not None:
            if await self.link.has_queue(cell.queue):
                return None
            return (
                f"{self.pbx} has no queue {cell.queue}: add it to queues.conf and load it, or "
                f"correct queue of cell {cell.name}"
            )
        if await self.link.has_extension(cell.context, cell.exten, cell.priority):
            return None
        return (
            f"{self.pbx} has no extension {cell.exten},{cell.priority} in context {cell.context}: "
            f"add it to the dialplan, or correct cell {cell.name}"
        )
