"""Multcall's lists and counters as rows."""

from __future__ import annotations

from dialer.monitor.queues import Queue, queues
from dialer.monitor.snapshot import Snapshot
from dialer.store.ledger import CellCounts, CellState

SIZES = {"Request": 3, "ACK": 0}


def test_rows_have_the_five_columns() -> None:
    cells = {"ASR": CellState(counts=CellCounts(lists=SIZES)), "TIM": CellState()}
    snapshot = Snapshot(pbxs={}, cells=cells, pbxs_of_cells={})
    urls = {"ASR": "redis://:secret@10.0.0.5:6380/1", "gone": "redis://h:1"}
    place = {"server": "10.0.0.5:6380", "cell": "ASR"}
    assert queues(snapshot, urls) == [
        Queue(key="ZancURA2.0-Request-ASR", function="Request", size=3, **place),
        Queue(key="ZancURA2.0-ACK-ASR", function="ACK", size=0, **place),
    ]
