"""Each step of a call: what it does, what it refuses, and that a repeat changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dialer.domain.call import CallError, Result, State
from dialer.domain.room import CellRoom
from dialer.errors import Fenced
from dialer.multcall.request import parse_request
from dialer.store.keys import IDLE_RETENTION_S
from dialer.store.ledger import Admissible, Admission, Delivery, Waiting, WorkerLedger
from dialer.store.ledger.fence import Fence
from tests.integration.cell_rig import BRIDGE, BUSY, CELL, T0, Site, code_element, element
from tests.waiting import wait_until


@pytest.fixture(params=["right", "left"])
async def site(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with Site(redis_url, push=request.param) as site:
        yield site


def hand(site: Site) -> str:
    return site.ledger.keys.hand(BRIDGE)


async def admit(site: Site, raw: bytes, threads: int = 10, **more: Any) -> Admission:
    request = parse_request(raw, cell=CELL)
    one = Admissible(source=hand(site), raw=raw, request=request, **more)
    return await site.ledger.admit(one, pbx="pbx01", threads=threads)


async def fetch(site: Site, bridge: str, *, at_most: int, threads: int) -> tuple[list[bytes], int]:
    """The hand of the bridge, and how many more requests the cell has room for."""
    fetched = await site.ledger.fetch(bridge, at_most=at_most, threads=threads)
    room = CellRoom(threads=threads, live=fetched.live, in_hand=fetched.in_hand)
    return fetched.hand, room.to_fetch


async def due(site: Site, **query: Any) -> list[Waiting]:
    return [w async for part in site.ledger.due(**query) for w in part]


# --- taking -------------------------------------------------------------------------


async def test_fetch_keeps_multcalls_order_and_its_limit(
    site: Site,
) -> None:
    await site.push_requests(b"1", b"2", b"3", b"4")
    assert await fetch(site, BRIDGE, at_most=3, threads=10) == ([b"1", b"2", b"3"], 7)
    assert await site.ledger.hand(BRIDGE) == [b"1", b"2", b"3"]
    assert await site.redis.llen(site.ledger.wire.request) == 1


async def test_repeated_fetch_returns_the_same_hand(site: Site) -> None:
    await site.push_requests(b"1", b"2", b"3", b"4")
    first = await fetch(site, BRIDGE, at_most=2, threads=10)
    assert await fetch(site, BRIDGE, at_most=2, threads=10) == first


async def test_hands_of_all_bridges_count_against_the_cells_room(
    site: Site,
) -> None:
    await site.admitted()
    await site.ledger.take_over("bridge-2")
    await site.redis.rpush(site.ledger.keys.hand("bridge-2"), b"x")
    await site.push_requests(b"1", b"2", b"3")
    assert await fetch(site, BRIDGE, at_most=9, threads=4) == ([b"1", b"2"], 0)
    assert await fetch(site, "bridge-3", at_most=9, threads=4) == ([], 0)


async def test_cell_with_more_calls_than_threads_fetches_nothing(site: Site) -> None:
    await site.admitted("r-1")
    await site.admitted("r-2")
    await site.push_requests(b"1")
    assert await fetch(site, BRIDGE, at_most=9, threads=1) == ([], 0)


async def test_codes_are_fetched_even_if_the_cell_is_full(site: Site) -> None:
    await site.push_codes(b"1", b"2", b"3")
    assert await site.ledger.fetch_codes(BRIDGE, at_most=2) == [b"1", b"2"]
    assert await site.ledger.fetch_codes(BRIDGE, at_most=2) == [b"1", b"2"]
    assert await site.ledger.code_hand(BRIDGE) == [b"1", b"2"]


async def test_stopping_bridge_returns_its_hand_in_order(site: Site) -> None:
    await site.push_requests(b"1", b"2", b"3")
    await site.push_codes(b"a", b"b", b"c")
    await site.ledger.fetch(BRIDGE, at_most=2, threads=10)
    await site.ledger.fetch_codes(BRIDGE, at_most=2)
    assert await site.ledger.return_hand(BRIDGE) == 4
    assert await site.ledger.return_hand(BRIDGE) == 0
    assert await fetch(site, "bridge-2", at_most=9, threads=9) == ([b"1", b"2", b"3"], 6)
    assert await site.ledger.fetch_codes("bridge-2", at_most=9) == [b"a", b"b", b"c"]


async def test_a_bridge_stops_when_nothing_waits_for_it(site: Site) -> None:
    ledger, keys = site.ledger, site.ledger.keys
    assert not await ledger.has_requests(BRIDGE)
    for hand in (keys.hand(BRIDGE), keys.code_hand(BRIDGE)):
        await site.redis.rpush(hand, b"element")
        assert await ledger.has_requests(BRIDGE)
        await site.redis.delete(hand)
    now, _ = await site.redis.time()
    await site.redis.sadd(keys.parking, "tim")
    await site.redis.zadd(keys.bridges, {BRIDGE: now * 1000, "dead": (now - 3600) * 1000})
    assert await ledger.has_requests(BRIDGE), "nobody else dials what is parked"
    await site.redis.zadd(keys.bridges, {"bridge-2": now * 1000})
    assert not await ledger.has_requests(BRIDGE)


async def test_element_in_a_stopped_bridges_hand_is_taken_over(site: Site) -> None:
    await site.ledger.take_over(BRIDGE)
    await site.ledger.return_hand(BRIDGE)
    await site.in_hand(b"moved by its last BLMOVE")
    assert await site.ledger.take_over("bridge-2") == [(BRIDGE, 1)]
    assert await site.ledger.hand("bridge-2") == [b"moved by its last BLMOVE"]


async def test_hands_of_a_dead_bridge_are_taken_over_once_in_order(site: Site) -> None:
    bridges = site.ledger.keys.bridges
    await site.ledger.take_over(BRIDGE)
    assert IDLE_RETENTION_S - 60 < await site.redis.ttl(bridges) <= IDLE_RETENTION_S
    await site.in_hand(b"1", b"2")
    await site.redis.rpush(site.ledger.keys.code_hand(BRIDGE), b"c")
    assert await site.ledger.take_over("bridge-2") == []
    await site.redis.zincrby(bridges, -11_000, BRIDGE)
    assert await site.ledger.take_over("bridge-2") == [(BRIDGE, 3)]
    assert await site.redis.zscore(bridges, BRIDGE) is not None, "it may only have been slow"
    assert await site.ledger.take_over("bridge-3") == []
    assert await site.ledger.hand("bridge-2") == [b"1", b"2"]
    assert await site.ledger.code_hand("bridge-2") == [b"c"]


async def test_bridge_taken_for_dead_can_be_taken_over_again(site: Site) -> None:
    bridges = site.ledger.keys.bridges
    await site.ledger.take_over(BRIDGE)
    await site.redis.zincrby(bridges, -3700_000, BRIDGE)
    await site.ledger.take_over("bridge-2")
    assert await site.redis.zscore(bridges, BRIDGE) is None  # forgotten at last
    await site.push_requests(b"1")
    await site.ledger.fetch(BRIDGE, at_most=1, threads=9)  # it was only stopped
    await site.redis.zincrby(bridges, -11_000, BRIDGE)
    assert await site.ledger.take_over("bridge-2") == [(BRIDGE, 1)]


# --- admitting ----------------------------------------------------------------------


async def test_admitted_request_is_a_queued_call_and_counts(site: Site) -> None:
    raw = element()
    await site.in_hand(raw)
    assert await admit(site, raw) is Admission.ADMITTED
    assert await site.ledger.hand(BRIDGE) == []
    call = (await site.entry()).call
    assert (call.state, call.pbx, call.epoch) == (State.QUEUED, "pbx01", 1)
    assert await site.counters() == await site.sizes() == (1, 0)
    assert await site.redis.ttl(site.ledger.keys.call(call.call_id)) == -1


async def test_repeated_id_goes_to_the_dead_list_only(site: Site) -> None:
    await site.admitted()
    before = await site.field("r-1", "request")
    repeat = element(number="5511000000000")
    await site.in_hand(repeat)
    assert await admit(site, repeat) is Admission.DUPLICATE
    assert await site.ledger.hand(BRIDGE) == [repeat]
    for is_there in (True, False):
        assert await site.ledger.bury(hand(site), repeat, '"repeat"') is is_there
    assert await site.dead() == ["repeat"]
    assert await site.field("r-1", "request") == before
    assert await site.responses() == []
    assert await site.ledger.hand(BRIDGE) == []


async def test_full_cell_leaves_the_request_in_hand(site: Site) -> None:
    await site.admitted("r-1")
    raw = element("r-2")
    await site.in_hand(raw)
    assert await admit(site, raw, threads=1) is Admission.FULL
    assert await site.ledger.hand(BRIDGE) == [raw]
    assert await site.state("r-2") is None


async def test_request_in_another_hand_is_not_admitted(site: Site) -> None:
    assert await admit(site, element()) is Admission.GONE
    assert await site.state() is None
    assert await site.sizes() == (0, 0)


async def test_number_limit_counts_calls_within_its_window(site: Site) -> None:
    for i, expected in enumerate([Admission.ADMITTED] * 2 + [Admission.NUMBER_LIMIT]):
        raw = element(f"r-{i}")
        await site.in_hand(raw)
        reply = await admit(site, raw, most_per_number=2, number_window_s=3600)
        assert reply is expected
    assert await site.ledger.hand(BRIDGE) == [element("r-2")]
    key = site.ledger.keys.number("5511987654321")
    assert 3590 < await site.redis.ttl(key) <= 3600
    await site.redis.zincrby(key, -3600_000, f"{CELL}:r-0")
    assert await admit(site, element("r-2"), most_per_number=2, number_window_s=3600) == "admitted"


async def test_a_number_limit_of_one_allows_one_call(site: Site) -> None:
    for request_id, expected in (("r-0", Admission.ADMITTED), ("r-1", Admission.NUMBER_LIMIT)):
        await site.in_hand(element(request_id))
        reply = await admit(site, element(request_id), most_per_number=1, number_window_s=3600)
        assert reply is expected


async def test_a_check_tells_what_admission_would_refuse(site: Site) -> None:
    for request_id in ("r-0", "r-1"):
        await site.in_hand(element(request_id))
        await admit(site, element(request_id), most_per_number=9, number_window_s=3600)
    other = element("r-3", "5511900000000")
    requests = [parse_request(raw, cell=CELL) for raw in (element("r-2"), element("r-0"), other)]
    assert await site.ledger.check(requests, number_window_s=3600) == [2, None, 0]
    assert await site.ledger.check(requests) == [0, None, 0]
    assert await site.ledger.check([]) == []
    key = site.ledger.keys.number("5511987654321")
    await site.redis.zincrby(key, -3_600_000, f"{CELL}:r-0")
    assert await site.ledger.check(requests, number_window_s=3600) == [1, None, 0]


async def test_parked_requests_are_read_from_the_oldest_on(site: Site) -> None:
    raw = [element(f"r-{n}") for n in range(5)]
    await site.redis.rpush(site.ledger.keys.parked("tim"), *raw)
    assert await site.ledger.parked({"tim": 2, "oi": 3}) == {"tim": raw[:2], "oi": []}
    assert await site.ledger.parked_slice("tim", 1, 3) == raw[1:4]


async def test_admission_takes_one_of_two_equal_elements(site: Site) -> None:
    await site.in_hand(element(), element())
    assert await admit(site, element()) is Admission.ADMITTED
    assert await site.ledger.hand(BRIDGE) == [element()]
    await site.in_hand(element())
    assert await admit(site, element()) is Admission.DUPLICATE
    assert await site.ledger.bury(hand(site), element(), '"repeat"')
    assert await site.ledger.hand(BRIDGE) == [element()]


async def test_parking_takes_one_of_two_equal_elements(site: Site) -> None:
    await site.in_hand(element(), element())
    assert await site.ledger.park(hand(site), [("tim", element())]) == 1
    assert await site.ledger.hand(BRIDGE) == [element()]
    assert await site.listed(site.ledger.keys.parked("tim")) == [element()]


async def test_number_limit_counts_a_number_with_and_without_plus(site: Site) -> None:
    for i, number in enumerate(("5511987654321", "+5511987654321")):
        raw = element(f"r-{i}", number)
        await site.in_hand(raw)
        reply = await admit(site, raw, most_per_number=1, number_window_s=3600)
        assert reply is (Admission.NUMBER_LIMIT if i else Admission.ADMITTED)


async def test_validity_counts_from_admission_without_criadaem(site: Site) -> None:
    await site.admitted("r-1", ValidadeSeg=90)
    entry = await site.entry("r-1")
    admitted_ms = int(await site.field("r-1", "admitted_ms") or 0)
    assert entry.expires_at is not None
    assert entry.expires_at.timestamp() * 1000 == pytest.approx(admitted_ms + 90_000, abs=1)
    await site.admitted("r-2")
    assert (await site.entry("r-2")).expires_at is None


async def test_refused_request_gets_one_response_and_uses_up_its_id(site: Site) -> None:
    raw = element()
    await site.in_hand(raw, raw)
    for expected in ("refused", "duplicate", "gone"):
        reply = await site.ledger.refuse(
            hand(site), raw, request_id="r-1", response='"no"', dead='"why"'
        )
        assert reply == expected
        if reply == "duplicate":
            assert await site.ledger.bury(hand(site), raw, '"repeat"')
    assert await site.responses() == ["no"]
    assert await site.dead() == ["why", "repeat"]
    assert await site.state() == "done"
    await site.in_hand(raw)
    assert await admit(site, raw) is Admission.DUPLICATE


async def test_messages_go_to_the_end_that_multcall_reads(site: Site) -> None:
    newest = -1 if site.push == "right" else 0
    wire = site.ledger.wire
    await site.redis.rpush(wire.ack, '{"IdRequisicao": "old"}')
    await site.redis.rpush(wire.response, '{"IdRequisicao": "old"}')

    for request_id in ("r-1", "r-2"):
        await site.accepted(request_id, wait_s=0)
        assert (await site.acks())[newest]["IdRequisicao"] == request_id
    await site.in_hand(element("r-3"))
    answer = '{"IdRequisicao": "r-3"}'
    await site.ledger.refuse(hand(site), element("r-3"), request_id="r-3", response=answer)
    assert (await site.responses())[newest]["IdRequisicao"] == "r-3"
    await site.end("r-1")
    await site.code(code_element("r-1"))
    assert (await site.responses())[newest]["IdRequisicao"] == "r-1"
    await site.end("r-2")
    await site.ledger.late_codes()
    assert (await site.responses())[newest]["IdRequisicao"] == "r-2"
    await site.admitted("r-4")
    await site.end("r-4")
    assert (await site.responses())[newest]["IdRequisicao"] == "r-4"


async def test_refusals_are_pushed_at_the_end_multcall_reads_last(site: Site) -> None:
    for i in (1, 2):
        raw = element(f"r-{i}")
        await site.in_hand(raw)
        await site.ledger.refuse(hand(site), raw, request_id=f"r-{i}", response=str(i))
    assert await site.responses() == ([1, 2] if site.push == "right" else [2, 1])


async def test_done_call_keeps_state_result_and_time_for_a_day(site: Site) -> None:
    await site.admitted("ended")
    await site.end("ended")
    await site.accepted("coded")
    await site.end("coded")
    await site.code(code_element("coded"))
    await site.accepted("late", wait_s=0)
    await site.end("late")
    await site.ledger.late_codes()
    raw = element("refused")
    await site.in_hand(raw)
    await site.ledger.refuse(
        hand(site), raw, request_id="refused", response="{}", result=Result.EXPIRED
    )
    now_s, _ = await site.redis.time()
    shown = await site.snapshot()
    for name in ("ended", "coded", "late", "refused"):
        key = site.ledger.keys.call(f"{CELL}:{name}")
        fields = {k.decode(): v.decode() for k, v in shown[key.encode()].items()}
        assert int(fields.pop("ended_ms")) / 1000 == pytest.approx(now_s, abs=60)
        result = "EXPIRED" if name == "refused" else "BUSY"
        story = fields.pop("story", "")
        assert fields == {"state": "done", "result": result}
        assert bool(story) is (name != "refused"), "it has no times"
        assert 86_000 < await site.redis.ttl(key) <= 86_400


async def test_unreadable_request_gets_a_dead_entry_and_no_response(site: Site) -> None:
    await site.in_hand(b"\xff")
    assert await site.ledger.refuse(hand(site), b"\xff", request_id=None, dead='"why"') == "refused"
    assert await site.responses() == []
    assert await site.dead() == ["why"]
    assert not [key async for key in site.redis.scan_iter("dialer:call:*")]


# --- queueing -----------------------------------------------------------------------


async def test_moved_call_has_a_new_epoch_and_its_old_task_is_void(site: Site) -> None:
    await site.admitted()
    waiting = await site.waiting()
    assert await site.ledger.assign(waiting, "pbx02") == 2
    assert await site.claimed(pbx="pbx01", epoch=1) is None
    assert await site.claimed(pbx="pbx02", epoch=1) is None
    entry = await site.claimed(pbx="pbx02", epoch=2)
    assert entry is not None
    assert entry.call.pbx == "pbx02"


async def test_repeated_assign_returns_the_same_epoch(site: Site) -> None:
    await site.admitted()
    waiting = await site.waiting()
    assert [await site.ledger.assign(waiting, "pbx02") for _ in range(3)] == [2, 2, 2]
    assert await site.ledger.assign(waiting, "pbx01") == 0
    assert (await site.entry()).call.pbx == "pbx02"


async def test_claimed_call_is_not_assigned(site: Site) -> None:
    await site.admitted()
    waiting = await site.waiting()
    await site.claimed()
    before = await site.snapshot()
    assert await site.ledger.assign(waiting, "pbx02") == 0
    assert await site.ledger.assign(replace(waiting, call_id="none"), "pbx02") == 0
    assert await site.snapshot() == before


async def test_waiting_call_is_due_once_per_nudge_interval(site: Site) -> None:
    await site.admitted("r-1")
    await site.admitted("r-2", pbx="pbx02")
    queued = site.ledger.keys.queued
    assert await due(site, older_than_s=30) == []
    await site.redis.zincrby(queued, -31_000, f"{CELL}:r-1")
    assert await due(site, older_than_s=30) == [await site.waiting("r-1")]
    assert await due(site, older_than_s=30) == []
    (of_pbx02,) = await due(site, older_than_s=0, pbx="pbx02")
    assert (of_pbx02.call_id, of_pbx02.pbx) == (f"{CELL}:r-2", "pbx02")


async def test_a_waiting_call_without_an_entry_is_forgotten(site: Site) -> None:
    await site.admitted()
    await site.redis.delete(site.ledger.keys.call(f"{CELL}:r-1"))
    assert await due(site, older_than_s=0) == []
    assert await site.redis.zcard(site.ledger.keys.queued) == 0


async def test_a_call_behind_a_thousand_of_another_pbx_is_due(site: Site) -> None:
    keys = site.ledger.keys
    async with site.redis.pipeline(transaction=False) as pipe:
        for n in range(1_001):
            pbx = "pbx01" if n == 1_000 else "pbx02"
            fields: Any = {"state": "queued", "epoch": 1, "pbx": pbx}
            pipe.hset(keys.call(f"{CELL}:{n}"), mapping=fields)
            pipe.zadd(keys.queued, {f"{CELL}:{n}": n})
        await pipe.execute()
    (last,) = await due(site, older_than_s=30, pbx="pbx01", at_most=2)
    assert last.call_id == f"{CELL}:1000"
    others = await due(site, older_than_s=30)
    assert len({waiting.call_id for waiting in others}) == len(others) == 1_000


async def test_call_without_a_pbx_is_due_until_assigned(site: Site) -> None:
    await site.admitted()
    await site.claimed()
    assert await site.ledger.unclaim(f"{CELL}:r-1", pbx="pbx01", token="t")
    (waiting,) = await due(site, older_than_s=30)
    assert (waiting.pbx, waiting.state) == (None, State.ADMITTED)
    assert await due(site, older_than_s=30) == []  # not twice in one round

    async def is_due_again() -> bool:
        return await due(site, older_than_s=30) == [waiting]

    await wait_until(is_due_again, "it is due again")
    assert await site.ledger.assign(waiting, "pbx02") == 2
    assert await due(site, older_than_s=30) == []


# --- the worker ---------------------------------------------------------------------


async def test_call_is_claimed_by_one_token_only(site: Site) -> None:
    await site.admitted()
    entry = await site.claimed(token="mine")
    assert entry is not None
    assert (entry.call.state, entry.boot, entry.call.dialed_at) == (State.ORIGINATING, "b1", T0)
    assert (entry.call.pbx, entry.call.attempts) == ("pbx01", 1)
    before = await site.snapshot()
    assert await site.claimed(token="mine") == entry  # its reply was lost
    assert await site.claimed(token="other") is None
    assert await site.snapshot() == before
    assert [e.call for e in await site.ledger.claimed("pbx01")] == [entry.call]
    assert await site.redis.zcard(site.ledger.keys.queued) == 0


@pytest.mark.parametrize(("pbx", "epoch"), [("pbx02", 1), ("pbx01", 2), ("pbx01", 0)])
async def test_task_of_another_pbx_or_epoch_claims_nothing(
    site: Site, pbx: str, epoch: int, caplog: pytest.LogCaptureFixture
) -> None:
    await site.admitted()
    before = await site.snapshot()
    assert await site.claimed(pbx=pbx, epoch=epoch) is None
    assert await site.claimed("never-heard-of") is None
    assert await site.snapshot() == before
    assert caplog.messages == []


async def test_call_is_unclaimed_once_and_only_by_its_claimer(site: Site) -> None:
    await site.admitted()
    await site.claimed(token="mine")
    unclaim = site.ledger.unclaim
    assert not await unclaim(f"{CELL}:r-1", pbx="pbx01", token="other")
    assert await unclaim(f"{CELL}:r-1", pbx="pbx01", token="mine")
    before = await site.snapshot()
    assert not await unclaim(f"{CELL}:r-1", pbx="pbx01", token="mine")
    assert await site.snapshot() == before
    call = (await site.entry()).call
    assert (call.state, call.pbx, call.dialed_at) == (State.ADMITTED, None, None)
    for name in ("pbx", "dialed_ms", "boot", "token", "attempts"):
        assert await site.field("r-1", name) is None
    assert await site.ledger.claimed("pbx01") == []
    queued = site.ledger.keys.queued
    assert await site.redis.zscore(queued, f"{CELL}:r-1") == 0, "it is due at once"


async def test_accepted_call_sends_one_ack_and_awaits_its_code(site: Site) -> None:
    entry = await site.accepted()
    assert entry.call.state is State.ACCEPTED
    assert (entry.call.accepted_at, entry.call.uniqueid) == (T0, f"{CELL}:r-1")
    assert (entry.call.attempts, await site.field("r-1", "code_state")) == (1, "awaited")
    before = await site.snapshot()
    assert await site.accept(entry)  # a repeat: it was accepted
    assert await site.snapshot() == before
    (ack,) = await site.acks()
    assert (ack["IdRequisicao"], ack["Pbx"]) == ("r-1", "pbx01")
    assert await site.counters() == await site.sizes() == (1, 1)


async def test_a_code_is_awaited_from_now_on(site: Site) -> None:
    before, _ = await site.redis.time()
    await site.accepted(wait_s=3_600)
    after, _ = await site.redis.time()
    due: Any = await site.redis.zscore(site.ledger.keys.awaiting, f"{CELL}:r-1")
    assert before * 1000 <= due - 3_600_000 < (after + 1) * 1000


async def test_ended_call_is_not_accepted(site: Site) -> None:
    await site.admitted()
    entry = await site.claimed()
    assert entry is not None
    assert await site.end() == "done"
    assert not await site.accept(entry)
    assert await site.acks() == []


async def test_answer_is_recorded_once(site: Site) -> None:
    await site.accepted()
    at = T0 + timedelta(seconds=3)
    assert await site.ledger.answer(f"{CELL}:r-1", at=at)
    assert not await site.ledger.answer(f"{CELL}:r-1", at=at + timedelta(seconds=9))
    assert not await site.ledger.answer(f"{CELL}:none", at=at)
    assert (await site.entry()).call.answered_at == at


async def test_call_that_ends_before_its_ack_gets_one_response(
    site: Site,
) -> None:
    await site.admitted()
    await site.claimed()
    entry = await site.entry()
    assert await site.ledger.end(entry.call, entry.request, BUSY) == "done"
    before = await site.snapshot()
    assert await site.ledger.end(entry.call, entry.request, BUSY) == "void"
    assert await site.snapshot() == before
    (response,) = await site.responses()
    assert (response["Resultado"], response["CodLigacao"]) == ("BUSY", None)
    assert await site.counters() == await site.sizes() == (0, 0)
    assert 86_000 < await site.redis.ttl(site.ledger.keys.call(f"{CELL}:r-1")) <= 86_400


async def test_ended_call_gets_its_response_with_its_code(site: Site) -> None:
    await site.accepted()
    assert await site.end() == "ended"
    assert await site.end() == "void"
    assert await site.responses() == []
    assert await site.counters() == await site.sizes() == (1, 1)
    assert await site.ledger.claimed("pbx01") == []
    assert await site.code(code_element(code=10**30)) == "done"
    assert [r["CodLigacao"] for r in await site.responses()] == [10**30]
    assert await site.counters() == await site.sizes() == (0, 0)


async def test_a_waiting_call_that_ends_waits_no_longer(site: Site) -> None:
    await site.admitted()
    assert await site.end() == "done"
    assert await site.redis.zcard(site.ledger.keys.queued) == 0


async def test_an_ended_call_keeps_its_error_code(site: Site) -> None:
    error = CallError(code="no_word", message="Asterisk did not reply")
    await site.accepted()
    assert await site.end(ending=replace(BUSY, error=error)) == "ended"
    assert await site.field("r-1", "error") == "no_word"
    assert await site.code() == "done"
    assert await site.field("r-1", "error") == "no_word"


async def test_a_call_that_is_gone_is_not_buried(site: Site) -> None:
    await site.ledger.bury_call(f"{CELL}:gone", '"unreadable"')
    assert await site.snapshot() == {}
    await site.admitted()
    for _ in range(2):
        await site.ledger.bury_call(f"{CELL}:r-1", '"unreadable"')
    assert await site.dead() == ["unreadable"]


async def test_end_from_an_older_epoch_is_void(site: Site) -> None:
    await site.admitted()
    old = await site.entry()
    await site.ledger.assign(await site.waiting(), "pbx02")
    assert await site.ledger.end(old.call, old.request, BUSY) == "void"
    assert await site.state() == "queued"


async def test_end_of_a_waiting_call_is_void_once_it_is_claimed(site: Site) -> None:
    await site.admitted()
    seen = await site.entry()
    await site.claimed()
    waiting = {State.ADMITTED, State.QUEUED}
    assert await site.ledger.end(seen.call, seen.request, BUSY, within=waiting) == "void"
    assert await site.state() == "originating"


# --- codes --------------------------------------------------------------------------


async def test_second_code_goes_to_the_dead_list(site: Site) -> None:
    await site.accepted()
    assert await site.code() == "stored"
    before = await site.snapshot()
    assert await site.code(put=False) == "gone"  # its reply was lost
    assert await site.snapshot() == before
    assert await site.code(code_element(code=2)) == "second"
    assert await site.dead() == ["second"]
    assert await site.end() == "done"
    assert [r["CodLigacao"] for r in await site.responses()] == ["C-1"]


async def test_code_before_the_ack_is_kept(site: Site) -> None:
    await site.admitted()
    assert await site.code() == "stored"
    entry = await site.claimed()
    assert entry is not None
    assert await site.accept(entry)
    assert await site.counters() == await site.sizes() == (1, 0)
    assert await site.end() == "done"
    assert [r["CodLigacao"] for r in await site.responses()] == ["C-1"]


async def test_code_of_an_unknown_or_done_call_is_an_orphan(site: Site) -> None:
    assert await site.code(code_element("nobody")) == "orphan"
    await site.admitted()
    await site.end()
    assert await site.code() == "orphan"
    assert await site.dead() == ["orphan", "orphan"]


async def test_call_goes_on_if_its_code_is_late(
    site: Site,
) -> None:
    await site.accepted(wait_s=0)
    assert await site.ledger.late_codes() == [f"{CELL}:r-1"]
    assert await site.ledger.late_codes() == []
    assert await site.counters() == await site.sizes() == (1, 0)
    assert (await site.entry()).call.code_state == "timed_out"
    assert await site.end() == "done"


async def test_ended_call_with_a_late_code_is_answered_without_it(site: Site) -> None:
    await site.accepted(wait_s=0)
    await site.end()
    assert await site.ledger.late_codes() == [f"{CELL}:r-1"]
    assert [r["CodLigacao"] for r in await site.responses()] == [None]
    assert await site.counters() == await site.sizes() == (0, 0)


async def test_code_after_its_timeout_still_goes_into_the_response(site: Site) -> None:
    await site.accepted(wait_s=0)
    await site.ledger.late_codes()
    assert await site.code() == "stored"
    await site.end()
    assert [r["CodLigacao"] for r in await site.responses()] == ["C-1"]


async def test_code_within_its_timeout_is_not_late(site: Site) -> None:
    await site.accepted(wait_s=60)
    assert await site.ledger.late_codes() == []


async def test_unreadable_code_is_buried_once(site: Site) -> None:
    await site.redis.rpush(site.ledger.keys.code_hand(BRIDGE), b"\xff")
    for _ in range(2):
        await site.ledger.bury(site.ledger.keys.code_hand(BRIDGE), b"\xff", '"why"')
        assert await site.dead() == ["why"]


async def test_call_holds_a_slot_from_queueing_to_its_end(site: Site) -> None:
    ids = [f"{CELL}:r-1"]
    assert await site.ledger.slot_holders(ids) == {}
    await site.accepted()
    assert await site.ledger.slot_holders(ids) == {ids[0]: "pbx01"}
    await site.end()
    assert await site.ledger.slot_holders(ids) == {}


# --- the end with the slot, in one step ---------------------------------------------------

SLOTS = "dialer:slots:pbx01"


def worker_ledger(site: Site, number: int = 0) -> WorkerLedger:
    return WorkerLedger(site.steps, CELL, "right", fence=Fence("pbx01", number))


async def test_one_step_ends_a_call_and_releases_its_slot(site: Site) -> None:
    await site.admitted("r-2")
    await site.admitted()
    await site.claimed()
    entry = await site.entry()
    assert await worker_ledger(site).end_release(entry.call, entry.request, BUSY) == "done"
    assert await site.redis.zrange(SLOTS, 0, -1) == [f"{CELL}:r-2".encode()]
    before = await site.snapshot()
    assert await worker_ledger(site).end_release(entry.call, entry.request, BUSY) == "void"
    assert await site.snapshot() == before
    (response,) = await site.responses()
    assert response["Resultado"] == "BUSY"


async def test_one_step_leaves_the_response_to_an_awaited_code(site: Site) -> None:
    entry = await site.accepted()
    assert await worker_ledger(site).end_release(entry.call, entry.request, BUSY) == "ended"
    assert (await site.redis.exists(SLOTS), await site.responses()) == (0, [])
    assert await site.code() is Delivery.DONE


async def test_a_fenced_worker_ends_nothing_and_releases_nothing(site: Site) -> None:
    entry = await site.accepted()
    await worker_ledger(site, 7).fence_off()
    before = await site.snapshot()
    with pytest.raises(Fenced):
        await worker_ledger(site, 6).end_release(entry.call, entry.request, BUSY)
    assert await site.snapshot() == before


async def test_the_slot_stays_with_the_newer_worker_of_the_registry(site: Site) -> None:
    entry = await site.accepted()
    await site.redis.hset("dialer:pbx:pbx01", "fence", "7")  # it has not come to this cell yet
    assert await worker_ledger(site, 6).end_release(entry.call, entry.request, BUSY) == "ended"
    assert await site.redis.zcard(SLOTS) == 1


async def test_slots_of_another_type_do_not_stop_the_end(site: Site) -> None:
    entry = await site.accepted()
    await site.redis.set(SLOTS, "not slots")
    assert await worker_ledger(site).end_release(entry.call, entry.request, BUSY) == "ended"
    assert await site.redis.exists(SLOTS) == 0
