"""Cells whose calls may be on this PBX, each with its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dialer.domain.request import CallRequest
from dialer.settings import Cell
from dialer.store.ledger import WorkerLedger


@dataclass(slots=True)
class Cells:
    """All cells, also those that do not list this PBX (any longer): it may have their calls."""

    _cells: dict[str, tuple[Cell, WorkerLedger]] = field(default_factory=dict)
    _removed: set[str] = field(default_factory=set)

    def add(self, cell: Cell, ledger: WorkerLedger) -> None:
        """Serve a cell from now on."""
        self._cells[cell.name] = (cell, ledger)

    def change(self, cell: Cell) -> None:
        """Serve a cell by other settings from now on, if it is served."""
        if cell.name in self._cells and cell.name not in self._removed:
            self.add(cell, self.ledger(cell.name))

    def add_removed(self, cell: Cell, ledger: WorkerLedger) -> None:
        """Serve a cell that is no longer in `dialer.toml`. Its settings come from Redis."""
        self._removed.add(cell.name)
        self.add(cell, ledger)

    def is_in_file(self, request: CallRequest, cell: Cell) -> bool:
        """True if `dialer.toml` lets the call go to its target with its variables.

        Whoever writes to Redis also writes the settings of removed cells. So their calls need a
        cell of the file that allows the same.
        """
        if cell.name not in self._removed:
            return True
        filled = replace(
            request,
            context=request.context or (cell.context if cell.queue is None else None),
            exten=request.exten or cell.exten,
            priority=request.priority or cell.priority,
        )
        return any(
            (filled.context is not None or other.queue == cell.queue)
            and cell.amd_message in (None, other.amd_message)
            and other.allowed.refusal(filled) is None
            for other in self
            if other.name not in self._removed
        )

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
