"""The fencing number of a worker: which of two workers of one PBX is the newer one.

The registry gives each worker of a PBX a greater number than the one before. Each cell's Redis
remembers the greatest number that it has seen, and refuses the steps of workers with a lower one.
So a worker that was stopped for a while and has been replaced in the meantime changes no call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import ResponseError

from dialer.errors import Fenced

_WORD = "FENCED"


async def _give_up(newest: int) -> None:
    raise Fenced(f"a newer worker of this PBX has the fencing number {newest}")


@dataclass(slots=True)
class Fence:
    """Number of the worker of `pbx`; 0: it has no lease, and its steps are not fenced.

    A step that is fenced awaits `on_fenced` with the newer number. That raises `Fenced`, or returns
    after `number` has been raised, and the step runs again.
    """

    pbx: str = ""
    number: int = 0
    on_fenced: Callable[[int], Awaitable[None]] = _give_up


def fenced_by(error: ResponseError) -> int | None:
    """Return the newer worker's number if a step was fenced, None for other errors."""
    word, _, number = str(error).partition(" ")
    return int(number) if word == _WORD else None
