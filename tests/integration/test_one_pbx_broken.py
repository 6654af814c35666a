"""One of two PBXs is broken under load: no request waits long, and the monitor says why.

By default some ways are tried with few calls. `DIALER_BROKEN_S=60` tries all of them, with a load
that lasts so many seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dialer.monitor.snapshot import Snapshot, take_snapshot
from dialer.settings import load
from dialer.store.client import cancel, connect
from dialer.store.ledger import Survey
from dialer.store.registry import Registry
from dialer.store.steps import Steps
from tests.integration.broken_pbx import BREAKAGES, BROKEN, Breakage
from tests.integration.stack import CELL, Stack
from tests.waiting import wait_until

#: Calls a second, and for how long.
CPS = 10
LOAD_S = float(os.environ.get("DIALER_BROKEN_S", "6"))
WAYS = [way for way in BREAKAGES if way.is_in_ci or "DIALER_BROKEN_S" in os.environ]

#: No request waits longer for its ACK, in seconds.
ACK_WITHIN_S = 12.0

#: Every request has its Response this long after the last one was pushed, in seconds.
ANSWERED_WITHIN_S = 60.0

#: The monitor names the reason within this time, in seconds.
NAMED_WITHIN_S = 5.0


@dataclass(slots=True)
class Times:
    """When each request was pushed, got its ACK and its Response; seconds of a monotonic clock."""

    stack: Stack
    pushed: dict[str, float] = field(default_factory=dict)
    acked: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Note the ACKs and Responses that Multcall takes, until cancelled."""
        multcall = self.stack.multcall
        while True:
            now = time.monotonic()
            for took, noted in ((multcall.acks, self.acked), (multcall.responses, self.answered)):
                for one in took[len(noted) :]:
                    noted[one["IdRequisicao"]] = now
            await asyncio.sleep(0.01)

    async def load(self, seconds: float) -> None:
        """Push `CPS` requests a second."""
        began = time.monotonic()
        for i in range(int(CPS * seconds)):
            (request,) = await self.stack.push(1)
            self.pushed[request["IdRequisicao"]] = time.monotonic()
            await asyncio.sleep(max(0.0, began + (i + 1) / CPS - time.monotonic()))

    async def until_answered(self) -> None:
        """Wait until every request has its Response."""
        try:
            await wait_until(
                lambda: self.pushed.keys() <= self.answered.keys(),
                "every request has its Response",
                within_s=ANSWERED_WITHIN_S,
            )
        except AssertionError as error:
            missing = sorted(self.pushed.keys() - self.answered.keys())
            left = await self.stack.leftovers()
            raise AssertionError(f"{error}: {missing}; {left}") from None

    def late(self) -> dict[str, float]:
        """Return the requests that waited too long for their ACK, with the seconds.

        A call whose Originate was sent and never accepted gets no ACK: it may ring, so that no
        other PBX may dial it. Other requests without ACK count until their Response.
        """
        never = {r["IdRequisicao"] for r in self.stack.multcall.responses if r["DiscadaEm"]}
        waited = {
            i: self.acked.get(i, self.answered[i]) - at
            for i, at in self.pushed.items()
            if i in self.acked or i not in never
        }
        return {i: seconds for i, seconds in waited.items() if seconds > ACK_WITHIN_S}


@dataclass(slots=True)
class Watch:
    """The snapshots of a monitor: when each was taken and what it named."""

    stack: Stack
    seen: list[tuple[float, list[str]]] = field(default_factory=list)

    async def run(self) -> None:
        """Take snapshots until cancelled."""
        settings = load(self.stack.config_path)
        steps = Steps(connect(self.stack.valkey.url(0)), "Redis")
        surveys = [(Survey(steps), {CELL: tuple(self.stack.pbxs)})]
        try:
            while True:
                at = time.monotonic()
                found: Snapshot = await take_snapshot(Registry(steps), settings.pbxs, surveys)
                self.seen.append((at, found.troubles()))
                await asyncio.sleep(0.25)
        finally:
            await steps.close()

    def named(self, words: tuple[str, ...], since: float) -> float | None:
        """Return how long it took to name the reason, None if it was not named."""
        for at, troubles in self.seen:
            found = [t for t in troubles if BROKEN in t and any(word in t for word in words)]
            if at >= since and found:
                return at - since
        return None

    def well(self, after: float, until: float) -> list[float]:
        """Return when it said that all is well, in seconds after `after`."""
        return [at - after for at, troubles in self.seen if after <= at < until and not troubles]


@asynccontextmanager
async def running(*tasks: asyncio.Task[None]) -> AsyncIterator[None]:
    """Cancel the tasks at the end; an error in one is raised."""
    try:
        yield
    finally:
        for task in tasks:
            if task.done():
                task.result()  # its error says more than the test's own
        await cancel(tasks)


async def settled(stack: Stack) -> None:
    """Wait until both workers have found their place: a fast PBX alone does not count."""
    await stack.push(4)
    await stack.responses(4)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_one_broken_pbx_delays_no_request_for_long(tmp_path: Path, way: Breakage) -> None:
    cell = {"timeout_command_response": 6, "threads": 50}
    async with Stack(tmp_path, cell=cell, settings={"recovery": {"pbx_lost_after": 8}}) as stack:
        for name in ("pbx01", BROKEN):
            stack.add_pbx(name, table={"max_calls": 50, "cps": 20})
        await stack.start(workers=False)
        environment = await way.before(stack) if way.before else None
        for name in stack.pbxs:
            await stack.start_worker(name, env=environment if name == BROKEN else None)
        await settled(stack)
        times, watch = Times(stack), Watch(stack)
        noting = asyncio.create_task(times.run())
        watching = asyncio.create_task(watch.run())
        async with running(noting, watching), way.breaks(stack):
            since = time.monotonic()
            await times.load(LOAD_S)
            await times.until_answered()
            until = time.monotonic()
        assert times.late() == {}
        if way.says:
            took = watch.named(way.says, since)
            assert took is not None, watch.seen
            assert took <= NAMED_WITHIN_S
            assert watch.well(since + NAMED_WITHIN_S, until) == []
