"""Calls per second through one worker, as a ratio to a bare AMI client.

Both dial the same number of short calls on their own simulated PBX, one after the other in the
same run. The bare client only sends Originates and waits for the Hangups; the dialer also reads
requests from Redis, keeps the ledger, pushes ACKs and Responses and sends events to Flower. PBX
and Multcall run on the same machine in one process, so only the ratio is meaningful.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.stack import SECRET, Stack

CALLS = 1500
AT_ONCE = 400
SHORT: dict[str, Any] = {"ring_time": (0.05, 0.1), "talk_time": (0.1, 0.2)}

#: The dialer's rate over the bare client's. Measured: 0.14 on two idle cores, 0.09 on busy ones;
#: less than this means that something has become slow.
RATIO_AT_LEAST = 0.06


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


async def dialed(calls: int, folder: Path) -> tuple[float, float]:
    """Return the calls per second through one worker, and its CPU time per call in ms."""
    async with Stack(folder, cell={"threads": AT_ONCE}) as stack:
        stack.add_pbx(table={"max_calls": AT_ONCE, "cps": 1000}, **SHORT)
        await stack.start()
        await stack.push(50, last_two=60)
        await stack.responses(50)
        worker = stack.workers["pbx01"]
        cpu_s, began = worker.cpu_s(), time.monotonic()
        await stack.push(calls, last_two=60)
        await stack.responses(50 + calls, within_s=120.0)
        rate = calls / (time.monotonic() - began)
        return rate, (worker.cpu_s() - cpu_s) * 1000 / calls


async def measure(folder: Path) -> bool:
    """Measure both, one after the other."""
    bare_rate = await bare(CALLS)
    rate, cpu_ms = await dialed(CALLS, folder)
    ratio = rate / bare_rate
    sys.stdout.write(
        f"throughput: {CALLS} calls, at most {AT_ONCE} at once: {rate:.0f} calls/s from Request to "
        f"Response through one worker ({cpu_ms:.2f} ms of its CPU per call), "
        f"{bare_rate:.0f} calls/s by a bare AMI client: ratio {ratio:.2f} "
        f"(at least {RATIO_AT_LEAST:.2f})\n"
    )
    return ratio >= RATIO_AT_LEAST


def run() -> bool:
    """Print the figures; return True if they meet the limits."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder)))
