"""The Celery task of a queued call, and its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Celery

from dialer.celery import ORIGINATE
from dialer.domain.request import cell_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """One task to publish. `shown`: its arguments as Flower shows them, with masked numbers."""

    call_id: str
    pbx: str
    epoch: int
    shown: str = ""


def message_of(app: Celery, nudge: Nudge) -> Any:
    """Return Celery's message, as `send_task` makes it for a task without options of its own."""
    return app.amqp.create_task_message(
        nudge.call_id,
        ORIGINATE,
        args=(nudge.call_id, cell_of(nudge.call_id), nudge.epoch),
        argsrepr=nudge.shown or repr((nudge.call_id, nudge.epoch)),
        kwargsrepr="",
        ignore_result=True,
    )
