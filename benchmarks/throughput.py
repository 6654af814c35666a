"""Calls per second through one worker, as a ratio to a bare AMI client.

Both dial the same number of short calls on their own simulated PBX, one after the other, in
several rounds; the medians count. The bare client only sends Originates and waits for the
Hangups; the dialer also reads requests from Redis, keeps the ledger, pushes ACKs and Responses
and sends events to Flower. PBX and Multcall run on the same machine in one process, so only the
ratio is meaningful.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.verdict import Result
from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.stack import SECRET, Stack

ROUNDS = 5
CALLS = 400
AT_ONCE = 400
SHORT: dict[str, Any] = {"ring_time": (0.05, 0.1), "talk_time": (0.1, 0.2)}


async def bare(calls: int) -> float:
    """Return the calls per second of a client that only dials."""
    async with SimulatedPbx(secret=SECRET, read="system,call,user", **SHORT) as pbx:
        reader, writer = await asyncio.open_connection(pbx.host, pbx.port)
        login = f"Action: Login\r\nUsername: dialer\r\nSecret: {SECRET}\r\n\r\n"
        writer.write(login.encode())
        await reader.readuntil(b"Fully Booted\r\n\r\n")
        began = time.monotonic()
        sent = over = 0
        while over < calls:
            while sent < calls and sent - over < AT_ONCE:
                writer.write(_originate(sent))
                sent += 1
            data = await reader.readuntil(b"\r\n\r\n")
            over += data.startswith(b"Event: Hangup\r\n")
        rate = calls / (time.monotonic() - began)
        writer.close()
        await writer.wait_closed()
        return rate


def _originate(n: int) -> bytes:
    lines = [
        "Action: Originate",
        f"ActionID: BARE:{n}#1",
        f"ChannelId: BARE:{n}",
        f"Channel: PJSIP/119{n:06d}60@tim",
        "Context: dialer-enter",
        "Exten: s",
        "Priority: 1",
        "Timeout: 30000",
        "Async: true",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def dialed(stack: Stack, calls: int) -> tuple[float, float]:
    """Return the calls per second through one worker, and its CPU time per call in ms."""
    worker, before = stack.workers["pbx01"], len(stack.multcall.responses)
    cpu_s, began = worker.cpu_s(), time.monotonic()
    await stack.push(calls, last_two=60)
    await stack.responses(before + calls, within_s=120.0)
    rate = calls / (time.monotonic() - began)
    return rate, (worker.cpu_s() - cpu_s) * 1000 / calls


async def measure(folder: Path) -> Result:
    """Measure both, one after the other, in each round."""
    rounds = []
    async with Stack(folder, cell={"threads": AT_ONCE}) as stack:
        stack.add_pbx(table={"max_calls": AT_ONCE, "cps": 1000}, **SHORT)
        await stack.start()
        await dialed(stack, 50)
        for _ in range(ROUNDS):
            bare_rate = await bare(CALLS)
            rate, cpu_ms = await dialed(stack, CALLS)
            rounds.append((rate, cpu_ms, bare_rate, rate / bare_rate))
    rate, cpu_ms, bare_rate, ratio = (statistics.median(each) for each in zip(*rounds, strict=True))
    sys.stdout.write(
        f"throughput: medians of {ROUNDS} times {CALLS} calls, at most {AT_ONCE} at once: "
        f"{rate:.0f} calls/s from Request to Response through one worker "
        f"({cpu_ms:.2f} ms of its processor a call), {bare_rate:.0f} calls/s by a bare AMI client: "
        f"ratio {ratio:.3f}\n"
    )
    return Result(figures={"ratio": ratio})


def run() -> Result:
    """Print and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder)))
