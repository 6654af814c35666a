"""Remote control of a worker: what `celery control` and `celery inspect` do here.

A command that cannot do what its name says changes nothing and replies why, with what to do
instead. Celery's own commands would reply `ok`. The others, such as `ping` and `stats`, are
Celery's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from celery.worker import state as celery_state
from celery.worker.control import Panel, control_command, inspect_command
from redis.exceptions import RedisError

from dialer.celery import ORIGINATE
from dialer.domain.followed import Followed
from dialer.domain.request import cell_of
from dialer.errors import DialerError
from dialer.steering import Made, words
from workers.bootsteps import serving

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Longest wait for the event loop's list of calls, in seconds.
LIST_WITHIN_S: Final = 2.0

#: Longest wait for Asterisk to hang a call up, in seconds.
HUNG_UP_WITHIN_S: Final = 4.0

#: Longest wait for a change of a live parameter, in seconds.
CHANGED_WITHIN_S: Final = 5.0

#: How many calls `inspect calls` names if nobody says how many.
CALLS_NAMED: Final = 20

_HANG_UP: Final = "hang it up: celery -A dialer control hangup <call id>"
_NO_POOL: Final = (
    "nothing changed: a worker has no pool, its calls share one event loop; calls at once are "
    "max_calls of its PBX: dialer pbx set <pbx> max_calls=<n>"
)

#: Celery's commands that have no meaning here, with their arguments, and why.
_REFUSED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "rate_limit": (
        "nothing changed: calls a second are cps of the PBX: dialer pbx set <pbx> cps=<n>",
        ("task_name", "rate_limit"),
    ),
    "time_limit": (
        "nothing changed: how long a call rings is ring_timeout of its cell: dialer cells set "
        "<cell> ring_timeout=<s>; nothing limits how long people talk",
        ("task_name", "soft", "hard"),
    ),
    "terminate": (f"nothing was ended: a call is no process; {_HANG_UP}", ("signal", "task_id")),
    "revoke_by_stamped_headers": (
        "nothing was revoked: nudges have no stamps; name the call ids: control revoke <call id>",
        ("headers",),
    ),
    "pool_grow": (_NO_POOL, ("n",)),
    "pool_shrink": (_NO_POOL, ("n",)),
    "pool_restart": (_NO_POOL, ()),
    "autoscale": (_NO_POOL, ("max", "min")),
}

_cancel_consumer: Final = Panel.data["cancel_consumer"]


def _refuse(name: str, reason: str, arguments: Sequence[str]) -> None:
    """Register a command that only replies why it does nothing."""

    def refused(_state: Any, **_: Any) -> dict[str, str]:
        return {"error": reason}

    control_command(
        name=name,
        help=f"Has no effect: {reason}",
        args=[(argument, str) for argument in arguments[:-1]],
        variadic=arguments[-1] if arguments else None,
        signature=" ".join(f"<{argument}>" for argument in arguments) or None,
    )(refused)


for _name, (_reason, _arguments) in _REFUSED.items():
    _refuse(_name, _reason, _arguments)


# --- the queue ----------------------------------------------------------------------------


def _other_queue(state: Any, queue: str) -> dict[str, str] | None:
    """Return the reply if the queue is not that of this worker's PBX.

    `celery -A dialer control add_consumer pbx02` without `-d` reaches every worker. A worker that
    consumed the queue of another PBX would take messages that only the other one can use.
    """
    pbx = state.consumer.controller.pbx.name
    if queue == pbx:
        return None
    return {"error": f"this is the worker of {pbx}, and it consumes no other queue"}


@control_command(args=[("queue", str)], signature="<queue>")
def add_consumer(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Consume the queue of this worker's PBX again, after cancel_consumer."""
    if (refusal := _other_queue(state, queue)) is not None:
        logger.warning(
            "Refused to consume the queue of another PBX; a worker serves its own only",
            extra={"pbx": state.consumer.controller.pbx.name, "queue": queue},
        )
        return refusal
    state.consumer.call_soon(state.consumer.add_task_queue, queue)
    return {"ok": f"add consumer {queue}"}


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: Any, queue: str, **_: Any) -> Any:
    """Stop taking calls. Other PBXs get the calls that are not dialed yet."""
    return _other_queue(state, queue) or _cancel_consumer(state, queue)


@control_command(args=[("why", str)], signature="[why=TEXT]")
def drain(state: Any, why: str = "", **_: Any) -> dict[str, str]:
    """Stop sending calls to this PBX, as `dialer pbx drain`. Calls that are up continue."""
    return _steered(state, serving().pbx_worker.drain, why, "is drained already")


@control_command(args=[("why", str)], signature="[why=TEXT]")
def resume(state: Any, why: str = "", **_: Any) -> dict[str, str]:
    """Send this PBX calls again, as `dialer pbx resume`."""
    return _steered(state, serving().pbx_worker.resume, why, "is not drained")


def _steered(
    state: Any, work: Callable[..., Coroutine[Any, Any, Made]], why: str, as_before: str
) -> dict[str, str]:
    """Change a live parameter on the event loop; reply what was done, or why not."""
    making = asyncio.run_coroutine_threadsafe(
        work(why=str(why), by=f"celery control on {state.hostname}"), serving().loop
    )
    try:
        made = making.result(CHANGED_WITHIN_S)
    except TimeoutError:
        making.cancel()
        return {"error": "the registry's Redis does not answer; look at `dialer pbx` when it does"}
    except (DialerError, RedisError) as error:
        return {"error": str(error)}
    if not made.number:
        return {"ok": f"nothing changed: {made.subject} {as_before}"}
    return {"ok": f"change {made.number}: {words(made.subject, made.edits[0])}"}


# --- calls --------------------------------------------------------------------------------


@control_command(variadic="task_id", signature="[call id 1 [call id 2 [...]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, **_: Any) -> dict[str, str]:
    """Do not dial these calls; each gets its Response, CANCELLED with the code revoked."""
    ids = {task_id} if isinstance(task_id, str) else set(task_id or ())
    celery_state.revoked.update(ids)
    late = sorted(ids & {f.call.call_id for f in _followed()})
    if late:
        return {"error": f"too late for {', '.join(late)}, which is dialed already; {_HANG_UP}"}
    if terminate:
        return {"error": f"revoked if not dialed yet; a call is no process to end; {_HANG_UP}"}
    return {"ok": f"not to be dialed any more, if not dialed yet: {', '.join(sorted(ids))}"}


@control_command(args=[("task_id", str)], signature="<call id>")
def hangup(_state: Any, task_id: str = "", **_: Any) -> dict[str, str]:
    """Hang up a call that is dialed or up. Its Response has the code hung_up."""
    if ":" not in str(task_id):
        return {"error": "name the call: control hangup <cell>:<IdRequisicao>"}
    asking = asyncio.run_coroutine_threadsafe(
        serving().pbx_worker.hang_up(str(task_id)), serving().loop
    )
    try:
        refusal = asking.result(HUNG_UP_WITHIN_S)
    except TimeoutError:
        return {"error": f"Asterisk does not answer; {task_id} may be hung up all the same"}
    if refusal is None:
        return {
            "error": f"{task_id} is not dialed here now; to prevent it: control revoke <call id>"
        }
    if refusal:
        return {"error": f"{task_id} goes on: {refusal}"}
    return {"ok": f"{task_id} is being hung up"}


@inspect_command(args=[("n", int)], signature=f"[n={CALLS_NAMED}]")
def calls(_state: Any, n: int = CALLS_NAMED, **_: Any) -> dict[str, Any]:
    """Count the calls that are being dialed or up, by state, and name the n oldest."""
    followed = sorted(_followed(), key=_since)
    named = [
        {
            "id": f.call.call_id,
            "state": str(f.call.state),
            "since": _since(f),
            "channel": f.channel,
        }
        for f in followed[: max(0, n)]
    ]
    states = Counter(str(f.call.state) for f in followed)
    return {"total": len(followed), "states": dict(states), "oldest": named}


@inspect_command(alias="dump_active")
def active(state: Any, **_: Any) -> list[dict[str, Any]]:
    """List the calls that are being dialed or up, as Celery lists tasks."""
    return [_info(state, f) for f in _followed()]


@inspect_command(variadic="ids", signature="[call id 1 [call id 2 [...]]]")
def query_task(state: Any, ids: Any, **_: Any) -> dict[str, Any]:
    """Show calls by their ids, if they are being dialed or up here."""
    wanted = {ids} if isinstance(ids, str) else set(ids or ())
    found = [f for f in _followed() if f.call.call_id in wanted]
    return {f.call.call_id: ["active", _info(state, f)] for f in found}


def _info(state: Any, followed: Followed) -> dict[str, Any]:
    call_id, cell = followed.call.call_id, cell_of(followed.call.call_id)
    started = followed.call.dialed_at
    return {
        "id": call_id,
        "name": ORIGINATE,
        "type": ORIGINATE,
        "args": [cell, call_id.removeprefix(f"{cell}:")],
        "kwargs": {},
        "hostname": state.hostname,
        "time_start": started.timestamp() if started else None,
        "acknowledged": True,
        "worker_pid": os.getpid(),
    }


def _since(followed: Followed) -> str:
    """Return when it was dialed, as ISO 8601; '' if that is not known."""
    return followed.call.dialed_at.isoformat() if followed.call.dialed_at else ""


def _followed() -> list[Followed]:
    """Return every call that this worker follows."""
    return _on_loop(lambda: serving().pbx_worker.followed())


def _on_loop(work: Callable[[], T]) -> T:
    """Run `work` in the event loop, to which the calls belong, and return its result.

    Raises:
        TimeoutError: the event loop is too busy; Celery replies it as an error.
    """
    answer: Future[T] = Future()
    serving().loop.call_soon_threadsafe(lambda: answer.set_result(work()))
    return answer.result(LIST_WITHIN_S)
