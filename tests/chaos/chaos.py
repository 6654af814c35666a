"""One run: a site that dials while parts of it die, its supervisor, and who looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.celery import BROKER_ERRORS
from dialer.failpoints import FIRED
from dialer.settings.broker_url import for_celery
from dialer.simulation.multcall.checker import Checker, Summary
from dialer.simulation.multcall.player import play
from dialer.store.client import connect
from tests.chaos.clock import Clock, compiler
from tests.chaos.deeds import DEEDS
from tests.chaos.faults import BRIDGES, COMPILER, ONE_REDIS, SENTINEL, WORKERS, Fault, Points, plan
from tests.chaos.frames import Breaker
from tests.chaos.places import Pbxs, Store
from tests.chaos.proxy import Proxy
from tests.processes import READY_WITHIN_S, PbxPlace, Program, Site, site_toml
from tests.waiting import wait_until

CELL = "ASR_TIM"
MIX = {"answered": 60, "busy": 10, "rejected": 5, "invalid_number": 8, "congestion": 5,
       "no_answer": 8, "repeated": 2, "malformed": 2}  # fmt: skip

#: What a supervisor (systemd, Docker) takes to start a program again, in seconds.
RESTART_AFTER_S = 0.2

#: Exit code of a program that finds no Redis at its start; its supervisor starts it again.
EXIT_REFUSED = 2

#: Share of the starts at which no failure point is armed.
UNARMED = 0.1

#: Nobody is left standing still at a failure point for longer, in seconds.
STOPPED_AT_MOST_S = 3.0

#: After the last fault, all must be answered within this time, in seconds.
SETTLE_S = 90.0

#: Each request expires after this time: longer than any waits, shorter than a wrong clock is off.
VALID_FOR_S = 500.0

#: A PBX whose heartbeat is older is not ready, in seconds.
FRESH_S = 3.0

#: Redis is asked again for so long, in seconds.
SENT_WITHIN_S = 10.0

#: A control command for Celery's workers is sent again so often and for so long, in seconds.
REPLIES_WITHIN_S = 1.5
OBEYED_WITHIN_S = 60.0


@dataclass(slots=True, kw_only=True)
class Done:
    """One fault that was injected; the calls that were up, the workers, and the ready ones."""

    kind: str
    target: str
    up: frozenset[str]
    ready: frozenset[str]
    pids: Mapping[str, int]


@dataclass(slots=True)
class Links:
    """What stands between one worker and the rest. With Sentinel it is `ami` only."""

    ami: Proxy
    frames: Breaker
    registry: Proxy | None = None
    cell: Proxy | None = None
    broker: Proxy | None = None

    def proxies(self) -> list[Proxy]:
        return [p for p in (self.ami, self.registry, self.cell, self.broker) if p is not None]


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
    links: dict[str, Links] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)
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
    _site: Site | None = None
    _redis: Redis | None = None
    _celery: Celery | None = None
    _killed: set[int] = field(default_factory=set)
    _stopped: set[int] = field(default_factory=set)

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
            await self._make_site()
            return await self._run()
        finally:
            for links in self.links.values():
                for proxy in links.proxies():
                    await proxy.stop()
            if self._redis is not None:
                await self._redis.aclose()
            await self.store.down()
            await self.pbxs.down()

    async def _run(self) -> Summary:
        rng = random.Random(self.seed)  # a plan, not a secret
        try:
            await self._start()
            keepers = [
                asyncio.create_task(self._keep(name, random.Random(f"{self.seed}{name}")))
                for name in self.site.programs
            ]
            faults = asyncio.create_task(self._inject(rng))
            try:
                return await self._play()
            finally:
                self.over.set()
                await faults
                await self._look_for_leaks()
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

    # --- the site ------------------------------------------------------------------

    async def _make_site(self) -> None:
        for name in WORKERS:
            self.links[name] = await self._linked(name)
        toml = self._toml({name: links.ami.port for name, links in self.links.items()})
        self._site = Site(self.folder, toml, self.store.url(0), WORKERS, bridges=len(BRIDGES))
        for name in WORKERS:
            program = self.site.programs[name]
            program.config = self._config(name, {name: self.links[name].ami.port})
            self.clocks[name] = Clock(self.folder, name)
            program.environment = self.clocks[name].environment()

    async def _linked(self, name: str) -> Links:
        frames = Breaker(random.Random(f"{self.seed} frames {name}"))
        ami = Proxy(self.pbxs.port(name), rewriter=frames.connection)
        links = Links(ami=ami, frames=frames)
        if self.store.port is not None:
            links.registry, links.cell, links.broker = (Proxy(self.store.port) for _ in range(3))
        for proxy in links.proxies():
            await proxy.start()
        return links

    def _config(self, name: str, ports: dict[str, int], copy: str = "") -> Path:
        """Write the file of a worker, whose ways all lead over its own proxies."""
        path = self.folder / f"{name}{copy}.toml"
        all_ports = {pbx: links.ami.port for pbx, links in self.links.items()} | ports
        path.write_text(self._toml(all_ports, self.links[name]), encoding="utf-8")
        return path

    def _toml(self, ports: dict[str, int], links: Links | None = None) -> str:
        def url(proxy: Proxy | None, db: int) -> str:
            return f"redis://127.0.0.1:{proxy.port}/{db}" if proxy else self.store.url(db)

        registry = url(links.registry if links else None, 0)
        return site_toml(
            url(links.cell if links else None, 0),
            url(links.broker if links else None, 1),
            [PbxPlace(name=n, port=port, secret=self.pbxs.secret) for n, port in ports.items()],
            cells={CELL: {"ring_timeout": 12, "timeout_command_ack": 8}},
            pbx_lost_after=60,
            extra=f'[registry]\nredis_url = "{registry}"',
        )

    def copied_unit(self, pbx: str) -> Program:
        """The program of a worker that has its PBX's name and another Asterisk."""
        other = next(name for name in WORKERS if name != pbx)
        config = self._config(pbx, {pbx: self.pbxs.port(other)}, copy="-copy")
        return replace(self.site.programs[pbx], config=config, process=None)

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
        self._killed.add(program.pid)
        program.send(signum)

    @asynccontextmanager
    async def standing_still(self, program: Program) -> AsyncIterator[None]:
        """The program is stopped (SIGSTOP) as long as the block runs."""
        pid = program.pid
        self._stopped.add(pid)
        program.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._stopped.discard(pid)
            program.send(signal.SIGCONT)

    async def control(self, command: str, queue: str, names: Sequence[str]) -> None:
        """Send a control command to the workers of these PBXs until each has obeyed.

        Celery's broadcasts get lost while a worker connects to the broker. A worker that started
        in the meantime needs none.
        """
        pids = {name: self.site.programs[name].pid for name in names}
        deadline = time.monotonic() + OBEYED_WITHIN_S
        while pids and time.monotonic() < deadline:
            with contextlib.suppress(*BROKER_ERRORS):
                for name in await asyncio.to_thread(self._obeyed, command, queue, [*pids]):
                    pids.pop(name, None)
            here = {name: program.pid for name, program in self.site.programs.items()}
            pids = {name: pid for name, pid in pids.items() if here[name] == pid}

    def _obeyed(self, command: str, queue: str, names: Sequence[str]) -> list[str]:
        """Send the command; return the PBXs whose workers have replied."""
        if self._celery is None:
            broker = for_celery(self.store.url(1))
            self._celery = Celery("chaos", broker=broker.url, set_as_current=False)
            self._celery.conf.broker_transport_options = broker.transport_options
        with self._celery.connection_for_write() as connection:
            replies = self._celery.control.broadcast(
                command,
                arguments={"queue": queue},
                destination=[f"{name}@{socket.gethostname()}" for name in names],
                connection=connection,
                reply=True,
                timeout=REPLIES_WITHIN_S,
                limit=len(names),
            )
        return [node.partition("@")[0] for reply in replies or () for node in reply]

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
        deadline = time.monotonic() + SENT_WITHIN_S
        while time.monotonic() < deadline:
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
        since, deadline = fault.n, time.monotonic() + within_s
        while not await true():
            if is_void() if is_void else self.is_disturbed(fault.target, since, fault.n):
                if not is_patient:
                    return
                since, deadline = len(self.done) - 1, time.monotonic() + within_s
            if time.monotonic() > deadline:
                text = f"{fault.kind} of {fault.target}: not within {within_s} s: {what}"
                self.missed.append(f"{text}; {await self.heartbeat(fault.target)}")
                return
            await asyncio.sleep(0.1)
        self.judged[fault.kind] += 1

    def is_disturbed(self, pbx: str, since: int, n: int) -> bool:
        """True if another fault than the `n`th came in a worker's way since the one `since`."""
        began, program = self.done[since], self.site.programs[pbx]
        redis = self.under_way.get("redis")
        return (
            pbx not in began.ready
            or program.pid != began.pids[pbx]
            or not program.is_running
            or (redis is not None and redis.n != n)
            or any(later.target in (pbx, "redis") for later in self.done[since + 1 :])
        )

    # --- faults --------------------------------------------------------------------

    async def _note(self, kind: str, target: str) -> None:
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
        for fault in plan(rng, self._has()):
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
            await self._note(fault.kind, fault.target)
            fault = self.under_way[fault.target] = replace(fault, n=len(self.done) - 1)
            await DEEDS[fault.kind](self, fault)
        finally:
            del self.under_way[fault.target]

    async def _push_junk(self) -> None:
        """A code that nobody can read, so that this way is walked under faults too."""
        with contextlib.suppress(RedisError, OSError):
            await self.redis.rpush(f"ZancURA2.0-CODLIGACAO-{CELL}", "{not JSON")

    # --- the supervisor --------------------------------------------------------------

    async def _keep(self, name: str, rng: random.Random) -> None:
        """Plays the supervisor of one program, and arms its failure points."""
        points = self.points[_who(name)]
        armed: list[str] = []
        stopped_at: float | None = None
        while not self.closing.is_set():
            program = self.site.programs[name]
            if not program.is_running:
                await self._died(program, armed)
                await asyncio.sleep(RESTART_AFTER_S)
                armed = [] if self.enough or rng.random() < UNARMED else points.arm()
                program.start(DIALER_FAILPOINTS=",".join(armed))
            elif program.is_stopped and program.pid not in self._stopped:
                if stopped_at is None:
                    stopped_at = time.monotonic()
                    point = _fired(program)
                    points.fired[point] += 1
                    await self._note(f"{_who(name)} stands still at {point}", name)
                elif time.monotonic() - stopped_at > rng.uniform(0.2, STOPPED_AT_MOST_S):
                    program.send(signal.SIGCONT)
                    stopped_at = None
            await asyncio.sleep(0.05)

    async def _died(self, program: Program, armed: list[str]) -> None:
        """A program is gone: by our hand, at a failure point, refused a start, or it crashed."""
        who = _who(program.name)
        code = program.process.returncode if program.process else 0
        at_point = program.pid not in self._killed and code == -signal.SIGKILL
        point = _fired(program) if at_point else ""
        self.points[who].result(armed, point)
        if at_point:
            await self._note(f"{who} dies at {point}", program.name)
        elif program.pid not in self._killed and code != EXIT_REFUSED:
            self.crashes.append(f"{program.name} ended by itself with exit code {code}")

    # --- the end -----------------------------------------------------------------------

    async def _look_for_leaks(self) -> None:
        """What is left in Redis when all calls are over, after the reaper had its time."""
        await asyncio.sleep(1.0)
        deadline = time.monotonic() + 35.0
        while time.monotonic() < deadline:
            try:
                self.leaks = await self._leaks(self.redis)
            except (RedisError, OSError):
                continue
            if not self.leaks:
                return
            await asyncio.sleep(0.5)

    async def _leaks(self, redis: Redis) -> list[str]:
        """Keys of the ledger and the registry that only calls under way may have."""
        found = [
            f"{key.decode()} is left"
            for pattern in (
                *("live", "queued", "awaiting", "claimed", "slots"),
                *("hand", "codehand", "parked", "parking"),
            )
            async for key in redis.scan_iter(f"dialer:{pattern}:*", count=1000)
        ]
        for name in ("Counter", "CounterACK"):
            value = await redis.get(f"ZancURA2.0-{name}-{CELL}")
            if int(value or 0):
                found.append(f"{name} is {value!r}")
        async for key in redis.scan_iter("dialer:call:*", count=1000):
            if await redis.ttl(key) < 0:
                found.append(f"{key.decode()} has no lifetime")
        return found


def _fired(program: Program) -> str:
    """The failure point at which it fired last, by its own word."""
    lines = [line for line in program.said().splitlines() if line.startswith(FIRED)]
    return lines[-1].removeprefix(FIRED) if lines else "an unknown point"


def _who(name: str) -> str:
    return "bridge" if name in BRIDGES else "worker"
