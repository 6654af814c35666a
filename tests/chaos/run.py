"""Seeded runs: a site on real Asterisk 22 and 16 and real Redis dials while parts of it die.

    python -m tests.chaos.run --seed 1 --runs 5 --faults 220 --calls 2000

prints a table of what was done and what became of the calls, and exits 1 where a promise broke.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.domain.call import Result
from dialer.failpoints import FIRED
from dialer.simulation.multcall.checker import Checker, Played, Summary
from dialer.simulation.multcall.player import play
from tests.acceptance.lab.lab import AMI_SECRET, PROJECT, Lab, Version
from tests.chaos.faults import BRIDGES, Fault, Points, plan
from tests.chaos.proxy import Proxy
from tests.processes import PbxPlace, Program, Site, site_toml

CELL = "ASR_TIM"
VERSION: dict[str, Version] = {"pbx22": "22", "pbx16": "16"}
MIX = {"answered": 60, "busy": 10, "rejected": 5, "invalid_number": 8, "congestion": 5,
       "no_answer": 8, "repeated": 2, "malformed": 2}  # fmt: skip

#: What a supervisor (systemd, Docker) takes to start a program again, in seconds.
RESTART_AFTER_S = 0.2

#: Share of the calls up during a fault that may be UNKNOWN though Asterisk did not lose them.
UNSEEN_AT_MOST = 0.01

#: Exit code of a program that finds no Redis at its start; its supervisor starts it again.
EXIT_REFUSED = 2

#: Share of the starts at which no failure point is armed.
UNARMED = 0.1

#: Nobody is left standing still for longer, in seconds.
STOPPED_AT_MOST_S = 3.0

#: After the last fault, all must be answered within this time, in seconds.
SETTLE_S = 90.0


@dataclass(slots=True, kw_only=True)
class Done:
    """One fault that was injected, and the calls that were up then."""

    kind: str
    at: float
    up: frozenset[str]


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
    lab: Lab = field(default_factory=Lab)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    done: list[Done] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    checker: Checker | None = None
    leaks: list[str] = field(default_factory=list)
    rung: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    _site: Site | None = None
    _redis: Redis | None = None
    _killed: set[int] = field(default_factory=set)
    _stopped: set[int] = field(default_factory=set)

    @property
    def site(self) -> Site:
        assert self._site is not None
        return self._site

    async def run(self) -> Summary:
        """The whole run; return Multcall's summary."""
        await asyncio.to_thread(self.lab.up)
        for version in VERSION.values():
            await asyncio.to_thread(self.lab.hang_up_everything, version)
        redis_url = f"redis://127.0.0.1:{self.lab.redis_port()}/0"
        self._redis = Redis.from_url(redis_url, socket_timeout=1.0)
        await self._redis.flushall()
        await self._make_site(redis_url)
        rng = random.Random(self.seed)  # a plan, not a secret
        try:
            await asyncio.to_thread(self.site.start)
            keepers = [
                asyncio.create_task(self._keep(name, random.Random(f"{self.seed}{name}")))
                for name in self.site.programs
            ]
            faults = asyncio.create_task(self._inject(rng))
            try:
                return await self._play(redis_url)
            finally:
                self.over.set()
                await faults
                await self._look_for_leaks()
                self.closing.set()
                await asyncio.gather(*keepers)
        finally:
            await asyncio.to_thread(self.site.stop)
            for proxy in self.proxies.values():
                await proxy.stop()
            await self._redis.aclose()

    async def _make_site(self, redis_url: str) -> None:
        places = []
        for name, version in VERSION.items():
            proxy = self.proxies[name] = Proxy(self.lab.ami_port(version))
            await proxy.start()
            places.append(PbxPlace(name=name, port=proxy.port, secret=AMI_SECRET))
        toml = site_toml(
            redis_url,
            redis_url.replace("/0", "/1"),
            places,
            cells={CELL: {"ring_timeout": 12, "timeout_command_ack": 8}},
            pbx_lost_after=60,
        )
        self._site = Site(self.folder, toml, redis_url, list(VERSION), bridges=2)

    async def _play(self, redis_url: str) -> Summary:
        def watch(checker: Checker) -> None:
            self.checker = checker

        prefix = f"+55{int(time.time()) % 10**7:07d}"
        rings = self.lab.rings

        def rung() -> Counter[str]:
            self.rung = Counter({n: c for n, c in rings().items() if n.startswith(prefix)})
            return self.rung

        return await play(
            redis_url,
            [CELL],
            self.calls,
            self.rate,
            mix=MIX,
            number_prefix=prefix,
            code_delay_s=0.05,
            code_wait_s=8.0,
            answered_within_s=self.pace_s * self.faults + SETTLE_S,
            disturbed=True,
            seed=self.seed,
            rings=rung,
            watch=watch,
        )

    # --- faults --------------------------------------------------------------------

    async def _note(self, kind: str) -> None:
        up: frozenset[str] = frozenset()
        with contextlib.suppress(RedisError, OSError):
            assert self._redis is not None
            ids: list[bytes] = await self._redis.zrange(f"dialer:live:{CELL}", 0, -1)  # type: ignore[assignment]
            up = frozenset(i.decode() for i in ids)
        self.done.append(Done(kind=kind, at=time.monotonic(), up=up))

    @property
    def enough(self) -> bool:
        """True once all faults were injected, or all calls are answered."""
        return self.over.is_set() or len(self.done) >= self.faults

    async def _inject(self, rng: random.Random) -> None:
        await asyncio.sleep(2.0)  # let it dial first
        running: set[asyncio.Task[None]] = set()
        for fault in plan(rng):
            if self.enough:
                break
            if self._possible(fault, running):
                await self._note(fault.kind)
                running.add(asyncio.create_task(self._do(fault), name=fault.target))
                running.add(asyncio.create_task(self._push_junk(), name="junk"))
            await asyncio.sleep(rng.expovariate(1 / self.pace_s))
            running = {task for task in running if not task.done()}
        await asyncio.gather(*running)

    async def _push_junk(self) -> None:
        """A code that nobody can read, so that this way is walked under faults too."""
        with contextlib.suppress(RedisError, OSError):
            assert self._redis is not None
            await self._redis.rpush(f"ZancURA2.0-CODLIGACAO-{CELL}", "{not JSON")

    def _possible(self, fault: Fault, running: set[asyncio.Task[None]]) -> bool:
        """One fault a target at a time, and not both Asterisks or all bridges long at once."""
        return all(task.get_name() != fault.target for task in running)

    async def _do(self, fault: Fault) -> None:
        target, kind = fault.target, fault.kind
        match kind.split()[0]:
            case "kill" if kind == "kill Asterisk":
                await asyncio.to_thread(self.lab.restart_asterisk, VERSION[target])
            case "kill" if kind == "kill Redis":
                await self._docker("kill", "--signal", "KILL", f"{PROJECT}-redis-1")
                await asyncio.sleep(fault.length_s)
                await self._docker("start", f"{PROJECT}-redis-1")
            case "pause":
                service = "redis" if target == "redis" else f"asterisk{VERSION[target]}"
                await self._docker("pause", f"{PROJECT}-{service}-1")
                await asyncio.sleep(fault.length_s)
                await self._docker("unpause", f"{PROJECT}-{service}-1")
            case "cut":
                self.proxies[target].cut()
            case "AMI":
                self.proxies[target].hold()
                await asyncio.sleep(fault.length_s)
                self.proxies[target].let_go()
            case "kill":
                self._signal(target, signal.SIGKILL)
            case "terminate":
                self._signal(target, signal.SIGTERM)
            case "stop":
                pid = self.site.programs[target].pid
                self._stopped.add(pid)
                self._signal(target, signal.SIGSTOP)
                await asyncio.sleep(fault.length_s)
                self._stopped.discard(pid)
                self._signal(target, signal.SIGCONT)

    def _signal(self, target: str, signum: signal.Signals) -> None:
        program = self.site.programs[target]
        if signum is not signal.SIGCONT and signum is not signal.SIGSTOP:
            self._killed.add(program.pid)
        program.send(signum)

    async def _docker(self, *command: str) -> None:
        await asyncio.to_thread(
            subprocess.run, ["docker", *command], check=True, capture_output=True
        )

    async def _keep(self, name: str, rng: random.Random) -> None:
        """Plays the supervisor of one program, and arms its failure points."""
        program = self.site.programs[name]
        points = self.points[_who(name)]
        armed: list[str] = []
        stopped_at: float | None = None
        while not self.closing.is_set():
            if not program.is_running:
                await self._died(name, armed)
                await asyncio.sleep(RESTART_AFTER_S)
                armed = [] if self.enough or rng.random() < UNARMED else points.arm()
                program.start(DIALER_FAILPOINTS=",".join(armed))
            elif program.is_stopped and program.pid not in self._stopped:
                if stopped_at is None:
                    stopped_at = time.monotonic()
                    point = _fired(program)
                    points.fired[point] += 1
                    await self._note(f"{_who(name)} stands still at {point}")
                elif time.monotonic() - stopped_at > rng.uniform(0.2, STOPPED_AT_MOST_S):
                    program.send(signal.SIGCONT)
                    stopped_at = None
            await asyncio.sleep(0.05)

    async def _died(self, name: str, armed: list[str]) -> None:
        """A program is gone: by our hand, at a failure point, refused a start, or it crashed."""
        program = self.site.programs[name]
        code = program.process.returncode if program.process else 0
        at_point = program.pid not in self._killed and code == -signal.SIGKILL
        point = _fired(program) if at_point else ""
        self.points[_who(name)].result(armed, point)
        if at_point:
            await self._note(f"{_who(name)} dies at {point}")
        elif program.pid not in self._killed and code != EXIT_REFUSED:
            self.crashes.append(f"{name} ended by itself with exit code {code}")

    async def _look_for_leaks(self) -> None:
        """What is left in Redis when all calls are over, after the reaper had its time."""
        assert self._redis is not None
        await asyncio.sleep(1.0)
        deadline = time.monotonic() + 35.0
        while time.monotonic() < deadline:
            try:
                self.leaks = await self._leaks(self._redis)
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


# --- the table ------------------------------------------------------------------------


@dataclass(slots=True)
class Book:
    """What several runs did and what became of their calls."""

    times: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    blamed: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(
        default_factory=lambda: {"lost": [], "twice": [], "rang twice": []}
    )
    calls: int = 0
    touched: int = 0

    def add(self, chaos: Chaos, summary: Summary) -> None:
        """Enters one run."""
        assert chaos.checker is not None
        last: dict[str, str] = {}
        for done in chaos.done:
            self.times[done.kind] += 1
            self.up[done.kind] += len(done.up)
            last |= {call_id.partition(":")[2]: done.kind for call_id in done.up}
        self.calls += summary.calls
        self.touched += len(last)
        kinds = {"no_response": "lost", "second_response": "twice", "rang_twice": "rang twice"}
        for violation in summary.violations:
            kind = kinds.get(violation.kind, violation.kind)
            self.wrong.setdefault(kind, []).append(str(violation))
        self.wrong.setdefault("crashes", []).extend(chaos.crashes)
        self.wrong.setdefault("leaks", []).extend(chaos.leaks)
        for played in chaos.checker.calls.values():
            self._enter(played, last, chaos.rung)

    def _enter(self, played: Played, last: dict[str, str], rung: Counter[str]) -> None:
        response, asked = played.response, played.asked
        if response is None:
            return
        self.results[response.result] += 1
        code = response.error.code if response.error else "none"
        self.errors[code] += 1
        if response.result is Result.UNKNOWN:
            self.unknown[code] += 1
            self.blamed[last.get(asked.request_id, "none seen")] += 1
        answers = Result.ANSWERED in asked.results
        if response.result is Result.FAILED and answers and rung.get(asked.number):
            text = f"{asked.request_id}: {asked.number} rang and answers, and FAILED was told"
            self.wrong.setdefault("told wrongly", []).append(text)

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"{'fault':<38}{'times':>6}{'calls up':>10}{'unknown':>9}"
        for kind, times in sorted(self.times.items()):
            yield f"{kind:<38}{times:>6}{self.up[kind]:>10}{self.blamed[kind]:>9}"
        yield f"{'all':<38}{self.times.total():>6}{self.up.total():>10}{self.unknown.total():>9}"
        yield f"calls {self.calls}, of which {self.touched} were up during a fault"
        yield f"Resultado {_counts(self.results)}"
        yield f"Erro.Codigo {_counts(self.errors)}"
        yield f"UNKNOWN by Erro.Codigo {_counts(self.unknown)}"
        for kind, texts in self.wrong.items():
            yield f"{kind} {len(texts)}" + "".join(f"\n    {text}" for text in texts[:10])

    @property
    def is_broken(self) -> bool:
        """True where a promise was broken, or more is unknown than may be."""
        unseen = self.unknown.total() - self.unknown["pbx_restarted"]
        wrong = any(texts for kind, texts in self.wrong.items() if kind != "told wrongly")
        return wrong or unseen > UNSEEN_AT_MOST * max(1, self.touched)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counter.most_common()) or "none"


def make(seed: int, given: argparse.Namespace, points: dict[str, Points]) -> Chaos:
    """One run as the command line wants it."""
    folder = Path(given.folder) / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return Chaos(
        seed=seed,
        faults=given.faults,
        calls=given.calls,
        rate=given.rate,
        pace_s=given.pace,
        folder=folder,
        points=points,
    )


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--faults", type=int, default=220, help="in each run, at most")
    parser.add_argument("--calls", type=int, default=2000, help="in each run")
    parser.add_argument("--rate", type=float, default=12.0, help="requests a second")
    parser.add_argument("--pace", type=float, default=0.7, help="mean seconds between faults")
    parser.add_argument("--folder", help="for logs; default: one that is left behind")
    given = parser.parse_args(arguments)
    given.folder = given.folder or tempfile.mkdtemp(prefix="chaos-")
    return given


def rehearse(given: argparse.Namespace) -> tuple[Book, dict[str, Points]]:
    """All runs, one after the other; each prints a line when it is over."""
    book = Book()
    points = {who: Points(who, random.Random(given.seed)) for who in ("bridge", "worker")}
    for seed in range(given.seed, given.seed + given.runs):
        began = time.monotonic()
        chaos = make(seed, given, points)
        summary = asyncio.run(chaos.run())
        book.add(chaos, summary)
        sys.stdout.write(
            f"seed {seed}: {len(chaos.done)} faults, {summary.calls} calls, "
            f"{len(summary.violations)} violations, {time.monotonic() - began:.0f} s\n"
        )
        sys.stdout.flush()
    return book, points


def main() -> int:
    """The program."""
    given = parsed()
    book, points = rehearse(given)
    sys.stdout.write("\n".join(book.lines()) + "\n")
    for who, these in points.items():
        missed = sorted(set(these.all) - set(these.fired))
        sys.stdout.write(
            f"failure points of the {who}: {len(these.all) - len(missed)} of {len(these.all)} "
            f"fired; not met: {', '.join(missed) or 'none'}\n"
        )
    sys.stdout.write(f"logs in {given.folder}\n")
    return int(book.is_broken)


if __name__ == "__main__":
    sys.exit(main())
