"""One seeded run: a site on real Asterisk 22 and 16 and real Redis dials while parts of it die.

    python -m tests.chaos.run --seed 1 --faults 250 --calls 2500

prints a table of what was done and what became of the calls, and exits 1 where a promise broke.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
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
from dialer.simulation.multcall import play
from dialer.simulation.multcall_check import Checker, Summary
from tests.acceptance.lab.lab import AMI_SECRET, PROJECT, Lab, Version
from tests.chaos.faults import BRIDGES, Fault, failpoints, plan
from tests.chaos.proxy import Proxy
from tests.site import PbxPlace, Site, site_toml

CELL = "ASR_TIM"
VERSION: dict[str, Version] = {"pbx22": "22", "pbx16": "16"}
MIX = {"answered": 60, "busy": 10, "rejected": 5, "invalid_number": 10, "congestion": 5,
       "no_answer": 8, "repeated": 2}  # fmt: skip

#: What a supervisor (systemd, Docker) takes to start a program again, in seconds.
RESTART_AFTER_S = 0.2

#: Exit code of a program that finds no Redis at its start; its supervisor starts it again.
EXIT_REFUSED = 2

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
        """The whole run; returns Multcall's summary."""
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
            cells={CELL: {"ring_timeout": 6, "timeout_command_ack": 8}},
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
            await asyncio.sleep(rng.expovariate(1 / self.pace_s))
            running = {task for task in running if not task.done()}
        await asyncio.gather(*running)

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
        points = failpoints(rng, "bridge" if name in BRIDGES else "worker")
        armed = ""
        stopped_at: float | None = None
        while not self.closing.is_set():
            if not program.is_running:
                await self._died(name, armed)
                await asyncio.sleep(RESTART_AFTER_S)
                armed = "" if self.enough or rng.random() < 0.3 else next(points)
                program.start(DIALER_FAILPOINTS=armed)
            elif program.is_stopped and program.pid not in self._stopped:
                if stopped_at is None:
                    stopped_at = time.monotonic()
                    await self._note(f"{_who(name)} stands still at {armed.partition(':')[0]}")
                elif time.monotonic() - stopped_at > rng.uniform(0.2, STOPPED_AT_MOST_S):
                    program.send(signal.SIGCONT)
                    stopped_at = None
            await asyncio.sleep(0.05)

    async def _died(self, name: str, armed: str) -> None:
        """A program is gone: by our hand, at a failure point, refused a start, or it crashed."""
        program = self.site.programs[name]
        code = program.process.returncode if program.process else 0
        if program.pid in self._killed or code == EXIT_REFUSED:
            return
        await self._note(f"{_who(name)} dies at {armed.partition(':')[0]}")
        if code != -signal.SIGKILL:
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
            for pattern in ("live", "queued", "awaiting", "claimed", "slots", "hand", "codehand")
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


def _who(name: str) -> str:
    return "bridge" if name in BRIDGES else "worker"


# --- the table ------------------------------------------------------------------------


def verdict(chaos: Chaos, summary: Summary) -> dict[str, list[str]]:
    """Request ids by what went wrong with them, or might have."""
    assert chaos.checker is not None
    by_kind: dict[str, list[str]] = {"lost": [], "twice": [], "rang twice": [], "unknown": []}
    kinds = {"no_response": "lost", "second_response": "twice", "rang_twice": "rang twice"}
    for violation in summary.violations:
        by_kind.setdefault(kinds.get(violation.kind, violation.kind), []).append(str(violation))
    for played in chaos.checker.calls.values():
        response = played.response
        if response is not None and response.result is Result.UNKNOWN:
            assert response.error is not None
            by_kind["unknown"].append(f"{played.asked.request_id}: {response.error.code}")
    return by_kind


def table(chaos: Chaos, summary: Summary) -> Iterator[str]:
    """What was done, how often, and what became of the calls."""
    assert chaos.checker is not None
    found = verdict(chaos, summary)
    unknown = {text.partition(":")[0] for text in found["unknown"]}
    last: dict[str, str] = {}
    up: Counter[str] = Counter()
    touched: set[str] = set()
    for done in chaos.done:
        up[done.kind] += len(done.up)
        touched |= done.up
        for call_id in done.up:
            last[call_id.partition(":")[2]] = done.kind
    blamed = Counter(last.get(request_id, "none seen") for request_id in unknown)
    yield f"{'fault':<34}{'times':>6}{'calls up':>10}{'unknown':>9}"
    for kind, times in sorted(Counter(done.kind for done in chaos.done).items()):
        yield f"{kind:<34}{times:>6}{up[kind]:>10}{blamed[kind]:>9}"
    doubtful = [
        played.asked.request_id
        for played in chaos.checker.calls.values()
        if played.response is not None
        and played.response.result is Result.FAILED
        and Result.ANSWERED in played.asked.results
        and chaos.rung.get(played.asked.number)
    ]
    yield f"rang a number that answers, and told FAILED: {len(doubtful)} {doubtful[:10]}"
    errors = Counter(
        played.response.error.code
        for played in chaos.checker.calls.values()
        if played.response is not None and played.response.error is not None
    )
    yield f"faults {len(chaos.done)}, calls {summary.calls}, up during a fault {len(touched)}"
    yield f"outcomes {dict(summary.results)}, Erro.Codigo {dict(errors)}"
    for kind, texts in found.items():
        if kind == "unknown":
            codes = Counter(text.rpartition(" ")[2] for text in texts)
            yield f"unknown {len(texts)} {dict(codes)}"
        else:
            yield f"{kind} {len(texts)}" + "".join(f"\n    {text}" for text in texts[:10])
    yield f"crashes {len(chaos.crashes)}" + "".join(f"\n    {text}" for text in chaos.crashes)
    yield f"leaks {len(chaos.leaks)}" + "".join(f"\n    {leak}" for leak in chaos.leaks[:10])


def broken(chaos: Chaos, summary: Summary) -> bool:
    """True where a promise was broken."""
    return bool(summary.violations or chaos.leaks or chaos.crashes)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=250)
    parser.add_argument("--calls", type=int, default=2500)
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second")
    parser.add_argument("--pace", type=float, default=1.0, help="mean seconds between faults")
    parser.add_argument("--folder", type=Path, help="for logs; default: one that is left behind")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    chaos = Chaos(
        seed=given.seed,
        faults=given.faults,
        calls=given.calls,
        rate=given.rate if given.rate > 0 else math.inf,
        pace_s=given.pace,
        folder=folder,
    )
    began = time.monotonic()
    summary = asyncio.run(chaos.run())
    sys.stdout.write("\n".join(table(chaos, summary)) + "\n")
    sys.stdout.write(f"seed {given.seed}, {time.monotonic() - began:.0f} s, logs in {folder}\n")
    return int(broken(chaos, summary))


if __name__ == "__main__":
    sys.exit(main())
