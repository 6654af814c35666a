"""Options of `celery -A dialer worker` that cannot work here, each refused with one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celery.concurrency.solo import TaskPool as Solo
from celery.concurrency.thread import TaskPool as Threads


def refusal(options: Mapping[str, Any], extra: Sequence[str] = ()) -> str | None:
    """Return why the worker cannot start with these options, None if it can.

    Threads and solo are accepted, because an unused pool of these kinds costs nothing.

    Args:
        options: of Celery's worker, by name.
        extra: settings of Celery, given after `--`.
    """
    pool = options.get("pool_cls") or options.get("pool")
    if pool not in (None, Threads, Solo):
        name = getattr(pool, "__module__", str(pool)).rpartition(".")[2]
        return (
            f"the calls of a worker share one event loop, which a pool of {name} would disturb: "
            "remove -P (--pool, CELERY_WORKER_POOL)"
        )
    if options.get("autoscale"):
        return (
            "a worker has no pool that could grow: remove --autoscale (CELERY_WORKER_AUTOSCALE); "
            "max_calls and cps of its PBX limit its calls"
        )
    if options.get("beat"):
        return "there is nothing to schedule: remove -B (--beat, CELERY_WORKER_BEAT)"
    if extra:
        return (
            f"Celery's settings are derived from dialer.toml: remove {' '.join(extra)} from the "
            "command"
        )
    return None
