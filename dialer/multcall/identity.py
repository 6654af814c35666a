"""Request ids (`IdRequisicao`) and the characters that no text on the wire may contain."""

from __future__ import annotations

import contextlib
import re
from typing import Annotated, Final

from pydantic import AfterValidator, WithJsonSchema

from dialer.errors import InvalidRequest
from dialer.multcall.rawjson import RawObject, read_object
from dialer.multcall.wire import STRICT, Wire

#: Regular expression for control characters (C0, DEL, C1), Unicode line separators, and lone
#: surrogates, which UTF-8 cannot encode.
CONTROL: Final = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"

REQUEST_ID_RULE: Final = "text or an integer of 1 to 64 characters out of A-Z a-z 0-9 _ . : -"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def _checked(value: str | int) -> str | int:
    if not _REQUEST_ID.fullmatch(str(value)):
        raise ValueError
    return value


RequestId = Annotated[
    str | int,
    AfterValidator(_checked),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[A-Za-z0-9_.:-]{1,64}$"},
                {"type": "integer", "exclusiveMinimum": -(10**63), "exclusiveMaximum": 10**64},
            ]
        }
    ),
]


def request_id_of(request_id_json: str) -> str:
    """Return the id of a JSON text: `"a-1"` and `7` become `a-1` and `7`.

    Raises:
        InvalidRequest: not a valid id.
    """
    found = read_object(f'{{"IdRequisicao":{request_id_json}}}'.encode("utf-8", "replace"))
    if id_json(found) is None:
        raise InvalidRequest(f"IdRequisicao must be {REQUEST_ID_RULE}", field="IdRequisicao")
    return str(found.values["IdRequisicao"])


def id_json(found: RawObject) -> str | None:
    """Return the element's id as unchanged JSON text; None if it is missing or not valid."""
    value = found.values.get("IdRequisicao")
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return found.json("IdRequisicao") if _REQUEST_ID.fullmatch(str(value)) else None


def readable_id(raw: bytes, wire: Wire = STRICT) -> str | None:
    """Return the id of an element as JSON text, even if the element is unreadable otherwise.

    None if there is no valid id. Never raises, because it is called after an internal error.
    """
    with contextlib.suppress(Exception):
        found = read_object(wire.lenient.element(raw))
        any_case = wire.lenient.any_case
        return id_json(wire.fields.ours(found, ("IdRequisicao",), any_case=any_case))
    return None
