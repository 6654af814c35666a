"""The wrong clock of the chaos suite: for one process, while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.clock import Clock, compiler
from tests.conftest import require_service

#: For each line that it reads: the time of day three times, then half a second of waiting.
PROGRAM = """
import sys, threading, time
from datetime import UTC, datetime
for _ in sys.stdin:
    began = time.monotonic()
    time.sleep(0.1)
    threading.Event().wait(0.1)
    waited = time.monotonic() - began
    print(time.time(), time.time_ns() / 1e9, datetime.now(UTC).timestamp(), waited, flush=True)
"""


def test_time_of_day_jumps_and_waiting_stays_right(tmp_path: Path) -> None:
    lacking = None if compiler() else "there is no C compiler"
    require_service("a C compiler", lacking)
    clock = Clock(tmp_path, "one")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **clock.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for skew_s in (0, 600, -45, 0):
            clock.set(skew_s)
            process.stdin.write("\n")
            process.stdin.flush()
            *times, waited_s = map(float, process.stdout.readline().split())
            assert all(abs(at - time.time() - skew_s) < 5.0 for at in times)
            assert 0.19 < waited_s < 5.0
        process.stdin.close()
