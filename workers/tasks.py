"""The one task: a nudge to place a call. The ledger decides whether it is to be placed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from typing import Any

from celery.worker.request import Request

from dialer.celery import ORIGINATE, app
from workers.bootsteps import serving


class CallRequest(Request):
    """A task that Celery does not call successful when its function returns.

    The function returns when Asterisk has accepted the call; `task-succeeded` is sent when the
    call is over, with its outcome as the result and its length as the runtime. (Raising
    `Ignore` does the same and costs 3.6 ms of processor a call, for Celery then takes the
    whole traceback apart.)
    """

    def acknowledge(self) -> None:
        """Nothing is acknowledged, for the queue is consumed without.

        Kombu forgets that when the broker dies, and would try it with a traceback.
        """
        self.acknowledged = True

    def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002  # Celery's name
        if type != "task-succeeded":
            return super().send_event(type, **fields)
        return None


@app.task(name=ORIGINATE, Request=CallRequest)
def originate(call_id: str, cell: str, epoch: int) -> None:
    """Returns when Asterisk has accepted the call; the event loop follows it from there."""
    worker = serving()
    placing = asyncio.run_coroutine_threadsafe(worker.pbx_worker.place(call_id, epoch), worker.loop)
    # Cancelled when the worker stops: what is not claimed stays queued, the rest is adopted.
    with contextlib.suppress(concurrent.futures.CancelledError):
        placing.result()
