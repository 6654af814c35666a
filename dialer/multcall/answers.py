"""What goes to Multcall (ACK, Response) and to the dead list.

Composed by hand and not dumped from the models, because the ids, the code, `CriadaEm`
and `Dados` go back as the text they came as; the models are the schema, and tests hold
both together.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.code import Code
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

    request_id: RequestId = Field(alias="IdRequisicao", description="as it came")
    cell: str = Field(alias="Celula", description="the cell's name")
    pbx: str = Field(alias="Pbx", description="the PBX that took the call")
    uniqueid: str = Field(alias="Uniqueid", description="the channel's Uniqueid on that PBX")
    at: Instant = Field(alias="Em", description="when the PBX accepted it")
    data: Any = Field(alias="Dados", description="as it came, null where there was none")


class ErrorDetail(_Answer):
    """What went wrong with a call."""

    model_config = ConfigDict(title="Erro")

    code: str = Field(alias="Codigo", description="stable; may be matched on")
    message: str = Field(alias="Mensagem", description="one sentence, for people")


class Response(_Answer):
    """How a call ended, exactly one for every request; `ZancURA2.0-Response-<cell>`.

    Every field is always there, null where nothing is known.
    """

    model_config = ConfigDict(title="Response")

    request_id: RequestId = Field(alias="IdRequisicao", description="as it came")
    cell: str = Field(alias="Celula", description="the cell's name")
    code: Code | None = Field(
        alias="CodLigacao", description="as it came, null where none came in time"
    )
    result: Result = Field(alias="Resultado", description="how it ended")
    cause: Annotated[int, Field(ge=0, le=127)] | None = Field(
        alias="CausaQ850", description="Q.850 hangup cause"
    )
    cause_text: str | None = Field(alias="CausaTexto", description="Asterisk's text for it")
    amd: str | None = Field(alias="Amd", description="answering machine detection's word")
    agent: str | None = Field(alias="Operador", description="the agent who took the call")
    wait_s: Seconds | None = Field(
        alias="EsperaSeg", description="seconds the customer waited for an agent"
    )
    pbx: str | None = Field(alias="Pbx", description="null where it never had a PBX")
    uniqueid: str | None = Field(alias="Uniqueid", description="the channel's Uniqueid")
    attempts: Annotated[int, Field(ge=0)] = Field(
        alias="Tentativas", description="how many Originates were sent"
    )
    created_at: str | None = Field(alias="CriadaEm", description="as it came")
    dialed_at: Instant | None = Field(alias="DiscadaEm", description="null: never dialed")
    answered_at: Instant | None = Field(alias="AtendidaEm", description="null: not answered")
    ended_at: Instant = Field(alias="EncerradaEm", description="when it ended")
    duration_s: Seconds | None = Field(
        alias="DuracaoSeg", description="seconds from DiscadaEm to EncerradaEm"
    )
    talk_s: Seconds | None = Field(
        alias="FaladoSeg", description="seconds from AtendidaEm to EncerradaEm"
    )
    error: ErrorDetail | None = Field(alias="Erro", description="null where all went well")
    data: Any = Field(alias="Dados", description="as it came, null where there was none")


class Dead(_Answer):
    """An element that was refused, kept in `dialer:dead:<cell>`: `raw` or `raw_base64`."""

    model_config = ConfigDict(title="Dead")

    at: Instant = Field(description="when it was refused")
    source: Literal["request", "code"] = Field(description="the list it came from")
    reason: DeadReason = Field(description="stable; may be matched on")
    message: str = Field(description="one sentence: the field and what would be right")
    raw: str | None = Field(description="the element, where it is UTF-8")
    raw_base64: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})] | None = (
        Field(description="its bytes in base64, where it is not")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseParts:
    """A Response but for the code: `head + code_json + tail` is the JSON text."""

    head: str
    tail: str


def ack(*, request: CallRequest, pbx: str, uniqueid: str, at: datetime) -> str:
    """The ACK as JSON text."""
    return (
        f'{{"IdRequisicao":{request.request_id_json},"Celula":{_text(request.cell)}'
        f',"Pbx":{_text(pbx)},"Uniqueid":{_text(uniqueid)},"Em":{_instant(at)}'
        f',"Dados":{request.data_json}}}'
    )


def response_parts(
    *,
    request: CallRequest,
    pbx: str | None,
    uniqueid: str | None,
    attempts: int,
    dialed_at: datetime | None,
    ending: Ending,
    answered_at: datetime | None,
) -> ResponseParts:
    """The Response as JSON text but for `CodLigacao`, which may come later.

    `answered_at` yields to nothing; where it is None, what `ending` knows counts.
    """
    answered = answered_at or ending.answered_at
    return ResponseParts(
        head=f'{{"IdRequisicao":{request.request_id_json},"Celula":{_text(request.cell)}'
        ',"CodLigacao":',
        tail=f',"Resultado":"{ending.result}","CausaQ850":{_number(ending.cause)}'
        f',"CausaTexto":{_text(ending.cause_text)},"Amd":{_text(ending.amd)}'
        f',"Operador":{_text(ending.agent)},"EsperaSeg":{_seconds(ending.wait_s)}'
        f',"Pbx":{_text(pbx)},"Uniqueid":{_text(uniqueid)},"Tentativas":{attempts}'
        f',"CriadaEm":{request.created_at_json},"DiscadaEm":{_instant(dialed_at)}'
        f',"AtendidaEm":{_instant(answered)},"EncerradaEm":{_instant(ending.ended_at)}'
        f',"DuracaoSeg":{_between(dialed_at, ending.ended_at)}'
        f',"FaladoSeg":{_between(answered, ending.ended_at)}'
        f',"Erro":{_error(ending.error)},"Dados":{request.data_json}}}',
    )


def invalid_response(
    *, cell: str, request_id_json: str, error: InvalidRequest, at: datetime
) -> str:
    """The Response to a request that was refused unread but for its id."""
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
    """The entry of the dead list as JSON text; not one byte of `raw` is lost."""
    try:
        text, encoded = raw.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(raw).decode()
    return (
        f'{{"at":{_instant(at)},"source":"{source}","reason":"{reason}"'
        f',"message":{_text(message)},"raw":{_text(text)},"raw_base64":{_text(encoded)}}}'
    )


def _text(value: str | None) -> str:
    """JSON text; lone surrogates, which a PBX's odd bytes may leave, become `?`."""
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
    """Seconds between two instants as the wire shows them, cut to milliseconds."""
    if start is None:
        return "null"
    return _seconds((_cut(end) - _cut(start)) / _MILLISECOND / 1000)


def _cut(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _error(error: CallError | None) -> str:
    if error is None:
        return "null"
    return f'{{"Codigo":{_text(error.code)},"Mensagem":{_text(error.message)}}}'
