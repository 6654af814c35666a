"""The Redis servers of one process: one `Steps` per server, shared by the cells on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Never

from dialer.errors import StepsStopped, StoreUnavailable
from dialer.store.client import connect, durability_warning, has_replicas, require
from dialer.store.steps import Steps

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Servers:
    """Steps by URL, for one event loop. The owner runs `watch` in a task while it uses them."""

    _steps: dict[str, Steps] = field(default_factory=dict)
    _stopped: asyncio.Queue[StepsStopped] = field(default_factory=asyncio.Queue)

    async def watch(self) -> Never:
        """Wait until an unexpected error stops the steps of a server, then raise it.

        Raises:
            StepsStopped: the process must end; its steps would fail from now on.
        """
        raise await self._stopped.get()

    async def at(self, url: str, what: str, *, must_answer: bool = True) -> Steps:
        """Return the steps of the server at `url`, connecting on first use.

        `what` names the server in logs. Only the first use checks that the server answers.

        Raises:
            StoreUnavailable: the server does not answer, and `must_answer`.
        """
        if url in self._steps:
            return self._steps[url]
        steps = self._steps[url] = Steps(
            connect(url),
            what,
            replicated=has_replicas(url),
            on_stopped=self._stopped.put_nowait,
        )
        try:
            await require(steps.redis, url, what)
        except StoreUnavailable as error:
            if must_answer:
                raise
            steps.mark_down(error)
        if warning := await durability_warning(steps.redis):
            logger.warning("Redis is not durable", extra={"redis": what, "cure": warning})
        return steps

    async def of_cells(self, urls: Mapping[str, str]) -> dict[str, Steps]:
        """Return the steps of each cell's server; `urls` is cell to URL.

        A server that does not answer is marked down and retried later, so that the other cells
        can run.

        Raises:
            StoreUnavailable: none of them answers.
        """
        problems: dict[str, StoreUnavailable] = {}

        async def check(cell: str, url: str) -> None:
            try:
                await self.at(url, f"the Redis of cell {cell}")
            except StoreUnavailable as error:
                problems[url] = error

        first_cells = {url: cell for cell, url in reversed(list(urls.items()))}
        await asyncio.gather(*(check(cell, url) for url, cell in first_cells.items()))
        if len(problems) == len(first_cells) and problems:
            raise next(iter(problems.values()))
        for url, problem in problems.items():
            self._steps[url].mark_down(problem)
        return {cell: self._steps[url] for cell, url in urls.items()}

    @property
    def known(self) -> Mapping[str, Steps]:
        """URL to steps, of every server used so far, available or not."""
        return self._steps

    async def close(self) -> None:
        """Stop the steps of every server; cancel the waiting ones."""
        for steps in self._steps.values():
            await steps.close()
