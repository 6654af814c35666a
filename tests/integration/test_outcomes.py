"""What is counted: each Response once, by PBX, result, minute and hour; ACKs, calls at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialer.domain.call import Result
from dialer.store import keys
from dialer.store.entry import Entry
from dialer.store.ledger import (
    LedgerReads,
    Minute,
    OutcomeReads,
    Outcomes,
    Survey,
    by_result,
    pulse,
)
from tests.integration.cell_rig import BRIDGE, BUSY, CELL, Site, code_element, element
from tests.integration.stack import Stack
from tests.integration.test_worker_process import each_once

ANSWERED = replace(BUSY, result=Result.ANSWERED)


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def counted(site: Site, cell: str = CELL) -> Outcomes:
    return (await Survey(site.steps, 60).read({cell: ()}))[cell].outcomes


async def test_a_call_is_counted_when_its_response_is_sent(site: Site) -> None:
    await site.admitted("busy", pbx="pbx02")
    await site.end("busy")
    await site.accepted("coded")
    await site.end("coded", ANSWERED)
    assert await counted(site) == {("pbx02", Result.BUSY): 1}, "its code is awaited"
    await site.code(code_element("coded"))
    await site.accepted("late", wait_s=0)
    await site.end("late", ANSWERED)
    await site.ledger.late_codes()
    assert await counted(site) == {("pbx02", Result.BUSY): 1, ("pbx01", Result.ANSWERED): 2}
    assert len(await site.responses()) == 3


async def test_a_refused_request_is_counted_without_a_pbx(site: Site) -> None:
    raw = element("r-1")
    await site.in_hand(raw)
    refusal: dict[str, Any] = {"request_id": "r-1", "response": "{}", "result": Result.EXPIRED}
    hand = site.ledger.keys.hand(BRIDGE)
    await site.ledger.refuse(hand, raw, **refusal)
    await site.ledger.refuse(hand, raw, **refusal)  # its reply was lost
    await site.in_hand(b"no request")
    await site.ledger.refuse(hand, b"no request", request_id=None, response="", dead="{}")
    assert await counted(site) == {("", Result.EXPIRED): 1}


async def test_hours_are_counted_too_and_both_are_forgotten(site: Site) -> None:
    await site.admitted()
    await site.end()
    seconds, _ = await site.redis.time()
    found = await OutcomeReads(site.steps, CELL).hours([seconds // 3600 - 1, seconds // 3600])
    assert sum(found.values(), Outcomes()) == {("pbx01", Result.BUSY): 1}
    for pattern, kept_s in (
        ("dialer:minute:*", keys.MINUTES_RETENTION_S),
        ("dialer:hour:*", keys.HOURS_RETENTION_S),
    ):
        (key,) = [key async for key in site.redis.scan_iter(pattern)]
        assert kept_s - 60 < await site.redis.ttl(key) <= kept_s


async def test_a_key_of_another_type_holds_no_response_up(site: Site) -> None:
    seconds, _ = await site.redis.time()
    for minute in (seconds // 60, seconds // 60 + 1):
        await site.redis.set(site.ledger.keys.minute(minute), "x")
    await site.redis.set(site.ledger.keys.ended, "x")
    await site.accepted()
    await site.code()
    await pulsed(site)
    assert await site.end() == "done"
    assert len(await site.responses()) == 1


async def minute_of(site: Site) -> Minute:
    """What was counted in this minute and the one before."""
    survey = Survey(site.steps, 2)
    await survey.read({CELL: ()})
    both = survey.by_minute(CELL).values()
    acks = sum((Counter(one.acks) for one in both), Counter[float]())
    return Minute(peak=max(one.peak for one in both), acks=acks)


async def claimed(site: Site, request_id: str) -> Entry:
    """A call that was admitted and claimed."""
    await site.admitted(request_id)
    entry = await site.claimed(request_id)
    assert entry is not None
    return entry


async def pulsed(site: Site) -> None:
    await pulse(site.steps, BRIDGE, [site.ledger.keys], is_renewal=False)


async def test_acks_are_counted_by_their_time_from_the_admission(site: Site) -> None:
    entry = await claimed(site, "soon")
    assert await site.accept(entry)
    await site.accept(entry)  # its reply was lost
    late = await claimed(site, "late")
    key = site.ledger.keys.call(late.call.call_id)
    await site.redis.hincrby(key, "admitted_ms", -60_000)
    assert await site.accept(late)
    found = (await minute_of(site)).acks
    assert found[math.inf] == 1
    assert sum(found.values()) == 2
    assert min(found) < 30_000


async def test_a_bridge_notes_the_most_calls_at_once(site: Site) -> None:
    assert (await minute_of(site)).peak == 0
    for name in ("a", "b", "c"):
        await site.admitted(name)
    await pulsed(site)
    await site.end("a")
    await pulsed(site)
    assert (await minute_of(site)).peak == 3


async def test_ended_calls_are_listed_the_newest_first(site: Site) -> None:
    await site.admitted("busy", pbx="pbx02")
    await site.end("busy")
    await site.accepted("coded")
    await site.end("coded", ANSWERED)
    reads = LedgerReads(site.steps, CELL)
    assert [one.call_id for one in await reads.ended(9)] == [f"{CELL}:busy"], "its code is awaited"
    await site.code(code_element("coded"))
    found = await reads.ended(9)
    assert [(one.call_id, one.result, one.pbx) for one in found] == [
        (f"{CELL}:coded", Result.ANSWERED, "pbx01"),
        (f"{CELL}:busy", Result.BUSY, "pbx02"),
    ]
    assert [one.call_id for one in await reads.ended(1)] == [f"{CELL}:coded"]


async def test_the_list_of_ended_calls_is_bounded_and_forgotten(site: Site) -> None:
    key = site.ledger.keys.ended
    await site.redis.rpush(key, *(f"{n} BUSY pbx01 {CELL}:x" for n in range(1_200)))
    await site.admitted()
    await site.end()
    assert await site.redis.llen(key) == 1_000
    assert keys.DONE_RETENTION_S - 60 < await site.redis.ttl(key) <= keys.DONE_RETENTION_S
    (newest,) = await LedgerReads(site.steps, CELL).ended(1)
    assert newest.call_id == f"{CELL}:r-1"


async def test_what_is_not_ours_is_not_counted(site: Site) -> None:
    seconds, _ = await site.redis.time()
    strange = {"pbx01 MOON": 7, "pbx01 BUSY": "many", "": 1, "pbx 01 BUSY": 2, b"\xff BUSY": 1}
    for name, value in strange.items():
        await site.redis.hset(site.ledger.keys.minute(seconds // 60), name, value)  # type: ignore[arg-type]
    assert by_result(await counted(site)) == {Result.BUSY: 3}


async def test_minutes_that_are_over_are_read_once(site: Site) -> None:
    now = (await site.redis.time())[0] // 60
    for age in (0, 1, 2, 59, 60):
        await site.redis.hset(site.ledger.keys.minute(now - age), f"p{age} BUSY", 1)
    survey = Survey(site.steps, 60)

    async def read() -> Outcomes:
        return (await survey.read({CELL: ()}))[CELL].outcomes

    found = await read()
    assert {pbx for pbx, _ in found} >= {"p0", "p1", "p2"}
    assert "p60" not in {pbx for pbx, _ in found}
    await site.redis.flushall()
    again = {pbx for pbx, _ in await read()}
    assert again & {"p0"} == set(), "the present minute is read again"
    assert "p2" in again
    assert len(survey._kept[CELL]) == 60


async def test_counts_are_exact_whatever_is_killed(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        stack.add_pbx("pbx02")
        await stack.start()
        pushed = await stack.push(40)
        pushed += await stack.push(10, last_two=70)  # busy
        wrong = await stack.push([{"Telefone": "no number"} for _ in range(5)])
        await stack.until_dialed(15)
        await stack.workers["pbx01"].kill()
        await stack.bridges[0].kill()
        await stack.start_bridge()
        await stack.start_worker("pbx01")
        responses = await each_once(stack, [*pushed, *wrong])
        told = Counter(Result(r["Resultado"]) for r in responses.values())
        async with Site(stack.valkey.url(0)) as site:
            found = await counted(site)
        assert by_result(found) == told
        assert told[Result.INVALID_REQUEST] == found["", Result.INVALID_REQUEST] == 5
        assert told[Result.BUSY] >= 1
