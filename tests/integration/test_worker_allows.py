"""The worker holds a call to the cell's rules again: the ledger is in Redis like everything."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.cell_rig import CELL, Site, cell, element
from tests.integration.test_id_used_again import Worker

R1 = f"{CELL}:r-1"


async def placed(redis_url: str, asked: dict[str, Any], **fields: Any) -> tuple[Worker, Any]:
    """A call that is in the ledger already, and its Response if it has one."""
    async with Site(redis_url) as site:
        worker = Worker(site)
        worker.originator.cells.add(cell(**fields), site.ledger)
        await site.admitted(raw=element("r-1", **asked))
        await worker.originator.dial(R1, 1)
        await worker.journal.wait_done()
        responses = await site.responses()
        return worker, responses[0] if responses else None


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"Variaveis": {"MONITOR_EXEC": "touch owned"}}, "Variaveis.MONITOR_EXEC"),
        ({"Variaveis": {"CPF": "1"}}, "Variaveis.CPF"),
        ({"Contexto": "internal", "Extensao": "0044"}, "Contexto internal"),
        ({"Extensao": "0044"}, "Extensao 0044"),
        ({"Prioridade": 2}, "Prioridade 2"),
    ],
)
async def test_a_worker_does_not_dial_what_its_cell_forbids(
    redis_url: str, asked: dict[str, Any], named: str
) -> None:
    worker, response = await placed(redis_url, asked)
    assert worker.sent == []
    assert (response["Resultado"], response["Erro"]["Codigo"]) == ("FAILED", "not_allowed")
    assert response["Erro"]["Mensagem"].startswith(named)


async def test_a_worker_dials_what_its_cell_lists(redis_url: str) -> None:
    worker, response = await placed(
        redis_url,
        {"Variaveis": {"CPF": "1"}, "Contexto": "ivr"},
        variables=["CPF"],
        contexts=["ivr"],
    )
    assert len(worker.sent) == 1
    assert response is None


async def test_a_carrier_finds_no_context_to_dial_in(redis_url: str) -> None:
    worker, _ = await placed(redis_url, {"Variaveis": {"MC_A": "1"}})
    variables = worker.fields[0]["Variable"]
    assert variables[0] == "MC_A=1"
    assert {"FORWARD_CONTEXT=dialer-nowhere", "TRANSFER_CONTEXT=dialer-nowhere"} <= {*variables}


REMOVED = "GONE"


async def dialed_of_removed(redis_url: str, kept: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a worker dials a call of a cell that only Redis knows."""
    async with Site(redis_url, cell=REMOVED) as site:
        worker = Worker(site)
        worker.originator.cells.add(cell(queue="COBRANCA", nome="OTHER"), site.ledger)
        worker.originator.cells.add_removed(cell(nome=REMOVED, **kept), site.ledger)
        await site.admitted(raw=element("r-1", **asked))
        await worker.originator.dial(f"{REMOVED}:r-1", 1)
        await worker.journal.wait_done()
        responses = await site.responses()
        refused = [r["Erro"]["Codigo"] for r in responses] == ["not_allowed"]
        assert refused is not bool(worker.sent)
        return bool(worker.sent)


@pytest.mark.parametrize(
    ("kept", "asked"),
    [
        ({"context": "internal", "exten": "0044"}, {}),
        ({"exten": "0044"}, {}),
        ({"priority": 2}, {}),
        ({"contexts": ["internal"]}, {"Contexto": "internal"}),
        ({"extensions": ["_0X."]}, {"Extensao": "0044"}),
        ({"variables": ["CPF"]}, {"Variaveis": {"CPF": "1"}}),
        ({"queue": "RECORDED"}, {}),
        ({"amd": "message", "amd_message": "any/file"}, {}),
        ({"queue": "COBRANCA", "extensions": ["_0X."]}, {"Extensao": "0044"}),
    ],
)
async def test_a_removed_cell_in_redis_allows_no_more_than_the_file(
    redis_url: str, kept: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert not await dialed_of_removed(redis_url, kept, asked)


@pytest.mark.parametrize(
    ("kept", "asked"), [({}, {}), ({"queue": "COBRANCA"}, {"Variaveis": {"MC_A": "1"}})]
)
async def test_a_removed_cell_is_dialed_where_the_file_allows_it(
    redis_url: str, kept: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert await dialed_of_removed(redis_url, kept, asked)
