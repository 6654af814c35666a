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
from dialer.store.ledger.dead import DeadEntry, DeadList, Replacement, reasons_of
from dialer.store.ledger.decisions import DecisionReads, Logged, News, write_news
from dialer.store.ledger.in_flight import Ended, InFlight
from dialer.store.ledger.outcomes import Minute, OutcomeReads, Outcomes, by_result
from dialer.store.ledger.pulse import Pulsed, pulse
from dialer.store.ledger.reads import LedgerReads
from dialer.store.ledger.survey import LATE_AFTER_S, CellCounts, CellState, Late, Survey
from dialer.store.ledger.worker import WorkerLedger

__all__ = [
    "BRIDGE_DEAD_AFTER_S",
    "LATE_AFTER_S",
    "Admissible",
    "Admission",
    "BridgeLedger",
    "CallSteps",
    "CellCounts",
    "CellState",
    "DeadEntry",
    "DeadList",
    "DecisionReads",
    "Delivery",
    "Ended",
    "Fetched",
    "InFlight",
    "Late",
    "LedgerReads",
    "Logged",
    "Minute",
    "News",
    "OutcomeReads",
    "Outcomes",
    "Pulsed",
    "Replacement",
    "Survey",
    "Waiting",
    "WorkerLedger",
    "by_result",
    "pulse",
    "reasons_of",
    "write_news",
]
