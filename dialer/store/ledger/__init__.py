"""The ledger of one cell: the state of every call, changed only by atomic steps."""

from dialer.store.ledger.bridge import (
    BRIDGE_DEAD_AFTER_S,
    Admissible,
    Admission,
    BridgeLedger,
    Delivery,
    Fetched,
)
from dialer.store.ledger.call_steps import CallSteps, Waiting
from dialer.store.ledger.outcomes import LastMinutes, OutcomeReads, Outcomes, by_result
from dialer.store.ledger.pulse import Pulsed, pulse
from dialer.store.ledger.reads import CellCounts, Late, LedgerReads
from dialer.store.ledger.worker import WorkerLedger

__all__ = [
    "BRIDGE_DEAD_AFTER_S",
    "Admissible",
    "Admission",
    "BridgeLedger",
    "CallSteps",
    "CellCounts",
    "Delivery",
    "Fetched",
    "LastMinutes",
    "Late",
    "LedgerReads",
    "OutcomeReads",
    "Outcomes",
    "Pulsed",
    "Waiting",
    "WorkerLedger",
    "by_result",
    "pulse",
]
