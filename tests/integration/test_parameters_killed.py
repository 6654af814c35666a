"""200 changes of live parameters while operators and Redis are killed: none is lost or made twice.

Each operator is a process of its own that prints the number of a change once it is confirmed.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from dialer.domain.parameters import Subject
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect
from dialer.store.parameters import ParameterStore
from dialer.store.steps import Steps
from tests.processes import PbxPlace, site_toml

TIM = Subject("cell", "ASR_TIM")
CHANGES = 200
OPERATORS = 3

#: An operator: it sets `threads` to numbers that nobody else sets, and prints what was confirmed.
OPERATOR = """
import asyncio, itertools, sys
from dialer.domain.parameters import Subject
from dialer.settings import load
from dialer.steering import Steering
from dialer.store.client import connect
from dialer.store.parameters import ParameterStore
from dialer.store.steps import Steps

async def main(first, by):
    settings = load()
    store = ParameterStore(Steps(connect(settings.registry_redis_url), "the registry's Redis"))
    one = Steering(store=store, file=settings, by=by)
    for threads in itertools.count(int(first)):
        made = await one.set(Subject("cell", "ASR_TIM"), {"threads": threads})
        print(made.number, threads, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Operator:
    """One operator at a time: after its death another process takes its place."""

    def __init__(self, folder: Path, first: int) -> None:
        self.folder, self.next = folder, first
        self.confirmed: dict[int, int] = {}
        self.is_over = False
        self.deaths = 0

    async def work(self, rng: random.Random) -> None:
        while not self.is_over:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", OPERATOR, str(self.next), f"operator-{self.next}"),
                env={"DIALER_CONFIG": str(self.folder / "dialer.toml"), "PATH": "/usr/bin:/bin"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert process.stdout is not None
            for _ in range(rng.randint(3, 20)):
                line = await process.stdout.readline()
                if not line or self.is_over:
                    break
                number, threads = map(int, line.split())
                self.confirmed[number] = threads
            process.kill()
            for line in (await process.stdout.read()).splitlines():  # printed before its death
                number, threads = map(int, line.split())
                self.confirmed[number] = threads
            await process.wait()
            self.deaths += 1
            self.next += 250  # what it made last may be unconfirmed


async def test_no_confirmed_change_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    rng = random.Random(20261127)
    with EmbeddedValkey(appendonly=True, config={"appendfsync": "always"}) as server:
        pbx = PbxPlace(name="pbx01", port=5038, secret="x")
        text = site_toml(server.url(), server.url(), [pbx], cells={"ASR_TIM": {"threads": 9999}})
        (tmp_path / "dialer.toml").write_text(text)
        operators = [Operator(tmp_path, 1 + 3000 * n) for n in range(OPERATORS)]
        working = [asyncio.create_task(one.work(rng)) for one in operators]
        kills = 0
        async with asyncio.timeout(100):
            while sum(len(one.confirmed) for one in operators) < CHANGES:
                await asyncio.sleep(rng.uniform(0.5, 1.5))
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                kills += 1
            for one in operators:
                one.is_over = True
            await asyncio.gather(*working)
        confirmed: dict[int, int] = {}
        for one in operators:
            assert not confirmed.keys() & one.confirmed.keys(), "a number was given twice"
            confirmed |= one.confirmed
        steps = Steps(connect(server.url()), "the Redis of the test")
        store = ParameterStore(steps)
        trail = {change.number: change for change in await store.changes(at_most=1000)}
        found = await store.read()
        await steps.close()
    assert len(confirmed) >= CHANGES
    assert kills
    assert sorted(trail) == [*range(1, found.version + 1)], "each number once"
    made = {number: change.edits[0].new for number, change in trail.items()}
    assert {number: made[number] for number in confirmed} == confirmed
    assert len(set(made.values())) == len(made), "none was applied twice"
    deaths = sum(one.deaths for one in operators)
    assert len(made) - len(confirmed) <= deaths, "at most one unconfirmed change for each death"
    last = found.settings(TIM)["threads"]
    assert (last.change, last.value) == (found.version, made[found.version])
