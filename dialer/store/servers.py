"""The Redis servers of one process: one `Steps` each, however many cells share it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from dialer.errors import StoreUnavailable
from dialer.store.client import connect, durability_warning, has_replicas, require
from dialer.store.steps import Steps

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Servers:
    """Belongs to one event loop."""

    _steps: dict[str, Steps] = field(default_factory=dict)

    async def at(self, url: str, what: str, *, must_answer: bool = True) -> Steps:
        """The server at `url`, which must answer when first asked for; `what` names it in logs.

        Raises:
            StoreUnavailable: it must and does not.
        """
        if url in self._steps:
            return self._steps[url]
        steps = self._steps[url] = Steps(connect(url), what, replicated=has_replicas(url))
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
        """The server of each cell. One that does not answer is waited for; it stops no other cell.

        Raises:
            StoreUnavailable: none of them answers.
        """
        problems: dict[str, StoreUnavailable] = {}

        async def look(cell: str, url: str) -> None:
            try:
                await self.at(url, f"the Redis of cell {cell}")
            except StoreUnavailable as error:
                problems[url] = error

        firsts = {url: cell for cell, url in reversed(list(urls.items()))}
        await asyncio.gather(*(look(cell, url) for url, cell in firsts.items()))
        if len(problems) == len(firsts) and problems:
            raise next(iter(problems.values()))
        for url, problem in problems.items():
            self._steps[url].mark_down(problem)
        return {cell: self._steps[url] for cell, url in urls.items()}

    @property
    def known(self) -> Mapping[str, Steps]:
        """Every server by its address, those that are away among them."""
        return self._steps

    async def close(self) -> None:
        """Stops all; steps that wait are cancelled."""
        for steps in self._steps.values():
            await steps.close()
