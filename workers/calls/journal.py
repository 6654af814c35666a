"""What a worker has to tell Redis: held on to until it is told, whatever Redis says to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

#: Pause after a server refused a command for good, before it is tried anew, in seconds.
REFUSED_PAUSE_S: Final = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class Writes:
    """The writing of one PBX's worker. Belongs to its event loop."""

    pbx: str
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    #: What of which cell Redis refuses: said once, not for each call.
    _refused: set[tuple[str, str]] = field(default_factory=set)

    def write(self, cell: str, what: str, step: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """A step that is tried anew until whatever Redis refuses it for is mended.

        Nobody else takes it while this worker lives. (Outages are waited for by the step itself.)
        """
        return self.keep(asyncio.create_task(self._until_taken((cell, what), step)))

    async def _until_taken(self, what: tuple[str, str], step: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                result = await step()
            except RedisError:
                if what not in self._refused:
                    extra = {"pbx": self.pbx, "cell": what[0], "step": what[1]}
                    logger.exception("Redis refused a command; trying anew", extra=extra)
                self._refused.add(what)
                await asyncio.sleep(REFUSED_PAUSE_S)
            else:
                self._refused.discard(what)
                return result

    def keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Holds on to a task until it is over, and says if it failed."""
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A step could not be written", exc_info=error, extra={"pbx": self.pbx})

    async def drain(self) -> None:
        """Waits until everything is told."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
