"""The only task: a nudge to dial a call. The ledger decides if the call is dialed."""

from __future__ import annotations

from dialer.celery import ORIGINATE, app


@app.task(name=ORIGINATE, Strategy="workers.strategy:to_event_loop")
def originate(call_id: str, cell: str, epoch: int) -> None:
    """Dial the call. Never runs: its strategy gives the call to the event loop."""
