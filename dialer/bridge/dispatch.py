"""Publisher of Celery tasks: one nudge for each queued call, to the queue named after its PBX.

The state of each call is in the ledger. So a lost task is published again from there, and a
repeated task does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from celery import Celery
from kombu import Producer

from dialer.celery import BROKER_ERRORS, ORIGINATE
from dialer.domain.request import cell_of
from dialer.failpoints import failpoint

logger = logging.getLogger(__name__)

#: Pause before a retry while the broker is unavailable, in seconds.
RETRY_PAUSE_S: Final = 0.5

#: RabbitMQ must confirm each message within this many seconds. Without confirmations a message that
#: a crashed or full server lost would be missing until recovery publishes it again. (Redis replies
#: to each message; kombu's Redis transport ignores these options.)
CONFIRMED: Final = {"confirm_publish": True, "read_timeout": 5, "write_timeout": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """One task to publish. `shown`: its arguments as Flower shows them, with masked numbers."""

    call_id: str
    pbx: str
    epoch: int
    shown: str = ""


_Work = tuple[list[Nudge], "Future[list[Nudge]]"]


@dataclass(slots=True)
class Dispatcher:
    """Publisher with a separate thread, because kombu blocks. Belongs to one event loop.

    The thread is a daemon, so that the program can end even if the broker hangs. `problem` says
    why the broker does not take tasks, '' if it does.
    """

    app: Celery
    problem: str = ""
    _work: queue.SimpleQueue[_Work | None] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None
    _producer: Producer | None = None

    @property
    def is_down(self) -> bool:
        """True while the broker does not take tasks."""
        return bool(self.problem)

    async def publish(self, nudges: Sequence[Nudge]) -> None:
        """Publish the tasks; retry through outages of the broker, without a limit."""
        if not nudges:
            return
        failpoint("publish.before")
        rest = list(nudges)
        while True:
            rest = await asyncio.wrap_future(self._hand_over(rest))
            if not rest:
                break
            await asyncio.sleep(RETRY_PAUSE_S)
        failpoint("publish.after")

    def close(self) -> None:
        """Let the thread end after the queued batches; do not wait for it."""
        self._work.put(None)

    def _hand_over(self, nudges: list[Nudge]) -> Future[list[Nudge]]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
            self._thread.start()
        sent: Future[list[Nudge]] = Future()
        self._work.put((nudges, sent))
        return sent

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            nudges, sent = work
            if not sent.set_running_or_notify_cancel():
                continue
            try:
                sent.set_result(self._send(nudges))
            except Exception as error:  # noqa: BLE001  # raised in the event loop
                sent.set_exception(error)

    def _send(self, nudges: list[Nudge]) -> list[Nudge]:
        """Send tasks in order; return those that could not be sent."""
        sent = 0
        try:
            producer = self._connected()
            for nudge in nudges:
                self.app.send_task(
                    ORIGINATE,
                    args=(nudge.call_id, cell_of(nudge.call_id), nudge.epoch),
                    task_id=nudge.call_id,
                    queue=nudge.pbx,
                    producer=producer,
                    argsrepr=nudge.shown or repr((nudge.call_id, nudge.epoch)),
                    kwargsrepr="",
                    retry=False,
                    ignore_result=True,
                )
                sent += 1
        except BROKER_ERRORS as error:
            self._disconnect()
            was_down, self.problem = self.is_down, str(error) or "no answer in time"
            if not was_down:
                logger.error(  # noqa: TRY400  # an unavailable broker needs no traceback
                    "Broker unavailable; retrying, the calls stay in the ledger",
                    extra={"error": self.problem},
                )
        else:
            if self.is_down:
                self.problem = ""
                logger.warning("Broker available again")
        return nudges[sent:]

    def _connected(self) -> Producer:
        """Return this thread's producer, which connects on first use."""
        if self._producer is None:
            connection = self.app.connection_for_write(transport_options=CONFIRMED)
            self._producer = self.app.amqp.Producer(connection)
        return self._producer

    def _disconnect(self) -> None:
        """Close the connection, because it may still have the reply to an older message."""
        producer, self._producer = self._producer, None
        if producer is not None and producer.connection is not None:
            with contextlib.suppress(*BROKER_ERRORS):
                producer.connection.collect()
