"""Connection of a command to the registry's Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dialer.settings import Settings
    from dialer.store.steps import Steps

_Answer = TypeVar("_Answer")


def with_registry(settings: Settings, work: Callable[[Steps], Awaitable[_Answer]]) -> _Answer:
    """Connect to the registry's Redis, await `work` with its steps and return the result.

    Raises:
        StoreUnavailable: it cannot be reached.
        StoreUnfit: it is too old, or a cluster.
    """
    import asyncio

    from dialer.store.client import connect, require
    from dialer.store.fitness import require_usable
    from dialer.store.steps import Steps

    url = settings.registry_redis_url

    async def connected() -> _Answer:
        steps = Steps(connect(url), "the registry's Redis")
        try:
            await require(steps.redis, url, "the registry's Redis")
            await require_usable(steps.redis, url, "the registry's Redis")
            return await work(steps)
        finally:
            await steps.close()

    return asyncio.run(connected())
