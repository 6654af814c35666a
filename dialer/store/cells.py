"""By which settings each cell was last served, kept beside its calls: in the cell's own Redis.

Who takes a cell out of `dialer.toml` and starts the programs anew takes away all that they knew
of the cell, but not its calls. From here they know enough to bring those to their ends.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from dialer.settings.tables import Cell
from dialer.store import keys
from dialer.store.ledger import BRIDGE_DEAD_AFTER_S
from dialer.store.steps import Steps

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CellBook:
    """The cells of one Redis server."""

    steps: Steps

    async def write(self, cell: Cell) -> None:
        """Keeps the settings of a cell; not its Redis, whose address may hold a password."""
        # Only what was set: a program of another version has its own defaults.
        text = cell.model_dump_json(by_alias=True, exclude={"redis_url"}, exclude_unset=True)
        await self.steps.run(
            "remember_cell", [keys.CELLS], [cell.name, text, keys.IDLE_RETENTION_S]
        )

    async def cells(self) -> list[Cell]:
        """Every cell whose settings are kept."""
        return list(_cells(await self.steps.read("HGETALL", keys.CELLS)))

    async def unserved(self) -> list[Cell]:
        """Cells that no bridge serves though they have calls, or something in a dead one's hand.

        What is kept of a cell that has neither is deleted.
        """
        flat = await self.steps.run(
            "unserved_cells",
            [keys.CELLS],
            [
                int(BRIDGE_DEAD_AFTER_S * 1000),
                keys.BRIDGES,
                keys.LIVE,
                keys.HAND,
                keys.CODE_HAND,
                keys.PARKING,
            ],
        )
        return list(_cells(dict(zip(flat[::2], flat[1::2], strict=True))))


def _cells(kept: Mapping[bytes, bytes]) -> Iterator[Cell]:
    for name, text in kept.items():
        try:
            yield Cell.model_validate_json(text)
        except ValidationError:
            _say_unreadable(name.decode(), text)


@functools.cache  # once for each that cannot be read
def _say_unreadable(cell: str, _text: bytes) -> None:
    logger.warning(
        "The kept settings of a cell cannot be read; put the cell back into dialer.toml until its "
        "calls are over",
        extra={"cell": cell},
    )
