"""Places where a test may kill or stop the process, named after the atomic steps.

Off unless `DIALER_FAILPOINTS` is set: `claim.after:kill@7` kills the process the seventh time
it comes past `claim.after`; `stop` stops it (SIGSTOP) instead. Several are parted by commas.
Production never sets it; a process that has it says so at start.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Final

#: What a process writes to its standard error as it fires, before the point's name.
FIRED: Final = "failure point "

_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _parse(text: str) -> dict[str, tuple[signal.Signals, int]]:
    armed: dict[str, tuple[signal.Signals, int]] = {}
    for item in filter(None, text.split(",")):
        name, _, rest = item.partition(":")
        action, _, nth = rest.partition("@")
        armed[name] = (_SIGNALS[action], int(nth or 1))
    return armed


_armed = _parse(os.environ.get("DIALER_FAILPOINTS", ""))
_passed: Counter[str] = Counter()


def armed() -> bool:
    """True where a test has armed any point in this process."""
    return bool(_armed)


def failpoint(name: str) -> None:
    """Kills or stops this process here, if a test wants it so."""
    if not _armed or name not in _armed:
        return
    _passed[name] += 1
    action, nth = _armed[name]
    if _passed[name] == nth:
        os.write(2, f"{FIRED}{name}\n".encode())
        os.kill(os.getpid(), action)
