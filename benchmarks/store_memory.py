"""Bytes of Redis per call that is live or done, and per element on the dead list.

The server is an embedded Valkey. Figures are `used_memory` (what `maxmemory` bounds)
divided by the number of calls; they include the indexes and the expiry of the keys.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass

from benchmarks.tables import Table
from dialer.multcall.answers import dead
from dialer.simulation.valkey import EmbeddedValkey
from tests.integration.cell_rig import BRIDGE, T0, Site, code_element, element
from tests.waiting import wait_until

CALLS = 5000

#: `used_memory` is stable if it changes by less than a byte per call within this time, in seconds.
SETTLED_S = 1.0

#: Limits in bytes. A done call stays for 24 h, so it determines the memory for the calls of a day.
LIVE_BYTES = 2000
DONE_BYTES = 250
DEAD_BYTES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes of Redis per call. A live call has `Dados` of 200 bytes and was accepted."""

    queued: float
    live: float
    done: float
    dead: float


async def measure(url: str) -> Measured:
    """Run `CALLS` calls through every state on the empty server at `url`."""
    async with Site(url) as site:
        await site.accepted("first")  # loads the scripts
        empty = await used(site)
        names = [f"20260504-{i:06}" for i in range(CALLS)]
        for name in names:
            await site.admitted(name, Dados={"note": "x" * 188})
        queued = await used(site)
        for name in names:
            await accept(site, name)
        live = await used(site)
        for name in names:
            await site.end(name)
            await site.code(code_element(name))
            await site.registry.release("pbx01", [f"{site.cell}:{name}"])
            await site.redis.delete(site.ledger.wire.response)
        done = await used(site)
        for name in names:
            await bury(site, element(name, "not a number"))
        full = await used(site)
    return Measured(
        queued=(queued - empty) / CALLS,
        live=(live - empty) / CALLS,
        done=(done - empty) / CALLS,
        dead=(full - done) / CALLS,
    )


async def accept(site: Site, name: str) -> None:
    """Claim and accept the call; delete its ACK, which Multcall would read."""
    entry = await site.claimed(name)
    assert entry is not None
    await site.accept(entry)
    await site.redis.delete(site.ledger.wire.ack)


async def bury(site: Site, raw: bytes) -> None:
    await site.in_hand(raw)
    message = "Telefone must be text of 3 to 20 digits, perhaps with a + in front"
    entry = dead(raw=raw, source="request", reason="invalid_request", message=message, at=T0)
    await site.ledger.bury(site.ledger.keys.hand(BRIDGE), raw, entry)


async def used(site: Site) -> int:
    """Return `used_memory` when it is stable: deleted keys are freed, tables resized."""
    last = -1

    async def stable() -> int:
        nonlocal last
        before, last = last, int((await site.redis.info("memory"))["used_memory"])
        await asyncio.sleep(SETTLED_S)
        return last if abs(last - before) < CALLS else 0

    return await wait_until(stable, "used_memory is stable")


def add_arguments(_: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(_: argparse.Namespace) -> list[Table]:
    """Measure."""
    with EmbeddedValkey() as server:
        found = asyncio.run(measure(server.url()))
    return [
        Table(
            name="store_memory",
            title="Redis memory in bytes",
            columns=("what", "bytes", "limit"),
            rows=[
                {"what": "a queued call", "bytes": round(found.queued)},
                {"what": "an accepted call", "bytes": round(found.live), "limit": LIVE_BYTES},
                {"what": "a done call", "bytes": round(found.done), "limit": DONE_BYTES},
                {"what": "a dead element", "bytes": round(found.dead), "limit": DEAD_BYTES},
            ],
        )
    ]
