"""The intake against a real Valkey: what it admits, what it leaves, what it refuses and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dialer.settings import Cell
from tests.integration.cell_rig import BRIDGE, CELL, Bridge, Site, cell, element, pbx
from tests.unit.hostile_requests import hostile_requests, odd_requests
from tests.waiting import wait_until


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        await site.beat("pbx02")
        yield site


def limited(**limits: Any) -> Cell:
    return cell(limits=limits)


def shut(outside_hours: str) -> Cell:
    """A cell whose calling hours are on another day."""
    day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(datetime.now(UTC).weekday() + 3) % 7]
    hours = {"days": [day], "from": "08:00", "to": "20:00"}
    return limited(calling_hours=[hours], time_zone="UTC", outside_hours=outside_hours)


async def live(site: Site, n: int) -> None:
    await wait_until(lambda: _live(site, n), f"{n} calls are live")


async def _live(site: Site, n: int) -> bool:
    return len(await site.ledger.live()) == n


async def answered(site: Site, n: int) -> dict[str, dict[str, Any]]:
    async def enough() -> bool:
        return len(await site.responses()) >= n

    await wait_until(enough, f"{n} Responses")
    return {r["IdRequisicao"]: r for r in await site.responses()}


async def in_list(site: Site) -> int:
    return int(await site.redis.llen(site.ledger.wire.request))


async def parked(site: Site, trunk: str, expected: list[bytes]) -> bool:
    return await site.listed(site.ledger.keys.parked(trunk)) == expected


class Rounds:
    """Count how often the intake went round its loop, or looked if it may."""

    def __init__(self, bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        for name in ("fetch", "_may_admit"):
            monkeypatch.setattr(type(bridge.intake), name, self.counted(bridge, name))

    def counted(self, bridge: Bridge, name: str) -> Any:
        method = getattr(type(bridge.intake), name)

        async def called(intake: Any, **given: Any) -> Any:
            if intake is bridge.intake:
                self.n += 1
            return await method(intake, **given)

        return called

    async def more(self, n: int = 3) -> None:
        until = self.n + n
        await wait_until(lambda: self.n >= until, f"{n} rounds of the intake")


async def test_requests_become_queued_calls_and_each_gets_one_nudge(site: Site) -> None:
    bridge = Bridge.of(site, pbxs=[pbx("pbx01"), pbx("pbx02")])
    await site.push_requests(*(element(f"r-{i}") for i in range(6)))
    async with bridge.running():
        await bridge.nudges.until(6)
    assert sorted(c for c, _, _ in bridge.nudges.calls) == [f"{CELL}:r-{i}" for i in range(6)]
    assert Counter(p for _, p, _ in bridge.nudges.calls) == {"pbx01": 3, "pbx02": 3}
    assert {e for _, _, e in bridge.nudges.calls} == {1}
    assert len(await site.slots("pbx01")) == len(await site.slots("pbx02")) == 3
    assert await site.counters() == (6, 0)
    assert await site.ledger.hand(BRIDGE) == []


async def test_a_nudge_shows_no_whole_number(site: Site) -> None:
    bridge = Bridge.of(site)
    async with bridge.running():
        await site.push_requests(element(number="5511987654321"))
        await bridge.nudges.until(1)
    assert bridge.nudges.sent[0].shown == "('ASR_TIM', 'r-1', '*********4321')"


async def test_a_request_that_comes_while_it_waits_is_taken(site: Site) -> None:
    bridge = Bridge.of(site)
    async with bridge.running():
        for i in range(3):
            await site.push_requests(element(f"r-{i}"))
            await live(site, i + 1)


async def test_a_full_cell_leaves_the_rest_in_multcalls_list(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge.of(site, cell_table=cell(threads=3))
    rounds = Rounds(bridge, monkeypatch)
    await site.push_requests(*(element(f"r-{i}") for i in range(8)))
    async with bridge.running():
        await live(site, 3)
        await rounds.more()
        assert (await in_list(site), await site.ledger.hand(BRIDGE)) == (5, [])
        assert await site.slots() == {"r-0", "r-1", "r-2"}
        await site.end("r-1")
        await wait_until(lambda: site.state("r-3"), "the next one")
        assert await in_list(site) == 4


async def test_a_full_pbx_leaves_the_rest_in_multcalls_list(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge.of(site, pbxs=[pbx(max_calls=2), pbx("pbx02", max_calls=1)])
    rounds = Rounds(bridge, monkeypatch)
    await site.push_requests(*(element(f"r-{i}") for i in range(8)))
    async with bridge.running():
        await live(site, 3)
        await rounds.more()
        assert (await in_list(site), await site.ledger.hand(BRIDGE)) == (5, [])


async def test_the_pace_of_a_pbx_leaves_the_rest_in_multcalls_list(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge.of(site, pbxs=[pbx(cps=0.1)])
    rounds = Rounds(bridge, monkeypatch)
    await site.push_requests(*(element(f"r-{i}") for i in range(4)))
    async with bridge.running():
        await live(site, 1)
        await rounds.more()
        assert (await in_list(site), await site.ledger.hand(BRIDGE)) == (3, [])
        await site.redis.delete("dialer:pace:pbx01")  # ten seconds later
        await live(site, 2)


async def test_without_a_ready_pbx_nothing_is_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.beat("pbx01", "down")
    bridge = Bridge.of(site)
    rounds = Rounds(bridge, monkeypatch)
    await site.push_requests(element())
    async with bridge.running():
        await rounds.more(2)
        assert (await in_list(site), await site.ledger.live()) == (1, [])
        await site.beat("pbx01", "up")
        await live(site, 1)


async def test_request_in_hand_of_a_full_cell_uses_up_no_starts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.admitted("r-0")
    await site.in_hand(element("r-1"))
    bridge = Bridge.of(site, cell_table=cell(threads=1))
    rounds = Rounds(bridge, monkeypatch)
    async with bridge.running():
        await rounds.more()
        assert await site.redis.get("dialer:pace:pbx01") is None
        assert await site.slots() == {"r-0"}
        await site.end("r-0")
        await wait_until(lambda: site.state("r-1"), "its turn")


async def test_request_whose_trunk_is_full_is_parked(site: Site) -> None:
    trunks = frozenset({"vivo"})
    bridge = Bridge.of(site, pbxs=[pbx(max_calls=2), pbx("pbx02", trunks=trunks, max_calls=1)])
    await site.redis.zadd("dialer:slots:pbx02", {"OTHER:r-1": 2e12})
    waiting = [element(f"w-{i}", Tronco="vivo") for i in range(3)]
    await site.push_requests(*waiting, *(element(f"r-{i}") for i in range(4)))
    async with bridge.running():
        await live(site, 2)
        await wait_until(lambda: parked(site, "vivo", waiting), "they are parked")
        assert await site.ledger.hand(BRIDGE) == []
        await site.registry.release("pbx02", ["OTHER:r-1"])
        await wait_until(lambda: site.state("w-0"), "the trunk is free")
    assert await site.slots("pbx02") == {"w-0"}


async def test_the_trunk_of_the_cell_is_a_wish_like_the_requests_own(site: Site) -> None:
    trunks = frozenset({"vivo"})
    where = cell("pbx01", "pbx02", trunk="vivo")
    bridge = Bridge.of(site, cell_table=where, pbxs=[pbx(), pbx("pbx02", trunks=trunks)])
    await site.push_requests(*(element(f"r-{i}") for i in range(4)))
    async with bridge.running():
        await bridge.nudges.until(4)
    assert {p for _, p, _ in bridge.nudges.calls} == {"pbx02"}


# --- refusals -----------------------------------------------------------------------


async def test_hostile_requests_are_buried_and_the_next_is_admitted(
    site: Site,
) -> None:
    hostile, odd = hostile_requests(7, 300), odd_requests(7, 30)
    bridge = Bridge.of(site)
    await site.push_requests(*(e.raw for e in hostile), *(e.raw for e in odd), element("good"))
    async with bridge.running():
        await wait_until(lambda: site.state("good"), "the good one", within_s=60)  # 330 refusals
    assert await site.ledger.live() == [f"{CELL}:good"]
    dead = await site.dead()
    assert len(dead) == len(hostile)
    assert {d["reason"] for d in dead} == {"invalid_request"}
    assert all(d["message"] and d["source"] == "request" for d in dead)
    raws = [d["raw"].encode() if d["raw"] is not None else None for d in dead]
    assert all(raw in (None, e.raw) for raw, e in zip(raws, hostile, strict=True))
    answers = await site.responses()
    taken = [r["IdRequisicao"] for r in answers if r["Resultado"] == "EXPIRED"]  # valid, but old
    assert [str(i) for i in taken] == [e.request_id for e in odd]
    responses = [r for r in answers if r["Resultado"] != "EXPIRED"]
    assert [str(r["IdRequisicao"]) for r in responses] == [
        e.request_id for e in hostile if e.has_id
    ]
    assert {r["Resultado"] for r in responses} == {"INVALID_REQUEST"}
    assert await site.ledger.hand(BRIDGE) == []


async def test_an_unknown_trunk_is_refused_with_those_that_there_are(site: Site) -> None:
    async with Bridge.of(site).running():
        await site.push_requests(element(Tronco="embratel"))
        response = (await answered(site, 1))["r-1"]
    assert response["Resultado"] == "INVALID_REQUEST"
    assert "Tronco names no trunk" in response["Erro"]["Mensagem"]
    assert "known are tim" in response["Erro"]["Mensagem"]
    assert [d["reason"] for d in await site.dead()] == ["invalid_request"]


async def test_repeat_gets_no_response_and_frees_no_slot(
    site: Site,
) -> None:
    bridge = Bridge.of(site)
    repeat = element(number="5511000000000")
    await site.push_requests(element(), repeat, element("r-2"))  # in one batch
    async with bridge.running():
        await live(site, 2)
        await wait_until(site.dead, "the repeat is dead")
        await site.push_requests(repeat)  # in a later one
        await wait_until(lambda: _dead(site, 2), "the second repeat is dead")
        await bridge.nudges.until(2)
    assert {d["reason"] for d in await site.dead()} == {"duplicate_request"}
    assert await site.slots() == {"r-1", "r-2"}
    assert await site.responses() == []
    assert len(bridge.nudges.sent) == 2


async def _dead(site: Site, n: int) -> bool:
    return len(await site.dead()) == n


async def test_a_repeat_of_a_finished_call_leases_nothing_for_long(site: Site) -> None:
    await site.admitted()
    await site.end()
    await site.registry.release("pbx01", [f"{CELL}:r-1"])
    async with Bridge.of(site).running():
        await site.push_requests(element())
        await wait_until(site.dead, "the repeat is dead")
        await wait_until(lambda: _no_slots(site), "its slot is back")
    assert len(await site.responses()) == 1


async def _no_slots(site: Site) -> bool:
    return not await site.slots()


async def test_expired_request_is_answered_and_never_dialed(site: Site) -> None:
    old = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
    bridge = Bridge.of(site)
    async with bridge.running():
        await site.push_requests(element(CriadaEm=old, ValidadeSeg=29))
        await site.push_requests(element("r-2", CriadaEm=old, ValidadeSeg=600))
        response = (await answered(site, 1))["r-1"]
        await bridge.nudges.until(1)
    assert (response["Resultado"], response["Erro"]["Codigo"]) == ("EXPIRED", "expired")
    assert (response["CriadaEm"], response["DiscadaEm"], response["Tentativas"]) == (old, None, 0)
    assert [c for c, _, _ in bridge.nudges.calls] == [f"{CELL}:r-2"]


async def test_a_number_on_the_do_not_call_set_is_cancelled(site: Site) -> None:
    await site.registry.dnc_add(["5511987654321"])
    async with Bridge.of(site).running():
        await site.push_requests(element("r-1"), element("r-2", number="5511900000000"))
        response = (await answered(site, 1))["r-1"]
        await live(site, 1)
    assert (response["Resultado"], response["Erro"]["Codigo"]) == ("CANCELLED", "do_not_call")
    assert await site.state("r-2") == "queued"


async def test_a_cell_without_do_not_call_dials_numbers_on_the_set(site: Site) -> None:
    await site.registry.dnc_add(["5511987654321"])
    async with Bridge.of(site, cell_table=limited(do_not_call=False)).running():
        await site.push_requests(element())
        await live(site, 1)


async def test_a_number_that_was_called_often_enough_is_cancelled(site: Site) -> None:
    table = limited(max_attempts_per_number=2, attempts_window_hours=1)
    async with Bridge.of(site, cell_table=table).running():
        await site.push_requests(*(element(f"r-{i}") for i in range(4)))
        responses = await answered(site, 2)
        await live(site, 2)
        await wait_until(lambda: _slots(site, 2), "no slot is kept")
    assert {r["Resultado"] for r in responses.values()} == {"CANCELLED"}
    assert {r["Erro"]["Codigo"] for r in responses.values()} == {"number_limit"}


async def _slots(site: Site, n: int) -> bool:
    return len(await site.slots()) == n


async def test_requests_after_hours_expire_if_the_cell_is_set_so(site: Site) -> None:
    async with Bridge.of(site, cell_table=shut("expire")).running():
        await site.push_requests(element())
        response = (await answered(site, 1))["r-1"]
    assert (response["Resultado"], response["Erro"]["Codigo"]) == ("EXPIRED", "outside_hours")


async def test_requests_wait_outside_calling_hours(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge.of(site, cell_table=shut("hold"))
    rounds = Rounds(bridge, monkeypatch)
    await site.in_hand(element("r-1"), b"\xff")
    await site.push_requests(element("r-2"))
    async with bridge.running():
        await wait_until(site.dead, "the unreadable one is dead all the same")
        await rounds.more(2)
        assert await site.ledger.live() == []
        assert await site.ledger.hand(BRIDGE) == [element("r-1")]
        assert await in_list(site) == 1


async def test_identical_elements_are_dialed_once(site: Site) -> None:
    bridge = Bridge.of(site)
    await site.push_requests(*[element()] * 5)
    async with bridge.running():
        await wait_until(lambda: _dead(site, 4), "four repeats")
        await bridge.nudges.until(1)
    assert len(bridge.nudges.sent) == 1
    assert await site.slots() == {"r-1"}
    assert await site.ledger.hand(BRIDGE) == []


ATTACKS: list[tuple[dict[str, Any], str]] = [
    ({"Variaveis": {"MONITOR_EXEC": "/usr/bin/touch owned; #"}}, "Variaveis.MONITOR_EXEC"),
    ({"Variaveis": {"CPF": "1"}}, "Variaveis.CPF"),
    ({"Contexto": "internal", "Extensao": "0044123456789"}, "Contexto internal"),
    ({"Extensao": "0044123456789"}, "Extensao 0044123456789"),
    ({"Prioridade": 2}, "Prioridade 2"),
]


async def test_what_a_cell_does_not_allow_is_refused(site: Site) -> None:
    bridge = Bridge.of(site)
    attacks = [element(f"r-{n}", **fields) for n, (fields, _) in enumerate(ATTACKS)]
    await site.push_requests(*attacks, element("good", Variaveis={"MC_A": "1"}))
    async with bridge.running():
        await live(site, 1)
        told = await answered(site, len(ATTACKS))
    assert bridge.nudges.calls == [(f"{CELL}:good", "pbx01", 1)]
    for n, (_, named) in enumerate(ATTACKS):
        assert told[f"r-{n}"]["Resultado"] == "INVALID_REQUEST"
        assert told[f"r-{n}"]["Erro"]["Mensagem"].startswith(named)


async def test_a_cells_lists_open_what_they_name(site: Site) -> None:
    listed = {"variables": ["CPF"], "contexts": ["ivr"], "extensions": ["_2X"], "priorities": [3]}
    bridge = Bridge.of(site, cell_table=cell(**listed))
    asked: dict[str, Any] = {"Contexto": "ivr", "Extensao": "21", "Prioridade": 3}
    asked["Variaveis"] = {"_CPF": "1"}
    await site.push_requests(element("r-1", **asked))
    async with bridge.running():
        await live(site, 1)
