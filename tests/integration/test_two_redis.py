"""Two cells on a Redis each, registry and broker on a third: an outage stops one cell only."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.multcall.keys import CellKeys
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect
from tests.integration.stack import CELL, Multcall, Stack, cancel
from tests.waiting import PATIENCE_S, wait_until

OTHER = "ura-novoteste2"

#: Celery's threads: more tasks of a cell whose Redis is dead than these would stop the other cell.
THREADS = 32


@dataclass(slots=True)
class Place:
    """One cell, its Redis, and Multcall on it."""

    cell: str
    server: EmbeddedValkey
    redis: Redis
    multcall: Multcall
    pushed: list[str] = field(default_factory=list)

    async def push(self, stack: Stack, n: int, last_two: int = 0) -> None:
        requests = [
            {"IdRequisicao": f"R{number}", "Telefone": number}
            for number in (stack.number(last_two) for _ in range(n))
        ]
        self.pushed += [request["IdRequisicao"] for request in requests]
        await self.redis.rpush(CellKeys(self.cell).request, *map(json.dumps, requests))

    async def size(self, index: str) -> int:
        return await self.redis.zcard(f"dialer:{index}:{self.cell}")

    async def all_answered(self) -> None:
        """Wait until each request has its one Response, and the cell is at rest."""
        responses = self.multcall.responses
        await wait_until(
            lambda: len(responses) >= len(self.pushed),
            f"every Response of {self.cell}",
            within_s=PATIENCE_S,
        )
        assert Counter(r["IdRequisicao"] for r in responses) == Counter(self.pushed)
        await wait_until(self._is_at_rest, f"{self.cell} is at rest")

    async def _is_at_rest(self) -> bool:
        wire = CellKeys(self.cell)
        try:
            counters = await self.redis.mget(wire.counter, wire.counter_ack)
            return counters == [b"0", b"0"] and not await self.size("live")
        except RedisError:  # a connection from before its death
            return False

    async def die(self, *others: Multcall) -> None:
        """Kills its Redis, while this Multcall and the others on it take nothing."""
        async with AsyncExitStack() as turns:
            for multcall in (self.multcall, *others):
                await turns.enter_async_context(multcall.turn)
            await asyncio.to_thread(self.server.kill)

    async def revive(self) -> None:
        """Start its Redis again, over the same data."""
        await asyncio.to_thread(self.server.start)
        await self.redis.connection_pool.disconnect(inuse_connections=False)


@asynccontextmanager
async def two_cells(
    folder: Path, *, pbx: dict[str, Any] | None = None, **habits: Any
) -> AsyncIterator[tuple[Stack, Place, Place]]:
    async with AsyncExitStack() as exits:
        places = []
        tasks: list[asyncio.Task[None]] = []
        for cell in (CELL, OTHER):
            server = exits.enter_context(EmbeddedValkey(appendonly=True))
            client = connect(server.url(), reply_timeout_s=1.0)
            exits.push_async_callback(client.aclose)
            places.append(Place(cell, server, client, Multcall(client, cell)))
        exits.push_async_callback(cancel, tasks)
        mine, other = places
        settings = {"multcall": {"redis_url": mine.server.url()}}
        stack = await exits.enter_async_context(Stack(folder, settings=settings))
        stack.settings["registry"] = {"redis_url": ""}
        stack.add_pbx("pbx01", table=pbx, **habits)
        stack.add_cell(OTHER, redis_url=other.server.url())
        await stack.start_valkey()
        stack.settings["registry"]["redis_url"] = stack.valkey.url(0)
        tasks += [asyncio.create_task(place.multcall.run()) for place in places]
        yield stack, mine, other


async def test_one_bridge_and_worker_serve_cells_on_two_redis(tmp_path: Path) -> None:
    async with two_cells(tmp_path) as (stack, mine, other):
        await stack.start()
        await asyncio.gather(mine.push(stack, 30), other.push(stack, 30))
        await asyncio.gather(mine.all_answered(), other.all_answered())
        await stack.at_rest()
        assert set(stack.rings.values()) == {1}


async def test_dead_redis_of_a_cell_stops_no_call_of_the_other(tmp_path: Path) -> None:
    room = {"max_calls": 2 * THREADS + 8}  # all taken when it dies
    habits = {"talk_time": (0.5, 1.0), "long_talk": 5.0}
    async with two_cells(tmp_path, pbx=room, **habits) as (stack, mine, other):
        await stack.start()
        await mine.push(stack, THREADS, last_two=90)
        await stack.until_live(THREADS)
        worker = stack.workers["pbx01"]
        worker.freeze()
        await mine.push(stack, THREADS + 8)
        await wait_until(lambda: _is(mine.size("queued"), THREADS + 8), "more tasks than threads")
        await mine.die()
        worker.thaw()

        for n in range(1, 4):
            await other.push(stack, 20)
            await other.all_answered()
            assert len(other.multcall.responses) == 20 * n

        await mine.revive()
        await mine.all_answered()
        await stack.at_rest()
        assert set(stack.rings.values()) == {1}


async def test_claims_that_hang_take_no_turns_of_the_other_cell(tmp_path: Path) -> None:
    habits = {"talk_time": (0.5, 1.0), "long_talk": 5.0}
    async with two_cells(tmp_path, pbx={"max_calls": 100, "cps": 20}, **habits) as found:
        stack, mine, other = found
        await stack.start()
        worker = stack.workers["pbx01"]
        worker.freeze()
        await mine.push(stack, 8)  # more than may wait for their channel at once
        await wait_until(lambda: _is(mine.size("queued"), 8), "eight tasks on the way")
        await mine.die()
        worker.thaw()
        await other.push(stack, 20)
        await other.all_answered()
        assert "takes no calls" not in stack.bridges[0].log
        await mine.revive()
        await mine.all_answered()


async def test_programs_start_while_the_redis_of_one_cell_is_dead(
    tmp_path: Path,
) -> None:
    async with two_cells(tmp_path, talk_time=(2.0, 3.0)) as (stack, mine, other):
        await stack.start()
        await mine.push(stack, 10)
        await stack.until_live(10)
        await mine.die()
        await stack.bridges[0].kill()
        await stack.workers["pbx01"].kill()
        await stack.start_worker("pbx01")
        await stack.start_bridge()
        await other.push(stack, 20)
        await other.all_answered()

        await mine.revive()
        await mine.push(stack, 5)
        await mine.all_answered()
        await stack.at_rest()
        assert set(stack.rings.values()) == {1}


async def _is(size: Any, wanted: int) -> bool:
    return bool(await size == wanted)


async def test_removed_cell_gets_responses_once_its_redis_is_back(
    tmp_path: Path,
) -> None:
    async with two_cells(tmp_path, talk_time=(300.0, 300.0)) as (stack, _, other):
        stack.add_cell("LEAVES", redis_url=other.server.url())
        await stack.start()
        leaves = Place("LEAVES", other.server, other.redis, Multcall(other.redis, "LEAVES"))
        playing = asyncio.create_task(leaves.multcall.run())
        await leaves.push(stack, 5)
        await wait_until(lambda: len(leaves.multcall.acks) == 5, "all are up")
        stack.forget_cell("LEAVES")
        stack.write_config()
        await other.die(leaves.multcall)
        await stack.bridges[0].kill()
        await stack.workers["pbx01"].kill()
        await stack.start_worker()
        await stack.start_bridge()
        await other.revive()
        stack.end_calls()
        await leaves.all_answered()
        await cancel([playing])
        assert {r["Resultado"] for r in leaves.multcall.responses} == {"ANSWERED"}
