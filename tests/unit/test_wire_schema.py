from __future__ import annotations

import json
import runpy
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.answers import ack, dead, invalid_response, response_parts
from dialer.multcall.code import parse_code
from dialer.multcall.request import parse_request
from dialer.multcall.schema import MESSAGES, main, schema_of, write_schemas
from tests.unit.hostile_requests import odd_requests

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
AT = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = schema_of(MESSAGES[f"{name}.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schemas_in_docs_are_current(tmp_path: Path) -> None:
    for path in write_schemas(tmp_path):
        committed = (SCHEMAS / path.name).read_text(encoding="utf-8")
        assert committed == path.read_text(encoding="utf-8"), (
            "run: python -m dialer.multcall.schema docs/schemas"
        )
    assert {path.name for path in SCHEMAS.iterdir()} == set(MESSAGES)


def test_schema_command_writes_and_lists_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / name) for name in MESSAGES]


def test_schema_command_shows_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["schema"])
    monkeypatch.delitem(sys.modules, "dialer.multcall.schema")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("dialer.multcall.schema", run_name="__main__")
    assert ended.value.code == 2
    assert "usage: python -m dialer.multcall.schema FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("result", list(Result))
@pytest.mark.parametrize("known", [True, False])
def test_composed_messages_are_valid_by_their_schema(result: Result, known: bool) -> None:
    request = CallRequest(
        cell="c",
        request_id="1",
        request_id_json="1",
        number="190",
        created_at_json='"2026-05-04T09:30:00-03:00"' if known else "null",
        data_json='[1.10, "x"]' if known else "null",
    )
    ending = Ending(
        result=result,
        ended_at=AT,
        cause=16 if known else None,
        cause_text="Normal Clearing" if known else None,
        amd="HUMAN" if known else None,
        agent="2001" if known else None,
        wait_s=1.5 if known else None,
        error=CallError(code="x", message="y") if known else None,
    )
    parts = response_parts(
        request=request,
        pbx="p" if known else None,
        uniqueid="u" if known else None,
        attempts=int(known),
        dialed_at=AT if known else None,
        ending=ending,
        answered_at=AT if known else None,
    )
    code = '"L-1"' if known else "null"
    validator("response").validate(json.loads(parts.head + code + parts.tail))
    validator("ack").validate(json.loads(ack(request=request, pbx="p", uniqueid="u", at=AT)))


def test_refusals_are_valid_by_their_schemas() -> None:
    error = InvalidRequest("Telefone is missing", field="Telefone", request_id_json="7")
    answer = invalid_response(cell="c", request_id_json="7", error=error, at=AT)
    validator("response").validate(json.loads(answer))
    for raw in (b"{", b"\xff"):
        entry = dead(raw=raw, source="request", reason="invalid_request", message="m", at=AT)
        validator("dead").validate(json.loads(entry))


#: What the schema of a request says no to, as the parser does.
REFUSED: list[dict[str, Any]] = [
    {"IdRequisicao": True},
    {"IdRequisicao": "a b"},
    {"IdRequisicao": 10**64},
    {"Telefone": 190},
    {"Telefone": "12"},
    {"Telefone": "Local/100@x"},
    {"CallerID": "a,b <1>"},
    {"Contexto": "a b"},
    {"Extensao": ""},
    {"Prioridade": 0},
    {"Prioridade": True},
    {"Tronco": "a&b"},
    {"TempoToque": 121},
    {"TempoToque": "30"},
    {"CriadaEm": 1},
    {"ValidadeSeg": 0},
    {"ValidadeSeg": 604801},
    {"Variaveis": []},
    {"Variaveis": {"A": 1}},
    {"Variaveis": {"A": "x" * 513}},
    {"Variaveis": {"A": "${X}"}},
    {"Variaveis": {"A": "x$[1]"}},
    {"Variaveis": {"A": "^{X}"}},
    {"Variaveis": {"A": "\r\n"}},
    {"Variaveis": {"A B": "x"}},
    {"Variaveis": {"__dialer_x": "x"}},
    {"Variaveis": {f"V{n}": "" for n in range(65)}},
]


@pytest.mark.parametrize("fields", REFUSED)
def test_schema_and_parser_refuse_the_same_requests(fields: dict[str, Any]) -> None:
    element = {"IdRequisicao": "a", "Telefone": "190", **fields}
    assert not validator("request").is_valid(element)
    with pytest.raises(InvalidRequest):
        parse_request(json.dumps(element).encode(), cell="c")


def test_schema_and_parser_accept_the_same_odd_requests() -> None:
    check = validator("request")
    for element in odd_requests(3, 200):
        text = element.raw.decode("utf-8-sig").replace("9" * 5000, "9")
        check.validate(json.loads(text))


@pytest.mark.parametrize("code", [True, 1.5, None, "", "x" * 257, "\n", []])
def test_schema_and_parser_refuse_the_same_codes(code: object) -> None:
    element = {"IdRequisicao": "a", "CodLigacao": code}
    assert not validator("codligacao").is_valid(element)
    with pytest.raises(InvalidRequest):
        parse_code(json.dumps(element).encode())
