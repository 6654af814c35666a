"""Finds what blocks an event loop: the longest that one callback used the processor."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Longest CPU time of one callback that a test allows, in seconds. The aim is 0.02, 0.005 is
#: measured. The limit is ten times that: test machines are shared. Unsliced work takes 0.11.
LONGEST_CALLBACK_S = 0.05


@dataclass(slots=True)
class Watched:
    """`longest_s` is in seconds of processor time, which a busy machine does not lengthen."""

    longest_s: float = 0.0
    callback: str = ""


@contextmanager
def watched_loop() -> Iterator[Watched]:
    """Measure every callback that any event loop runs inside the block.

    No garbage is collected in it: a collection goes through the objects of all earlier tests.
    """
    watched = Watched()
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        took = time.thread_time() - began
        if took > watched.longest_s:
            watched.longest_s, watched.callback = took, repr(handle)

    gc.collect()
    gc.disable()
    asyncio.Handle._run = measured  # type: ignore[assignment,method-assign]
    try:
        yield watched
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.enable()
