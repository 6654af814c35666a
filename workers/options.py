"""Options of `celery -A dialer worker` that cannot work here, each refused with one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celery.concurrency.thread import TaskPool


def refusal(options: Mapping[str, Any], extra: Sequence[str] = ()) -> str | None:
    """Return why the worker cannot start with these options, None if it can.

    Args:
        options: of Celery's worker, by name.
        extra: settings of Celery, given after `--`.
    """
    pool = options.get("pool_cls") or options.get("pool")
    if pool is not None and pool is not TaskPool:
        name = getattr(pool, "__module__", str(pool)).rpartition(".")[2]
        return (
            f"the calls of a worker share one process, so its pool is threads, not {name}: "
            "remove -P (--pool, CELERY_WORKER_POOL)"
        )
    if options.get("autoscale"):
        return (
            "a pool of threads has a fixed size: remove --autoscale (CELERY_WORKER_AUTOSCALE); "
            "-c 64 sets the size, and 32 threads are enough for 200 calls a second"
        )
    if options.get("beat"):
        return "there is nothing to schedule: remove -B (--beat, CELERY_WORKER_BEAT)"
    if extra:
        return (
            f"Celery's settings are derived from dialer.toml: remove {' '.join(extra)} from the "
            "command"
        )
    return None
