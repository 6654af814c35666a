"""Remote control of a worker: it consumes the queue of its own PBX only.

`celery -A dialer control add_consumer pbx02` without `-d` reaches every worker. A worker that
consumed the queue of another PBX would take messages that only the other one can use.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.control import control_command

logger = logging.getLogger(__name__)


@control_command(args=[("queue", str)], signature="<queue>")
def add_consumer(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Consume the queue of this worker's PBX again, after cancel_consumer."""
    pbx = state.consumer.controller.pbx.name
    if queue != pbx:
        logger.warning(
            "Refused to consume the queue of another PBX; a worker serves its own only",
            extra={"pbx": pbx, "queue": queue},
        )
        return {"error": f"this is the worker of {pbx}, and it consumes no other queue"}
    state.consumer.call_soon(state.consumer.add_task_queue, queue)
    return {"ok": f"add consumer {queue}"}
