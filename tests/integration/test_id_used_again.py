"""A worker is asked to dial an id that it has dialed before: after a failover, or a new call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dialer.domain.call import Call, Ending
from dialer.domain.channel import HungUp
from dialer.store.keys import DONE_RETENTION_S
from tests.integration.cell_rig import CELL, Site, cell, pbx_table
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.calls.journal import Journal
from workers.calls.originate import Originator
from workers.calls.remembered import Remembered
from workers.calls.tracker import Tracker
from workers.pbx.governor import PbxGovernor
from workers.pbx.hand_overs import HandOvers
from workers.pbx.state import PbxState
from workers.recovery.replay import Replay

R1 = f"{CELL}:r-1"


@dataclass(slots=True)
class Worker:
    """What dials calls on pbx01, whose Asterisk takes all. `now` is its memory's clock."""

    site: Site
    now: float = 0.0
    sent: list[str] = field(default_factory=list)
    fields: list[Any] = field(default_factory=list)
    ended: list[Call] = field(default_factory=list)
    calls: Calls = field(init=False)
    journal: Journal = field(init=False)
    replay: Replay = field(init=False)
    originator: Originator = field(init=False)
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        async def originate(fields: object, *, action_id: str, within_s: float) -> None:
            self.sent.append(action_id)
            self.fields.append(fields)

        async def ask(action: object, **_: object) -> object:
            return SimpleNamespace(value="1")

        async def delete_record(call_id: str) -> None: ...
        def on_done(call: Call, ending: Ending) -> None:
            self.ended.append(call)

        link = cast(
            Any,
            SimpleNamespace(ready=True, ask=ask, originate=originate, delete_record=delete_record),
        )
        state = PbxState("pbx01", link)
        cells = Cells()
        cells.add(cell(), self.site.ledger)
        self.calls = Calls(Remembered(clock=lambda: self.now))
        self.journal = Journal("pbx01")
        self.tracker = Tracker(
            state,
            link,
            cells,
            self.calls,
            self.journal,
            self.site.registry,
            HandOvers(state),
            on_done,
        )
        self.replay = Replay("pbx01", self.calls, self.tracker)
        self.originator = Originator(
            pbx_table(),
            state,
            link,
            cells,
            self.calls,
            self.tracker,
            self.replay,
            self.journal,
            PbxGovernor("pbx01", 1000, link),
        )

    async def live(self) -> None:
        """A call from its admission to its Response, of which the ledger then knows nothing."""
        await self.site.admitted()
        await self.originator.dial(R1, 1)
        self.tracker.on_event(HungUp(uniqueid=R1, cause=17, cause_text=None))
        await self.journal.wait_done()
        assert await self.site.code(put=True) == "done"
        await self.site.redis.delete(self.site.ledger.keys.call(R1))


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    async with Site(redis_url) as site:
        yield Worker(site)


@pytest.mark.parametrize("how", ["its task comes", "the ledger is back"])
@pytest.mark.parametrize("again", [False, True])
async def test_id_is_dialed_again_after_the_ledger_forgot_it(
    worker: Worker, how: str, again: bool
) -> None:
    await worker.live()
    worker.now += DONE_RETENTION_S if again else DONE_RETENTION_S - 1
    await worker.site.admitted()
    if how == "the ledger is back":
        await worker.replay.replay(worker.site.ledger)
    await worker.originator.dial(R1, 1)
    await worker.journal.wait_done()
    assert len(worker.sent) == (2 if again else 1)
    assert len(await worker.site.responses()) == (1 if again else 2)
    assert await worker.site.state() == ("accepted" if again else "done")
