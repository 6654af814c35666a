"""The one task: a nudge to place a call. The ledger decides whether it is to be placed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from typing import Any

from celery.exceptions import Ignore

from dialer.celery import ORIGINATE, app
from workers.bootsteps import serving


@app.task(name=ORIGINATE, bind=True)
def originate(self: Any, call_id: str, cell: str, epoch: int) -> None:
    """Returns when Asterisk has accepted the call; the event loop follows it from there.

    Raises `Ignore`, so that Celery reports no outcome yet: `task-succeeded` is sent when the
    call is over, with its outcome as the result and its length as the runtime.
    """
    worker = serving()
    placing = asyncio.run_coroutine_threadsafe(worker.pbx_worker.place(call_id, epoch), worker.loop)
    # Cancelled when the worker stops: what is not claimed stays queued, the rest is adopted.
    with contextlib.suppress(concurrent.futures.CancelledError):
        placing.result()
    raise Ignore
