"""Last-used settings of each cell, stored as text in the cell's own Redis.

If a cell is removed from `dialer.toml` while it has calls, a restarted program needs these
settings to finish them. The format of the text is in `dialer.settings.kept`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dialer.store import keys
from dialer.store.entry import pairs
from dialer.store.ledger import BRIDGE_DEAD_AFTER_S
from dialer.store.steps import Steps


@dataclass(frozen=True, slots=True)
class CellBook:
    """Stored settings on one Redis server: cell name to text."""

    steps: Steps

    async def write(self, cell: str, text: str) -> None:
        """Store the settings of a cell. They must contain no password: every user can read them."""
        await self.steps.run("remember_cell", [keys.CELLS], [cell, text, keys.IDLE_RETENTION_S])

    async def read(self) -> dict[str, bytes]:
        """Return the stored settings of all cells."""
        return _texts(await self.steps.read("HGETALL", keys.CELLS))

    async def unserved(self) -> dict[str, bytes]:
        """Return the settings of cells without a bridge that have calls or requests left.

        These are calls, elements in a hand, and parked requests. Deletes the settings of cells
        that have none of them.
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
        return _texts(pairs(flat))


def _texts(kept: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(errors="replace"): text for name, text in kept.items()}
