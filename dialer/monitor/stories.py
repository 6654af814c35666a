"""The stories of one request id in a cell, and what to say if there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dialer.domain.request import call_id
from dialer.domain.story import Story
from dialer.store.ledger import DeadList, LedgerReads, Replacement
from dialer.store.steps import Steps


@dataclass(frozen=True, slots=True)
class Told:
    """A call of the last 24 hours, and what it replaces if its request was corrected."""

    story: Story
    replaces: Replacement | None


async def stories(steps: Steps, cell: str, request_id: str) -> list[Told]:
    """Look for a request in a cell, as IdRequisicao or as CELL:IdRequisicao."""
    head, _, rest = request_id.partition(":")
    found = [await told(steps, cell, request_id)]
    if head == cell and rest:
        found.append(await told(steps, cell, rest))
    return [one for one in found if one is not None]


async def told(steps: Steps, cell: str, request_id: str) -> Told | None:
    """Return the call of one IdRequisicao, None if there is none."""
    story = await LedgerReads(steps, cell).story(call_id(cell, request_id))
    if story is None:
        return None
    return Told(story, await DeadList(steps, cell).replaced_by(request_id))


def not_found(request_id: str, cells: Sequence[str]) -> str:
    """Return what to say if no cell has the call."""
    return (
        f"there is no call {request_id} of the last 24 hours in {', '.join(cells)}; its "
        "request may still wait in Multcall's list, or be on the dead list"
    )
