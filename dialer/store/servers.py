"""The Redis servers of one process: one `Steps` per server, shared by the cells on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Never

from redis.exceptions import RedisError

from dialer.errors import StepsStopped, StoreUnavailable
from dialer.store import fitness
from dialer.store.client import cancel, connect, durability_warning, has_replicas, require
from dialer.store.rights import missing_rights
from dialer.store.steps import Steps

logger = logging.getLogger(__name__)

#: How often a running program checks that its servers still keep calls, in seconds.
CHECK_EVERY_S: Final = 60.0


@dataclass(slots=True)
class Servers:
    """Steps by URL, for one event loop. The owner runs `watch` in a task while it uses them."""

    check_every_s: float = CHECK_EVERY_S
    _steps: dict[str, Steps] = field(default_factory=dict)
    _stopped: asyncio.Queue[StepsStopped] = field(default_factory=asyncio.Queue)
    _unfit: dict[str, str] = field(default_factory=dict)

    async def watch(self) -> Never:
        """Wait until an unexpected error stops the steps of a server, then raise it.

        In the meantime check that the servers still keep calls, and log if one does not.

        Raises:
            StepsStopped: the process must end; its steps would fail from now on.
        """
        checks = asyncio.create_task(self._check_again(), name="check of Redis")
        try:
            raise await self._stopped.get()
        finally:
            await cancel([checks])

    async def _check_again(self) -> None:
        while True:
            await asyncio.sleep(self.check_every_s)
            for url, steps in tuple(self._steps.items()):
                if not steps.is_down:
                    await self._check(url, steps)

    async def _check(self, url: str, steps: Steps) -> None:
        """Log what makes a server unfit, once until it changes."""
        try:
            trouble = fitness.unfit(await fitness.read_facts(steps.redis)) or ""
        except (RedisError, OSError):
            return
        before = self._unfit.get(url, "")
        self._unfit[url] = trouble
        if trouble and trouble != before:
            logger.error(
                "Redis must not be used as it is; calls may be lost or dialed again",
                extra={"redis": steps.where, "reason": trouble},
            )
        elif before and not trouble:
            logger.warning("Redis may be used again", extra={"redis": steps.where})

    async def at(self, url: str, what: str, *, must_answer: bool = True) -> Steps:
        """Return the steps of the server at `url`, connecting on first use.

        `what` names the server in logs. Only the first use checks that the server answers.

        Raises:
            StoreUnavailable: the server does not answer, and `must_answer`.
            StoreUnfit: it answers, but calls must not be kept in it.
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
            return steps
        await fitness.check(steps.redis, url, what)
        await self._check_rights(steps)
        if warning := await durability_warning(steps.redis):
            logger.warning("Redis is not durable", extra={"redis": what, "cure": warning})
        return steps

    async def _check_rights(self, steps: Steps) -> None:
        """Log every right that the user lacks at once; the steps then tell them one by one."""
        try:
            missing = await missing_rights(steps.redis, only_to_dial=True)
        except (RedisError, OSError):
            return
        if missing:
            logger.error(
                "Redis user lacks rights; nothing is dialed until it has them",
                extra={"redis": steps.where, "add": " ".join(missing)},
            )

    async def of_cells(self, urls: Mapping[str, str]) -> dict[str, Steps]:
        """Return the steps of each cell's server; `urls` is cell to URL.

        A server that does not answer is marked down and retried later, so that the other cells
        can run.

        Raises:
            StoreUnavailable: none of them answers.
            StoreUnfit: calls must not be kept in one of them.
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
