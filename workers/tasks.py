"""The only task: a nudge to dial a call. The ledger decides whether it is dialed."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from dialer.celery import ORIGINATE, app
from workers.bootsteps import serving


class CallRequest(Request):
    """A task that Celery does not report as successful when its function returns.

    The function returns when the event loop has the call; `task-succeeded` is sent when the
    call has ended, with its outcome as the result and its length as the runtime. (Raising
    `Ignore` does the same and costs 3.6 ms of CPU a call, because Celery then formats the
    whole traceback.)
    """

    def acknowledge(self) -> None:
        """Acknowledge nothing: the queue is consumed without acknowledgements.

        Kombu forgets that when the broker dies, and would try it and log a traceback.
        """
        self.acknowledged = True

    def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002  # Celery's name
        if type != "task-succeeded":
            return super().send_event(type, **fields)
        return None


@app.task(name=ORIGINATE, Request=CallRequest)
def originate(call_id: str, cell: str, epoch: int) -> None:
    """Hand the call to the event loop and return: no thread waits for a slow Redis."""
    worker = serving()
    worker.loop.call_soon_threadsafe(worker.pbx_worker.dial, call_id, epoch)
