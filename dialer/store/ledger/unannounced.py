"""Queued calls that no message announced: a worker finds its calls in the ledger itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dialer.store.keys import LedgerKeys
from dialer.store.ledger.reads import names_in
from dialer.store.steps import Steps

#: Most calls that one look returns; the next look returns others.
AT_ONCE: Final = 100

#: Most queued calls of each cell that one look reads.
READ_AT_ONCE: Final = 1_000


async def unannounced(
    steps: Steps, cells: Sequence[str], pbx: str, *, older_than_s: float
) -> list[tuple[str, int]]:
    """Return calls of these cells, all on one server, that are queued to a PBX: id and epoch.

    Only calls whose message was published longer than `older_than_s` ago.
    """
    flat = await steps.run(
        "unannounced",
        [LedgerKeys(cell).queued for cell in cells],
        [pbx, int(older_than_s * 1000), LedgerKeys("").call(""), AT_ONCE, READ_AT_ONCE],
    )
    return [
        (i.decode(), int(epoch))
        for i, epoch in zip(flat[::2], flat[1::2], strict=True)
        if epoch and epoch.isdigit() and names_in([i])
    ]
