from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import Ending, Result
from dialer.domain.originate import variable_line
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.answers import ack, dead, response_parts
from dialer.multcall.code import parse_code
from dialer.multcall.identity import request_id_of
from dialer.multcall.request import parse_request

AT = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)

# --- JSON as text, in every spelling that a serializer may give it ---------------------

BLANKS = st.text(alphabet=" \t\r\n", max_size=2)
NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?\Z")
STRINGS = st.builds(
    json.dumps, st.text(alphabet=st.characters(), max_size=8), ensure_ascii=st.just(True)
) | st.from_regex(r'\A"([ !#-\[\]-~]|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]){0,6}"\Z')


def _joined(opening: str, closing: str) -> Any:
    return lambda items, blank: opening + blank + f",{blank}".join(items) + blank + closing


JSON_TEXTS = st.recursive(
    st.sampled_from(["null", "true", "false", "1.10", "-0", "1E400"]) | NUMBERS | STRINGS,
    lambda inner: (
        st.builds(_joined("[", "]"), st.lists(inner, max_size=4), BLANKS)
        | st.builds(
            _joined("{", "}"),
            st.lists(
                st.builds(lambda k, b, v: f"{k}{b}:{b}{v}", STRINGS, BLANKS, inner), max_size=4
            ),
            BLANKS,
        )
    ),
    max_leaves=12,
)

IDS = st.from_regex(r"\A[A-Za-z0-9_.:-]{1,64}\Z").map(json.dumps) | st.integers(
    -(10**62), 10**63
).map(str)
CODES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=256).map(
    json.dumps
) | st.integers(-(10**255) + 1, 10**256 - 1).map(str)


@given(id_json=IDS, data_json=JSON_TEXTS, code_json=CODES, blank=BLANKS)
def test_ids_codes_and_data_go_back_unchanged(
    id_json: str, data_json: str, code_json: str, blank: str
) -> None:
    raw = (
        f'{{{blank}"IdRequisicao"{blank}:{blank}{id_json}{blank},"Telefone":"190",'
        f'"Dados":{blank}{data_json}{blank}}}{blank}'
    )
    request = parse_request(raw.encode(), cell="c")
    assert (request.request_id_json, request.data_json) == (id_json, data_json)
    assert request_id_of(id_json) == request.request_id

    code = parse_code(f'{{"CodLigacao":{code_json}{blank},"IdRequisicao":{id_json}}}'.encode())
    assert (code.request_id, code.code_json) == (request.request_id, code_json)

    ending = Ending(result=Result.BUSY, ended_at=AT)
    parts = response_parts(
        request=request,
        pbx="p",
        uniqueid="u",
        attempts=1,
        dialed_at=AT,
        ending=ending,
        answered_at=None,
    )
    response = parts.head + code.code_json + parts.tail
    assert response.startswith(f'{{"IdRequisicao":{id_json},')
    assert f',"CodLigacao":{code_json},"Resultado":' in response
    assert response.endswith(f',"Dados":{data_json}}}')
    acknowledgement = ack(request=request, pbx="p", uniqueid="u", at=AT)
    assert acknowledgement.endswith(f',"Dados":{data_json}}}')
    json.loads(response)
    json.loads(acknowledgement)


# --- nothing but InvalidRequest, whatever comes -----------------------------------------

WHOLE = json.dumps(
    {
        "IdRequisicao": "a-1",
        "Telefone": "5511987654321",
        "CodLigacao": 7,
        "CallerID": "Loja <1140041234>",
        "CriadaEm": "2026-05-04T09:30:00-03:00",
        "Variaveis": {"CPF": "1"},
        "Dados": [1.10, {"a": "\u20ac"}],
    }
).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good element with a piece cut out, and something else put in its place."""
    start = draw(st.integers(0, len(WHOLE)))
    end = draw(st.integers(start, min(len(WHOLE), start + 12)))
    return WHOLE[:start] + draw(st.binary(max_size=6)) + WHOLE[end:]


def _refusal(parse: Callable[[], object]) -> InvalidRequest | None:
    try:
        parse()
    except InvalidRequest as error:
        return error
    return None


def _read(raw: bytes) -> None:
    for parse in (lambda: parse_request(raw, cell="c"), lambda: parse_code(raw)):
        error = _refusal(parse)
        if error is None:
            continue
        assert str(error)
        if error.request_id_json is not None:
            request_id_of(error.request_id_json)
        dead(raw=raw, source="request", reason="invalid_request", message=str(error), at=AT)


@given(raw=st.binary(max_size=200) | damaged())
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    _read(raw)


@given(text=JSON_TEXTS)
def test_any_json_is_parsed_or_refused(text: str) -> None:
    _read(text.encode())
    _read(f'{{"IdRequisicao":{text},"Telefone":{text},"CodLigacao":{text}}}'.encode())


@given(text=st.text())
def test_any_text_is_an_id_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        request_id_of(text)


# --- no accepted value is more than text ------------------------------------------------

NASTY = st.text(
    alphabet=st.sampled_from(
        "aB9 _.+-<>*#${}[]()\\,;\"'&|/\r\n\x00\x1b\x7f\x85\u2028\u2029\ud800é\uff11"
    )
    | st.characters(),
    max_size=12,
)
FIELDS = ["IdRequisicao", "Telefone", "CallerID", "Contexto", "Extensao", "Tronco", "CriadaEm"]


def _texts(request: CallRequest) -> list[str]:
    named = [request.request_id, request.number, request.caller_id, request.context]
    named += [request.exten, request.trunk]
    return [text for text in named if text] + [t for pair in request.variables for t in pair]


@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), NASTY, max_size=2),
    variables=st.dictionaries(NASTY | st.just("A"), NASTY, max_size=2),
)
def test_accepted_values_have_no_control_or_expression(
    fields: dict[str, str], variables: dict[str, str]
) -> None:
    element = {"IdRequisicao": "a", "Telefone": "190", **fields, "Variaveis": variables}
    try:
        request = parse_request(json.dumps(element).encode(), cell="c")
    except InvalidRequest:
        return
    for text in _texts(request):
        assert not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in text)
        assert "${" not in text
        assert "$[" not in text
        assert "^{" not in text


# --- Asterisk's argument rules ----------------------------------------------------------


def separate_arguments(line: str, limit: int = 64) -> list[str]:
    """Split as `__ast_app_separate_args` does (main/app.c, 16 and 22), removing characters."""
    arguments: list[str] = []
    argument = ""
    paren = bracket = 0
    quoted = False
    at = 0
    while at < len(line):
        char = line[at]
        if char == "(":
            paren += 1
        elif char == ")":
            paren = max(0, paren - 1)
        elif char == "[":
            bracket += 1
        elif char == "]":
            bracket = max(0, bracket - 1)
        elif char == '"':
            quoted = not quoted
            char = ""
        elif char == "\\":
            at += 1
            char = line[at : at + 1]
        elif char == "," and not (paren or bracket or quoted) and len(arguments) < limit - 1:
            arguments.append(argument)
            argument = char = ""
        argument += char
        at += 1
    return [*arguments, argument]


def test_the_oracle_splits_as_asterisk_does() -> None:
    assert separate_arguments('a=1,b=(2,3),c="4,5",d=6\\,7,e=[8,9]') == [
        "a=1",
        "b=(2,3)",
        "c=4,5",
        "d=6,7",
        "e=[8,9]",
    ]


@given(
    variables=st.dictionaries(
        st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,20}\Z"),
        st.text(
            st.sampled_from('a,"()[]\\=; $é€😀')
            | st.characters(exclude_categories=["C", "Zl", "Zp"]),
            max_size=30,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_variable_reaches_asterisk_unchanged(
    variables: dict[str, str],
) -> None:
    element = {"IdRequisicao": "a", "Telefone": "190", "Variaveis": variables}
    try:
        request = parse_request(json.dumps(element).encode(), cell="c")
    except InvalidRequest:
        return
    assert dict(request.variables) == variables
    lines = [variable_line(name, value) for name, value in request.variables]
    for line, (name, value) in zip(lines, request.variables, strict=True):
        assert len(f"Variable: {line}\r\n".encode()) <= 1024
        assert separate_arguments(line.lstrip(" ")) == [f"{name}={value}"]
    assert separate_arguments(",".join(lines)) == [f"{n}={v}" for n, v in request.variables]
