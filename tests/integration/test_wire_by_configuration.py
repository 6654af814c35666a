"""Renamed and lenient wire, and numbers with a country code, through bridge, ledger and answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from dialer.cli import app
from dialer.domain.numbers import Numbering
from dialer.multcall.fields import Fields
from dialer.multcall.wire import Wire
from dialer.settings.tables import LenientTable
from dialer.store.ledger import WorkerLedger
from tests.integration.cell_rig import BUSY, CELL, T0, Bridge, Site, cell, element, pbx
from tests.processes import PbxPlace, site_toml
from tests.unit.hostile_requests import hostile_requests
from tests.waiting import wait_until

FIELDS = Fields(
    {
        "IdRequisicao": "RequestId",
        "Telefone": "Phone",
        "CodLigacao": "CallCode",
        "Erro": "Error",
        "Codigo": "Code",
        "Mensagem": "Text",
        "ValidadeSeg": "ValidFor",
        "Resultado": "Outcome",
        "Dados": "Data",
    }
)
LENIENT = LenientTable(all=True).lenient
WIRE = Wire(fields=FIELDS, lenient=LENIENT)
BRAZIL = Numbering(country="55")

DOTNET = {
    "requestId": 7,
    "phone": "(11) 90000-0010",
    "callerId": "",
    "contexto": "",
    "tronco": "",
    "prioridade": 0,
    "tempoToque": "25",
    "validFor": 0,
    "criadaEm": "0001-01-01T00:00:00",
    "variaveis": {"$type": "Dictionary", "MC_A": 1},
    "data": {"Telefone": 1.5},
}


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        yield site


async def responses(site: Site, n: int) -> list[Any]:
    async def enough() -> bool:
        return len(await site.responses()) >= n

    await wait_until(enough, f"{n} Responses")
    return await site.responses()


async def test_a_dotnet_request_becomes_a_call_and_is_answered(site: Site) -> None:
    await site.push_requests(json.dumps(json.dumps(DOTNET)).encode())
    async with Bridge.of(site, wire=WIRE).running():
        await wait_until(lambda: _is(site, "7", "queued"), "the call is queued")
        entry = await site.claimed("7")  # a worker that knows nothing of lenient reading
        assert entry is not None
        request = entry.request
        assert (request.number, request.ring_timeout_s) == ("11900000010", 25)
        assert (request.context, request.created_at, request.valid_for_s) == (None, None, None)
        assert request.variables == (("MC_A", "1"),)
        worker = WorkerLedger(site.steps, CELL, "right", FIELDS)
        await worker.accept(request, pbx="pbx01", uniqueid="u", attempts=1, at=T0, code_wait_s=60)
        await site.push_codes(b'{"requestID": 7, "callCode": "C-1"}')
        await wait_until(lambda: _has_code(site), "the code arrived")
        (now,) = await site.ledger.entries([entry.call.call_id])
        await worker.end(now.call, request, BUSY)
        (response,) = await responses(site, 1)
    (ack,) = await site.acks()
    assert (ack["RequestId"], ack["Data"]) == (7, {"Telefone": 1.5})
    assert (response["RequestId"], response["CallCode"]) == (7, "C-1")
    assert (response["Outcome"], response["CriadaEm"]) == ("BUSY", None)
    assert (response["Error"], response["Data"]) == (None, {"Telefone": 1.5})


async def _is(site: Site, request_id: str, state: str) -> bool:
    return await site.state(request_id) == state


async def _has_code(site: Site) -> bool:
    return await site.field("7", "code") is not None


async def test_refusals_and_dead_list_use_the_sites_names(site: Site) -> None:
    wire = Wire(fields=FIELDS)
    bad = b'{"RequestId": 1, "Phone": "x", "Tronco": "oi"}'
    old = {"RequestId": 2, "Phone": "190", "CriadaEm": "2020-01-01T00:00:00Z", "ValidFor": 1}
    again = b'{"RequestId": 1, "Phone": "190"}'
    await site.push_requests(bad, json.dumps(old).encode(), again)
    async with Bridge.of(site, wire=wire).running():
        found = {r["RequestId"]: r for r in await responses(site, 2)}
        await wait_until(lambda: _dead(site, 2), "two entries on the dead list")
    assert found[1]["Error"] == {
        "Code": "invalid_request",
        "Text": "Phone must be 3 to 20 digits with an optional leading + | "
        "Tronco names no trunk of this cell's PBXs; known are tim",
    }
    assert found[2]["Error"] == {
        "Code": "expired",
        "Text": "ValidFor passed before it was dialed",
    }
    dead = {entry["reason"]: entry for entry in await site.dead()}
    assert dead["invalid_request"]["raw"].encode() == bad
    assert dead["invalid_request"]["message"] == found[1]["Error"]["Text"]
    assert dead["duplicate_request"]["raw"].encode() == again
    assert dead["duplicate_request"]["message"].startswith("this RequestId was used before")


async def _dead(site: Site, n: int) -> bool:
    return len(await site.dead()) == n


async def test_stored_calls_stay_readable_when_names_change(site: Site) -> None:
    await site.push_requests(b'{"RequestId": "r-1", "Phone": "190"}')
    async with Bridge.of(site, wire=WIRE).running():
        await wait_until(lambda: _is(site, "r-1", "queued"), "the call is queued")
    assert (await site.entry("r-1")).request.number == "190"  # read without the new names
    await site.push_requests(element("r-2"))
    async with Bridge.of(site).running():
        await wait_until(lambda: _is(site, "r-2", "queued"), "the call is queued")
    assert await site.field("r-2", "request") == element("r-2").decode()


async def test_hostile_elements_are_answered_in_lenient_mode(site: Site) -> None:
    elements = hostile_requests(20260506, 300)
    wrapped = [json.dumps(one.raw.decode("latin-1")).encode() for one in elements[:100]]
    await site.push_requests(*(one.raw for one in elements), *wrapped)
    roomy, large = cell(threads=1000), pbx(max_calls=1000)
    bridge = Bridge.of(site, wire=Wire(lenient=LENIENT), cell_table=roomy, pbxs=[large])
    async with bridge.running():
        await wait_until(lambda: _is_empty(site), "all were taken", within_s=60)
        await site.push_requests(element("good", "5511900000010"))
        await wait_until(lambda: _is(site, "good", "queued"), "the bridge goes on")


async def _is_empty(site: Site) -> bool:
    keys = await site.redis.keys(f"{site.ledger.keys.hand('')}*")
    left = [await site.redis.llen(key) for key in (site.ledger.wire.request, *keys)]
    return sum(left) == 0


# --- numbers with a country code ----------------------------------------------------------


async def test_national_do_not_call_numbers_match_international_ones(site: Site) -> None:
    await site.registry.dnc_add(["11900000010", "55912345678"])  # before the setting
    pushed = {
        "a": "5511900000010",
        "b": "+5511900000010",
        "c": "011900000010",
        "d": "5555912345678",
        "e": "5591234567",
        "f": "5512345678",
    }
    await site.push_requests(*(element(name, number) for name, number in pushed.items()))
    async with Bridge.of(site, numbering=BRAZIL).running():
        found = {r["IdRequisicao"]: r["Erro"]["Codigo"] for r in await responses(site, 4)}
        await wait_until(lambda: _is(site, "f", "queued"), "others are dialed")
    assert found == dict.fromkeys("abcd", "do_not_call")
    assert await site.state("e") == "queued"
    assert (await site.entry("f")).request.number == "5512345678"


async def test_limit_counts_both_spellings_of_a_number(site: Site) -> None:
    table = cell(limits={"max_attempts_per_number": 2})
    numbers = ["11900000010", "5511900000010", "011900000010"]
    await site.push_requests(*(element(f"n-{i}", n) for i, n in enumerate(numbers)))
    async with Bridge.of(site, cell_table=table, numbering=BRAZIL).running():
        (response,) = await responses(site, 1)
    assert (response["IdRequisicao"], response["Erro"]["Codigo"]) == ("n-2", "number_limit")
    assert (await site.entry("n-0")).request.number == "11900000010"  # dialed as it was sent


# --- dialer wire check on a cell's list -----------------------------------------------------


@pytest.mark.parametrize("push", ["right", "left"])
def test_wire_check_reads_the_oldest_and_leaves_it(
    push: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = PbxPlace(name="pbx01", port=5038, secret="x")
    text = site_toml(redis_url, redis_url, [place], cells={"ASR_TIM": {}})
    config = tmp_path / "dialer.toml"
    config.write_text(text.replace("[broker]", f'push = "{push}"\n[broker]'))
    monkeypatch.setenv("DIALER_CONFIG", str(config))

    def check(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["wire", "check", *arguments])

    assert str(check().exception) == (
        "ZancURA2.0-Request-ASR_TIM is empty; push an element, or give one to this command"
    )
    with redis.Redis.from_url(redis_url) as client:
        append = client.rpush if push == "right" else client.lpush
        append("ZancURA2.0-Request-ASR_TIM", b"\xff", element("second"))
        append("ZancURA2.0-CODLIGACAO-ASR_TIM", b'{"IdRequisicao": 1, "CodLigacao": 2}')
        first, code = check(), check("--code", "--cell", "ASR_TIM")
        assert client.llen("ZancURA2.0-Request-ASR_TIM") == 2
    assert (first.exit_code, code.exit_code) == (2, 0)
    assert first.stdout.startswith("wrong: The element must be UTF-8; byte 1 is not")
