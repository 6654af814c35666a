"""CODLIGACAO message: Multcall's own number for an acknowledged call."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from dialer.multcall.identity import CONTROL, REQUEST_ID_RULE, RequestId
from dialer.multcall.refusals import known, refused, unreadable, validated
from dialer.multcall.wire import STRICT, Wire

CODE_MAX_CHARS: Final = 256

_CONTROL_CHARACTER: Final = re.compile(CONTROL)


def _code(value: str | int) -> str | int:
    text = str(value)
    if not 1 <= len(text) <= CODE_MAX_CHARS or _CONTROL_CHARACTER.search(text):
        raise ValueError
    return value


Code = Annotated[
    str | int,
    AfterValidator(_code),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": CODE_MAX_CHARS,
                    "pattern": r"^(?![\s\S]*[\u0000-\u001f\u007f-\u009f\u2028\u2029])",
                },
                {"type": "integer"},
            ]
        }
    ),
]


class CodeMessage(BaseModel):
    """A call's number; pushed by Multcall to `ZancURA2.0-CODLIGACAO-<cell>` after the ACK.

    Unknown fields are ignored. Each description ends the sentence "<field> must be ...".
    """

    model_config = ConfigDict(title="CODLIGACAO", strict=True, frozen=True, extra="ignore")

    request_id: RequestId = Field(
        alias="IdRequisicao", description=REQUEST_ID_RULE + ", the same as in the ACK"
    )
    code: Code = Field(
        alias="CodLigacao",
        description=f"text of 1 to {CODE_MAX_CHARS} characters without control characters, "
        f"or an integer of at most {CODE_MAX_CHARS} digits",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCode:
    """Multcall's number for the call `request_id`; `code_json` is its unchanged JSON text."""

    request_id: str
    code_json: str


_KNOWN: Final = known(CodeMessage)


def parse_code(raw: bytes, wire: Wire = STRICT) -> CallCode:
    """Parse one element of the CODLIGACAO list.

    Raises:
        InvalidRequest: names each wrong field and its rule; has the request id if that is valid.
    """
    found = wire.read(raw, _KNOWN)
    if found.fault is not None:
        raise unreadable(found)
    message = validated(CodeMessage, found, wire.fields)
    if isinstance(message, list):
        raise refused(message, found, wire.fields)
    return CallCode(request_id=str(message.request_id), code_json=found.json("CodLigacao"))
