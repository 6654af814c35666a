"""One example of each message, with the names that a site gave to the fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from dialer.domain.call import Ending, Result
from dialer.domain.channel import channel_id
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.answers import ack, invalid_response, response_parts
from dialer.multcall.fields import Fields
from dialer.multcall.keys import CellKeys
from dialer.multcall.request import parse_request, read_request
from dialer.multcall.wire import Wire

_DIALED: Final = datetime(2026, 5, 4, 12, 30, 1, tzinfo=UTC)
_CODE: Final = "99120345"

_REQUEST: Final[dict[str, object]] = {
    "IdRequisicao": "20260504-000123",
    "Telefone": "5511987654321",
    "CallerID": "Loja <1140041234>",
    "TempoToque": 25,
    "CriadaEm": "2026-05-04T09:30:00.000-03:00",
    "ValidadeSeg": 600,
    "Variaveis": {"MC_CPF": "12345678909"},
    "Dados": {"carteira": 7},
}


def samples(cell: str, fields: Fields, *, pbx: str, trunk: str) -> Iterator[tuple[str, str, str]]:
    """Yield the title, the key and the JSON text of each message of one call, in its order.

    A refused request is the last one.
    """
    keys, wire = CellKeys(cell), Wire(fields=fields)
    element = _element({**_REQUEST, "Tronco": trunk}, fields)
    yield "Request, from Multcall", keys.request, element
    request = parse_request(element.encode(), cell=cell, wire=wire)
    yield "ACK, to Multcall", keys.ack, _ack(request, pbx, fields)
    code = {"IdRequisicao": _REQUEST["IdRequisicao"], "CodLigacao": int(_CODE)}
    yield "CODLIGACAO, from Multcall", keys.code, _element(code, fields)
    yield "Response, to Multcall", keys.response, _response(request, pbx, fields)
    yield "Response to a refused request", keys.response, _refusal(cell, wire)


def _element(values: dict[str, object], fields: Fields) -> str:
    renamed = {fields.name(ours): value for ours, value in values.items()}
    return json.dumps(renamed, ensure_ascii=False)


def _ack(request: CallRequest, pbx: str, fields: Fields) -> str:
    uniqueid = channel_id(request.call_id)
    return ack(request=request, pbx=pbx, uniqueid=uniqueid, at=_DIALED, fields=fields)


def _response(request: CallRequest, pbx: str, fields: Fields) -> str:
    parts = response_parts(
        request=request,
        pbx=pbx,
        uniqueid=channel_id(request.call_id),
        attempts=1,
        dialed_at=_DIALED,
        answered_at=_DIALED + timedelta(seconds=8),
        ending=Ending(
            result=Result.ANSWERED,
            ended_at=_DIALED + timedelta(minutes=2),
            cause=16,
            cause_text="Normal Clearing",
        ),
        fields=fields,
    )
    return f"{parts.head}{_CODE}{parts.tail}"


def _refusal(cell: str, wire: Wire) -> str:
    element = _element({"IdRequisicao": "20260504-000124", "Telefone": ""}, wire.fields).encode()
    reading = read_request(element, cell=cell, wire=wire)
    said = wire.fields.said(reading.problems[0].sentence, reading.problems[0].field)
    return invalid_response(
        cell=cell,
        request_id_json=reading.found.json("IdRequisicao"),
        error=InvalidRequest(said),
        at=_DIALED,
        fields=wire.fields,
    )
