"""The event loop of a bridge or worker: uvloop's if that is installed, else asyncio's.

Owns the choice. Must not know what runs in the loop.
"""

from __future__ import annotations

import asyncio


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop; uvloop comes with the optional extra of that name."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def running_name() -> str:
    """Return the library of the running loop, `uvloop` or `asyncio`, for the log."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]
