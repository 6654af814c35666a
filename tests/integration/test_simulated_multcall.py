"""The simulated Multcall with a minimal dialer, on a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest, StoreUnavailable
from dialer.multcall.answers import ack, invalid_response, response_parts
from dialer.multcall.code import parse_code
from dialer.multcall.fields import PLAIN, Fields
from dialer.multcall.keys import CellKeys
from dialer.multcall.request import parse_request
from dialer.multcall.wire import Wire
from dialer.simulation.multcall.checker import Checker
from dialer.simulation.multcall.lists import CellLists
from dialer.simulation.multcall.player import play
from dialer.simulation.multcall.requests import expected_results
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import cancel, connect
from tests.waiting import wait_until

CELLS = ("ASR_TIM", "ura-novo-2")
Push = Any


@dataclass
class TinyDialer:
    """Answers every request correctly, unless a test changes it.

    Keeps the elements that came, so that a test can see whether one came twice.
    """

    redis: Redis
    push: Push = "right"
    fields: Fields = PLAIN
    answers: int = 1
    silent: bool = False
    bend: Callable[[str], str] = str
    rests: bool = False
    resting: int = 0
    in_flight: int = 0
    requests: list[bytes] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)

    async def serve(self, cell: str) -> None:
        """Serve one cell until cancelled, also through outages."""
        wire = CellKeys(cell)
        async with asyncio.TaskGroup() as group:
            async for raw in self._elements(wire.request):
                self.requests.append(raw)
                if not self.silent:
                    self.in_flight += 1  # before the task runs: `rest` waits for it
                    group.create_task(self._call(wire, cell, raw))

    async def serve_codes(self, cell: str) -> None:
        """Pop the codes of one cell until cancelled."""
        async for raw in self._elements(CellKeys(cell).code):
            code = parse_code(raw, Wire(fields=self.fields))
            assert code.request_id not in self.codes, "a code came twice"
            self.codes[code.request_id] = code.code_json

    async def _elements(self, key: str) -> AsyncIterator[bytes]:
        while True:
            while self.rests and not self.in_flight:
                self.resting += 1
                await asyncio.sleep(0.002)
                self.resting -= 1
            take_from = self.redis.lpop if self.push == "right" else self.redis.rpop
            if self.rests and "Request" in key:
                taken = None
            else:
                taken = await take_from(key)
            if taken:
                yield bytes(taken)  # type: ignore[arg-type]
            else:
                await asyncio.sleep(0.002)

    async def rest(self) -> None:
        """Finish the current step, then do not use Redis until `rests` is false again.

        It is no real dialer: an element whose reply got lost would be lost.
        """
        self.rests = True
        await wait_until(
            lambda: not self.in_flight and self.resting == 2 * len(CELLS), "the tiny dialer rests"
        )

    async def _call(self, wire: CellKeys, cell: str, raw: bytes) -> None:
        await self._answer(wire, cell, raw)
        self.in_flight -= 1

    async def _answer(self, wire: CellKeys, cell: str, raw: bytes) -> None:
        now = datetime.now(UTC)
        try:
            request = parse_request(raw, cell=cell, wire=Wire(fields=self.fields))
        except InvalidRequest as error:
            text = invalid_response(
                cell=cell,
                request_id_json=error.request_id_json or "null",
                error=error,
                at=now,
                fields=self.fields,
            )
            await self._append(wire.response, text)
            return
        result = min(expected_results(request.number))
        uniqueid = request.call_id
        await self._append(
            wire.ack,
            ack(request=request, pbx="pbx9", uniqueid=uniqueid, at=now, fields=self.fields),
        )
        await wait_until(lambda: request.request_id in self.codes, "its code")
        for _ in range(self.answers):
            text = self._response(request, result, now, self.codes[request.request_id])
            await self._append(wire.response, self.bend(text))

    def _response(self, request: CallRequest, result: Result, at: datetime, code: str) -> str:
        failed = CallError(code="odd", message="odd") if result is Result.FAILED else None
        parts = response_parts(
            request=request,
            pbx="pbx9",
            uniqueid=request.call_id,
            attempts=1,
            dialed_at=at,
            answered_at=at if result is Result.ANSWERED else None,
            ending=Ending(result=result, ended_at=at + timedelta(seconds=1), error=failed),
            fields=self.fields,
        )
        return f"{parts.head}{code}{parts.tail}"

    async def _append(self, key: str, text: str) -> None:
        await (self.redis.rpush if self.push == "right" else self.redis.lpush)(key, text)


@contextlib.asynccontextmanager
async def dialer(redis_url: str, **bent: Any) -> AsyncIterator[TinyDialer]:
    async with connect(redis_url) as client:
        tiny = TinyDialer(client, **bent)
        tasks = [
            asyncio.create_task(part(cell))
            for cell in CELLS
            for part in (tiny.serve, tiny.serve_codes)
        ]
        try:
            yield tiny
        finally:
            await cancel(tasks)


def keys_left(redis_url: str) -> set[str]:
    with redis.Redis.from_url(redis_url) as client:
        return {key.decode() for key in client.scan_iter("*")}


async def test_correct_dialer_causes_no_violation(redis_url: str) -> None:
    mix = {"answered": 5, "busy": 1, "no_answer": 1, "refused": 1, "malformed": 1}
    async with dialer(redis_url) as tiny:
        summary = await play(redis_url, CELLS, 200, math.inf, mix=mix)
    assert summary.violations == ()
    assert summary.responses == summary.calls == len(tiny.requests) == 200
    assert summary.acks == summary.codes == len(tiny.codes) < 200
    assert summary.ack_p50_s is not None


async def test_simulated_multcall_uses_the_names_of_the_site(redis_url: str) -> None:
    names = {"IdRequisicao": "Id", "Dados": "IdRequisicao", "Codigo": "Code", "Erro": "Error"}
    fields = Fields(names)
    mix = {"answered": 3, "refused": 1, "malformed": 1}
    async with dialer(redis_url, fields=fields):
        summary = await play(redis_url, CELLS, 60, math.inf, mix=mix, fields=fields)
    assert summary.violations == ()
    assert summary.responses == summary.calls == 60


async def test_push_left_reverses_both_sides(redis_url: str) -> None:
    async with dialer(redis_url, push="left") as tiny:
        summary = await play(redis_url, CELLS, 50, math.inf, push="left")
    assert summary.violations == ()
    order = [parse_request(raw, cell=CELLS[0]).number[:-2] for raw in tiny.requests]
    assert sorted(order) != order[::-1]  # first in, first out: not the last one first
    assert order[0].endswith("000000")


async def test_player_leaves_no_key_in_redis(redis_url: str) -> None:
    async with dialer(redis_url):
        await play(redis_url, CELLS, 20, math.inf)
    assert keys_left(redis_url) == set()


async def test_requests_are_pushed_by_the_clock(redis_url: str) -> None:
    pushed: list[float] = []

    def watch(checker: Checker) -> None:
        pushed[:] = [played.pushed_at for played in checker.calls.values()]

    async with dialer(redis_url):
        summary = await play(redis_url, CELLS, 100, 200.0, watch=watch)
    assert 99 / 200 - 0.01 <= summary.pushing_s < 10 * 99 / 200
    late = [at - pushed[0] - n / 200 for n, at in enumerate(pushed)]
    assert min(late) >= -0.001


async def test_a_second_response_is_reported(redis_url: str) -> None:
    async with dialer(redis_url, answers=2):
        summary = await play(redis_url, CELLS, 5, math.inf)
    assert {v.kind for v in summary.violations} == {"second_response"}


async def test_reserialized_data_are_reported(redis_url: str) -> None:
    async with dialer(redis_url, bend=lambda text: text.replace('"Dados":1.10', '"Dados":1.1')):
        summary = await play(redis_url, CELLS, 5, math.inf)
    assert {v.kind for v in summary.violations} == {"changed"}


async def test_unanswered_requests_are_reported_in_time(redis_url: str) -> None:
    async with dialer(redis_url, silent=True):
        summary = await play(redis_url, CELLS, 5, math.inf, answered_within_s=0.2)
    assert [v.kind for v in summary.violations] == ["no_response"] * 5
    assert not summary.is_right


async def test_a_counter_that_leaks_is_reported(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialer.simulation.multcall.player.COUNTERS_WITHIN_S", 0.0)
    async with connect(redis_url) as client, dialer(redis_url):
        await client.set(CellKeys(CELLS[1]).counter, 1)
        summary = await play(redis_url, CELLS, 2, math.inf)
    assert [str(v) for v in summary.violations] == [
        "Counter-ura-novo-2 is 1 after the last call, instead of 0"
    ]


async def test_player_can_send_no_codes(redis_url: str) -> None:
    with_null = "null"
    async with dialer(redis_url) as tiny:
        tiny.codes = _Always(with_null)
        summary = await play(redis_url, CELLS, 5, math.inf, code_delay_s=None)
    assert summary.violations == ()
    assert summary.codes == 0


class _Always(dict[str, str]):
    """Uses the same code for every call."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: str) -> str:
        return self._code


async def test_redis_outage_loses_and_repeats_nothing(
    valkey_server: EmbeddedValkey, redis_url: str
) -> None:
    async with dialer(redis_url) as tiny:
        playing = asyncio.create_task(play(redis_url, CELLS, 200, 100.0))
        await wait_until(lambda: len(tiny.requests) >= 20, "the run is well under way")
        await tiny.rest()
        await asyncio.to_thread(valkey_server.kill)
        with pytest.raises(AssertionError, match="the server is back"):
            await wait_until(lambda: valkey_server.running, "the server is back", within_s=0.5)
        await asyncio.to_thread(valkey_server.start)
        await tiny.redis.connection_pool.disconnect()
        tiny.rests = False
        summary = await asyncio.wait_for(playing, 30)
    assert summary.violations == ()
    assert len(tiny.requests) == len(set(tiny.requests)) == summary.responses == 200


async def test_missing_redis_at_start_is_reported(valkey_server: EmbeddedValkey) -> None:
    valkey_server.kill()
    with pytest.raises(StoreUnavailable, match="cell ASR_TIM at redis://"):
        await play(valkey_server.url(), CELLS, 1, 1.0)


# --- lost replies ------------------------------------------------------------------------


class Forgetful(Redis):
    """A client that loses two of three replies after the server executed the command."""

    turn = 0

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        reply = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.turn += 1
        if self.turn % 3:
            raise RedisConnectionError("the reply was lost")
        return reply


@pytest.fixture
async def forgetful(redis_url: str) -> AsyncIterator[CellLists]:
    client = Forgetful.from_url(redis_url)
    yield CellLists(client, CELLS[0], "run1")
    await client.aclose()


async def test_an_element_whose_reply_was_lost_is_pushed_once(
    forgetful: CellLists, redis_url: str
) -> None:
    for n in range(5):
        await forgetful.append(forgetful.wire.request, [(f"{n}", b"%d" % n), (f"x{n}", b"x")])
    with redis.Redis.from_url(redis_url) as client:
        found = client.lrange(forgetful.wire.request, 0, -1)
    assert found == [b"0", b"x", b"1", b"x", b"2", b"x", b"3", b"x", b"4", b"x"]


async def test_an_answer_whose_reply_was_lost_is_read_once(
    forgetful: CellLists, redis_url: str
) -> None:
    wanted = [b"%d" % n for n in range(20)]
    with redis.Redis.from_url(redis_url) as client:
        client.rpush(forgetful.wire.ack, *wanted[:10])
        read: list[bytes] = []
        async with asyncio.timeout(20):
            async for elements in forgetful.elements(forgetful.wire.ack):
                read += elements
                if len(read) == 10:
                    client.rpush(forgetful.wire.ack, *wanted[10:])
                if len(read) >= 20:
                    break
    assert read == wanted


async def test_late_repeat_of_an_earlier_turn_pops_nothing(redis_url: str) -> None:
    from dialer.simulation.multcall.lists import POP_ONCE

    async with connect(redis_url) as client:
        await client.rpush("list", "a", "b")
        first = ("list", "hand", "turn", 1, 0, "LEFT", 1, 60)
        second = ("list", "hand", "turn", 2, 1, "LEFT", 1, 60)
        assert await client.eval(POP_ONCE, 3, *first) == [b"a"]
        assert await client.eval(POP_ONCE, 3, *first) == [b"a"]
        assert await client.eval(POP_ONCE, 3, *second) == [b"b"]
        assert await client.eval(POP_ONCE, 3, *first) == [b"b"]
        assert await client.llen("list") == 0


async def test_idle_wait_costs_one_command_per_second(redis_url: str) -> None:
    """The reader blocks; a new answer is returned at once."""
    async with connect(redis_url) as client:
        lists = CellLists(client, CELLS[0], "run2")
        reader = lists.elements(lists.wire.ack)
        first = asyncio.ensure_future(anext(reader))

        def is_blocked() -> bool:
            with redis.Redis.from_url(redis_url) as other:
                return int(other.info("clients")["blocked_clients"]) > 0

        await wait_until(is_blocked, "the reader blocks")
        took_s = []
        for _ in range(5):  # the machine may be busy at one of them
            pushed_at = time.monotonic()
            await client.rpush(lists.wire.ack, "a")
            assert await first == [b"a"]
            took_s.append(time.monotonic() - pushed_at)
            first = asyncio.ensure_future(anext(reader))
            await wait_until(is_blocked, "the reader blocks again")
        assert min(took_s) < 0.5, "not at the end of the second"
        await cancel([first])
        await reader.aclose()  # type: ignore[attr-defined]
