from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.answers import Ack, Dead, Response, ack, dead, invalid_response, response_parts

DIALED = datetime(2026, 5, 4, 12, 30, 0, 999_999, tzinfo=UTC)
ANSWERED = DIALED + timedelta(seconds=8, milliseconds=250)
ENDED = DIALED + timedelta(minutes=2)

REQUEST = CallRequest(
    cell="ASR_TIM",
    request_id="a-1",
    request_id_json='"\\u0061-1"',
    number="5511987654321",
    created_at=DIALED,
    created_at_json='"2026-05-04T09:29:00.1234567-03:00"',
    data_json='{"b": 1.10, "b": 1e400}',
)


def respond(ending: Ending, code_json: str = "null", **fields: Any) -> str:
    given: dict[str, Any] = {
        "request": REQUEST,
        "pbx": "pbx01",
        "uniqueid": "ASR_TIM:a-1",
        "attempts": 1,
        "dialed_at": DIALED,
        "answered_at": None,
        **fields,
    }
    parts = response_parts(ending=ending, **given)
    text = f"{parts.head}{code_json}{parts.tail}"
    Response.model_validate_json(text)
    return text


def test_ack_names_the_pbx_and_returns_data_verbatim() -> None:
    text = ack(request=REQUEST, pbx="pbx01", uniqueid="ASR_TIM:a-1", at=DIALED)
    assert text == (
        '{"IdRequisicao":"\\u0061-1","Celula":"ASR_TIM","Pbx":"pbx01",'
        '"Uniqueid":"ASR_TIM:a-1","Em":"2026-05-04T12:30:00.999Z",'
        '"Dados":{"b": 1.10, "b": 1e400}}'
    )
    Ack.model_validate_json(text)


def test_response_has_all_fields_in_order() -> None:
    ending = Ending(
        result=Result.ANSWERED,
        ended_at=ENDED,
        cause=16,
        cause_text="Normal Clearing",
        amd="HUMAN",
        agent="PJSIP/2001",
        wait_s=1.25,
    )
    text = respond(ending, code_json='"L\\u002d1"', answered_at=ANSWERED)
    assert text == (
        '{"IdRequisicao":"\\u0061-1","Celula":"ASR_TIM","CodLigacao":"L\\u002d1",'
        '"Resultado":"ANSWERED","CausaQ850":16,"CausaTexto":"Normal Clearing","Amd":"HUMAN",'
        '"Operador":"PJSIP/2001","EsperaSeg":1.250,"Pbx":"pbx01","Uniqueid":"ASR_TIM:a-1",'
        '"Tentativas":1,"CriadaEm":"2026-05-04T09:29:00.1234567-03:00",'
        '"DiscadaEm":"2026-05-04T12:30:00.999Z","AtendidaEm":"2026-05-04T12:30:09.249Z",'
        '"EncerradaEm":"2026-05-04T12:32:00.999Z","DuracaoSeg":120.000,"FaladoSeg":111.750,'
        '"Erro":null,"Dados":{"b": 1.10, "b": 1e400}}'
    )


def test_models_and_json_text_have_the_same_fields() -> None:
    request = CallRequest(cell="c", request_id="1", request_id_json="1", number="190")
    composed: dict[type[BaseModel], str] = {
        Ack: ack(request=request, pbx="p", uniqueid="u", at=DIALED),
        Response: respond(Ending(result=Result.BUSY, ended_at=ENDED), request=request),
        Dead: dead(raw=b"", source="request", reason="invalid_request", message="m", at=DIALED),
    }
    for model, text in composed.items():
        fields = [field.alias or name for name, field in model.model_fields.items()]
        assert list(json.loads(text)) == fields


def test_call_without_a_pbx_has_nulls() -> None:
    error = CallError(code="expired", message="waited too long")
    ending = Ending(result=Result.EXPIRED, ended_at=ENDED, error=error)
    answer = json.loads(
        respond(
            ending,
            request=CallRequest(cell="c", request_id="1", request_id_json="1", number="190"),
            pbx=None,
            uniqueid=None,
            attempts=0,
            dialed_at=None,
        )
    )
    known = {name: value for name, value in answer.items() if value is not None}
    assert known == {
        "IdRequisicao": 1,
        "Celula": "c",
        "Resultado": "EXPIRED",
        "Tentativas": 0,
        "EncerradaEm": "2026-05-04T12:32:00.999Z",
        "Erro": {"Codigo": "expired", "Mensagem": "waited too long"},
    }
    assert len(answer) == 20


def test_answer_known_only_at_the_end_counts() -> None:
    ending = Ending(result=Result.ANSWERED, ended_at=ENDED, answered_at=ANSWERED)
    assert json.loads(respond(ending))["FaladoSeg"] == 111.75


def test_durations_are_never_negative() -> None:
    ending = Ending(result=Result.ANSWERED, ended_at=DIALED, wait_s=-1.0)
    answer = json.loads(respond(ending, dialed_at=ENDED, answered_at=ENDED))
    assert (answer["DuracaoSeg"], answer["FaladoSeg"], answer["EsperaSeg"]) == (0, 0, 0)


@pytest.mark.parametrize("wait_s", [float("nan"), float("inf"), float("-inf")])
def test_wait_that_is_not_a_number_is_null(wait_s: float) -> None:
    ending = Ending(result=Result.ANSWERED, ended_at=ENDED, wait_s=wait_s)
    assert json.loads(respond(ending))["EsperaSeg"] is None


def test_durations_agree_with_the_times_as_shown() -> None:
    dialed = datetime(2026, 5, 4, 12, 0, 0, 1_900, tzinfo=UTC)
    ended = datetime(2026, 5, 4, 12, 0, 1, 2_100, tzinfo=UTC)
    answer = json.loads(respond(Ending(result=Result.BUSY, ended_at=ended), dialed_at=dialed))
    assert (answer["DiscadaEm"][-5:], answer["EncerradaEm"][-5:]) == (".001Z", ".002Z")
    assert answer["DuracaoSeg"] == 1.001


def test_times_of_any_zone_are_shown_in_utc() -> None:
    brasilia = timezone(timedelta(hours=-3))
    text = ack(request=REQUEST, pbx="p", uniqueid="u", at=DIALED.astimezone(brasilia))
    assert json.loads(text)["Em"] == "2026-05-04T12:30:00.999Z"


def test_text_from_the_pbx_cannot_break_the_json() -> None:
    ending = Ending(result=Result.FAILED, ended_at=ENDED, cause_text='"},\r\n\udc80ç', agent="\x00")
    text = respond(ending)
    assert "\n" not in text
    answer = json.loads(text.encode())
    assert (answer["CausaTexto"], answer["Operador"]) == ('"},\r\n?ç', "\x00")


def test_an_invalid_request_is_answered_with_the_field_and_why() -> None:
    error = InvalidRequest("Telefone is missing", field="Telefone", request_id_json="7")
    text = invalid_response(cell="ASR_TIM", request_id_json="7", error=error, at=ENDED)
    Response.model_validate_json(text)
    answer = json.loads(text)
    assert len(answer) == 20
    assert {name: value for name, value in answer.items() if value is not None} == {
        "IdRequisicao": 7,
        "Celula": "ASR_TIM",
        "Resultado": "INVALID_REQUEST",
        "Tentativas": 0,
        "EncerradaEm": "2026-05-04T12:32:00.999Z",
        "Erro": {"Codigo": "invalid_request", "Mensagem": "Telefone is missing"},
    }


@pytest.mark.parametrize("raw", [b"", b"{}", b"\x00\r\n", "ç€😀".encode(), b'"\\ud800"'])
def test_a_dead_entry_shows_text_as_text(raw: bytes) -> None:
    text = dead(raw=raw, source="code", reason="orphan_code", message="unknown", at=DIALED)
    Dead.model_validate_json(text)
    assert json.loads(text) == {
        "at": "2026-05-04T12:30:00.999Z",
        "source": "code",
        "reason": "orphan_code",
        "message": "unknown",
        "raw": raw.decode(),
        "raw_base64": None,
    }


def test_dead_entry_keeps_bytes_that_are_not_text() -> None:
    raw = bytes(range(256))
    text = dead(raw=raw, source="request", reason="invalid_request", message="m", at=DIALED)
    Dead.model_validate_json(text)
    entry = json.loads(text)
    assert entry["raw"] is None
    assert base64.b64decode(entry["raw_base64"]) == raw
