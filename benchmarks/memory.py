"""Memory of one worker with 2,000 simultaneous calls on one PBX; no call may be lost.

The PBX is simulated on the same machine, so the call rate is that of the whole machine. Resident
memory is the worker's peak (VmHWM), in 10^6 bytes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.verdict import Result
from tests.integration.stack import Stack
from tests.waiting import wait_until

CALLS = 2000
RSS_MB = 150.0
UP_WITHIN_S = 120.0
ANSWERED_WITHIN_S = 120.0
HANG_UP_AT_ONCE = 20


async def measure(folder: Path) -> Result:
    """Start all calls, keep them up, hang up all."""
    async with Stack(folder, cell={"threads": 2 * CALLS}) as stack:
        limits = {"max_calls": 2 * CALLS, "cps": 1000}
        pbx = stack.add_pbx(table=limits, ring_time=(0.1, 0.3), long_talk=3600.0)
        await stack.start()
        worker = stack.workers["pbx01"]
        empty_mb, cpu_s, began = worker.rss_mb(), worker.cpu_s(), time.monotonic()
        await stack.push(CALLS, last_two=90)
        await wait_until(
            lambda: pbx.exchange.floor.answered >= CALLS,
            f"{CALLS} calls are up",
            within_s=UP_WITHIN_S,
        )
        starting_s = time.monotonic() - began
        full_mb, at_once = worker.rss_mb(), pbx.live
        calls = list(pbx.exchange.floor.live.values())
        for n, call in enumerate(calls):
            pbx.exchange.floor.hang_up(call, cause=16)
            if n % HANG_UP_AT_ONCE == 0:
                await asyncio.sleep(0.01)
        responses = await stack.responses(CALLS, within_s=ANSWERED_WITHIN_S)
        await stack.at_rest()
        results = Counter(response["Resultado"] for response in responses)
        peak_mb, cpu_ms = worker.peak_rss_mb(), (worker.cpu_s() - cpu_s) * 1000 / CALLS
        sys.stdout.write(
            f"memory: {at_once} calls at once on one simulated PBX, one worker: "
            f"resident {empty_mb:.0f} MB idle, {full_mb:.0f} MB with all calls up, "
            f"{peak_mb:.0f} MB at most (limit {RSS_MB:.0f}); started at {CALLS / starting_s:.0f} "
            f"calls/s, {cpu_ms:.2f} ms of the worker's CPU per call; "
            f"Responses {dict(results)}\n"
        )
        broken = {
            f"{at_once} calls were up at once": at_once != CALLS,
            f"Responses were {dict(results)}": results != {"ANSWERED": CALLS},
            "a number was dialed twice": max(stack.rings.values()) > 1,
            f"{peak_mb:.0f} MB are over the limit": peak_mb >= RSS_MB,
        }
        return Result(
            figures={"peak_mb": peak_mb},
            broken=[sentence for sentence, is_broken in broken.items() if is_broken],
        )


def run() -> Result:
    """Print and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder)))
