"""Simulated Multcall: pushes requests, sends a code per ACK, reads and checks every Response.

Connects the parts (`requests`: what to push, `lists`: Redis, `checker`: what is correct) and
owns their timing. Continues through outages of Redis and pushes nothing twice, so chaos tests
can use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dialer.multcall.fields import PLAIN, Fields
from dialer.simulation.multcall.checker import Checker, Summary
from dialer.simulation.multcall.lists import CellLists, Push
from dialer.simulation.multcall.requests import DEFAULT_MIX, DEFAULT_PREFIX, Asked, Script
from dialer.store.client import cancel, connect, require

#: Most elements per push, if pushing is behind the clock.
PUSH_BATCH: Final = 200

#: Seconds to read on after the last Response, to find answers that should not exist.
LINGER_S: Final = 0.3

#: Seconds within which the counters must return to 0.
COUNTERS_WITHIN_S: Final = 5.0

#: Seconds between two calls of `watch`.
WATCH_EVERY_S: Final = 0.2

#: Seconds between two progress lines of the program.
PROGRESS_EVERY_S: Final = 2.0

#: Violations listed one by one.
VIOLATIONS_SHOWN: Final = 50

Watch = Callable[[Checker], None]


@dataclass(slots=True, kw_only=True)
class Player:
    """One run. `rate` is in requests per second, infinite for all at once.

    `code_delay_s` is the time from an ACK to its code; None: no codes. `answered_within_s` is
    counted from the last push. `watch` is called regularly, and once at the end.
    """

    lists: Mapping[str, CellLists]
    requests: Sequence[Asked]
    rate: float
    checker: Checker
    code_delay_s: float | None
    answered_within_s: float
    watch: Watch
    clock: Callable[[], float] = time.monotonic
    _codes: dict[str, deque[tuple[float, Asked]]] = field(default_factory=dict)
    _acked: dict[str, asyncio.Event] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._codes = {cell: deque() for cell in self.lists}
        self._acked = {cell: asyncio.Event() for cell in self.lists}

    async def play(self) -> None:
        """Run from the first push to the last Response, or to the timeout."""
        readers = [
            asyncio.create_task(part(lists))
            for lists in self.lists.values()
            for part in (self._read_acks, self._read_responses, self._send_codes)
        ]
        game = asyncio.create_task(self._push_and_wait())
        watching = asyncio.create_task(self._keep_watching())
        try:
            await asyncio.wait([game, *readers], return_when=asyncio.FIRST_COMPLETED)
            for task in (game, *readers):
                if task.done():
                    task.result()
        finally:
            await cancel([game, watching, *readers])
        await self._read_counters()
        for lists in self.lists.values():
            await lists.clean()
        self.watch(self.checker)

    async def _push_and_wait(self) -> None:
        await self._push_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.answered_within_s):
                while not self.checker.is_over:
                    self._news.clear()
                    await self._news.wait()
                await asyncio.sleep(LINGER_S)

    async def _push_all(self) -> None:
        """Push each request when it is due; catch up if pushing is late."""
        start, everything = self.clock(), len(self.requests)
        pushed = 0
        while pushed < everything:
            due = everything
            if math.isfinite(self.rate):
                due = min(everything, math.floor((self.clock() - start) * self.rate) + 1)
            if due > pushed:
                batch = self.requests[pushed : min(due, pushed + PUSH_BATCH)]
                pushed += len(batch)
                await self._push(batch)
            else:
                await asyncio.sleep(start + pushed / self.rate - self.clock())

    async def _push(self, batch: Sequence[Asked]) -> None:
        now = self.clock()
        for asked in batch:
            self.checker.pushed(asked, now)
        for cell, lists in self.lists.items():
            elements = [
                (f"{asked.request_id}#{again}", asked.element)
                for asked in batch
                if asked.cell == cell
                for again in range(asked.pushes)
            ]
            if elements:
                await lists.append(lists.wire.request, elements)

    async def _read_acks(self, lists: CellLists) -> None:
        waiting, news = self._codes[lists.cell], self._acked[lists.cell]
        async for elements in lists.elements(lists.wire.ack):
            now = self.clock()
            acked = [self.checker.acked(lists.cell, raw, now) for raw in elements]
            if self.code_delay_s is not None:
                waiting.extend((now + self.code_delay_s, asked) for asked in acked if asked)
                news.set()

    async def _send_codes(self, lists: CellLists) -> None:
        waiting, news = self._codes[lists.cell], self._acked[lists.cell]
        while True:
            while not waiting:
                news.clear()
                await news.wait()
            await asyncio.sleep(max(0.0, waiting[0][0] - self.clock()))
            now = self.clock()
            due: list[Asked] = []
            while waiting and waiting[0][0] <= now and len(due) < PUSH_BATCH:
                due.append(waiting.popleft()[1])
            for asked in due:
                self.checker.code_sent(asked, now)
            elements = [(asked.request_id, _code(asked)) for asked in due]
            await lists.append(lists.wire.code, elements)

    async def _read_responses(self, lists: CellLists) -> None:
        async for elements in lists.elements(lists.wire.response):
            now = self.clock()
            for raw in elements:
                self.checker.responded(lists.cell, raw, now)
            self._news.set()

    async def _read_counters(self) -> None:
        """Read the counters until they are 0, or until `COUNTERS_WITHIN_S` is over."""
        deadline = self.clock() + COUNTERS_WITHIN_S
        for lists in self.lists.values():
            counters = await lists.counters()
            while any(int(value or 0) for value in counters) and self.clock() < deadline:
                await asyncio.sleep(0.1)
                counters = await lists.counters()
            self.checker.counted(
                lists.cell, *(value.decode() if value else None for value in counters)
            )

    async def _keep_watching(self) -> None:
        while True:
            self.watch(self.checker)
            await asyncio.sleep(WATCH_EVERY_S)


async def play(
    redis_url: str | Mapping[str, str],
    cells: Sequence[str],
    calls: int,
    rate: float,
    *,
    mix: Mapping[str, float] = DEFAULT_MIX,
    number_prefix: str = DEFAULT_PREFIX,
    push: Push = "right",
    fields: Fields = PLAIN,
    code_delay_s: float | None = 0.02,
    code_wait_s: float = 10.0,
    ring_timeout_s: int | None = None,
    valid_for_s: float | None = None,
    extra: Mapping[str, object] | None = None,
    answered_within_s: float = 120.0,
    disturbed: bool = False,
    seed: int = 1,
    requests: Sequence[Asked] | None = None,
    rings: Callable[[], Mapping[str, int]] | None = None,
    watch: Watch = lambda _: None,
) -> Summary:
    """Simulate Multcall and return the summary.

    Args:
        redis_url: URL of the Redis with the cells' lists; one for all, or one per cell.
        cells: names of the cells; requests are distributed in turn.
        calls: number of requests.
        rate: requests per second, `math.inf` for all at once.
        mix: weights of the kinds in `requests.KINDS`.
        number_prefix: first digits of every number; six digits of the call's index in this run
            follow, and two that determine the outcome.
        push: `multcall.push` of the dialer's settings.
        fields: `multcall.fields` of the dialer's settings.
        code_delay_s: seconds from an ACK to its CODLIGACAO; None: no codes.
        code_wait_s: the cells' timeout_command_ack; later codes need not be in the Response.
        ring_timeout_s: TempoToque of every request; None: the cell's.
        valid_for_s: ValidadeSeg of every request; None: none.
        extra: additional fields of every request, such as Tronco or Variaveis.
        answered_within_s: seconds to wait for Responses after the last push.
        disturbed: parts of the system are killed during the run; see `Checker`.
        seed: seed for the order of kinds.
        requests: requests made by the caller; replaces `calls` and all that shapes requests.
        rings: called at the end; returns how often each number rang; see `Checker.rang`.
        watch: called regularly with the checker, to show progress.

    Raises:
        StoreUnavailable: a Redis is down at the start; later outages only delay the run.
    """
    run = secrets.token_hex(5)
    urls = dict.fromkeys(cells, redis_url) if isinstance(redis_url, str) else redis_url
    checker = Checker(disturbed=disturbed, code_wait_s=code_wait_s)
    if requests is None:
        script = Script(
            run=run,
            cells=cells,
            calls=calls,
            mix=mix,
            number_prefix=number_prefix,
            ring_timeout_s=ring_timeout_s,
            valid_for_s=valid_for_s,
            extra=extra or {},
            seed=seed,
        )
        requests = list(script.requests(datetime.now(UTC), rate))
    async with AsyncExitStack() as stack:
        lists: dict[str, CellLists] = {}
        for cell in cells:
            redis = connect(urls[cell])
            stack.push_async_callback(redis.aclose)
            await require(redis, urls[cell], f"the Redis of cell {cell}")
            lists[cell] = CellLists(redis, cell, run, push, fields)
        player = Player(
            lists=lists,
            requests=requests,
            rate=rate,
            checker=checker,
            code_delay_s=code_delay_s,
            answered_within_s=answered_within_s,
            watch=watch,
        )
        await player.play()
    if rings is not None:
        checker.rang(rings())
    return checker.summary()


def _code(asked: Asked) -> bytes:
    return f'{{"IdRequisicao":{asked.request_id_json},"CodLigacao":{asked.code_json}}}'.encode()


# --- the program --------------------------------------------------------------------------


def run(
    redis_url: str | Mapping[str, str],
    cells: Sequence[str],
    calls: int,
    rate: float,
    *,
    mix: Mapping[str, float],
    number_prefix: str,
    push: Push,
    fields: Fields,
    code_delay_s: float,
    code_wait_s: float,
    ring_timeout_s: int | None,
    answered_within_s: float,
) -> bool:
    """Run with progress and report on the terminal; return True if there were no violations."""
    shown_at = 0.0

    def show(checker: Checker) -> None:
        nonlocal shown_at
        if (now := time.monotonic()) - shown_at > PROGRESS_EVERY_S:
            shown_at = now
            split = "".join(f", {pbx} {n}" for pbx, n in sorted(checker.pbxs.items()))
            sys.stderr.write(
                f"{len(checker.calls)} requests, {checker.acks} ACKs, "
                f"{checker.responses} Responses{split}\n"
            )

    summary = asyncio.run(
        play(
            redis_url,
            cells,
            calls,
            rate,
            mix=mix,
            number_prefix=number_prefix,
            push=push,
            fields=fields,
            code_delay_s=code_delay_s,
            code_wait_s=code_wait_s,
            ring_timeout_s=ring_timeout_s,
            answered_within_s=answered_within_s,
            watch=show,
        )
    )
    for line in report(summary):
        sys.stdout.write(f"{line}\n")
    return summary.is_right


def report(summary: Summary) -> Iterator[str]:
    """Yield the summary as text lines, with the first `VIOLATIONS_SHOWN` violations."""
    yield (
        f"{summary.calls} requests pushed in {summary.pushing_s:.1f} s, {summary.acks} ACKs, "
        f"{summary.codes} codes, {summary.responses} Responses in {summary.duration_s:.1f} s"
    )
    if summary.results:
        yield "outcomes: " + ", ".join(f"{n} {result}" for result, n in summary.results.items())
    if summary.pbxs:
        yield "PBXs: " + ", ".join(f"{n} on {pbx}" for pbx, n in summary.pbxs.items())
    if summary.amd:
        yield "AMD: " + ", ".join(f"{n} {word}" for word, n in summary.amd.items())
    if summary.agents:
        yield "operators: " + ", ".join(f"{agent} {n}" for agent, n in summary.agents.items())
    if summary.ack_p50_s is not None:
        yield (
            f"Request to ACK: p50 {_ms(summary.ack_p50_s)}, p99 {_ms(summary.ack_p99_s)}, "
            f"longest {_ms(summary.ack_max_s)}"
        )
    count = len(summary.violations)
    yield f"violations: {count or 'none'}"
    yield from (f"  {violation}" for violation in summary.violations[:VIOLATIONS_SHOWN])
    if count > VIOLATIONS_SHOWN:
        yield f"  and {count - VIOLATIONS_SHOWN} more"


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1000:.0f} ms"
