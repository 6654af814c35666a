"""How a test waits: for the thing itself, within a bound, never for a while."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

#: Longest wait for something that should come soon, in seconds. Machines are shared: what takes 2 s
#: on one took 16 s on the same one an hour later.
PATIENCE_S = 60.0

#: What comes at once takes at most this on a busy machine, in seconds.
SOON_S = 20.0

LOOK_EVERY_S = 0.02


@overload
async def wait_until(
    condition: Callable[[], Awaitable[T]], what: str, *, within_s: float = ...
) -> T: ...
@overload
async def wait_until(condition: Callable[[], T], what: str, *, within_s: float = ...) -> T: ...
async def wait_until(
    condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S
) -> Any:
    """Return the first true value of `condition`, which may be a coroutine function.

    Raises:
        AssertionError: it was not true in time; the text says `what` was waited for.
    """
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what} (last: {value!r})")
        await asyncio.sleep(LOOK_EVERY_S)


def wait_blocking(
    true: Callable[[], object],
    what: str,
    *,
    within_s: float = PATIENCE_S,
    look_every_s: float = LOOK_EVERY_S,
    logs: Callable[[], str] = str,
) -> None:
    """Wait for a condition where there is no event loop.

    Raises:
        AssertionError: it did not come true in time; the text ends with the `logs`.
    """
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}\n{logs()}".rstrip())
        time.sleep(look_every_s)
