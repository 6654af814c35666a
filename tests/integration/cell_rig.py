"""One cell on a real Valkey, for tests of its ledger and of the bridge's parts.

`Site` simulates Multcall and the worker with the real steps; `Nudges` replaces the bridge's
`Dispatcher` and keeps what would have been published.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self, cast

from redis.asyncio import Redis

from dialer.bridge.cell import BridgeCell
from dialer.bridge.codes import Codes
from dialer.bridge.dispatch import Dispatcher
from dialer.bridge.intake import Intake
from dialer.bridge.life import BLOCK_QUIET_S, Life
from dialer.bridge.nudges import Nudge
from dialer.bridge.parked import ParkedSweep
from dialer.bridge.pulse import Beating, Pulse
from dialer.bridge.reaper import Reaper
from dialer.bridge.recovery import Recovery
from dialer.domain.call import Ending, Result
from dialer.domain.numbers import BY_DIGITS, Numbering
from dialer.domain.request import CallRequest, call_id
from dialer.domain.room import PbxLimits
from dialer.multcall.code import parse_code
from dialer.multcall.request import parse_request
from dialer.multcall.wire import STRICT, Wire
from dialer.settings import Cell, Pbx
from dialer.store.client import cancel, connect
from dialer.store.entry import Entry
from dialer.store.ledger import (
    Admissible,
    Admission,
    BridgeLedger,
    CellState,
    Delivery,
    Survey,
    Waiting,
    WorkerLedger,
)
from dialer.store.registry import Link, Registry
from dialer.store.steps import Steps
from tests.waiting import wait_until

CELL: Final = "ASR_TIM"
BRIDGE: Final = "bridge-1"
T0: Final = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
BEAT_EVERY_S: Final = 1.0
BUSY: Final = Ending(result=Result.BUSY, ended_at=T0, cause=17)

READING: Final[Mapping[bytes, Callable[[bytes], tuple[Any, ...]]]] = {
    b"hash": lambda key: ("HGETALL", key),
    b"string": lambda key: ("GET", key),
    b"set": lambda key: ("SMEMBERS", key),
    b"list": lambda key: ("LRANGE", key, 0, -1),
    b"zset": lambda key: ("ZRANGE", key, 0, -1),
}


class WholeLedger(BridgeLedger, WorkerLedger):
    """Bridge and worker in one, for tests that play both."""

    __slots__ = ()


@dataclass(slots=True)
class Nudges:
    """A dispatcher that publishes nothing and remembers all."""

    sent: list[Nudge] = field(default_factory=list)
    problem: str = ""
    looks: int = 0

    def look(self) -> None:
        self.looks += 1

    async def publish(self, nudges: Sequence[Nudge]) -> None:
        self.sent += nudges

    @property
    def calls(self) -> list[tuple[str, str, int]]:
        """Call id, PBX and epoch of each, in the order they were sent."""
        return [(n.call_id, n.pbx, n.epoch) for n in self.sent]

    async def until(self, n: int) -> None:
        """Wait until `n` were sent; a call is in the ledger before its nudge is sent."""
        await wait_until(lambda: len(self.sent) >= n, f"{n} nudges")


def pbx(name: str = "pbx01", **fields: Any) -> PbxLimits:
    known = {"max_calls": 50, "cps": 1000, "trunks": frozenset({"tim"})}
    return PbxLimits(name=name, **{**known, **fields})


def pbx_table(name: str = "pbx01") -> Pbx:
    """The same PBX as the settings have it."""
    fields = {"trunks": {"tim": "PJSIP/{number}@tim"}, "secret": "s"}
    return Pbx(name=name, max_calls=50, cps=1000, **fields)  # type: ignore[arg-type]


def governor(
    limit: float = 0, trunks: Mapping[str, Mapping[str, float]] | None = None, **fields: Any
) -> str:
    """What the heartbeat of `Site.beat` says of its governor."""
    return json.dumps({"limit": limit, "trunks": trunks or {}, "instance": "i1", **fields})


def cell(*pbxs: str, **fields: Any) -> Cell:
    known = {"nome": CELL, "threads": 50, "pbxs": pbxs or ("pbx01",)}
    return Cell(**{**known, **fields})


def element(request_id: str = "r-1", number: str = "5511987654321", **fields: Any) -> bytes:
    """A request as Multcall pushes it."""
    return json.dumps({"IdRequisicao": request_id, "Telefone": number, **fields}).encode()


def code_element(request_id: str = "r-1", code: Any = "C-1") -> bytes:
    return json.dumps({"IdRequisicao": request_id, "CodLigacao": code}).encode()


@dataclass(slots=True)
class Site:
    """A cell's ledger and registry on one server. An async context manager."""

    url: str
    cell: str = CELL
    push: Literal["right", "left"] = "right"
    redis: Redis = field(init=False)
    steps: Steps = field(init=False)
    _beats: dict[str, tuple[Link, str]] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        self.redis = self.client()
        self.steps = self.more_steps()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def client(self) -> Redis:
        client = connect(self.url, waits_s=BLOCK_QUIET_S)  # as a bridge's that waits
        self._stack.push_async_callback(client.aclose)
        return client

    def more_steps(self, where: str = "the Redis of the test") -> Steps:
        steps = Steps(connect(self.url), where)
        self._stack.push_async_callback(steps.close)
        return steps

    @property
    def ledger(self) -> WholeLedger:
        return WholeLedger(self.steps, self.cell, self.push)

    @property
    def registry(self) -> Registry:
        return Registry(self.steps)

    async def surveyed(self, *pbxs: str, minutes: int = 0) -> CellState:
        """What the monitor reads of the cell."""
        return (await Survey(self.steps, minutes).read({self.cell: pbxs}))[self.cell]

    # --- Multcall ------------------------------------------------------------------

    async def push_requests(self, *raw: bytes) -> None:
        push = self.redis.rpush if self.push == "right" else self.redis.lpush
        for one in raw:
            await push(self.ledger.wire.request, one)

    async def push_codes(self, *raw: bytes) -> None:
        push = self.redis.rpush if self.push == "right" else self.redis.lpush
        for one in raw:
            await push(self.ledger.wire.code, one)

    async def listed(self, key: str) -> list[bytes]:
        return cast("list[bytes]", await self.redis.lrange(key, 0, -1))

    async def responses(self) -> list[Any]:
        return [json.loads(raw) for raw in await self.listed(self.ledger.wire.response)]

    async def acks(self) -> list[Any]:
        return [json.loads(raw) for raw in await self.listed(self.ledger.wire.ack)]

    async def dead(self) -> list[Any]:
        return [json.loads(raw) for raw in await self.listed(self.ledger.keys.dead)]

    async def counters(self) -> tuple[int, int]:
        wire = self.ledger.wire
        values = await self.redis.mget(wire.counter, wire.counter_ack)
        return int(values[0] or 0), int(values[1] or 0)

    async def sizes(self) -> tuple[int, int]:
        keys = self.ledger.keys
        return await self.redis.zcard(keys.live), await self.redis.zcard(keys.awaiting)

    async def field(self, request_id: str, name: str) -> str | None:
        key = self.ledger.keys.call(call_id(self.cell, request_id))
        value = cast("bytes | None", await self.redis.hget(key, name))
        return value.decode() if value is not None else None

    async def state(self, request_id: str = "r-1") -> str | None:
        return await self.field(request_id, "state")

    async def snapshot(self) -> dict[bytes, Any]:
        """Every key and what it holds."""
        names = cast("list[bytes]", await self.redis.keys())
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.type(name)
            for name, kind in zip(names, await pipe.execute(), strict=True):
                pipe.execute_command(*READING[kind](name))
            return dict(zip(names, await pipe.execute(), strict=True))

    # --- a call's life, by the ledger's own steps ------------------------------------

    async def in_hand(self, *raw: bytes, bridge: str = BRIDGE) -> None:
        """Put requests into a bridge's hand."""
        await self.redis.rpush(self.ledger.keys.hand(bridge), *raw)

    async def admitted(
        self,
        request_id: str = "r-1",
        *,
        pbx: str = "pbx01",
        raw: bytes | None = None,
        **fields: Any,
    ) -> CallRequest:
        """A call that was admitted and queued, with its slot leased."""
        raw = raw or element(request_id, **fields)
        request = parse_request(raw, cell=self.cell)
        await self.in_hand(raw)
        await self.redis.zadd(f"dialer:slots:{pbx}", {request.call_id: 1})
        hand = self.ledger.keys.hand(BRIDGE)
        one = Admissible(source=hand, raw=raw, request=request)
        reply = await self.ledger.admit(one, pbx=pbx, threads=10_000)
        assert reply is Admission.ADMITTED
        return request

    async def claimed(
        self,
        request_id: str = "r-1",
        *,
        pbx: str = "pbx01",
        epoch: int = 1,
        token: str = "t",
        at: datetime = T0,
    ) -> Entry | None:
        return await self.ledger.claim(
            call_id(self.cell, request_id), pbx=pbx, epoch=epoch, at=at, boot="b1", token=token
        )

    async def accepted(self, request_id: str = "r-1", *, wait_s: float = 60) -> Entry:
        """A call from nothing to its ACK."""
        await self.admitted(request_id)
        entry = await self.claimed(request_id)
        assert entry is not None
        assert await self.accept(entry, wait_s=wait_s)
        (now,) = await self.ledger.entries([entry.call.call_id])
        return now

    async def accept(self, entry: Entry, *, wait_s: float = 60) -> bool:
        return await self.ledger.accept(
            entry.request,
            pbx=entry.call.pbx or "",
            uniqueid=entry.call.call_id,
            attempts=1,
            at=T0,
            code_wait_s=wait_s,
        )

    async def entry(self, request_id: str = "r-1") -> Entry:
        (entry,) = await self.ledger.entries([call_id(self.cell, request_id)])
        return entry

    async def waiting(self, request_id: str = "r-1") -> Waiting:
        call = (await self.entry(request_id)).call
        return Waiting(call_id=call.call_id, state=call.state, epoch=call.epoch, pbx=call.pbx)

    async def end(self, request_id: str = "r-1", ending: Ending = BUSY) -> str:
        entry = await self.entry(request_id)
        return await self.ledger.end(entry.call, entry.request, ending)

    async def code(self, raw: bytes | None = None, *, put: bool = True) -> Delivery:
        """Deliver a code from the bridge's hand, or bury it, as the bridge does."""
        raw = raw or code_element()
        if put:
            await self.redis.rpush(self.ledger.keys.code_hand(BRIDGE), raw)
        code = parse_code(raw)
        delivery = await self.ledger.code(
            BRIDGE,
            raw,
            call_id=call_id(self.cell, code.request_id),
            code_json=code.code_json,
        )
        if delivery in (Delivery.ORPHAN, Delivery.SECOND):
            await self.ledger.bury(self.ledger.keys.code_hand(BRIDGE), raw, json.dumps(delivery))
        return delivery

    async def beat(
        self, name: str = "pbx01", link: Link = "up", instance: str = "i1", **facts: str | int
    ) -> None:
        self._beats[name] = link, instance
        await self.registry.heartbeat(name, instance=instance, link=link, facts=facts)

    async def beat_on(self) -> None:
        """Repeats the last heartbeat of each PBX, as its worker does, however slow the test is."""
        while True:
            for name in tuple(self._beats):
                link, instance = self._beats[name]
                await self.registry.heartbeat(name, instance=instance, link=link, facts={})
            await asyncio.sleep(BEAT_EVERY_S)

    async def silence(self, name: str, *, seconds: float) -> None:
        """Make the PBX's last heartbeat that old."""
        self._beats.pop(name, None)
        key = f"dialer:pbx:{name}"
        now_s, _ = await self.redis.time()
        old = int((now_s - seconds) * 1000)
        await self.redis.hset(key, mapping={"seen_ms": old, "ready_ms": old})

    async def slots(self, name: str = "pbx01") -> set[str]:
        members = cast("list[bytes]", await self.redis.zrange(f"dialer:slots:{name}", 0, -1))
        return {m.decode().partition(":")[2] for m in members}


@dataclass(slots=True)
class Bridge:
    """The parts of one bridge for one cell, run by hand or as tasks. Nothing is published."""

    cell: BridgeCell
    pbxs: Site
    nudges: Nudges
    intake: Intake
    parked: ParkedSweep
    codes: Codes
    recovery: Recovery
    reaper: Reaper
    pulse: Pulse

    @classmethod
    def of(
        cls,
        site: Site,
        *,
        name: str = BRIDGE,
        cell_table: Cell | None = None,
        pbxs: Sequence[PbxLimits] | None = None,
        former: Sequence[str] = (),
        pbx_lost_after_s: float = 120,
        wire: Wire = STRICT,
        numbering: Numbering = BY_DIGITS,
    ) -> Self:
        """A bridge of its own connections, like a process of its own.

        `former` are PBXs of the settings that the cell does not name.
        """
        nudges = Nudges()
        steps = site.more_steps(name)
        pbxs = tuple(pbxs or [pbx()])
        where = BridgeCell(
            bridge=name,
            settings=cell_table or cell(*(p.name for p in pbxs), nome=site.cell),
            pbxs=pbxs,
            all_pbxs=(*(p.name for p in pbxs), *former),
            ledger=BridgeLedger(steps, site.cell, site.push, wire.fields, numbering),
            registry=Registry(steps, numbering),
            dispatcher=cast("Dispatcher", nudges),
            wire=wire,
        )
        life = Life()
        intake = Intake(where, site.client(), life)
        recovery = Recovery(where, pbx_lost_after_s, life)
        return cls(
            cell=where,
            pbxs=site,
            nudges=nudges,
            intake=intake,
            parked=ParkedSweep(where, intake),
            codes=Codes(where, site.client(), life),
            recovery=recovery,
            reaper=Reaper(where, recovery, life=life),
            pulse=Pulse(name, steps, where.clock, [Beating(life, recovery)]),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """All parts run as the service runs them, and the PBXs; what one raises is raised here."""
        parts = (
            self.pbxs.beat_on,
            self.intake.run,
            self.codes.run,
            self.codes.run_late,
            self.pulse.run,
            self.recovery.run,
            self.reaper.run,
            self.parked.run,
        )
        async with task_of(*(part() for part in parts)):
            yield self


@asynccontextmanager
async def task_of(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines that never end while the block runs; an error in one is raised at its end."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        yield
    finally:
        ended = [task for task in tasks if task.done()]
        await cancel(tasks)
        for task in ended:  # also if the block failed: this is why
            task.result()
