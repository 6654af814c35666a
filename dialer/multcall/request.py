"""Request message: its fields, their rules, and the error sentence for each rule.

The schema, the checks and the error sentences are all derived from the fields of `Request`.
No accepted value can end or add an AMI line, choose a channel technology or be evaluated by the
dialplan as an expression.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from dialer.domain.allowed import Allowed
from dialer.domain.originate import fits_ami_line
from dialer.domain.request import CallRequest
from dialer.multcall.identity import CONTROL, REQUEST_ID_RULE, RequestId
from dialer.multcall.lenient import NOTHING
from dialer.multcall.rawjson import ELEMENT_MAX_BYTES, RawObject
from dialer.multcall.refusals import (
    Problem,
    breaks_a_rule,
    known,
    refused,
    unreadable,
    validated,
)
from dialer.multcall.wire import STRICT, Wire

#: Largest `Dados` in bytes of UTF-8, and its deepest nesting.
DATA_MAX_BYTES: Final = 8192
DATA_MAX_DEPTH: Final = 500

#: A week, in seconds.
VALID_FOR_MAX_S: Final = 604_800

VARIABLES_MAX: Final = 64
VARIABLE_MAX_CHARS: Final = 512

#: Accepted years of `CriadaEm`: wide enough for clocks that are merely wrong.
_YEARS: Final = range(2000, 2100)

_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-][0-9]{2}:?[0-5][0-9])"
)
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
#: Asterisk removes leading underscores from a name (they only control inheritance), so
#: `__DIALER_X` would set `DIALER_X`; old versions ignore case.
_RESERVED_NAME: Final = re.compile(r"_*DIALER_", re.IGNORECASE)

#: `^{` too: MixMonitor and app_queue read it as `${` in the command that they run.
_UNSAFE_VALUE: Final = re.compile(CONTROL + r"|\$[{\[]|\^\{")

#: Digits, or a name and digits. The name's characters mean nothing to AMI's parser of
#: `Name <digits>`, nor to the dialplan's argument rules: Latin letters, digits, blank,
#: and . _ ' / + -  (so no quote, comma, semicolon, bracket, ampersand, dollar, backslash).
_CALLER_ID: Final = (
    r"^(\+?[0-9]+"
    r"|[A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f._'/+-]"
    r"[A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f._'/+ -]*<\+?[0-9]+>)$"
)


def _instant(value: object) -> datetime:
    if not (isinstance(value, str) and _INSTANT.fullmatch(value)):
        raise ValueError
    at = datetime.fromisoformat(value)
    if at.year not in _YEARS:
        raise ValueError
    return at.astimezone(UTC)


def _variables(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or len(value) > VARIABLES_MAX:
        raise ValueError
    wrong = (_wrong_variable(name, text) for name, text in value.items())
    if sentences := [sentence for sentence in wrong if sentence]:
        raise PydanticCustomError("variables", "wrong variables", {"sentences": sentences})
    return tuple(value.items())


def _wrong_variable(name: str, value: object) -> str:
    """Return the sentence about a channel variable; '' if it may be sent to Asterisk."""
    if not _VARIABLE_NAME.fullmatch(name):
        cure = "; leave out those that .NET adds, which begin with $" if name[:1] == "$" else ""
        return f"a name in Variaveis must match [A-Za-z_][A-Za-z0-9_]{{0,79}}{cure}"
    if _RESERVED_NAME.match(name):
        return f"Variaveis.{name}: names that begin with DIALER_ are reserved"
    if not isinstance(value, str):
        detail = "it is null: leave it out" if value is None else "it is not text: put it in quotes"
        return f"Variaveis.{name} must be text of at most {VARIABLE_MAX_CHARS} characters; {detail}"
    if len(value) > VARIABLE_MAX_CHARS:
        return f"Variaveis.{name} must be text of at most {VARIABLE_MAX_CHARS} characters"
    if _UNSAFE_VALUE.search(value):
        return f"Variaveis.{name} must not contain control characters, line ends, ${{, $[ or ^{{"
    if not fits_ami_line(name, value):
        return (
            f"Variaveis.{name} is too long for one AMI line: its name and its value, with a "
            'backslash before each of \\ " , ( ) [ ], may take about 980 bytes of UTF-8'
        )
    return ""


Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

Variables = Annotated[
    tuple[tuple[str, str], ...],
    PlainValidator(_variables),
    WithJsonSchema(
        {
            "type": ["object", "null"],
            "maxProperties": VARIABLES_MAX,
            "propertyNames": {
                "pattern": r"^(?!_*[Dd][Ii][Aa][Ll][Ee][Rr]_)[A-Za-z_][A-Za-z0-9_]{0,79}$"
            },
            "additionalProperties": {
                "type": "string",
                "maxLength": VARIABLE_MAX_CHARS,
                "pattern": r"^(?![\s\S]*([\u0000-\u001f\u007f-\u009f\u2028\u2029]|\$[{\[]|\^\{))",
            },
        }
    ),
]


def _text(pattern: str) -> StringConstraints:
    return StringConstraints(strict=True, pattern=pattern)


class Request(BaseModel):
    """A call to dial; pushed by Multcall to `ZancURA2.0-Request-<cell>`.

    Unknown fields are ignored; an optional field that is null counts as missing.
    Each description ends the sentence "<field> must be ...".
    """

    model_config = ConfigDict(title="Request", strict=True, frozen=True, extra="ignore")

    request_id: RequestId = Field(
        alias="IdRequisicao", description=REQUEST_ID_RULE + "; never used twice in its cell"
    )
    number: Annotated[str, _text(r"^\+?[0-9]{3,20}$")] = Field(
        alias="Telefone",
        description="text, not a number: 3 to 20 digits with an optional leading +",
    )
    caller_id: Annotated[str, _text(_CALLER_ID), Field(max_length=80)] | None = Field(
        None,
        alias="CallerID",
        description="digits with an optional leading +, or Name <digits>, at most 80 "
        "characters, where Name has only Latin letters, digits, blanks and . _ ' / + -",
    )
    context: Annotated[str, _text(r"^[A-Za-z0-9_.-]{1,79}$")] | None = Field(
        None, alias="Contexto", description="text of 1 to 79 characters out of A-Z a-z 0-9 _ . -"
    )
    exten: Annotated[str, _text(r"^[A-Za-z0-9_.*#+-]{1,79}$")] | None = Field(
        None,
        alias="Extensao",
        description="text of 1 to 79 characters out of A-Z a-z 0-9 _ . * # + -",
    )
    priority: Annotated[int, Field(ge=1, le=9999)] | None = Field(
        None, alias="Prioridade", description="an integer from 1 to 9999"
    )
    trunk: Annotated[str, _text(r"^[A-Za-z0-9_.-]{1,64}$")] | None = Field(
        None, alias="Tronco", description="text of 1 to 64 characters out of A-Z a-z 0-9 _ . -"
    )
    ring_timeout_s: Annotated[int, Field(ge=1, le=120)] | None = Field(
        None, alias="TempoToque", description="an integer from 1 to 120 (seconds)"
    )
    created_at: Instant | None = Field(
        None,
        alias="CriadaEm",
        description="ISO-8601 text with a zone, such as 2026-05-04T09:30:00.000-03:00, "
        f"in the years {_YEARS[0]} to {_YEARS[-1]}",
    )
    valid_for_s: Annotated[float, Field(gt=0, le=VALID_FOR_MAX_S)] | None = Field(
        None,
        alias="ValidadeSeg",
        description=f"a number above 0 and up to {VALID_FOR_MAX_S} (seconds; a week)",
    )
    variables: Variables = Field(
        default_factory=tuple,
        alias="Variaveis",
        description=f"an object of at most {VARIABLES_MAX} channel variables",
    )
    data: Any = Field(
        None,
        alias="Dados",
        description=f"JSON of at most {DATA_MAX_BYTES} bytes of UTF-8, nested at most "
        f"{DATA_MAX_DEPTH} deep",
    )


#: The names of all fields of a request.
REQUEST_FIELDS: Final = known(Request)

#: Values for fields that have a problem, to check the other fields.
_PLACEHOLDERS: Final = {"IdRequisicao": "0", "Telefone": "000"}

#: Elements of the ledger can be a little longer than those that Multcall pushed with shorter names.
_LEDGER_MARGIN_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One element of the Request list: the request, or else all its problems."""

    found: RawObject
    request: CallRequest | None
    problems: tuple[Problem, ...]


def admissible_request(
    raw: bytes,
    *,
    cell: str,
    allowed: Allowed,
    trunks: Collection[str] | None = None,
    wire: Wire = STRICT,
) -> CallRequest:
    """Parse one element of the Request list and check it against the cell's rules.

    `trunks` are those of the cell's PBXs; None: any.

    Raises:
        InvalidRequest: as `parse_request`, and names the fields that the cell does not allow.
    """
    return _accepted(read_request(raw, cell=cell, allowed=allowed, trunks=trunks, wire=wire), wire)


def parse_request(raw: bytes, *, cell: str, wire: Wire = STRICT) -> CallRequest:
    """Parse one element by the rules of all cells; `admissible_request` adds the cell's rules.

    Raises:
        InvalidRequest: names each wrong field and its rule; has the request id if that is valid,
            because a Response needs it.
    """
    return _accepted(read_request(raw, cell=cell, wire=wire), wire)


def read_request(
    raw: bytes,
    *,
    cell: str,
    allowed: Allowed | None = None,
    trunks: Collection[str] | None = None,
    wire: Wire = STRICT,
) -> Reading:
    """Read one element; find all its problems by the rules of all cells and of this one."""
    found = wire.read(raw, REQUEST_FIELDS)
    if found.fault is not None:
        return Reading(found=found, request=None, problems=())
    if wire.lenient is not NOTHING:
        found = wire.lenient.request(found)
    checked = validated(Request, found, wire.fields)
    if isinstance(checked, Request):
        problems: list[Problem] = []
        fields = checked
    else:
        problems, fields = checked, Request.model_validate(_usable(found, checked))
    if not _data_fits(found.json("Dados"), fields.data):
        problems.append(breaks_a_rule(Request, "Dados", fields.data))
    request = _request(fields, found, cell)
    problems += _against_cell(request, allowed, trunks)
    if len(raw) > ELEMENT_MAX_BYTES - _LEDGER_MARGIN_BYTES and not wire.is_strict:
        problems += _too_long(request)
    return Reading(found=found, request=None if problems else request, problems=tuple(problems))


def element_of(request: CallRequest) -> bytes:
    """Return the request as an element of the strict wire; `parse_request` reads the same."""
    optional = {
        "CallerID": request.caller_id,
        "Contexto": request.context,
        "Extensao": request.exten,
        "Prioridade": request.priority,
        "Tronco": request.trunk,
        "TempoToque": request.ring_timeout_s,
        "ValidadeSeg": request.valid_for_s,
        "Variaveis": dict(request.variables) or None,
    }
    texts = {
        "IdRequisicao": request.request_id_json,
        "Telefone": json.dumps(request.number),
        **{
            name: json.dumps(value, ensure_ascii=False)
            for name, value in optional.items()
            if value is not None
        },
        "CriadaEm": request.created_at_json,
        "Dados": request.data_json,
    }
    return f"{{{','.join(f'{json.dumps(name)}:{text}' for name, text in texts.items())}}}".encode()


def _accepted(reading: Reading, wire: Wire) -> CallRequest:
    if reading.found.fault is not None:
        raise unreadable(reading.found)
    if reading.request is None:
        raise refused(reading.problems, reading.found, wire.fields)
    return reading.request


def _request(fields: Request, found: RawObject, cell: str) -> CallRequest:
    return CallRequest(
        cell=cell,
        request_id=str(fields.request_id),
        request_id_json=found.json("IdRequisicao"),
        number=fields.number,
        caller_id=fields.caller_id,
        context=fields.context,
        exten=fields.exten,
        priority=fields.priority,
        trunk=fields.trunk,
        ring_timeout_s=fields.ring_timeout_s,
        created_at=fields.created_at,
        created_at_json=found.json("CriadaEm"),
        valid_for_s=fields.valid_for_s,
        variables=fields.variables,
        data_json=found.json("Dados"),
    )


def _usable(found: RawObject, problems: Iterable[Problem]) -> dict[str, object]:
    """Return the values without a problem, and harmless ones for required fields."""
    bad = {problem.field for problem in problems}
    good = {n: v for n, v in found.values.items() if v is not None and n not in bad}
    variables = found.values.get("Variaveis")
    if "Variaveis" in bad and isinstance(variables, dict) and len(variables) <= VARIABLES_MAX:
        good["Variaveis"] = {n: v for n, v in variables.items() if not _wrong_variable(n, v)}
    return {**_PLACEHOLDERS, **good}


def _against_cell(
    request: CallRequest, allowed: Allowed | None, trunks: Collection[str] | None
) -> Iterator[Problem]:
    """Yield what the cell does not allow."""
    for refusal in allowed.refusals(request) if allowed is not None else ():
        yield Problem(field=refusal.field, sentence=refusal.sentence)
    if trunks is not None and request.trunk is not None and request.trunk not in trunks:
        sentence = "Tronco names no trunk of this cell's PBXs; known are " + ", ".join(
            sorted(trunks)
        )
        yield Problem(field="Tronco", sentence=sentence)


def _too_long(request: CallRequest) -> Iterator[Problem]:
    """Yield the problem of an element that the ledger could not store in its own names."""
    if (size := len(element_of(request))) > ELEMENT_MAX_BYTES:
        sentence = (
            f"Variaveis makes the element {size} bytes long with the dialer's own names of the "
            f"fields; at most {ELEMENT_MAX_BYTES} are allowed"
        )
        yield Problem(field="Variaveis", sentence=sentence)


def _data_fits(data_json: str, data: object) -> bool:
    if len(data_json) > DATA_MAX_BYTES or len(data_json.encode()) > DATA_MAX_BYTES:
        return False
    openings = data_json.count("[") + data_json.count("{")
    return openings <= DATA_MAX_DEPTH or _depth(data) <= DATA_MAX_DEPTH


def _depth(value: object) -> int:
    """Return the greatest nesting depth of arrays and objects."""
    depth, layer = 0, [value]
    while True:
        nested = [item for item in layer if isinstance(item, dict | list)]
        if not nested:
            return depth
        depth += 1
        layer = [
            inner
            for item in nested
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
