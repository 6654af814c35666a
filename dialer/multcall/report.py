"""How one element is read, for people: each field as it is understood, and all problems.

Telephone numbers are masked, values of variables and `Dados` are not shown: a screen or a ticket
is no place for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from dialer.domain.allowed import Allowed
from dialer.domain.request import CallRequest, mask
from dialer.errors import InvalidRequest
from dialer.multcall.code import parse_code
from dialer.multcall.fields import Fields
from dialer.multcall.lenient import Lenient
from dialer.multcall.rawjson import PLAIN_NAME, RawObject
from dialer.multcall.request import Reading, read_request
from dialer.multcall.wire import Wire

_DIGITS: Final = re.compile(r"[0-9]{5,}")

#: Every switch on.
_ALL: Final = Lenient(
    empty_values=True,
    any_case=True,
    dollar_names=True,
    json_in_text=True,
    phone_signs=True,
    quoted_numbers=True,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One field: its name on the wire, and how it is understood."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How an element is read. `problems` is empty if it is accepted.

    `ignored` are names of fields that are none of ours. `is_lenient_right`: it is refused, and
    would be accepted with every lenient switch on.
    """

    rows: tuple[Row, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_lenient_right: bool = False


def report_of_request(
    raw: bytes, wire: Wire, *, cell: str, allowed: Allowed, trunks: Collection[str]
) -> Report:
    """Read an element of the Request list as the bridge of that cell does."""

    def read(with_wire: Wire) -> Reading:
        return read_request(raw, cell=cell, allowed=allowed, trunks=trunks, wire=with_wire)

    reading, fields = read(wire), wire.fields
    if reading.request is not None:
        return Report(
            rows=tuple(_rows(reading.request, fields)),
            ignored=_ignored(reading.found),
            notes=tuple(fields.said(note.sentence, note.field) for note in reading.notes),
        )
    fault = reading.found.fault
    return Report(
        ignored=_ignored(reading.found),
        problems=(fault,)
        if fault
        else tuple(dict.fromkeys(fields.said(p.sentence, p.field) for p in reading.problems)),
        is_lenient_right=read(Wire(fields=fields, lenient=_ALL)).request is not None,
    )


def report_of_code(raw: bytes, wire: Wire) -> Report:
    """Read an element of the CODLIGACAO list."""
    fields = wire.fields
    try:
        code = parse_code(raw, wire)
    except InvalidRequest as error:
        return Report(problems=error.problems, is_lenient_right=_is_code(raw, fields))
    return Report(
        rows=(
            Row(fields.name("IdRequisicao"), code.request_id),
            Row(fields.name("CodLigacao"), code.code_json),
        )
    )


def _is_code(raw: bytes, fields: Fields) -> bool:
    try:
        parse_code(raw, Wire(fields=fields, lenient=_ALL))
    except InvalidRequest:
        return False
    return True


def _rows(request: CallRequest, fields: Fields) -> Iterator[Row]:
    known: dict[str, object] = {
        "IdRequisicao": request.request_id,
        "Telefone": mask(request.number),
        "CallerID": _DIGITS.sub(lambda found: mask(found[0]), request.caller_id or "") or None,
        "Contexto": request.context,
        "Extensao": request.exten,
        "Prioridade": request.priority,
        "Tronco": request.trunk,
        "TempoToque": request.ring_timeout_s,
        "CriadaEm": request.created_at and request.created_at.isoformat(),
        "ValidadeSeg": request.valid_for_s,
        "Variaveis": ", ".join(
            f"{name} ({len(value)} characters)" for name, value in request.variables
        )
        or None,
        "Dados": None
        if request.data_json == "null"
        else f"{len(request.data_json.encode())} bytes, which go back unchanged",
    }
    for ours, value in known.items():
        yield Row(fields.name(ours), "not given" if value is None else str(value))


def _ignored(found: RawObject) -> tuple[str, ...]:
    """Return the names of unknown fields, as far as they are safe to print."""
    safe = [name for name in found.unknown if PLAIN_NAME.fullmatch(name)]
    others = len(found.unknown) - len(safe)
    return (*safe, *([f"{others} with unusual names"] if others else ()))
