"""Publisher of Celery tasks: one nudge for each queued call, to the queue named after its PBX.

The state of each call is in the ledger, where its worker looks every second. So a lost task costs
a second, a repeated one does nothing, and nothing waits for a broker that is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
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

#: While the broker is unavailable, it is tried again after this pause, in seconds.
RETRY_PAUSE_S: Final = 0.5

#: Longest wait for a broker that hangs, in seconds.
PUBLISH_WITHIN_S: Final = 1.0

#: RabbitMQ must confirm each message within this many seconds; otherwise the bridge would not know
#: that the server crashed or is full. (Redis replies to each message; kombu's Redis transport
#: ignores these options.)
CONFIRMED: Final = {"confirm_publish": True, "read_timeout": 5, "write_timeout": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """One task to publish. `shown`: its arguments as Flower shows them, with masked numbers."""

    call_id: str
    pbx: str
    epoch: int
    shown: str = ""


#: A word of the broker's refusal, and the cure for it. The last one is for all others.
_CURES: Final = (
    ("maxmemory", "its memory is full: raise its maxmemory, or empty what else is in it"),
    ("auth", "it refuses the login: correct user and password in [broker] url, and restart"),
    ("password", "it refuses the login: correct user and password in [broker] url, and restart"),
    ("access_refused", "it refuses the login: correct user and password in [broker] url"),
    ("", "see that the server of [broker] url runs and that this host reaches it"),
)

#: A broker that was connected and refused a task counts as refusing for so long, in seconds.
REFUSES_FOR_S: Final = 10.0

_Work = tuple[list[Nudge], "Future[None]"]


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
    _last: Future[None] | None = None
    _failed_at: float = -RETRY_PAUSE_S
    #: When it last refused a task although it was connected.
    _refused_at: float = -REFUSES_FOR_S

    @property
    def is_down(self) -> bool:
        """True while the broker does not take tasks."""
        return bool(self.problem)

    async def publish(self, nudges: Sequence[Nudge]) -> None:
        """Publish the tasks, in order. If the broker does not take them now, they are dropped."""
        if not nudges:
            return
        failpoint("publish.before")
        if not self._is_hopeless():
            sending = self._last = self._hand_over(list(nudges))
            waiting = asyncio.wrap_future(sending)
            waiting.add_done_callback(_retrieve)
            await asyncio.wait([waiting], timeout=PUBLISH_WITHIN_S)
            if sending.done():
                sending.result()
            else:
                self._mark_down(_in_words(TimeoutError()))
        failpoint("publish.after")

    def look(self) -> None:
        """Connect in the background if not connected, or if the broker took no task.

        So a refusal is known before the first call, and its end without one.

        No calls come while the broker refuses the workers too, because then no PBX is ready.
        """
        is_due = self._producer is None or self.is_down
        if is_due and not self._is_hanging and not self._is_hopeless():
            self._last = self._hand_over([])

    @property
    def _is_hanging(self) -> bool:
        return self._last is not None and not self._last.done()

    def _is_hopeless(self) -> bool:
        """True if the broker hangs, or did not take tasks a moment ago."""
        was_just_now = time.monotonic() - self._failed_at < RETRY_PAUSE_S
        return self.is_down and (self._is_hanging or was_just_now)

    def close(self) -> None:
        """Let the thread end after the queued batches; do not wait for it."""
        self._work.put(None)

    def _hand_over(self, nudges: list[Nudge]) -> Future[None]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
            self._thread.start()
        sent: Future[None] = Future()
        self._work.put((nudges, sent))
        return sent

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            nudges, sent = work
            if not sent.set_running_or_notify_cancel():
                continue
            try:
                self._send(nudges)
                sent.set_result(None)
            except Exception as error:  # noqa: BLE001  # raised in the event loop
                sent.set_exception(error)

    def _send(self, nudges: list[Nudge]) -> None:
        """Send tasks in order until one fails."""
        is_connected = False
        try:
            producer = self._connected()
            is_connected = True
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
        except BROKER_ERRORS as error:
            self._disconnect()
            if is_connected:
                self._refused_at = time.monotonic()
            self._mark_down(_in_words(error))
        else:
            # That a full broker accepts connections does not mean that it takes tasks.
            is_proven = nudges or time.monotonic() - self._refused_at >= REFUSES_FOR_S
            if self.is_down and is_proven:
                self.problem = ""
                logger.warning("Broker available again")

    def _mark_down(self, problem: str) -> None:
        """Record that the broker takes no tasks; log it once for each outage."""
        was_down, self.problem, self._failed_at = self.is_down, problem, time.monotonic()
        if not was_down:
            logger.error(
                "Broker unavailable; retrying, the calls stay in the ledger",
                extra={"error": problem},
            )

    def _connected(self) -> Producer:
        """Return this thread's producer, connected."""
        if self._producer is None:
            connection = self.app.connection_for_write(transport_options=CONFIRMED)
            self._producer = self.app.amqp.Producer(connection)
        _ = self._producer.channel  # connects
        return self._producer

    def _disconnect(self) -> None:
        """Close the connection, because it may still have the reply to an older message."""
        producer, self._producer = self._producer, None
        if producer is not None and producer.connection is not None:
            with contextlib.suppress(*BROKER_ERRORS):
                producer.connection.collect()


def _retrieve(done: asyncio.Future[None]) -> None:
    """Read the error, or asyncio reports one that nobody read: `publish` reads it elsewhere."""
    if not done.cancelled():
        done.exception()


def _in_words(error: Exception) -> str:
    """Return what the broker said, with the cure."""
    said = str(error) or "no answer in time"
    cure = next(cure for word, cure in _CURES if word in said.lower())
    return f"{said}; {cure}"
