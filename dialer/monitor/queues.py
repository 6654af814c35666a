"""Multcall's lists and counters as rows of the five columns that the old monitor had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dialer.monitor.snapshot import Snapshot
from dialer.multcall.keys import PREFIX
from dialer.store.redis_url import place_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One list or counter of Multcall. `server` is the address of its Redis."""

    server: str
    key: str
    cell: str
    function: str
    size: int


def queues(snapshot: Snapshot, cell_urls: Mapping[str, str]) -> list[Queue]:
    """Return the lists and counters of the cells that `cell_urls` has, also the empty ones."""
    return [
        Queue(
            server=place_of(cell_urls[name]),
            key=f"{PREFIX}{function}-{name}",
            cell=name,
            function=function,
            size=size,
        )
        for name, state in snapshot.cells.items()
        if name in cell_urls
        for function, size in state.counts.lists.items()
    ]
