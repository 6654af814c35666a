"""One run: a site that dials while parts of it die, its supervisor, and who looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.simulation.multcall.checker import Checker, Summary
from dialer.simulation.multcall.player import play
from dialer.store.client import connect
from tests.chaos.clock import compiler
from tests.chaos.control import Control
from tests.chaos.deeds import DEEDS
from tests.chaos.faults import COMPILER, ONE_REDIS, SENTINEL, WORKERS, Fault, Points, plan
from tests.chaos.leaks import leaks
from tests.chaos.places import Pbxs, Store
from tests.chaos.site import CELL, Ground
from tests.chaos.supervisor import Supervisor
from tests.processes import READY_WITHIN_S, Program, Site
from tests.waiting import wait_until

MIX = {"answered": 60, "busy": 10, "rejected": 5, "invalid_number": 8, "congestion": 5,
       "no_answer": 8, "repeated": 2, "malformed": 2}  # fmt: skip

#: After the last fault, all must be answered within this time, in seconds.
SETTLE_S = 120.0

#: Each request expires after this time: longer than any waits, shorter than a wrong clock is off.
VALID_FOR_S = 500.0

#: A PBX whose heartbeat is older is not ready, in seconds.
FRESH_S = 3.0


@dataclass(slots=True, kw_only=True)
class Done:
    """One fault that was injected; the calls that were up, the workers, and the ready ones."""

    kind: str
    target: str
    up: frozenset[str]
    ready: frozenset[str]
    pids: Mapping[str, int]


class InTheWay(NamedTuple):
    """What is in the way of a check: another process, a fault of Redis, faults of the same."""

    pid: int | None
    redis: bool
    others: int


@dataclass(slots=True)
class Chaos:
    """One run's parts. `faults` is how many to inject, failure points included."""

    seed: int
    faults: int
    calls: int
    rate: float
    pace_s: float
    folder: Path
    points: dict[str, Points]
    pbxs: Pbxs
    store: Store
    only: Sequence[str] = ()
    done: list[Done] = field(default_factory=list)
    under_way: dict[str, Fault] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    checker: Checker | None = None
    leaks: list[str] = field(default_factory=list)
    rung: Counter[str] = field(default_factory=Counter)
    cut_off: set[str] = field(default_factory=set)
    crashes: list[str] = field(default_factory=list)
    judged: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    ground: Ground = field(init=False)
    _site: Site | None = None
    _redis: Redis | None = None
    _control: Control | None = None

    def __post_init__(self) -> None:
        self.ground = Ground(self.folder, self.seed, self.pbxs, self.store)

    @property
    def site(self) -> Site:
        assert self._site is not None
        return self._site

    @property
    def redis(self) -> Redis:
        """A client of the run's Redis, beside all proxies."""
        assert self._redis is not None
        return self._redis

    async def run(self) -> Summary:
        """The whole run; return Multcall's summary."""
        try:
            await self.pbxs.up()
            await self.store.up()
            self._redis = connect(self.store.url(0), reply_timeout_s=1.0)
            await self._redis.flushall()
            self._site = await self.ground.made()
            self._control = Control(self.store.url(1))
            return await self._run()
        finally:
            await self.ground.close()
            if self._redis is not None:
                await self._redis.aclose()
            await self.store.down()
            await self.pbxs.down()

    async def _run(self) -> Summary:
        rng = random.Random(self.seed)  # a plan, not a secret
        try:
            await self._start()
            keepers = [
                asyncio.create_task(
                    Supervisor(self, name, random.Random(f"{self.seed}{name}")).keep()
                )
                for name in self.site.programs
            ]
            faults = asyncio.create_task(self._inject(rng))
            try:
                return await self._play()
            finally:
                self.over.set()
                try:
                    await faults
                    await self._look_for_leaks()
                finally:
                    self.closing.set()
                    await asyncio.gather(*keepers)
        finally:
            await asyncio.to_thread(self.site.stop)

    async def _start(self) -> None:
        for program in self.site.programs.values():
            program.start()
        for pbx in WORKERS:
            await wait_until(
                partial(self.is_ready, pbx), f"{pbx} is ready", within_s=READY_WITHIN_S
            )

    async def _play(self) -> Summary:
        def watch(checker: Checker) -> None:
            self.checker = checker

        prefix = f"+55{int(time.time()) % 10**7:07d}"

        def rung() -> Counter[str]:
            rings = self.pbxs.rings()
            self.rung = Counter({n: c for n, c in rings.items() if n.startswith(prefix)})
            self.cut_off = {n for n in self.pbxs.cut_off() if n.startswith(prefix)}
            return self.rung

        return await play(
            self.store.url(0),
            [CELL],
            self.calls,
            self.rate,
            mix=MIX,
            number_prefix=prefix,
            code_delay_s=0.05,
            code_wait_s=8.0,
            valid_for_s=VALID_FOR_S,
            answered_within_s=self.pace_s * self.faults + SETTLE_S,
            disturbed=True,
            seed=self.seed,
            rings=rung,
            watch=watch,
        )

    # --- what faults need ------------------------------------------------------------

    def end(self, target: str, signum: signal.Signals) -> None:
        """Kill or terminate a program; its supervisor starts it again."""
        program = self.site.programs[target]
        self.killed.add(program.pid)
        program.send(signum)

    @asynccontextmanager
    async def standing_still(self, program: Program) -> AsyncIterator[None]:
        """The program is stopped (SIGSTOP) as long as the block runs."""
        pid = program.pid
        self.stopped.add(pid)
        program.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.stopped.discard(pid)
            program.send(signal.SIGCONT)

    async def control(self, command: str, queue: str, names: Sequence[str]) -> None:
        """Give the workers of these PBXs a control command of Celery."""
        assert self._control is not None
        await self._control.command(command, queue, names, self.site.programs)

    async def heartbeat(self, pbx: str) -> dict[str, str]:
        """The PBX's heartbeat and its age in seconds (`age_s`); empty if Redis does not answer."""
        try:
            fields: Any = await self.redis.hgetall(f"dialer:pbx:{pbx}")
            now_s, now_us = await self.redis.time()
        except (RedisError, OSError):
            return {}
        beat = {name.decode(): value.decode() for name, value in fields.items()}
        age_s = now_s + now_us / 1e6 - int(beat.get("seen_ms", 0)) / 1000
        return {**beat, "age_s": f"{age_s:.3f}"}

    async def is_ready(self, pbx: str) -> bool:
        """True if the PBX says that it takes calls, and said so lately."""
        beat = await self.heartbeat(pbx)
        is_up = beat.get("link") == "up" and not beat.get("trouble")
        return is_up and float(beat.get("age_s", FRESH_S)) < FRESH_S

    async def note_lost(self, pbx: str) -> None:
        """Note the calls that end unseen if this PBX dies now."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                ids: Any = await self.redis.smembers(f"dialer:claimed:{CELL}:{pbx}")
                self.lost |= {call_id.decode().partition(":")[2] for call_id in ids}
                return
            await asyncio.sleep(0.05)

    async def expect(
        self,
        fault: Fault,
        what: str,
        true: Callable[[], Awaitable[bool]],
        within_s: float,
        *,
        is_void: Callable[[], bool] | None = None,
        is_patient: bool = False,
    ) -> None:
        """Check a fault's own promise.

        Not judged if `is_void`: by default, if another fault came in its way. With `is_patient`
        the time begins again after each such fault.
        """
        deadline, seen = time.monotonic() + within_s, self._in_the_way(fault)
        while not await true():
            now = self._in_the_way(fault)
            if is_patient and (now != seen or now.redis):
                deadline, seen = time.monotonic() + within_s, now
            elif not is_patient and (is_void() if is_void else self._is_disturbed(fault, now)):
                return
            if time.monotonic() > deadline:
                text = f"{fault.kind} of {fault.target}: not within {within_s:g} s: {what}"
                self.missed.append(f"{text}; {await self.heartbeat(fault.target)}")
                return
            await asyncio.sleep(0.1)
        self.judged[fault.kind] += 1

    def _in_the_way(self, fault: Fault) -> InTheWay:
        program, redis = self.site.programs[fault.target], self.under_way.get("redis")
        return InTheWay(
            pid=program.pid if program.is_running else None,
            redis=redis is not None and redis.n != fault.n,
            others=sum(d.target in (fault.target, "redis") for d in self.done[fault.n + 1 :]),
        )

    def _is_disturbed(self, fault: Fault, now: InTheWay) -> bool:
        began = self.done[fault.n]
        calm = InTheWay(pid=began.pids[fault.target], redis=False, others=0)
        return now != calm or fault.target not in began.ready

    # --- faults --------------------------------------------------------------------

    async def note(self, kind: str, target: str) -> None:
        """Note what is done now to whom, and the calls and workers that are up."""
        up = ready = frozenset[str]()
        with contextlib.suppress(RedisError, OSError):
            ids: list[bytes] = await self.redis.zrange(f"dialer:live:{CELL}", 0, -1)  # type: ignore[assignment]
            up = frozenset(i.decode() for i in ids)
            ready = frozenset([pbx for pbx in WORKERS if await self.is_ready(pbx)])
        pids = {pbx: self.site.programs[pbx].pid for pbx in WORKERS}
        self.done.append(Done(kind=kind, target=target, up=up, ready=ready, pids=pids))

    @property
    def enough(self) -> bool:
        """True once all faults were injected, or all calls are answered."""
        return self.over.is_set() or len(self.done) >= self.faults

    def _has(self) -> Container[str]:
        has = {ONE_REDIS if self.store.port is not None else SENTINEL}
        return has | ({COMPILER} if compiler() else set())

    async def _inject(self, rng: random.Random) -> None:
        await asyncio.sleep(2.0)  # let it dial first
        running: set[asyncio.Task[None]] = set()
        for fault in plan(rng, self._has(), self.only):
            if self.enough:
                break
            if fault.target not in self.under_way:  # one fault a target at a time
                running.add(asyncio.create_task(self._do(fault)))
                running.add(asyncio.create_task(self._push_junk()))
            await asyncio.sleep(rng.expovariate(1 / self.pace_s))
            for task in [task for task in running if task.done()]:
                running.discard(task)
                task.result()
        await asyncio.gather(*running)

    async def _do(self, fault: Fault) -> None:
        self.under_way[fault.target] = fault
        try:
            await self.note(fault.kind, fault.target)
            fault = self.under_way[fault.target] = replace(fault, n=len(self.done) - 1)
            await DEEDS[fault.kind](self, fault)
        finally:
            del self.under_way[fault.target]

    async def _push_junk(self) -> None:
        """A code that nobody can read, so that this way is walked under faults too."""
        with contextlib.suppress(RedisError, OSError):
            await self.redis.rpush(f"ZancURA2.0-CODLIGACAO-{CELL}", "{not JSON")

    # --- the end -----------------------------------------------------------------------

    async def _look_for_leaks(self) -> None:
        """What is left in Redis when all calls are over, after the reaper had its time."""
        await asyncio.sleep(1.0)
        deadline = time.monotonic() + 35.0
        while time.monotonic() < deadline:
            try:
                self.leaks = await leaks(self.redis, CELL)
            except (RedisError, OSError):
                continue
            if not self.leaks:
                return
            await asyncio.sleep(0.5)
