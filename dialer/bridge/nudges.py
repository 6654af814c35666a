"""The Celery task of a queued call, and its message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

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


_PBX_OF: Final = attrgetter("pbx")


def by_pbx(nudges: Iterable[Nudge]) -> Iterator[tuple[str, list[Nudge]]]:
    """Return each PBX with its nudges, in their order."""
    for pbx, of_pbx in groupby(sorted(nudges, key=_PBX_OF), _PBX_OF):
        yield pbx, list(of_pbx)


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
