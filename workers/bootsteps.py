"""Celery bootsteps and signal handlers: queue check, event loop, task events for Flower."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import click
from celery import bootsteps, signals
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import state
from redis.exceptions import RedisError

from dialer import watchdog
from dialer.celery import app, ignored_variables
from dialer.errors import ConfigError, DialerError
from dialer.event_loop import new_event_loop
from dialer.logs import configure
from dialer.settings import Pbx, settings
from workers.call_events import SEND_EVERY_S, CallEvents
from workers.options import refusal
from workers.worker import STOP_WITHIN_S, PbxWorker

logger = logging.getLogger(__name__)

#: Longest wait for Asterisk at the start; then tasks are accepted anyway. In seconds.
READY_WITHIN_S: Final = 10.0

#: Longest wait for the event loop at the stop: a little more than STOP_WITHIN_S. In seconds.
LOOP_STOP_WITHIN_S: Final = STOP_WITHIN_S + 2.0

#: After a signal to stop, or after a part of the worker has failed, the process ends within this
#: time. In seconds.
END_WITHIN_S: Final = LOOP_STOP_WITHIN_S + 5.0

#: The trouble of a worker whose Celery consumer does not exist yet.
STARTING: Final = "the worker has not connected to the broker yet: it starts"

EXIT_STOPPED: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2

#: How long a thread may keep the GIL while another one waits, in seconds.
SWITCH_INTERVAL_S: Final = 0.0005


@dataclass(slots=True)
class Serving:
    """The event loop and the PBX worker of this process, and the events of its calls for Flower."""

    loop: asyncio.AbstractEventLoop
    pbx_worker: PbxWorker
    events: CallEvents


_serving: Serving | None = None


def serving() -> Serving:
    """Return the PBX worker of this process; it exists after the worker has started."""
    assert _serving is not None, "messages come only to a started worker"
    return _serving


def _exit_with(error: Exception) -> NoReturn:
    """End the worker and print one sentence."""
    sentence = str(error)
    if not isinstance(error, DialerError):
        sentence = f"Redis refuses: {error}; `dialer doctor` says what is wrong"
    sys.stderr.write(f"dialer: {sentence}\n")
    sys.stderr.flush()
    raise SystemExit(EXIT_USAGE)


def pbx_of(queues: list[str]) -> Pbx:
    """Return the PBX that a worker with these queues serves.

    Raises:
        ConfigError: it is not exactly one known PBX.
    """
    known = [pbx.name for pbx in settings().pbxs]
    if len(queues) == 1 and queues[0] in known:
        return settings().pbx(queues[0])
    # Without -Q Celery consumes all queues, also the default one, whose name -Q cannot give.
    given = "no -Q" if app.conf.task_default_queue in queues else f"-Q {','.join(queues)}"
    raise ConfigError(
        f"a worker serves exactly one PBX, and {given} was given: start it as "
        f"'celery -A dialer worker -Q {known[0]}'; known PBXs are {', '.join(known)}"
    )


@signals.celeryd_init.connect
def _check_options(instance: Any, options: dict[str, Any], **_: Any) -> None:
    """Refuse options that cannot work, and name the node after its PBX if there is no -n.

    So Flower shows one node per worker.
    """
    context = click.get_current_context(silent=True)
    if (sentence := refusal(options, context.args if context else ())) is not None:
        _exit_with(ConfigError(sentence))
    name, _at, host = instance.hostname.partition("@")
    queues = options.get("queues") or []
    if name == "celery" and len(queues) == 1:
        instance.hostname = f"{queues[0]}@{host}"


@signals.celeryd_after_setup.connect
def _check_queues(sender: str, instance: Any, conf: Any, **_: Any) -> None:
    try:
        pbx = pbx_of(list(instance.app.amqp.queues.consume_from))
    except DialerError as error:
        _exit_with(error)
    instance.pbx = pbx
    # Here and not earlier: Celery resets it with the logging. It warns, at each loss of the
    # broker, of a setting that celeryconfig makes on purpose.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    try:
        configure(settings().log, program="worker")
    except DialerError as error:
        _exit_with(error)
    # panoramisk logs one line per action; our own log has the result.
    logging.getLogger("panoramisk").setLevel(logging.WARNING)


@signals.worker_shutting_down.connect
def _begin_stop(**_: Any) -> None:
    watchdog.process.stopping()
    if _serving is not None:
        _end_process_later(EXIT_STOPPED)
        asyncio.run_coroutine_threadsafe(_serving.pbx_worker.begin_stop(), _serving.loop)


class PbxStep(bootsteps.StartStopStep):
    """Run the PBX worker's event loop in a thread; take no message before it is ready."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        # Workers need no messages from each other. Mingle delays each start by a second, and
        # gossip does not recover when the broker restarts.
        parent.options.update(without_gossip=True, without_mingle=True)
        self.loop = new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="pbx", daemon=True)

    def start(self, parent: Any) -> None:
        global _serving
        # Celery's loop and ours share the GIL: with the default of 5 ms, each switch between them
        # would delay a call by that time.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        if names := ignored_variables(os.environ):
            logger.warning(
                "Celery's variables and -b are ignored; dialer.toml has the broker",
                extra={"variables": names},
            )

        def broker_trouble() -> str:
            return str(parent.consumer.trouble(parent.pbx.name)) if parent.consumer else STARTING

        events = CallEvents()
        worker = PbxWorker(
            settings(),
            parent.pbx,
            events.ended,
            broker_trouble=broker_trouble,
            is_revoked=state.revoked.__contains__,
        )
        self.thread.start()
        try:
            link = self._run(worker.start()).result()
            _serving = Serving(self.loop, worker, events)
            self._run(_first_of(link, worker)).result()
            self._run(_end_process_on_failure(worker))
        except (DialerError, RedisError) as error:
            self._abandon(worker)
            _exit_with(error)
        watchdog.process.ready(f"Serving {parent.pbx.name}")

    def _abandon(self, worker: PbxWorker) -> None:
        """Close what a start that failed has opened; asyncio would complain of its tasks."""
        with contextlib.suppress(Exception):
            self._run(worker.close()).result(LOOP_STOP_WITHIN_S)

    def stop(self, parent: Any) -> None:
        if _serving is not None:
            try:
                self._run(_serving.pbx_worker.stop()).result(LOOP_STOP_WITHIN_S)
            except TimeoutError:
                logger.warning("The event loop did not stop in time; the process ends anyway")
            _serving.events.send_last()  # Celery closes its connection to the broker later

    terminate = stop

    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)


async def _first_of(link: asyncio.Task[None], worker: PbxWorker) -> None:
    """Wait until the PBX is ready, or until the timeout; raise if the login is refused."""
    ready = asyncio.create_task(worker.until_ready())
    done, _ = await asyncio.wait(
        {link, ready}, timeout=READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
    )
    ready.cancel()
    if link in done:
        link.result()
    if ready not in done:
        logger.warning("Asterisk is not ready yet; calls wait in the ledger until it is")


async def _end_process_on_failure(worker: PbxWorker) -> None:
    """End the process if a part of the worker has failed; the service manager restarts it.

    Celery's main thread checks `should_terminate` and stops in order. If it hangs, the process is
    ended without it.
    """
    await worker.failure
    state.should_stop = EXIT_FAILURE  # type: ignore[assignment]  # not in its types
    _end_process_later(EXIT_FAILURE)


def _end_process_later(code: int) -> None:
    """End the process in `END_WITHIN_S` if it lives then: Celery may wait for a broker for long."""
    timer = threading.Timer(END_WITHIN_S, os._exit, (code,))
    timer.daemon = True
    timer.start()


# --- task events for Flower -------------------------------------------------------------


class EventsStep(bootsteps.StartStopStep):
    """Send the calls' task events over the connection that Celery's consumer has made."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.timer: Any = None

    def start(self, parent: Any) -> None:
        self.stop(parent)
        dispatcher, events = parent.event_dispatcher, serving().events
        # Celery has no groups if all events are on; `control disable_events` then does nothing.
        dispatcher.groups = dispatcher.groups or {"worker", "task"}
        events.dispatcher = dispatcher
        self.timer = parent.timer.call_repeatedly(SEND_EVERY_S, events.send)

    def stop(self, _parent: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()


app.steps["worker"].add(PbxStep)
app.steps["consumer"].add(EventsStep)
