"""Celery's hooks: which PBX this worker serves, its event loop, and its events for Flower."""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
import warnings
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from celery import bootsteps, signals
from celery.exceptions import CPendingDeprecationWarning

from dialer import watchdog
from dialer.celery import BROKER_ERRORS, app
from dialer.domain.call import Call, Ending, Result
from dialer.errors import ConfigError, DialerError
from dialer.logs import configure
from dialer.settings import Pbx, settings
from workers.worker import PbxWorker

logger = logging.getLogger(__name__)

#: Longest wait at start for Asterisk before tasks are taken (and left where they are), in seconds.
READY_WITHIN_S: Final = 10.0

#: Longest wait at stop for the event loop, in seconds.
STOP_WITHIN_S: Final = 8.0

EXIT_USAGE: Final = 2

#: How long one thread may hold the interpreter while another waits, in seconds.
SWITCH_INTERVAL_S: Final = 0.0005


@dataclass(slots=True)
class Serving:
    """What the tasks of this process work with."""

    loop: asyncio.AbstractEventLoop
    pbx_worker: PbxWorker


_serving: Serving | None = None
_events: CallEvents | None = None


def serving() -> Serving:
    """The PBX worker of this process; there is one once the worker has started."""
    assert _serving is not None, "tasks run only in a started worker"
    return _serving


def _refuse(error: DialerError) -> NoReturn:
    """Stops the worker with one sentence."""
    sys.stderr.write(f"dialer: {error}\n")
    sys.stderr.flush()
    raise SystemExit(EXIT_USAGE)


def pbx_of(queues: list[str]) -> Pbx:
    """The PBX that a worker with these queues serves.

    Raises:
        ConfigError: it is not exactly one known PBX.
    """
    known = [pbx.name for pbx in settings().pbxs]
    if len(queues) == 1 and queues[0] in known:
        return settings().pbx(queues[0])
    # Without -Q a worker would take all queues, the default one too, which nobody can name.
    given = "no -Q" if app.conf.task_default_queue in queues else f"-Q {','.join(queues)}"
    raise ConfigError(
        f"a worker serves exactly one PBX, and {given} was given: start it as "
        f"'celery -A dialer worker -Q {known[0]}'; known PBXs are {', '.join(known)}"
    )


@signals.celeryd_init.connect
def _name_after_pbx(instance: Any, options: dict[str, Any], **_: Any) -> None:
    """Without -n, the node is named after its PBX: two workers on one host stay two in Flower."""
    name, _at, host = instance.hostname.partition("@")
    queues = options.get("queues") or []
    if name == "celery" and len(queues) == 1:
        instance.hostname = f"{queues[0]}@{host}"


@signals.celeryd_after_setup.connect
def _check_queues(sender: str, instance: Any, conf: Any, **_: Any) -> None:
    try:
        pbx = pbx_of(list(instance.app.amqp.queues.consume_from))
    except DialerError as error:
        _refuse(error)
    instance.pbx = pbx
    # Only here, for Celery undoes it with the logging. It warns, at each loss
    # of the broker, of a setting that celeryconfig makes on purpose.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    configure(settings().log, program="worker")
    # Celery says two lines a task, panoramisk one for each action; the ledger tells more.
    for name in ("celery.worker.strategy", "celery.app.trace", "panoramisk"):
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.worker_shutting_down.connect
def _begin_stop(**_: Any) -> None:
    watchdog.process.stopping()
    if _serving is not None:
        asyncio.run_coroutine_threadsafe(_serving.pbx_worker.begin_stop(), _serving.loop)


class PbxStep(bootsteps.StartStopStep):
    """Runs the PBX worker's event loop in a thread; takes no task before it is ready."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        # Workers have nothing to say to each other; asking for neighbours takes a second at each
        # start, and gossip fails to restart when the broker does.
        parent.options.update(without_gossip=True, without_mingle=True)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="pbx", daemon=True)

    def start(self, parent: Any) -> None:
        global _serving
        # Pool threads, Celery's loop and ours share one interpreter: at the default of 5 ms each
        # hand-over between them would cost a call that much.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        worker = PbxWorker(settings(), parent.pbx, on_done=_call_done)
        self.thread.start()
        try:
            link = self._run(worker.start()).result()
            _serving = Serving(self.loop, worker)
            self._run(_first_of(link, worker)).result()
        except DialerError as error:
            _refuse(error)
        watchdog.process.ready(f"Serving {parent.pbx.name}")

    def stop(self, parent: Any) -> None:
        if _serving is not None:
            try:
                self._run(_serving.pbx_worker.stop()).result(STOP_WITHIN_S)
            except TimeoutError:
                logger.warning("The worker stopped before all was written; the next start mends it")
        # The loop goes on until the process ends: a task that RabbitMQ has pushed here and that
        # gets its thread only now is told by it that nothing is dialed any more.

    terminate = stop

    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)


async def _first_of(link: asyncio.Task[None], worker: PbxWorker) -> None:
    """Waits until the PBX is ready, for a while; a refused login is raised."""
    ready = asyncio.create_task(worker.until_ready())
    done, _ = await asyncio.wait(
        {link, ready}, timeout=READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
    )
    ready.cancel()
    if link in done:
        link.result()
    if ready not in done:
        logger.warning("Asterisk is not ready yet; calls wait in the ledger until it is")


# --- events: so that Flower shows the call and not its first milliseconds --------------


@dataclass(slots=True)
class CallEvents:
    """Sends a task event for each call that is over, from a thread of its own."""

    dispatcher: Any
    _queue: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = field(
        default_factory=queue.SimpleQueue
    )

    def start(self) -> None:
        threading.Thread(target=self._send_all, name="call events", daemon=True).start()

    def put(self, name: str, fields: dict[str, Any]) -> None:
        self._queue.put((name, fields))

    def stop(self) -> None:
        self._queue.put(None)

    def _send_all(self) -> None:
        while (item := self._queue.get()) is not None:
            name, fields = item
            try:
                self.dispatcher.send(name, **fields)
            except BROKER_ERRORS as error:
                logger.info("Flower missed a call's end", extra={"error": str(error)})


class EventsStep(bootsteps.StartStopStep):
    """Takes the consumer's event dispatcher, anew after every return of the broker."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, parent: Any) -> None:
        global _events
        self.stop(parent)
        _events = CallEvents(parent.event_dispatcher)
        _events.start()

    def stop(self, parent: Any) -> None:
        global _events
        if _events is not None:
            _events.stop()
            _events = None


def _call_done(call: Call, ending: Ending) -> None:
    events = _events
    if events is None:
        return
    started = call.dialed_at or ending.ended_at
    length_s = max(0.0, (ending.ended_at - started).total_seconds())
    outcome = f"{ending.result} cause={ending.cause} talked={_talked_s(call, ending):.1f}s"
    if ending.result in (Result.FAILED, Result.UNKNOWN):
        reason = ending.error.message if ending.error else outcome
        fields = {"exception": f"{ending.result}: {reason}", "traceback": ""}
        events.put("task-failed", {"uuid": call.call_id, **fields})
    else:
        events.put("task-succeeded", {"uuid": call.call_id, "result": outcome, "runtime": length_s})


def _talked_s(call: Call, ending: Ending) -> float:
    answered_at = call.answered_at or ending.answered_at
    return (ending.ended_at - answered_at).total_seconds() if answered_at else 0.0


app.steps["worker"].add(PbxStep)
app.steps["consumer"].add(EventsStep)
