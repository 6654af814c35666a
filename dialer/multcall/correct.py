"""Correct an element of the Request list: change some fields, keep the text of all others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from dialer.errors import InvalidRequest
from dialer.multcall.identity import request_id_of
from dialer.multcall.rawjson import read_object, value_of
from dialer.multcall.request import REQUEST_FIELDS
from dialer.multcall.wire import STRICT, Wire

#: Fields that are whole numbers, by our names.
_WHOLE: Final = frozenset({"Prioridade", "TempoToque", "ValidadeSeg"})

#: Typed texts that begin so are JSON already.
_JSON: Final = re.compile(r'[\[{"]|(true|false|null)$')

#: An id has at most 64 characters.
_HEAD_MAX: Final = 58


def typed_value(name: str, typed: str, wire: Wire = STRICT) -> str:
    """Return what people typed for a field as JSON text: `tim` becomes `"tim"`.

    Raises:
        InvalidRequest: it begins like JSON and is none.
    """
    if _JSON.match(typed):
        if typed != "null" and value_of(typed) is None:
            raise InvalidRequest(f"the value of {name} is not valid JSON", field=name)
        return typed
    is_whole = name in {wire.fields.name(one) for one in _WHOLE}
    if is_whole and re.fullmatch(r"[0-9]{1,9}", typed):
        return str(int(typed))
    return json.dumps(typed, ensure_ascii=False)


def corrected(raw: bytes, changes: Mapping[str, str | None], wire: Wire = STRICT) -> bytes:
    """Return the element with other values.

    `changes` has JSON text by the field's name on the wire; None takes the field out.

    Raises:
        InvalidRequest: the element is no JSON object, or a request has no field of a name.
    """
    found = read_object(wire.lenient.element(raw))
    if found.fault is not None:
        raise InvalidRequest(f"{found.fault}; give the whole element instead (--element)")
    known = [wire.fields.name(name) for name in REQUEST_FIELDS]
    texts = {name: found.json(name) for name in found.values}
    for name, text in changes.items():
        if name not in known:
            raise InvalidRequest(f"a request has no field {name}; there are {', '.join(known)}")
        present = _present(name, texts, any_case=wire.lenient.any_case)
        if text is None:
            texts.pop(present, None)
        else:
            texts[present] = text
    members = (f"{json.dumps(name, ensure_ascii=False)}:{text}" for name, text in texts.items())
    return f"{{{','.join(members)}}}".encode("utf-8", "surrogatepass")


def _present(name: str, texts: Mapping[str, str], *, any_case: bool) -> str:
    """Return the name by which an element has a field, as it is read."""
    if name in texts or not any_case:
        return name
    folded = {one.casefold(): one for one in texts}
    return folded.get(name.casefold(), name)


def with_id(raw: bytes, request_id: str, wire: Wire = STRICT) -> bytes:
    """Return the element with another `IdRequisicao`, which is text."""
    return corrected(raw, {wire.fields.name("IdRequisicao"): json.dumps(request_id)}, wire)


def next_id(request_id: str, n: int) -> str:
    """Return the `n`-th id for a corrected element, from 1 on: `a-1` becomes `a-1-c1`.

    The id itself is used: Multcall got a Response for it.
    """
    return f"{request_id[:_HEAD_MAX]}-c{n}"


def id_of(id_json: str | None) -> str | None:
    """Return the id in a JSON text as text, None for none."""
    return request_id_of(id_json) if id_json is not None else None
