"""The hub: one look for all viewers, whoever leaves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from dialer.store.client import cancel
from dialer.web.hub import Hub
from tests.waiting import wait_until


@dataclass(slots=True)
class Reads:
    """Looks that last until the test ends them. Each sees its number."""

    begun: int = 0
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> Any:
        self.begun += 1
        seen = self.begun
        await self.may_end.wait()
        return seen

    async def leave_during_a_look(self, hub: Hub) -> None:
        """A viewer comes, a look begins, and the viewer leaves."""
        begun = self.begun
        self.may_end.clear()
        viewer = asyncio.create_task(hub.now())
        await wait_until(lambda: self.begun == begun + 1, "a look began")
        await cancel([viewer])


async def test_a_viewer_who_leaves_does_not_cancel_the_look() -> None:
    reads = Reads()
    hub = Hub(reads.read)
    await reads.leave_during_a_look(hub)
    viewer = asyncio.create_task(hub.now())
    reads.may_end.set()
    look: Any = await viewer
    assert (look.seen, look.number, look.trouble) == (1, 1, "")
    assert reads.begun == 1


async def test_a_viewer_who_leaves_leaves_no_old_look() -> None:
    reads = Reads()
    reads.may_end.set()
    hub = Hub(reads.read, every_s=60.0)
    look: Any = await hub.now()
    assert look.seen == 1
    hub._tried_at -= 61.0  # the first look is old
    await reads.leave_during_a_look(hub)
    viewer = asyncio.create_task(hub.now())
    reads.may_end.set()
    look = await viewer
    assert look.seen == 2


async def test_an_unexpected_error_is_no_look() -> None:
    async def read() -> Any:
        raise ValueError("not a look")

    hub = Hub(read)
    for _ in range(2):
        with pytest.raises(ValueError, match="not a look"):
            await hub.now()


async def test_viewers_at_once_share_a_look() -> None:
    reads = Reads()
    hub = Hub(reads.read)
    viewers = [asyncio.create_task(hub.now()) for _ in range(5)]
    await wait_until(lambda: reads.begun == 1, "a look began")
    reads.may_end.set()
    assert {look.number for look in await asyncio.gather(*viewers)} == {1}
