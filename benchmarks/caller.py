"""Multcall as a benchmark needs it: pushes requests at a rate and notes when each answer comes.

It does as little as it can while the calls run, because it shares the machine with what is
measured; the answers are checked afterwards, by the checker of the simulated Multcall. Its own
commands are known (`others_traffic`), so they can be subtracted from those of the server.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import Redis

from benchmarks.usage import Traffic
from dialer.multcall.keys import CellKeys
from dialer.simulation.multcall.checker import Checker
from dialer.simulation.multcall.requests import Asked, expected_results
from dialer.store.client import cancel

#: Most elements taken in one command.
BATCH: Final = 500

#: Longest wait for an element in one command, in seconds.
BLOCK_S: Final = 1.0

#: By this name its own connections are found.
NAME: Final = "bench-caller"

#: What a request carries besides its number, as a site's would.
_DATA: Final = json.dumps({"contrato": "0042-991", "campanha": "maio", "tentativa": 2})

#: (cell, element, when): answers as they came.
_Took = list[tuple[str, bytes, float]]


def requests(
    run: str, calls: int, last_two: int, cells: Sequence[str], first: int = 0
) -> list[Asked]:
    """Return requests with numbers of their own; the last two digits determine the outcome."""
    created_at = json.dumps(datetime.now(UTC).isoformat(timespec="milliseconds"))
    made = []
    for n in range(first, first + calls):
        request_id, number = json.dumps(f"{run}-{n}"), f"+5511{n:07d}{last_two:02d}"
        element = (
            f'{{"IdRequisicao":{request_id},"Telefone":"{number}",'
            f'"CriadaEm":{created_at},"Dados":{_DATA}}}'
        )
        made.append(
            Asked(
                cell=cells[n % len(cells)],
                request_id=f"{run}-{n}",
                request_id_json=request_id,
                element=element.encode(),
                number=number,
                results=expected_results(number),
                created_at_json=created_at,
                data_json=_DATA,
                code_json=str(n),
            )
        )
    return made


@dataclass(slots=True)
class Caller:
    """Plays Multcall on the cells of one Redis. A context manager."""

    redis_url: str
    cells: Sequence[str]
    pushed_at: dict[str, float] = field(default_factory=dict)
    acks: _Took = field(default_factory=list)
    responses: _Took = field(default_factory=list)
    codes_at: dict[str, float] = field(default_factory=dict)
    _by_id: dict[str, Asked] = field(default_factory=dict)
    _clients: list[Redis] = field(default_factory=list)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        for what in ("ack", "response"):
            self._readers.append(asyncio.create_task(self._read(self._client(), what)))
        self._client()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await cancel(self._readers)
        for client in self._clients:
            await client.aclose()

    @property
    def redis(self) -> Redis:
        """A client that does not block."""
        return self._clients[-1]

    def _client(self) -> Redis:
        client = Redis.from_url(self.redis_url, client_name=NAME)
        self._clients.append(client)
        return client

    async def call(self, asked: Sequence[Asked], rate: float, within_s: float) -> bool:
        """Push the requests at `rate` a second; return True if all had a Response in time.

        `within_s` is counted from the last push. Raises what a reader raised.
        """
        target = len(self.responses) + len(asked)
        start, pushed = time.monotonic(), 0
        while pushed < len(asked):
            due = min(len(asked), int((time.monotonic() - start) * rate) + 1)
            if due > pushed:
                await self.push(asked[pushed:due])
                pushed = due
            await asyncio.sleep(max(0.0, start + pushed / rate - time.monotonic()))
        return await self.wait(target, within_s)

    async def push(self, asked: Sequence[Asked]) -> None:
        """Push requests now."""
        for cell in dict.fromkeys(one.cell for one in asked):
            mine = [one for one in asked if one.cell == cell]
            now = time.monotonic()
            for one in mine:
                self._by_id[one.request_id] = one
                self.pushed_at[one.request_id] = now
            await self._push(CellKeys(cell).request, [one.element for one in mine])

    async def wait(self, responses: int, within_s: float) -> bool:
        """Wait until there are as many Responses; return False if they do not come in time."""
        deadline = time.monotonic() + within_s
        while len(self.responses) < responses and time.monotonic() < deadline:
            self._news.clear()
            arrives = asyncio.create_task(self._news.wait())
            await asyncio.wait(
                [arrives, *self._readers],
                timeout=max(0.0, deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            arrives.cancel()
            for reader in self._readers:
                if reader.done():
                    reader.result()
        return len(self.responses) >= responses

    async def others_traffic(self) -> Traffic:
        """Return what the server did for all but this caller's own connections.

        Its own are not subtracted if the server does not tell what each connection did.
        """
        both: Any = self.redis.pipeline(transaction=True)  # nothing happens between the two
        info, clients = await both.info("everything").client_list().execute()
        mine = [line for line in clients if line.get("name") == NAME]
        commands = sum(int(line.get("tot-cmds", 0)) for line in mine)
        sizes = (int(line.get(f"tot-net-{way}", 0)) for line in mine for way in ("in", "out"))
        return Traffic.of(info) - Traffic(commands=commands, reads=commands, net_bytes=sum(sizes))

    def checked(self) -> Checker:
        """Feed all that happened to a checker, in its order."""
        checker = Checker()
        happened: list[tuple[float, int, Any]] = [
            *((at, 0, name) for name, at in self.pushed_at.items()),
            *((at, 1, (cell, raw)) for cell, raw, at in self.acks),
            *((at, 2, name) for name, at in self.codes_at.items()),
            *((at, 3, (cell, raw)) for cell, raw, at in self.responses),
        ]
        for at, kind, what in sorted(happened, key=lambda one: one[:2]):
            if kind == 0:
                checker.pushed(self._by_id[what], at)
            elif kind == 1:
                checker.acked(what[0], what[1], at)
            elif kind == 2:
                checker.code_sent(self._by_id[what], at)
            else:
                checker.responded(what[0], what[1], at)
        return checker

    def forget(self) -> None:
        """Forget all calls, which have ended."""
        for kept in (self.pushed_at, self.acks, self.responses, self.codes_at, self._by_id):
            kept.clear()

    async def _push(self, key: str, elements: Sequence[bytes]) -> None:
        for n in range(0, len(elements), BATCH):
            await self.redis.rpush(key, *elements[n : n + BATCH])

    async def _read(self, redis: Redis, what: str) -> None:
        took = self.acks if what == "ack" else self.responses
        keys = {getattr(CellKeys(cell), what).encode(): cell for cell in self.cells}
        async for key, elements in _elements(redis, list(keys)):
            now, cell = time.monotonic(), keys[key]
            took += [(cell, raw, now) for raw in elements]
            if what == "ack":
                await self._send_codes(cell, elements)
            else:
                self._news.set()

    async def _send_codes(self, cell: str, acks: Sequence[bytes]) -> None:
        ids = [str(json.loads(raw)["IdRequisicao"]) for raw in acks]
        asked = [self._by_id[name] for name in ids if name in self._by_id]
        now = time.monotonic()
        self.codes_at.update((one.request_id, now) for one in asked)
        codes = [
            f'{{"IdRequisicao":{one.request_id_json},"CodLigacao":{one.code_json}}}'.encode()
            for one in asked
        ]
        await self._push(CellKeys(cell).code, codes)


async def _elements(redis: Redis, keys: list[bytes]) -> AsyncIterator[tuple[bytes, list[bytes]]]:
    while True:
        found: Any = await redis.execute_command(  # type: ignore[no-untyped-call]
            "BLMPOP", BLOCK_S, len(keys), *keys, "LEFT", "COUNT", BATCH
        )
        if found:
            yield found[0], found[1]
