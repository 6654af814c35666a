"""Cells whose calls may be on this PBX, each with its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dialer.settings import Cell
from dialer.store.ledger import WorkerLedger


@dataclass(slots=True)
class Cells:
    """All cells, also those that do not list this PBX (any longer): it may have their calls."""

    _cells: dict[str, tuple[Cell, WorkerLedger]] = field(default_factory=dict)

    def add(self, cell: Cell, ledger: WorkerLedger) -> None:
        """Serve a cell from now on."""
        self._cells[cell.name] = (cell, ledger)

    def __contains__(self, name: object) -> bool:
        return name in self._cells

    def __iter__(self) -> Iterator[Cell]:
        return iter([cell for cell, _ in self._cells.values()])

    def get(self, name: str) -> Cell | None:
        """Return the cell of that name, None if it is not served."""
        found = self._cells.get(name)
        return found[0] if found else None

    def ledger(self, name: str) -> WorkerLedger:
        """Return the ledger of a served cell."""
        return self._cells[name][1]

    def ledgers(self) -> list[WorkerLedger]:
        """Return the ledgers of all cells."""
        return [ledger for _, ledger in self._cells.values()]
