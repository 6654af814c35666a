"""A worker whose ledger asks for a call that ended here: forgotten by a failover, or a new one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dialer.domain.call import Call, Ending
from dialer.store.keys import DONE_RETENTION_S
from tests.integration.cell_rig import BUSY, CELL, Site, cell, pbx
from workers.calls.originate import Originator
from workers.calls.remembered import Remembered
from workers.calls.tracker import Tracker
from workers.recovery.reconcile import Reconciler

R1 = f"{CELL}:r-1"


@dataclass(slots=True)
class Worker:
    """What places calls on pbx01, whose Asterisk takes all. `now` is its memory's clock."""

    site: Site
    now: float = 0.0
    sent: list[str] = field(default_factory=list)
    fields: list[Any] = field(default_factory=list)
    originator: Originator = field(init=False)

    def __post_init__(self) -> None:
        async def originate(fields: object, *, action_id: str, within_s: float) -> None:
            self.sent.append(action_id)
            self.fields.append(fields)

        async def forget(call_id: str) -> None: ...
        async def settle(*_: object) -> None: ...
        def on_done(call: Call, ending: Ending) -> None: ...

        link = cast(Any, SimpleNamespace(ready=True, originate=originate))
        tracker = Tracker(
            pbx="pbx01",
            cells={CELL: cell()},
            ledgers={CELL: self.site.ledger},
            registry=self.site.registry,
            on_done=on_done,
            forget=forget,
            settle=settle,
            remembered=Remembered(clock=lambda: self.now),
        )
        reconciler = Reconciler(link, tracker)
        targets = cast(Any, SimpleNamespace(lacking={}))
        self.originator = Originator(pbx(), link, tracker, reconciler, targets)

    async def live(self) -> None:
        """A call from its admission to its Response, of which the ledger then knows nothing."""
        tracker = self.originator.tracker
        await self.site.admitted()
        await self.originator.place(R1, 1)
        tracker.end(tracker.calls[R1], BUSY)
        await tracker.writes.drain()
        assert await self.site.code(put=True) == "done"
        await self.site.redis.delete(self.site.ledger.keys.call(R1))


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    async with Site(redis_url) as site:
        yield Worker(site)


@pytest.mark.parametrize("how", ["its task comes", "the ledger is back"])
@pytest.mark.parametrize("again", [False, True])
async def test_an_id_is_dialed_again_when_its_call_ended_longer_ago_than_the_ledger_keeps_it(
    worker: Worker, how: str, again: bool
) -> None:
    await worker.live()
    worker.now += DONE_RETENTION_S if again else DONE_RETENTION_S - 1
    await worker.site.admitted()
    if how == "the ledger is back":
        await worker.originator.reconciler.reminder.remind(worker.site.ledger)
    await worker.originator.place(R1, 1)
    await worker.originator.tracker.writes.drain()
    assert len(worker.sent) == (2 if again else 1)
    assert len(await worker.site.responses()) == (1 if again else 2)
    assert await worker.site.state() == ("accepted" if again else "done")
