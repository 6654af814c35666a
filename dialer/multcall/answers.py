"""Messages to Multcall (ACK, Response) and entries of the dead list.

The JSON is built from strings and not dumped from the models, because ids, code, `CriadaEm`
and `Dados` must go back as unchanged text. The models are the schema; tests compare both.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.code import Code
from dialer.multcall.fields import PLAIN, Fields
from dialer.multcall.identity import RequestId

DeadReason = Literal[
    "invalid_request",
    "duplicate_request",
    "invalid_code",
    "orphan_code",
    "duplicate_code",
    "internal_error",
]

_MILLISECOND: Final = timedelta(milliseconds=1)

Instant = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$")
]
Seconds = Annotated[float, Field(ge=0)]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Ack(_Answer):
    """The PBX accepted the call; `ZancURA2.0-ACK-<cell>`."""

    model_config = ConfigDict(title="ACK")

    request_id: RequestId = Field(alias="IdRequisicao", description="as in the request")
    cell: str = Field(alias="Celula", description="the cell's name")
    pbx: str = Field(alias="Pbx", description="the PBX that accepted the call")
    uniqueid: str = Field(alias="Uniqueid", description="the channel's Uniqueid on that PBX")
    at: Instant = Field(alias="Em", description="when the PBX accepted it")
    data: Any = Field(alias="Dados", description="as in the request, null if it had none")


class ErrorDetail(_Answer):
    """What went wrong with a call."""

    model_config = ConfigDict(title="Erro")

    code: str = Field(alias="Codigo", description="stable; programs may compare it")
    message: str = Field(alias="Mensagem", description="one sentence, for people")


class Response(_Answer):
    """The result of a call, exactly one per request; `ZancURA2.0-Response-<cell>`.

    Every field is always present, null if unknown.
    """

    model_config = ConfigDict(title="Response")

    request_id: RequestId = Field(alias="IdRequisicao", description="as in the request")
    cell: str = Field(alias="Celula", description="the cell's name")
    code: Code | None = Field(
        alias="CodLigacao", description="as in the CODLIGACAO, null if none arrived in time"
    )
    result: Result = Field(alias="Resultado", description="how it ended")
    cause: Annotated[int, Field(ge=0, le=127)] | None = Field(
        alias="CausaQ850", description="Q.850 hangup cause"
    )
    cause_text: str | None = Field(alias="CausaTexto", description="Asterisk's text for it")
    amd: str | None = Field(alias="Amd", description="result of answering machine detection")
    agent: str | None = Field(alias="Operador", description="the agent who took the call")
    wait_s: Seconds | None = Field(
        alias="EsperaSeg", description="seconds the customer waited for an agent"
    )
    pbx: str | None = Field(alias="Pbx", description="null if no PBX was assigned")
    uniqueid: str | None = Field(alias="Uniqueid", description="the channel's Uniqueid")
    attempts: Annotated[int, Field(ge=0)] = Field(
        alias="Tentativas", description="number of Originates sent"
    )
    created_at: str | None = Field(alias="CriadaEm", description="as in the request")
    dialed_at: Instant | None = Field(alias="DiscadaEm", description="null: never dialed")
    answered_at: Instant | None = Field(alias="AtendidaEm", description="null: not answered")
    ended_at: Instant = Field(alias="EncerradaEm", description="when it ended")
    duration_s: Seconds | None = Field(
        alias="DuracaoSeg", description="seconds from DiscadaEm to EncerradaEm"
    )
    talk_s: Seconds | None = Field(
        alias="FaladoSeg", description="seconds from AtendidaEm to EncerradaEm"
    )
    error: ErrorDetail | None = Field(alias="Erro", description="null if there was no error")
    data: Any = Field(alias="Dados", description="as in the request, null if it had none")


class Dead(_Answer):
    """A refused element in `dialer:dead:<cell>`, as `raw` or as `raw_base64`."""

    model_config = ConfigDict(title="Dead")

    at: Instant = Field(description="when it was refused")
    source: Literal["request", "code"] = Field(description="the list it came from")
    reason: DeadReason = Field(description="stable; programs may compare it")
    message: str = Field(description="one sentence: the field and its rule")
    raw: str | None = Field(description="the element, if it is UTF-8")
    raw_base64: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})] | None = (
        Field(description="its bytes in base64, if it is not UTF-8")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseParts:
    """A Response without its code: `head + code_json + tail` is the JSON text."""

    head: str
    tail: str


def ack(
    *, request: CallRequest, pbx: str, uniqueid: str, at: datetime, fields: Fields = PLAIN
) -> str:
    """Return the ACK as JSON text."""
    texts = {
        "IdRequisicao": request.request_id_json,
        "Celula": _text(request.cell),
        "Pbx": _text(pbx),
        "Uniqueid": _text(uniqueid),
        "Em": _instant(at),
        "Dados": request.data_json,
    }
    return f"{{{_members(fields, texts)}}}"


def response_parts(
    *,
    request: CallRequest,
    pbx: str | None,
    uniqueid: str | None,
    attempts: int,
    dialed_at: datetime | None,
    ending: Ending,
    answered_at: datetime | None,
    fields: Fields = PLAIN,
) -> ResponseParts:
    """Return the Response as JSON text without `CodLigacao`, which may arrive later.

    `answered_at` has precedence over `ending.answered_at`.
    """
    answered = answered_at or ending.answered_at
    before = {"IdRequisicao": request.request_id_json, "Celula": _text(request.cell)}
    after = {
        "Resultado": f'"{ending.result}"',
        "CausaQ850": _number(ending.cause),
        "CausaTexto": _text(ending.cause_text),
        "Amd": _text(ending.amd),
        "Operador": _text(ending.agent),
        "EsperaSeg": _seconds(ending.wait_s),
        "Pbx": _text(pbx),
        "Uniqueid": _text(uniqueid),
        "Tentativas": str(attempts),
        "CriadaEm": request.created_at_json,
        "DiscadaEm": _instant(dialed_at),
        "AtendidaEm": _instant(answered),
        "EncerradaEm": _instant(ending.ended_at),
        "DuracaoSeg": _between(dialed_at, ending.ended_at),
        "FaladoSeg": _between(answered, ending.ended_at),
        "Erro": _error(ending.error, fields),
        "Dados": request.data_json,
    }
    return ResponseParts(
        head=f"{{{_members(fields, before)},{fields.key('CodLigacao')}:",
        tail=f",{_members(fields, after)}}}",
    )


def _members(fields: Fields, texts: Mapping[str, str]) -> str:
    """Return the members of a JSON object with the names of the wire."""
    return ",".join([f"{fields.key(name)}:{text}" for name, text in texts.items()])


def invalid_response(
    *,
    cell: str,
    request_id_json: str,
    error: InvalidRequest,
    at: datetime,
    fields: Fields = PLAIN,
) -> str:
    """Return the Response to a refused request of which only the id is known."""
    parts = response_parts(
        request=CallRequest(cell=cell, request_id="", request_id_json=request_id_json, number=""),
        pbx=None,
        uniqueid=None,
        attempts=0,
        dialed_at=None,
        ending=Ending(
            result=Result.INVALID_REQUEST,
            ended_at=at,
            error=CallError(code=error.code, message=str(error)),
        ),
        answered_at=None,
        fields=fields,
    )
    return f"{parts.head}null{parts.tail}"


def dead(
    *,
    raw: bytes,
    source: Literal["request", "code"],
    reason: DeadReason,
    message: str,
    at: datetime,
) -> str:
    """Return an entry of the dead list as JSON text; it preserves every byte of `raw`."""
    try:
        text, encoded = raw.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(raw).decode()
    return (
        f'{{"at":{_instant(at)},"source":"{source}","reason":"{reason}"'
        f',"message":{_text(message)},"raw":{_text(text)},"raw_base64":{_text(encoded)}}}'
    )


def _text(value: str | None) -> str:
    """Return a JSON string; lone surrogates (from invalid bytes of a PBX) become `?`."""
    if value is None:
        return "null"
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "null"
    return f"{max(0.0, value):.3f}"


def _instant(at: datetime | None) -> str:
    if at is None:
        return "null"
    return f'"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")}Z"'


def _between(start: datetime | None, end: datetime) -> str:
    """Return the seconds between two instants, both truncated to milliseconds as on the wire."""
    if start is None:
        return "null"
    return _seconds((_cut(end) - _cut(start)) / _MILLISECOND / 1000)


def _cut(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _error(error: CallError | None, fields: Fields) -> str:
    if error is None:
        return "null"
    texts = {"Codigo": _text(error.code), "Mensagem": _text(error.message)}
    return f"{{{_members(fields, texts)}}}"
