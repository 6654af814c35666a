"""Background ledger writes, retried until they succeed, and other work done in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from dialer.errors import Fenced

logger = logging.getLogger(__name__)

#: Pause before a command that Redis refused is tried again, in seconds.
REFUSED_PAUSE_S: Final = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class Journal:
    """The background work of one PBX's worker. Belongs to its event loop."""

    pbx: str
    refused_pause_s: float = REFUSED_PAUSE_S
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    #: (cell, step) pairs that Redis refuses; each is logged once, not for each call.
    _refused: set[tuple[str, str]] = field(default_factory=set)

    def write(self, cell: str, step: str, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Run a ledger step in the background, as `until_taken` does."""
        return self.start(self.until_taken(cell, step, work))

    async def until_taken(self, cell: str, step: str, work: Callable[[], Awaitable[T]]) -> T:
        """Run a ledger step; if Redis refuses it, retry until it succeeds.

        While this worker runs, no other process writes it. `Steps` retries through outages.
        """
        what = (cell, step)
        while True:
            try:
                result = await work()
            except RedisError:
                if what not in self._refused:
                    extra = {"pbx": self.pbx, "cell": what[0], "step": what[1]}
                    logger.exception("Redis refused a command; trying again", extra=extra)
                self._refused.add(what)
                await asyncio.sleep(self.refused_pause_s)
            else:
                self._refused.discard(what)
                return result

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in the background; an error in it is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Fenced):  # the worker ends, and says why
            logger.error("Background work failed", exc_info=error, extra={"pbx": self.pbx})

    async def wait_done(self) -> None:
        """Wait until all work is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
