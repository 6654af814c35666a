"""Points at which a test can kill, stop or block the process, named after the atomic steps.

Off unless `DIALER_FAILPOINTS` is set: `claim.after:kill@7` kills the process the seventh time
it passes `claim.after`. `stop` stops it (SIGSTOP) instead, `hang` blocks the thread that passes,
`raise` raises an unexpected error. Commas separate several points. Never set it in production; a
process that has it logs a warning at start.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

#: Text on standard error when a point fires, before the point's name.
FIRED: Final = "failure point "

#: How long `hang` blocks: longer than any test, in seconds.
HANG_S: Final = 3600.0


def _raise() -> None:
    raise RuntimeError("a test's failure point")


_ACTIONS: Final[dict[str, Callable[[], None]]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hang": lambda: time.sleep(HANG_S),
    "raise": _raise,
}


def _parse(text: str) -> dict[str, tuple[Callable[[], None], int]]:
    armed: dict[str, tuple[Callable[[], None], int]] = {}
    for item in filter(None, text.split(",")):
        name, _, rest = item.partition(":")
        action, _, nth = rest.partition("@")
        armed[name] = (_ACTIONS[action], int(nth or 1))
    return armed


_armed = _parse(os.environ.get("DIALER_FAILPOINTS", ""))
_passed: Counter[str] = Counter()


def is_armed() -> bool:
    """True if a test has armed any point in this process."""
    return bool(_armed)


def failpoint(name: str) -> None:
    """Kill, stop or block this process here, if a test has armed the point."""
    if not _armed or name not in _armed:
        return
    _passed[name] += 1
    action, nth = _armed[name]
    if _passed[name] == nth:
        os.write(2, f"{FIRED}{name}\n".encode())
        action()
