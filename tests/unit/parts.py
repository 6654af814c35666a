"""The parts of one worker on an Asterisk and a ledger that do as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from redis.exceptions import ResponseError

from dialer.domain.call import Call, Ending, State
from dialer.domain.channel import AmiEvent
from dialer.domain.follow_events import OriginateSent, Timeouts
from dialer.domain.followed import Followed
from dialer.errors import AmiUnavailable
from dialer.multcall.fields import PLAIN, Fields
from dialer.settings import Cell, Pbx
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting, WorkerLedger
from dialer.store.registry import Registry
from tests.unit.captured import CALL_ID
from tests.unit.lives import CELL, REQUEST
from tests.waiting import wait_until
from workers.ami import AmiLink
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.calls.journal import Journal
from workers.calls.originate import Originator
from workers.calls.tracker import Tracker
from workers.pbx.governor import PbxGovernor
from workers.pbx.hand_overs import HandOvers
from workers.pbx.state import PbxState
from workers.recovery.reconcile import Reconciler
from workers.recovery.replay import Replay

PBX = Pbx(
    name="pbx01",
    max_calls=10,
    cps=10,
    trunks={"tim": "PJSIP/{number}@tim", "vivo": "SIP/{number}@vivo"},
)
QUICK = Timeouts(pairing_s=0.01, channel_wait_s=0.01, record_s=0.01)


@dataclass(slots=True)
class Written:
    """A ledger and a registry that only record their calls."""

    cell: str = CELL
    steps: Any = None
    fields: Fields = PLAIN
    done: list[str] = field(default_factory=list)
    endings: list[tuple[Call, Ending]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    reply: str = "done"
    #: The ledger's claimed calls, or why it does not say them.
    has_claimed: list[Entry] | Exception = field(default_factory=list)
    #: How often each step is yet to be refused, as if a key were of another type.
    refusals: dict[str, int] = field(default_factory=dict)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    #: What a claim returns; `while_claiming` runs while its reply is on the way.
    to_claim: Entry | None = None
    while_claiming: Callable[[], None] = lambda: None
    claims: list[tuple[str, int]] = field(default_factory=list)
    claimed_as: dict[str, Any] = field(default_factory=dict)
    unclaimed_as: dict[str, Any] = field(default_factory=dict)
    #: What the ledger has of the calls that are asked for; `while_reading` runs during the read.
    known: list[Entry] = field(default_factory=list)
    while_reading: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.steps = self
        self.answers.set()

    async def _take(self, step: str) -> None:
        await self.answers.wait()
        if self.refusals.get(step):
            self.refusals[step] -= 1
            raise ResponseError("WRONGTYPE")
        self.done.append(step)

    async def or_none_if_down(self, work: Any) -> Any:
        return await work

    async def fence_off(self) -> None:
        await self.answers.wait()

    async def claimed(self, pbx: str) -> list[Entry]:
        await self.answers.wait()
        if isinstance(self.has_claimed, Exception):
            raise self.has_claimed
        return self.has_claimed

    async def entries(self, ids: list[str]) -> list[Entry]:
        self.while_reading()
        return [e for e in self.known if e.call.call_id in ids]

    async def claim(self, call_id: str, *, epoch: int, boot: str, **more: Any) -> Entry | None:
        await self._take("claim")
        self.claimed_as = {"boot": boot, **more}
        self.claims.append((call_id, epoch))
        self.while_claiming()
        return replace(self.to_claim, boot=boot) if self.to_claim else None

    async def unclaim(self, call_id: str, *, pbx: str, token: str) -> bool:
        await self._take("unclaim")
        self.unclaimed_as = {"pbx": pbx, "token": token}
        return True

    async def assign(self, waiting: Waiting, pbx: str) -> int:
        await self._take("assign")
        return waiting.epoch + 1

    async def accept(self, request: object, **_: Any) -> bool:
        await self._take("accept")
        return True

    async def answer(self, call_id: str, *, at: datetime) -> bool:
        await self._take("answer")
        return True

    async def end(self, call: Call, request: object, ending: Ending) -> str:
        await self._take("end")
        self.endings.append((call, ending))
        return self.reply

    async def end_release(self, call: Call, request: object, ending: Ending) -> str:
        reply = await self.end(call, request, ending)
        self.released.append(call.call_id)
        return reply

    async def release(self, pbx: str, call_ids: list[str], *, fence: int = 0) -> None:
        if self.refusals.get("release"):
            self.refusals["release"] -= 1
            raise ResponseError("NOPERM")
        self.released += call_ids


@dataclass(slots=True)
class Asterisk:
    """Stands where the AMI link does. `while_listing` runs while the channels are listed."""

    listed: dict[str, dict[str, str]] = field(default_factory=dict)
    astdb: dict[str, str] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    while_listing: Callable[[], None] = lambda: None
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: What each Originate raises, None if Asterisk accepts it.
    replies: list[Exception | None] = field(default_factory=list)
    started: str = "b"
    #: Values of dialplan functions; 1 for all others.
    values: dict[str, str] = field(default_factory=dict)
    include: bool = True
    confirms: bool = False
    is_lost: bool = False
    ready: bool = True
    session: int = 1
    #: What it says to a hang-up, '' if it does that.
    refusal: str = ""

    async def _ask(self, question: str) -> None:
        await asyncio.sleep(0)
        self.asked.append(question)
        if self.is_lost:
            raise AmiUnavailable("the link was lost")

    async def originate(self, fields: Any, *, action_id: str, within_s: float) -> None:
        self.sent.append((action_id, fields))
        if self.replies and (error := self.replies.pop(0)) is not None:
            raise error

    async def ask(self, action: dict[str, str], **_: Any) -> Any:
        await self._ask(action["Variable"])
        return SimpleNamespace(value=self.values.get(action["Variable"], "1"))

    async def hang_up(self, channel: str) -> str:
        await self._ask(f"hang up {channel}")
        return self.refusal

    async def boot(self) -> str:
        await self._ask("boot")
        return self.started

    async def has_include(self) -> bool:
        await self._ask("include")
        return self.include

    async def has_current_include(self) -> bool:
        await self._ask("hand-over")
        return self.confirms

    async def channels(self) -> dict[str, dict[str, str]]:
        self.while_listing()
        await self._ask("channels")
        return self.listed

    async def has_channel(self, uniqueid: str) -> bool:
        await self._ask("channel")
        return uniqueid in self.listed

    async def record(self, call_id: str) -> str | None:
        await self._ask("record")
        return self.astdb.get(call_id)

    async def records(self) -> dict[str, str]:
        return self.astdb

    async def delete_record(self, call_id: str) -> None:
        self.forgotten.append(call_id)

    def drop(self, why: str) -> None:
        self.dropped.append(why)


def entry(state: State = State.ORIGINATING, *, boot: str = "b", **fields: Any) -> Entry:
    """A claimed call as the ledger has it; `fields` are the request's."""
    call = Call(
        call_id=CALL_ID,
        state=state,
        epoch=1,
        pbx="pbx01",
        attempts=1,
        dialed_at=datetime.now(UTC),
        accepted_at=None if state is State.ORIGINATING else datetime.now(UTC),
    )
    request = replace(REQUEST, **fields)
    return Entry(call=call, request=request, boot=boot, expires_at=None)


@dataclass(slots=True)
class Parts:
    """The worker's parts, its Asterisk, its ledger, and the calls that it reported as ended."""

    cell: Cell
    asterisk: Asterisk = field(default_factory=Asterisk)
    written: Written = field(default_factory=Written)
    timeouts: Timeouts = QUICK
    done: list[Call] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    cells: Cells = field(default_factory=Cells)
    journal: Journal = field(default_factory=lambda: Journal("pbx01", refused_pause_s=0.0))
    state: PbxState = field(init=False)
    hand_overs: HandOvers = field(init=False)
    tracker: Tracker = field(init=False)
    replay: Replay = field(init=False)
    reconciler: Reconciler = field(init=False)
    governor: PbxGovernor = field(init=False)
    originator: Originator = field(init=False)

    def __post_init__(self) -> None:
        link = cast(AmiLink, self.asterisk)
        self.state = PbxState("pbx01", link, boot="b", has_include=True)
        self.cells.add(self.cell, cast(WorkerLedger, self.written))
        self.hand_overs = HandOvers(self.state)
        self.tracker = Tracker(
            state=self.state,
            hand_overs=self.hand_overs,
            link=link,
            cells=self.cells,
            calls=self.calls,
            journal=self.journal,
            registry=cast(Registry, self.written),
            on_done=lambda call, _: self.done.append(call),
            timeouts=self.timeouts,
        )
        self.replay = Replay("pbx01", self.calls, self.tracker)
        self.reconciler = Reconciler(
            self.state, link, self.cells, self.calls, self.tracker, self.journal, self.replay
        )
        self.governor = PbxGovernor("pbx01", PBX.cps, link)
        self.originator = Originator(
            PBX,
            self.state,
            link,
            self.cells,
            self.calls,
            self.tracker,
            self.replay,
            self.journal,
            self.governor,
            retry_pause_s=0.0,
        )

    def claimed(self) -> Parts:
        """A call that this worker claimed and has sent."""
        self.tracker.follow(entry(), "t")
        self.tracker.feed(CALL_ID, OriginateSent(attempt=1))
        return self

    @property
    def followed(self) -> Followed:
        followed = self.calls.get(CALL_ID)
        assert followed is not None
        return followed

    def hear(self, *events: AmiEvent) -> Parts:
        for event in events:
            self.tracker.on_event(event)
        return self

    async def ending(self) -> Ending:
        """The one ending, once it is written."""
        await wait_until(lambda: self.written.endings, "the call has ended")
        await self.journal.wait_done()
        ((_, ending),) = self.written.endings
        return ending


def parts(**cell: Any) -> Parts:
    return Parts(Cell(nome=CELL, threads=10, pbxs=("pbx01",), **cell))
