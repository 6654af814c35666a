"""The whole system on this machine: Valkey, simulated PBXs, bridges and workers as processes.

    async with Stack(folder) as stack:
        stack.add_pbx("pbx01", ring_time=(0.1, 0.2))
        await stack.start()                    # Valkey, PBXs, one bridge, one worker a PBX
        await stack.push(10)                   # ten requests whose calls are answered
        responses = await stack.responses(10)
        await stack.workers["pbx01"].kill()    # or stop(), freeze(), thaw()
        await stack.start_worker("pbx01")

A simulated PBX lives in the caller's event loop, so that its switches (`drop_links`,
`hang`, `restart`, `refuse_connections`) and counts (`rings`, `live`) are at hand. Workers and
bridges are real processes, ended by their own pid; they end with the caller, however it ends.
Where the block raises, every log is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import redis.asyncio
import tomlkit
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dialer.multcall.keys import CellKeys
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.simulation.valkey import EmbeddedValkey
from tests.waiting import PATIENCE_S, wait_until

ROOT: Final = Path(__file__).resolve().parents[2]
BIN: Final = Path(sys.executable).parent
CELL: Final = "ASR_TIM"
SECRET: Final = "a-pbx-secret"

#: Ends the processes whose ids it was told when its standard input ends without a `bye`.
GUARD: Final = """
trap '' HUP INT TERM
pids=
while read -r word; do
  if [ "$word" = bye ]; then exit 0; fi
  pids="$pids $word"
done
kill -9 $pids 2>/dev/null
"""

#: Calls that are quick: how the simulated PBXs behave unless a test says otherwise.
QUICK: Final[Mapping[str, Any]] = {
    "ring_time": (0.05, 0.2),
    "talk_time": (0.1, 0.3),
    "reject_time": (0.02, 0.1),
}


async def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels until it is heard: before Python 3.12 `wait_for`, with which redis-py writes,
    swallows a cancellation that comes in the moment in which it is done."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


@dataclass(slots=True)
class Program:
    """One worker or bridge: a process with a log file that holds both its outputs."""

    name: str
    process: asyncio.subprocess.Process
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self, within_s: float = PATIENCE_S) -> int:
        """SIGTERM; return the exit code."""
        self._signal(signal.SIGTERM)
        return await self.exit_code(within_s)

    async def exit_code(self, within_s: float = PATIENCE_S) -> int:
        """Wait until it ends by itself; return the exit code."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: as a machine that swaps, or a debugger."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def hang_up(self) -> None:
        """SIGHUP: a bridge reads its settings again."""
        self._signal(signal.SIGHUP)

    def rss_mb(self) -> float:
        """Resident memory, in 10^6 bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def peak_rss_mb(self) -> float:
        """The most resident memory it ever had, in 10^6 bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    def cpu_s(self) -> float:
        """Processor time used so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)


@dataclass(slots=True)
class Multcall:
    """Plays Multcall on one cell: takes ACKs, answers each with a code, takes Responses.

    `answers_codes` false: no CODLIGACAO is sent. Everything taken is kept, in order.
    """

    redis: redis.asyncio.Redis
    cell: str
    answers_codes: bool = True
    acks: list[dict[str, Any]] = field(default_factory=list)
    responses: list[dict[str, Any]] = field(default_factory=list)
    #: Held during each turn. A test that kills Redis holds it: an element whose LPOP has no
    #: reply is lost.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Run until cancelled; wait through outages of Redis."""
        keys = CellKeys(self.cell)
        while True:
            async with self.turn:
                try:
                    took = await self._take_acks(keys) + await self._take_responses(keys)
                except (RedisError, OSError):
                    took = 0
            if not took:
                await asyncio.sleep(0.01)

    async def _take_acks(self, keys: CellKeys) -> int:
        raw = await self._pop(keys.ack)
        acks = [json.loads(text) for text in raw]
        self.acks += acks
        codes = [
            json.dumps({"IdRequisicao": a["IdRequisicao"], "CodLigacao": f"C-{a['IdRequisicao']}"})
            for a in acks
        ]
        if codes and self.answers_codes:
            await self.redis.rpush(keys.code, *codes)
        return len(acks)

    async def _take_responses(self, keys: CellKeys) -> int:
        raw = await self._pop(keys.response)
        self.responses += [json.loads(text) for text in raw]
        return len(raw)

    async def _pop(self, key: str) -> list[bytes]:
        popped: Any = await self.redis.lpop(key, 500)
        return list(popped or ())


class Stack:
    """Everything a test needs of the system, in one folder. See the module."""

    def __init__(
        self,
        folder: Path,
        *,
        valkey: EmbeddedValkey | None = None,
        cell: Mapping[str, Any] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Prepares without starting anything.

        Args:
            folder: for dialer.toml and the logs.
            valkey: a server that the caller owns and keeps; one of its own where None.
            cell: fields of the `[[cells]]` table; more cells: `add_cell`.
            settings: more tables of dialer.toml, such as `{"recovery": {"pbx_lost_after": 2}}`.
        """
        self.folder = folder
        self.valkey = valkey or EmbeddedValkey(appendonly=False)
        self._own_valkey = valkey is None
        self.pbxs: dict[str, SimulatedPbx] = {}
        self.workers: dict[str, Program] = {}
        self.bridges: list[Program] = []
        self.programs: list[Program] = []
        self.multcalls: dict[str, Multcall] = {}
        self.settings: dict[str, dict[str, Any]] = {k: dict(v) for k, v in (settings or {}).items()}
        self._pbx_tables: dict[str, dict[str, Any]] = {}
        self._cell_tables: dict[str, dict[str, Any]] = {CELL: dict(cell or {})}
        self._tasks: list[asyncio.Task[None]] = []
        self._guard: subprocess.Popen[bytes] | None = None
        self._redis: redis.asyncio.Redis | None = None
        self._pushed = 0

    # --- what there is -------------------------------------------------------------

    @property
    def redis(self) -> redis.asyncio.Redis:
        """A client of Multcall's Redis (database 0)."""
        assert self._redis is not None, "not started"
        return self._redis

    @property
    def multcall(self) -> Multcall:
        """Multcall on the first cell."""
        return self.multcalls[CELL]

    @property
    def rings(self) -> Counter[str]:
        """How often each number was dialed, all PBXs together."""
        return sum((pbx.rings for pbx in self.pbxs.values()), Counter())

    @property
    def config_path(self) -> Path:
        return self.folder / "dialer.toml"

    @property
    def broker_url(self) -> str:
        return self.valkey.url(1)

    def add_pbx(
        self, name: str = "pbx01", *, table: Mapping[str, Any] | None = None, **habits: Any
    ) -> SimulatedPbx:
        """One more simulated PBX.

        Args:
            name: the PBX's, and its queue's.
            table: fields of its `[[pbxs]]` table that differ, such as `max_calls`.
            habits: how it behaves, see `SimulatedPbx`; calls are quick unless these say more.
        """
        pbx = SimulatedPbx(name=name, secret=SECRET, **{**QUICK, **habits})
        self.pbxs[name] = pbx
        self._pbx_tables[name] = dict(table or {})
        return pbx

    async def until_answered(self, calls: int) -> None:
        """Wait until that many calls are answered."""

        def reached() -> bool:
            floors = [pbx.exchange.floor for pbx in self.pbxs.values()]
            return sum(floor.in_dialplan for floor in floors) >= calls

        await wait_until(reached, f"{calls} calls are answered")

    def end_calls(self, *names: str) -> None:
        """Hang up all calls of these PBXs, or of all, from the PBX's side.

        Calls that must be up until something has happened are of 300 s and end like this: on a
        slow machine a length that just suffices is too short.
        """
        for name in names or self.pbxs:
            floor = self.pbxs[name].exchange.floor
            for call in tuple(floor.live.values()):
                floor.hang_up(call, cause=16)

    def add_cell(self, name: str, **fields: Any) -> None:
        """One more cell, or other fields of the first."""
        self._cell_tables.setdefault(name, {}).update(fields)

    def forget_pbx(self, name: str) -> None:
        """Take a PBX out of the settings; it and its worker run on."""
        del self._pbx_tables[name]

    def forget_cell(self, name: str) -> None:
        """Take a cell out of the settings; Multcall plays on."""
        del self._cell_tables[name]

    # --- life ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._guard = subprocess.Popen(  # noqa: ASYNC220  # it starts at once and says nothing
            ["/bin/sh", "-c", GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            sys.stderr.write(self.logs())
        await cancel(self._tasks)
        for program in self.programs:
            await program.kill()
        for pbx in self.pbxs.values():
            await pbx.stop()
        if self._redis is not None:
            await self._redis.aclose()
        if self._own_valkey:
            self.valkey.close()
        if self._guard is not None:
            self._guard.communicate(b"bye\n")

    async def start(self, *, bridges: int = 1, workers: bool = True) -> None:
        """Start everything and wait until calls can be placed."""
        if not self.pbxs:
            self.add_pbx()
        for pbx in self.pbxs.values():
            await pbx.start()
        await self.start_valkey()
        self.write_config()
        for name in self._cell_tables:
            self.play_multcall(name)
        for _ in range(bridges):
            await self.start_bridge(wait=False)
        if workers:
            for name in self.pbxs:
                await self.start_worker(name, wait=False)
            for name in self.pbxs:
                await self.until_link(name, "up")
        for bridge in self.bridges:
            await self._until_ready(bridge)

    def play_multcall(self, cell: str) -> Multcall:
        """Plays Multcall on a cell from now on; `start` does so for those there are by then."""
        multcall = self.multcalls[cell] = Multcall(self.redis, cell)
        self._tasks.append(asyncio.create_task(multcall.run(), name=f"multcall {cell}"))
        return multcall

    async def start_valkey(self) -> None:
        """Start (or start again) the Valkey server; empty unless it keeps its data."""
        await asyncio.to_thread(self.valkey.start)
        if self._redis is None:
            self._redis = redis.asyncio.Redis.from_url(
                self.valkey.url(0),
                retry=Retry(NoBackoff(), 0),
                max_connections=1_000,  # a Multcall of each cell uses some
            )
            await self._redis.flushall()
        else:  # those to a server that was killed are dead, and this client does not try again
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    def write_config(self) -> None:
        """Write dialer.toml from what was added."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pbxs = [
            {
                "name": name,
                "host": self.pbxs[name].host,
                "port": self.pbxs[name].port,
                "username": "dialer",
                "max_calls": 200,
                "cps": 500,
                "trunks": {"tim": "PJSIP/{number}@tim"},
            }
            | ({} if "secret_file" in table else {"secret": SECRET})
            | table
            for name, table in self._pbx_tables.items()
        ]
        cells = [
            {"nome": name, "threads": 200, "pbxs": list(self._pbx_tables)} | fields
            for name, fields in self._cell_tables.items()
        ]
        tables: dict[str, Any] = {
            "multcall": {"redis_url": self.valkey.url(0)},
            "broker": {"url": self.broker_url},
        }
        tables |= self.settings
        text = tomlkit.dumps(tables | {"pbxs": pbxs, "cells": cells})
        self.config_path.write_text(text, encoding="utf-8")

    async def start_bridge(
        self, *args: str, env: Mapping[str, str] | None = None, wait: bool = True
    ) -> Program:
        """`dialer bridge`; waits until it says that it is ready."""
        bridge = await self.run(
            f"bridge-{len(self.bridges) + 1}", [str(BIN / "dialer"), "bridge", *args], env=env
        )
        self.bridges.append(bridge)
        if wait:
            await self._until_ready(bridge)
        return bridge

    async def reread(
        self, bridge: Program, says: str = "New settings are in force", *, write: bool = True
    ) -> None:
        """Write dialer.toml, send SIGHUP and wait for the log message of the bridge."""
        if write:
            self.write_config()
        said = bridge.log.count(says)
        bridge.hang_up()
        await wait_until(lambda: bridge.log.count(says) > said, f"{bridge.name} says: {says}")

    async def start_worker(
        self, name: str = "pbx01", *, env: Mapping[str, str] | None = None, wait: bool = True
    ) -> Program:
        """`celery -A dialer worker -Q <name>`; waits until its heartbeat says `up`."""
        _, before = await self.heartbeat(name)
        worker = await self.run_celery("-Q", name, name=f"worker-{name}", env=env)
        self.workers[name] = worker
        if wait:
            await self.until_link(name, "up", other_than=before)
        return worker

    async def run_celery(
        self, *args: str, name: str = "worker", env: Mapping[str, str] | None = None
    ) -> Program:
        """`celery -A dialer worker …` with just these arguments; does not wait."""
        command = [str(BIN / "celery"), "-A", "dialer", "worker", *args]
        return await self.run(name, command, env=env)

    async def run(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> Program:
        """Start a program of ours with this stack's dialer.toml; does not wait."""
        log_path = self.folder / f"{name}.{len(self.programs)}.log"
        environment = {
            **os.environ,
            "DIALER_CONFIG": str(self.config_path),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            **(env or {}),
        }
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        program = Program(name, process, log_path)
        self.programs.append(program)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.write(f"{process.pid}\n".encode())
            self._guard.stdin.flush()
        return program

    # --- waiting -------------------------------------------------------------------

    async def until_link(
        self,
        name: str,
        link: Literal["up", "down", "stopping"],
        *,
        other_than: bytes | None = None,
    ) -> None:
        """Wait until the PBX's heartbeat says so, from another instance than that one."""

        async def says() -> bool:
            self._refuse_dead(name)
            word, instance = await self.heartbeat(name)
            return word == link.encode() and instance != other_than

        await wait_until(says, f"{name} is {link}", within_s=PATIENCE_S)

    async def heartbeat(self, name: str) -> list[bytes | None]:
        """The PBX's link and its worker's instance."""
        reply: Any = await self.redis.hmget(f"dialer:pbx:{name}", ["link", "instance"])
        return list(reply)

    def _refuse_dead(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker is not None and not worker.running:
            raise AssertionError(f"the worker of {name} has ended: {worker.process.returncode}")

    async def _until_ready(self, bridge: Program) -> None:
        def ready() -> bool:
            assert bridge.running, f"{bridge.name} has ended"
            return "Bridge ready" in bridge.log

        await wait_until(ready, f"{bridge.name} is ready", within_s=PATIENCE_S)

    async def until_live(self, calls: int, *, within_s: float = PATIENCE_S) -> None:
        """Wait until at least that many calls are up on the PBXs together; 0: until none is."""

        def reached() -> bool:
            live = sum(pbx.live for pbx in self.pbxs.values())
            return live >= calls if calls else live == 0

        await wait_until(
            reached,
            f"{calls} calls are up",
            within_s=within_s,
        )

    async def until_dialed(self, calls: int, *, within_s: float = PATIENCE_S) -> None:
        """Wait until at least that many calls were dialed since the start."""
        await wait_until(
            lambda: self.rings.total() >= calls, f"{calls} calls are dialed", within_s=within_s
        )

    async def responses(self, n: int, *, within_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """Wait until the first cell has got `n` Responses; return them, in their order."""
        got = self.multcall.responses
        await wait_until(lambda: len(got) >= n, f"{n} Responses, not {len(got)}", within_s=within_s)
        return got

    async def at_rest(self, *, slots: bool = True, within_s: float = PATIENCE_S) -> None:
        """Wait until nothing is under way and both counters and all slots are back.

        `slots` false: without the PBXs' slots. One that a killed worker left behind comes back
        when the bridge next looks for such, 10 to 20 s later.
        """

        async def nothing_left() -> bool:
            left = await self.leftovers()
            return not [key for key in left if slots or not key.startswith("dialer:slots:")]

        try:
            await wait_until(nothing_left, "all is at rest", within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.leftovers()}") from None

    async def leftovers(self) -> dict[str, Any]:
        """What is not at rest: indexes and lists that are not empty, counters that are not 0."""
        patterns = ("live", "queued", "awaiting", "claimed", "hand", "codehand", "slots")
        left: dict[str, Any] = {}
        for pattern in patterns:
            async for key in self.redis.scan_iter(f"dialer:{pattern}:*"):
                left[key.decode()] = await self.redis.type(key)
        for cell in self.multcalls:
            keys = CellKeys(cell)
            for key in (keys.counter, keys.counter_ack):
                count = await self.redis.get(key)
                if count not in (None, b"0"):
                    left[key] = count
        return left

    # --- Multcall's side -----------------------------------------------------------

    def number(self, last_two: int = 0) -> str:
        """A number nobody had before; its last two digits say what becomes of the call."""
        self._pushed += 1
        return f"119{self._pushed:06d}{last_two:02d}"

    async def push(
        self,
        requests: int | Iterable[Mapping[str, Any]],
        *,
        last_two: int = 0,
        cell: str = CELL,
        **fields: Any,
    ) -> list[dict[str, Any]]:
        """Pushes requests (or that many made-up ones) and returns them as they were pushed."""
        wanted = [{}] * requests if isinstance(requests, int) else requests
        made = []
        for request in wanted:
            number = self.number(last_two)
            made.append(
                {"IdRequisicao": f"R{self._pushed}", "Telefone": number, **fields, **request}
            )
        if made:
            await self.redis.rpush(CellKeys(cell).request, *(json.dumps(r) for r in made))
        return made

    # --- when something failed ------------------------------------------------------

    def logs(self) -> str:
        """What every program wrote."""
        parts = []
        for program in self.programs:
            with contextlib.suppress(OSError):
                parts.append(f"--- {program.name} (pid {program.pid})\n{program.log}\n")
        return "".join(parts)
