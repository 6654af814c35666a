"""A worker's steps carry its fencing number, and what a fenced one does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from dialer.errors import Fenced
from dialer.store.ledger import WorkerLedger
from dialer.store.ledger.fence import Fence
from dialer.store.steps import Steps


@dataclass(slots=True)
class Cell:
    """Steps of a cell whose newest worker has this number."""

    newest: int = 0
    error: str = ""
    sent: list[tuple[str, list[str], list[Any]]] = field(default_factory=list)

    async def run(self, name: str, keys: list[str], args: list[Any]) -> int:
        self.sent.append((name, keys, args))
        if self.error:
            raise ResponseError(self.error)
        number = args[-2]
        if number != "" and number < self.newest:
            raise ResponseError(f"FENCED {self.newest}")
        return 1


def ledger(cell: Cell, number: int = 0) -> WorkerLedger:
    return WorkerLedger(cast(Steps, cell), "ASR", "right", fence=Fence("pbx01", number))


async def test_a_step_carries_the_number_and_the_key() -> None:
    cell = Cell(newest=7)
    await ledger(cell, 7).fence_off()
    ((name, keys, args),) = cell.sent
    assert (name, keys, args[0]) == ("fence", ["dialer:fence:ASR:pbx01"], 7)


async def test_without_a_lease_no_number_is_sent() -> None:
    cell = Cell(newest=7)
    await ledger(cell).fence_off()
    assert cell.sent[0][2][0] == ""


async def test_a_fenced_step_runs_again_with_a_greater_number() -> None:
    cell = Cell(newest=7)
    mine = ledger(cell, 5)

    async def get_greater(newest: int) -> None:
        mine.fence.number = newest + 1

    mine.fence.on_fenced = get_greater
    await mine.fence_off()
    assert [args[0] for _, _, args in cell.sent] == [5, 8]


async def test_a_fenced_step_ends_with_fenced() -> None:
    with pytest.raises(Fenced, match="has the fencing number 7"):
        await ledger(Cell(newest=7), 5).fence_off()


async def test_another_refusal_is_raised_as_it_is() -> None:
    cell = Cell(error="WRONGTYPE of a key")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await ledger(cell, 5).fence_off()
    assert len(cell.sent) == 1
