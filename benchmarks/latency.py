"""Request to ACK on real Asterisk 22 and 16, at 50 requests a second, nothing else going on.

From the moment a Multcall pushes a Request to the moment it has the ACK in hand: its own
reading included, and Redis flushing every write to disk (`appendfsync always`) or once a second.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from redis import Redis

from dialer.simulation.multcall.checker import Summary
from dialer.simulation.multcall.player import play
from tests.acceptance.lab.lab import AMI_SECRET, Lab, docker_available
from tests.processes import PbxPlace, Site, site_toml

CELL = "ASR_TIM"
RATE = 50.0
CALLS = 1000
WARM_UP = 50
P50_MS, P99_MS = 20.0, 100.0
MIX = {"answered": 70, "busy": 15, "invalid_number": 15}


def measure(lab: Lab, fsync: str) -> Summary:
    """One run on a fresh site; `fsync` is Redis' appendfsync."""
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
            return _play(redis_url, CALLS)
        finally:
            site.stop()
            with Redis.from_url(redis_url) as redis:
                redis.config_set("appendfsync", "always")


def _play(redis_url: str, calls: int) -> Summary:
    prefix = f"+55{int(time.time() * 10) % 10**8:08d}"
    return asyncio.run(play(redis_url, [CELL], calls, RATE, mix=MIX, number_prefix=prefix))


def run() -> bool:
    """Prints the figures; returns whether they keep what was promised."""
    if (problem := docker_available()) is not None:
        sys.stdout.write(f"latency: not measured, no Docker: {problem}\n")
        return True
    lab = Lab()
    lab.up()
    kept = True
    for fsync in ("everysec", "always"):
        summary = measure(lab, fsync)
        p50, p99, longest = (
            (value or 0) * 1000
            for value in (summary.ack_p50_s, summary.ack_p99_s, summary.ack_max_s)
        )
        sys.stdout.write(
            f"latency: Request to ACK, {summary.calls} calls at {RATE:g}/s on Asterisk 22 and 16, "
            f"appendfsync {fsync}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms; "
            f"violations {len(summary.violations)}\n"
        )
        kept = kept and summary.is_right and p50 <= P50_MS and p99 <= P99_MS
    return kept
