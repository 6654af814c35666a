"""Publisher of Celery tasks: one nudge for each queued call, to the queue named after its PBX.

The state of each call is in the ledger, where its worker looks every second. So a lost task costs
a second, a repeated one does nothing, and nothing waits for the broker: the bridge admits more
while a thread publishes, in batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Sequence
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

#: Maximum number of tasks that one batch has. Redis takes a batch in one round trip.
BATCH: Final = 200

#: If more tasks wait for the thread, `publish` waits for it, so that memory is bounded.
WAITING_MAX: Final = 2_000

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


@dataclass(slots=True)
class Dispatcher:
    """Publisher with a separate thread, because kombu blocks. Belongs to one event loop.

    The thread is a daemon, so that the program can end even if the broker hangs. `problem` says
    why the broker does not take tasks, '' if it does.

    `_changed` guards the fields after it. `_waiting` are the tasks for the thread, `_has_work` is
    set for it even if there are none, to connect; `_busy_since` is when it took its batch, None
    while it waits; `_batches` is how many it has done, `_hangs_at` that number while the broker is
    known to hang; `_failure` is an error of ours.
    """

    app: Celery
    problem: str = ""
    _thread: threading.Thread | None = None
    _producer: Producer | None = None
    _failed_at: float = -RETRY_PAUSE_S
    #: When it last refused a task although it was connected.
    _refused_at: float = -REFUSES_FOR_S
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: list[Nudge] = field(default_factory=list)
    _has_work: bool = False
    _is_closed: bool = False
    _busy_since: float | None = None
    _batches: int = 0
    _hangs_at: int = -1
    _failure: Exception | None = None

    @property
    def is_down(self) -> bool:
        """True while the broker does not take tasks."""
        return bool(self.problem)

    async def publish(self, nudges: Sequence[Nudge]) -> None:
        """Let the thread publish the tasks, in order. They are dropped while the broker is down.

        Waits only while very many tasks are not published yet.

        Raises:
            Exception: an earlier batch failed, and the broker is not the reason.
        """
        if not nudges:
            return
        failpoint("publish.before")
        if len(self._waiting) + len(nudges) > WAITING_MAX:
            await self.flush()
        self._check()
        if not self._is_hopeless():
            self._hand_over(nudges)
        failpoint("publish.after")

    async def flush(self) -> None:
        """Wait until all tasks are published or dropped, at most `PUBLISH_WITHIN_S`.

        Does not wait for a broker that is known to hang.

        Raises:
            Exception: a batch failed, and the broker is not the reason.
        """
        before = self._batches
        if not self._is_idle() and self._hangs_at != before:
            await asyncio.to_thread(self._wait_until_idle)
            if not self._is_idle() and self._batches == before:
                self._give_up()
        self._check()

    def look(self) -> None:
        """Connect in the background if not connected, or if the broker took no task.

        So a refusal is known before the first call, and its end without one.

        No calls come while the broker refuses the workers too, because then no PBX is ready.
        """
        self._check()
        is_due = self._producer is None or self.is_down
        if is_due and self._is_idle() and not self._is_hopeless():
            self._hand_over([])

    def close(self) -> None:
        """Let the thread end after the tasks that wait; do not wait for it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return self._busy_since is None and not self._has_work

    def _wait_until_idle(self) -> None:
        with self._changed:
            self._changed.wait_for(self._is_idle, PUBLISH_WITHIN_S)

    def _is_hopeless(self) -> bool:
        """True if the broker hangs, or did not take tasks a moment ago."""
        was_just_now = time.monotonic() - self._failed_at < RETRY_PAUSE_S
        return self.is_down and (not self._is_idle() or was_just_now)

    def _check(self) -> None:
        """Raise the thread's error, if any; give up a broker that hangs."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        since = self._busy_since
        if since is not None and time.monotonic() - since >= PUBLISH_WITHIN_S:
            self._give_up()

    def _give_up(self) -> None:
        """Drop the tasks that wait for a broker that hangs."""
        with self._changed:
            self._waiting.clear()
        self._hangs_at = self._batches
        self._mark_down(_in_words(TimeoutError()))

    def _hand_over(self, nudges: Sequence[Nudge]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
            self._thread.start()
        with self._changed:
            self._waiting += nudges
            self._has_work = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (nudges := self._next()) is not None:
            try:
                self._send(nudges)
            except Exception as error:  # noqa: BLE001  # raised in the event loop
                self._failure = error
            self._batches += 1

    def _next(self) -> list[Nudge] | None:
        """Wait for work; return the next tasks, None at the end."""
        with self._changed:
            self._busy_since = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_work or self._is_closed)
            if not self._has_work:
                return None
            nudges = self._waiting[:BATCH]
            del self._waiting[:BATCH]
            self._has_work = bool(self._waiting)
            self._busy_since = time.monotonic()
            return nudges

    def _send(self, nudges: list[Nudge]) -> None:
        """Send a batch, in order. If the broker fails, it and all that wait are dropped."""
        is_connected = False
        try:
            producer = self._connected()
            is_connected = True
            with producer.batch():  # type: ignore[attr-defined]  # its types are older
                for nudge in nudges:
                    self._send_one(producer, nudge)
        except BROKER_ERRORS as error:
            self._disconnect()
            with self._changed:
                self._waiting.clear()
                self._has_work = False
            if is_connected:
                self._refused_at = time.monotonic()
            self._mark_down(_in_words(error.__cause__ or error))
        else:
            # That a full broker accepts connections does not mean that it takes tasks.
            is_proven = nudges or time.monotonic() - self._refused_at >= REFUSES_FOR_S
            if self.is_down and is_proven:
                self.problem = ""
                logger.warning("Broker available again")

    def _send_one(self, producer: Producer, nudge: Nudge) -> None:
        """Send one task, as `send_task` of Celery does for a task without options of its own."""
        amqp = self.app.amqp
        message = amqp.create_task_message(
            nudge.call_id,
            ORIGINATE,
            args=(nudge.call_id, cell_of(nudge.call_id), nudge.epoch),
            argsrepr=nudge.shown or repr((nudge.call_id, nudge.epoch)),
            kwargsrepr="",
            ignore_result=True,
        )
        amqp.send_task_message(producer, ORIGINATE, message, queue=nudge.pbx, retry=False)

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


def _in_words(error: BaseException) -> str:
    """Return what the broker said, with the cure."""
    said = str(error) or "no answer in time"
    cure = next(cure for word, cure in _CURES if word in said.lower())
    return f"{said}; {cure}"
