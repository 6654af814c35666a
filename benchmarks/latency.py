"""Latency from Request to ACK on real Asterisk 22 and 16, at 50 requests per second.

Measured from Multcall's push of a Request until it has read the ACK, with Redis writing to disk
at every write (`appendfsync always`) or once per second. No other load.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

from redis import Redis

from benchmarks.verdict import NotMeasured, Result
from dialer.simulation.multcall.checker import Summary
from dialer.simulation.multcall.player import play
from tests.acceptance.lab.lab import AMI_SECRET, Lab, docker_available
from tests.processes import PbxPlace, Site, site_toml

CELL = "ASR_TIM"
RATE = 50.0
ROUNDS = 3
CALLS = 300
WARM_UP = 50
P50_MS, P99_MS = 20.0, 100.0
MIX = {"answered": 70, "busy": 15, "invalid_number": 15}


def measure(lab: Lab, fsync: str) -> list[Summary]:
    """Run all rounds with an empty Redis; `fsync` is Redis' appendfsync."""
    redis_url = f"redis://127.0.0.1:{lab.redis_port()}/0"
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        redis.config_set("appendfsync", fsync)
    places = [
        PbxPlace(name="pbx22", port=lab.ami_port("22"), secret=AMI_SECRET),
        PbxPlace(name="pbx16", port=lab.ami_port("16"), secret=AMI_SECRET),
    ]
    broker_url = redis_url.removesuffix("/0") + "/1"
    toml = site_toml(redis_url, broker_url, places, cells={CELL: {"ring_timeout": 5}})
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), toml, redis_url, ["pbx22", "pbx16"])
        try:
            site.start()
            _play(redis_url, WARM_UP)
            return [_play(redis_url, CALLS) for _ in range(ROUNDS)]
        finally:
            site.stop()
            with Redis.from_url(redis_url) as redis:
                redis.config_set("appendfsync", "always")


def _play(redis_url: str, calls: int) -> Summary:
    prefix = f"+55{int(time.time() * 10) % 10**8:08d}"
    return asyncio.run(play(redis_url, [CELL], calls, RATE, mix=MIX, number_prefix=prefix))


def run() -> Result:
    """Print and return the figures, medians of all rounds.

    Raises:
        NotMeasured: there is no Docker.
    """
    if (problem := docker_available()) is not None:
        raise NotMeasured(f"no Docker: {problem}")
    lab = Lab()
    lab.up()
    figures: dict[str, float] = {}
    broken: list[str] = []
    for fsync in ("everysec", "always"):
        rounds = measure(lab, fsync)
        times = [_times_ms(summary) for summary in rounds]
        p50, p99, longest = (statistics.median(each) for each in zip(*times, strict=True))
        violations = sum(len(summary.violations) for summary in rounds)
        sys.stdout.write(
            f"latency: Request to ACK, medians of {ROUNDS} times {CALLS} calls at {RATE:g}/s on "
            f"Asterisk 22 and 16, appendfsync {fsync}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
            f"longest {longest:.1f} ms; violations {violations}\n"
        )
        figures[f"{fsync}_p50_ms"] = p50
        promises = {
            f"appendfsync {fsync}: {violations} violations": violations == 0,
            f"appendfsync {fsync}: p50 over {P50_MS:g} ms": p50 <= P50_MS,
            f"appendfsync {fsync}: p99 over {P99_MS:g} ms": p99 <= P99_MS,
        }
        broken += [sentence for sentence, is_kept in promises.items() if not is_kept]
    return Result(figures=figures, broken=broken)


def _times_ms(summary: Summary) -> tuple[float, float, float]:
    """Return p50, p99 and the longest time to an ACK; NaN without ACKs, which misses any limit."""
    p50, p99, longest = (
        math.nan if value is None else value * 1000
        for value in (summary.ack_p50_s, summary.ack_p99_s, summary.ack_max_s)
    )
    return p50, p99, longest
