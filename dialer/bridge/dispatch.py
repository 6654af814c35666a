"""Publisher of Celery tasks: one nudge for each queued call, to the queue named after its PBX.

The state of each call is in the ledger, where its worker looks every second. So a lost task costs
a second, a repeated one does nothing, and the bridge admits more while tasks are published: by the
quick lane, or by a thread with kombu. It waits for a broker that is slower than the bridge, and for
no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from amqp.exceptions import ChannelError
from celery import Celery
from kombu import Producer

from dialer.bridge.nudges import Nudge, by_pbx, message_of
from dialer.bridge.quick_lane import QuickLane, is_about_queue
from dialer.celery import BROKER_ERRORS, ORIGINATE
from dialer.failpoints import failpoint

logger = logging.getLogger(__name__)

#: While the broker is unavailable, it is tried again after this pause, in seconds.
RETRY_PAUSE_S: Final = 0.5

#: A broker hangs if it needs longer for one task (Redis: for those of one PBX), in seconds.
PUBLISH_WITHIN_S: Final = 1.0

#: Longest wait of `flush` for a broker that is slow, in seconds.
FLUSH_WITHIN_S: Final = 5.0

#: Maximum number of tasks in one batch. Redis takes those of one PBX in one round trip.
BATCH: Final = 200

#: Maximum number of tasks that wait for the thread; `publish` waits until there is room.
WAITING_MAX: Final = 2_000

#: A broker for which the bridge waits for so long is named in the log, this often at most; in
#: seconds.
SLOW_AFTER_S: Final = 1.0
SLOW_AGAIN_S: Final = 60.0

#: A broker that took no task for so long is asked whether it is still there, in seconds.
PROBE_AFTER_S: Final = 5.0

#: How often `publish` and `flush` look whether the thread is done, in seconds.
LOOK_EVERY_S: Final = 0.01

#: RabbitMQ must confirm each message within this many seconds; otherwise the bridge would not know
#: that the server crashed or is full. (Redis replies to each message; kombu's Redis transport
#: ignores these options.)
CONFIRMED: Final = {"confirm_publish": True, "read_timeout": 5, "write_timeout": 5}


#: A word of the broker's refusal, and the cure for it. The last one is for all others.
_CURES: Final = (
    ("maxmemory", "its memory is full: raise its maxmemory, or empty what else is in it"),
    ("auth", "it refuses the login: correct user and password in [broker] url, and restart"),
    ("password", "it refuses the login: correct user and password in [broker] url, and restart"),
    ("access_refused", "it refuses the login: correct user and password in [broker] url"),
    ("", "see that the server of [broker] url runs and that this host reaches it"),
)

#: The cure if the broker refuses one queue.
_QUEUE_CURE: Final = (
    "give the user of [broker] url all rights to the queue, or delete the queue if it is of "
    "another type; bridge and worker make it again"
)

#: A broker that was connected and refused a task counts as refusing for so long, in seconds.
REFUSES_FOR_S: Final = 10.0


@dataclass(slots=True)
class Dispatcher:
    """Publisher with a separate thread, because kombu blocks. Belongs to one event loop.

    `lane` takes the tasks as long as all is well; what it cannot send goes to the thread.

    The thread is a daemon, so that the program can end even if the broker hangs. `problem` says
    why the broker does not take tasks, '' if it does.

    `_changed` is held to change `problem` and the fields from `_waiting` on, which both threads
    use. The event loop reads single ones without it: what it learns may be out of date a moment
    later anyway, and nobody else adds to `_waiting`. `_producer`, `_refused_at` and `_refused` are
    the publishing thread's; the loop only sees whether there is a `_producer`. Both write
    `_proved_at`.
    """

    app: Celery
    lane: QuickLane | None = None
    problem: str = ""
    _thread: threading.Thread | None = None
    _producer: Producer | None = None
    #: When the broker last took a task, or was last reached.
    _proved_at: float = -PROBE_AFTER_S
    #: When the broker last refused a task although it was connected.
    _refused_at: float = -REFUSES_FOR_S
    #: Queues that the broker refuses, and when it last did.
    _refused: dict[str, float] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    #: Tasks that the thread has not taken yet.
    _waiting: list[Nudge] = field(default_factory=list)
    #: When the thread got work, or last got on with it. None if it has none.
    _progress_at: float | None = None
    _failed_at: float = -RETRY_PAUSE_S
    #: When the log last named a slow broker.
    _slow_at: float = -SLOW_AGAIN_S
    #: An error of ours, for the event loop.
    _failure: Exception | None = None
    _is_closed: bool = False

    @property
    def is_down(self) -> bool:
        """True while the broker does not take tasks."""
        return bool(self.problem)

    async def publish(self, nudges: Sequence[Nudge]) -> None:
        """Publish the tasks. They are dropped while the broker is down.

        Those of a PBX keep their order, but for those that the quick lane could not send.

        Waits only while very many tasks are not published yet: for a slow broker, not for one
        that hangs.

        Raises:
            Exception: an earlier batch failed, and the broker is not the reason.
        """
        if not nudges:
            return
        failpoint("publish.before")
        self._check()
        if not self._takes_lane(nudges):
            await self._let_publish(nudges)
        failpoint("publish.after")

    def _takes_lane(self, nudges: Sequence[Nudge]) -> bool:
        """Send the tasks by the quick lane, if the broker is well."""
        return self.lane is not None and not self.is_down and self.lane.send(nudges, self._on_lane)

    def _on_lane(self, refused: Sequence[Nudge], *, is_well: bool) -> None:
        """Let the thread send what the quick lane could not."""
        if is_well:
            self._proved_at = time.monotonic()
        if refused:
            self._hand_over(refused)

    async def _let_publish(self, nudges: Sequence[Nudge]) -> None:
        """Let the thread publish the tasks."""
        rest, began = list(nudges), time.monotonic()
        while rest and not self._is_hopeless():
            room = max(0, WAITING_MAX - len(self._waiting))
            self._hand_over(rest[:room])
            del rest[:room]
            if rest:
                self._log_slow(began)
                await asyncio.sleep(LOOK_EVERY_S)
                self._check()

    def _log_slow(self, waits_since: float) -> None:
        """Log that the bridge waits for the broker."""
        now = time.monotonic()
        if now - waits_since >= SLOW_AFTER_S and now - self._slow_at >= SLOW_AGAIN_S:
            self._slow_at = now
            logger.warning(
                "The broker is slow, and the bridge waits for it: see the load of the server of "
                "[broker] url, or use one of its own"
            )

    async def flush(self) -> None:
        """Wait until all tasks are published or dropped, at most `FLUSH_WITHIN_S`.

        Does not wait for a broker that hangs.

        Raises:
            Exception: a batch failed, and the broker is not the reason.
        """
        until = time.monotonic() + FLUSH_WITHIN_S
        # No asyncio.Event, because a thread that hangs would not set it.
        while not (self._is_done() or self._is_hanging() or time.monotonic() > until):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_S)
        self._check()

    def look(self) -> None:
        """Connect in the background if not connected; ask the broker if it took no task lately.

        So an outage is known before the first call, and its end without one.

        No calls come while the workers miss the broker too, because then no PBX is ready.
        """
        self._check()
        is_quiet = time.monotonic() - self._proved_at >= PROBE_AFTER_S
        if is_quiet and not self.is_down and self.lane is not None:
            is_quiet = not self.lane.ping(self._on_lane)
        is_due = self._producer is None or self.is_down or is_quiet
        if is_due and self._is_idle() and not self._is_hopeless():
            self._hand_over([])

    def close(self) -> None:
        """Let the thread end after the tasks that wait; do not wait for it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return self._progress_at is None

    def _is_done(self) -> bool:
        return self._is_idle() and (self.lane is None or not self.lane.owed)

    def _is_hanging(self) -> bool:
        since = self._progress_at
        return since is not None and time.monotonic() - since >= PUBLISH_WITHIN_S

    def _is_hopeless(self) -> bool:
        """True if the broker hangs, or did not take tasks a moment ago."""
        was_just_now = time.monotonic() - self._failed_at < RETRY_PAUSE_S
        return self.is_down and (not self._is_idle() or was_just_now)

    def _check(self) -> None:
        """Raise the thread's error, if any; drop the tasks that wait for a broker that hangs."""
        with self._changed:
            failure, self._failure = self._failure, None
            if self._is_hanging():
                self._mark_down(_in_words(TimeoutError()))
        if failure is not None:
            raise failure

    def _hand_over(self, nudges: Sequence[Nudge]) -> None:
        if self._is_closed:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
            self._thread.start()
        with self._changed:
            self._waiting += nudges
            if self._progress_at is None:
                self._progress_at = time.monotonic()
            self._changed.notify_all()

    def _run(self) -> None:
        while (nudges := self._next()) is not None:
            try:
                self._send(nudges)
            except Exception as error:  # noqa: BLE001  # raised in the event loop
                with self._changed:
                    self._failure = error
            with self._changed:
                if not self._waiting:
                    self._progress_at = None

    def _next(self) -> list[Nudge] | None:
        """Wait for work; return the next tasks, none for a look only, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_idle() or self._is_closed)
            if self._is_idle():
                return None
            nudges = self._waiting[:BATCH]
            del self._waiting[:BATCH]
            self._progress_at = time.monotonic()
            return nudges

    def _send(self, nudges: list[Nudge]) -> None:
        """Send a batch. If the broker fails, it and all that wait are dropped."""
        is_connected = has_taken = False
        try:
            producer = self._reached() if not nudges else self._connected()
            is_connected = True
            for pbx, tasks in by_pbx(nudges):
                has_taken |= self._send_to(producer, pbx, tasks)
        except BROKER_ERRORS as error:
            self._disconnect()
            if is_connected:
                self._refused_at = time.monotonic()
            self._mark_down(_in_words(error.__cause__ or error))
        else:
            self._proved_at = time.monotonic()
            # That a full broker accepts connections does not mean that it takes tasks.
            if has_taken or time.monotonic() - self._refused_at >= REFUSES_FOR_S:
                self._mark_up()

    def _send_to(self, producer: Producer, pbx: str, nudges: Iterable[Nudge]) -> bool:
        """Send the tasks of one PBX, in order; return False if the broker refuses its queue.

        Raises:
            Exception: the broker fails, so that no other PBX needs to be tried.
        """
        if time.monotonic() - self._refused.get(pbx, -RETRY_PAUSE_S) < RETRY_PAUSE_S:
            return False
        try:
            with producer.batch():  # type: ignore[attr-defined]  # its types are older
                for nudge in nudges:
                    with self._changed:
                        self._progress_at = time.monotonic()
                    self._send_one(producer, nudge)
        except BROKER_ERRORS as error:
            said = error.__cause__ or error
            if not _is_about_queue(said):
                raise
            if pbx not in self._refused:
                logger.error(  # noqa: TRY400  # needs no traceback
                    "Broker refuses the queue of a PBX; its calls stay in the ledger",
                    extra={"queue": pbx, "error": f"{said}; {_QUEUE_CURE}"},
                )
            self._refused[pbx] = time.monotonic()
            return False
        if self._refused.pop(pbx, None) is not None:
            logger.warning("Broker takes the tasks of a PBX again", extra={"queue": pbx})
        return True

    def _send_one(self, producer: Producer, nudge: Nudge) -> None:
        """Send one task, as `send_task` of Celery does for a task without options of its own."""
        message = message_of(self.app, nudge)
        self.app.amqp.send_task_message(producer, ORIGINATE, message, queue=nudge.pbx, retry=False)

    def _mark_down(self, problem: str) -> None:
        """Drop the tasks that wait, and record why; log it once for each outage."""
        with self._changed:
            was_down, self.problem, self._failed_at = self.is_down, problem, time.monotonic()
            self._waiting.clear()
        if not was_down:
            logger.error(
                "Broker unavailable; retrying, the calls stay in the ledger",
                extra={"error": problem},
            )

    def _mark_up(self) -> None:
        with self._changed:
            was_down, self.problem = self.is_down, ""
        if was_down:
            logger.warning("Broker available again")

    def _connected(self) -> Producer:
        """Return this thread's producer, connected."""
        if self._producer is None:
            connection = self.app.connection_for_write(transport_options=CONFIRMED)
            self._producer = self.app.amqp.Producer(connection)
        _ = self._producer.channel  # connects
        return self._producer

    def _reached(self) -> Producer:
        """Return this thread's producer after the broker has answered.

        Asks over the connection that it has: another one may fail, or take long, while this one
        serves well.
        """
        was_connected = self._producer is not None
        producer = self._connected()
        if was_connected and producer.connection is not None:
            if producer.connection.transport.driver_type == "redis":
                producer.channel.client.ping()  # type: ignore[union-attr]
            else:  # RabbitMQ
                with producer.connection.channel():
                    pass
        return producer

    def _disconnect(self) -> None:
        """Close the connection, because it may still have the reply to an older message."""
        producer, self._producer = self._producer, None
        if producer is not None and producer.connection is not None:
            with contextlib.suppress(*BROKER_ERRORS):
                producer.connection.collect()


def _is_about_queue(error: BaseException) -> bool:
    """True if the broker answered that this task must not, or cannot, go into its queue.

    The connection can still be used: py-amqp opens the channel again that RabbitMQ closed.
    """
    return isinstance(error, ChannelError) or is_about_queue(error)


def _in_words(error: BaseException) -> str:
    """Return what the broker said, with the cure."""
    said = str(error) or "no answer in time"
    cure = next(cure for word, cure in _CURES if word in said.lower())
    return f"{said}; {cure}"
