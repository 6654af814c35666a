"""`[multcall.lenient]`: what .NET serializers write by default, and that strict stays strict."""

from __future__ import annotations

import json
from dataclasses import fields as switches
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.code import parse_code
from dialer.multcall.fields import Fields
from dialer.multcall.identity import readable_id
from dialer.multcall.lenient import Lenient
from dialer.multcall.request import element_of, parse_request
from dialer.multcall.wire import STRICT, Wire
from tests.unit.hostile_requests import hostile_codes, hostile_requests, odd_requests

NAMES = [switch.name for switch in switches(Lenient)]
ALL = Wire(lenient=Lenient(**dict.fromkeys(NAMES, True)))
SHORT = Fields({"IdRequisicao": "Id", "Telefone": "Fone", "CodLigacao": "Código", "Dados": "D"})
RENAMED = Wire(fields=SHORT)
BOTH = Wire(fields=SHORT, lenient=ALL.lenient)

MINIMAL = {"IdRequisicao": "a-1", "Telefone": "5511987654321"}


def only(name: str) -> Wire:
    return Wire(lenient=Lenient(**{name: True}))


def parse(wire: Wire, /, **fields: Any) -> CallRequest:
    return parse_request(json.dumps({**MINIMAL, **fields}).encode(), cell="c", wire=wire)


PLAIN = parse(STRICT)

#: For each switch: fields that it accepts, and how they read.
ACCEPTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *(("empty_values", {name: ""}, {}) for name in ("CallerID", "Contexto", "Extensao")),
    *(("empty_values", {name: ""}, {}) for name in ("Tronco", "Prioridade", "TempoToque")),
    *(("empty_values", {name: ""}, {}) for name in ("ValidadeSeg", "CriadaEm", "Variaveis")),
    *(("empty_values", {name: 0}, {}) for name in ("Prioridade", "TempoToque", "ValidadeSeg")),
    ("empty_values", {"ValidadeSeg": 0.0}, {}),
    ("empty_values", {"CriadaEm": "0001-01-01T00:00:00"}, {}),
    ("empty_values", {"CriadaEm": "0001-01-01T00:00:00.0000000Z"}, {}),
    ("empty_values", {"CriadaEm": "0001-01-01T00:00:00-03:00"}, {}),
    (
        "empty_values",
        {"Variaveis": {"MC_A": None, "MC_B": ""}},
        {"variables": (("MC_B", ""),)},
    ),
    ("dollar_names", {"Variaveis": {"$type": "X, Y", "$id": "1"}}, {}),
    (
        "dollar_names",
        {"Variaveis": {"$type": "D", "MC_A": "1"}},
        {"variables": (("MC_A", "1"),)},
    ),
    ("json_in_text", {"Variaveis": '{"MC_A": "1"}'}, {"variables": (("MC_A", "1"),)}),
    ("phone_signs", {"Telefone": "(11) 90000-0010"}, {"number": "11900000010"}),
    ("phone_signs", {"Telefone": "+55 11 90000.0010"}, {"number": "+5511900000010"}),
    ("phone_signs", {"CallerID": "(11) 4004-1234"}, {"caller_id": "1140041234"}),
    ("quoted_numbers", {"Telefone": 11900000010}, {"number": "11900000010"}),
    ("quoted_numbers", {"CallerID": 1140041234}, {"caller_id": "1140041234"}),
    ("quoted_numbers", {"Extensao": 100}, {"exten": "100"}),
    ("quoted_numbers", {"Prioridade": "2"}, {"priority": 2}),
    ("quoted_numbers", {"TempoToque": 25.0}, {"ring_timeout_s": 25}),
    ("quoted_numbers", {"ValidadeSeg": "600"}, {"valid_for_s": 600.0}),
    ("quoted_numbers", {"ValidadeSeg": "1.5"}, {"valid_for_s": 1.5}),
    ("quoted_numbers", {"Variaveis": {"MC_A": 7}}, {"variables": (("MC_A", "7"),)}),
]

#: What no switch accepts: guessing would dial or pass on something else than was meant.
REFUSED: list[dict[str, Any]] = [
    {"Telefone": ""},
    {"Telefone": 0},
    {"Telefone": -11900000010},
    {"Telefone": 11900000010.5},
    {"Telefone": 10**25},
    {"Telefone": True},
    {"Telefone": "+55 (0)11 90000-0010"},
    {"Telefone": "11900000010.0"},
    {"Telefone": "11900000010 ramal 2"},
    {"Telefone": "Local/100@x"},
    {"Telefone": "(11) 90000-0010\r\nAction: Command"},
    {"IdRequisicao": ""},
    {"Prioridade": False},
    {"Prioridade": "-1"},
    {"Prioridade": "1,0"},
    {"Prioridade": "9" * 5000},
    {"TempoToque": 0.5},
    {"ValidadeSeg": "1,5"},
    {"ValidadeSeg": "1.000,5"},
    {"ValidadeSeg": "\u0661"},
    {"CriadaEm": "0001-01-02T00:00:00"},
    {"CriadaEm": "2026-05-04T09:30:00"},
    {"Variaveis": {"MC_A": True}},
    {"Variaveis": {"MC_A": [1]}},
    {"Variaveis": {"MC_A": "${X}"}},
    {"Variaveis": '{"MC_A": "${X}"}'},
    {"Variaveis": "{"},
    {"Variaveis": "[" * 30_000},
    {"Variaveis": '["MC_A"]'},
    {"Variaveis": '{"MC_A": NaN}'},
    {"Variaveis": {"MC_A": 10**600}},
]


@pytest.mark.parametrize(("switch", "given", "read"), ACCEPTED)
def test_each_switch_accepts_its_own_kind(
    switch: str, given: dict[str, Any], read: dict[str, Any]
) -> None:
    for wire in (only(switch), ALL):
        request = parse(wire, **given)
        expected = {**{f: getattr(PLAIN, f) for f in CallRequest.__dataclass_fields__}, **read}
        assert request == CallRequest(**expected)
    others = Lenient(**{name: name != switch for name in NAMES})
    for wire in (STRICT, Wire(lenient=others)):
        with pytest.raises(InvalidRequest):
            parse(wire, **given)


@pytest.mark.parametrize("given", REFUSED)
def test_no_switch_accepts_what_is_not_safe(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        parse(ALL, **given)


def test_zero_as_a_number_is_no_text() -> None:
    assert parse(only("empty_values"), CallerID=0, Extensao=0) == PLAIN
    assert parse(ALL, CallerID=0, Extensao=0) == PLAIN
    assert parse(ALL, Extensao="0").exten == "0"


def test_numbers_in_variables_are_passed_on_as_written() -> None:
    raw = json.dumps(MINIMAL)[:-1] + ',"Variaveis":{"MC_A":1.10,"MC_B":1e5,"MC_C":-0}}'
    request = parse_request(raw.encode(), cell="c", wire=only("quoted_numbers"))
    assert request.variables == (("MC_A", "1.10"), ("MC_B", "1e5"), ("MC_C", "-0"))


def test_names_match_without_regard_to_case() -> None:
    raw = b'{"idRequisicao": 7, "TELEFONE": "190", "dados": 1.10, "variaveis": {"MC_a": "x"}}'
    request = parse_request(raw, cell="c", wire=only("any_case"))
    assert (request.request_id_json, request.data_json) == ("7", "1.10")
    assert request.variables == (("MC_a", "x"),)  # to Asterisk, case matters
    assert parse_code(b'{"idrequisicao":1,"codligacao":"x"}', ALL).code_json == '"x"'
    assert readable_id(raw, only("any_case")) == "7"
    assert readable_id(raw) is None


def test_the_exact_name_counts_before_one_in_other_case() -> None:
    raw = b'{"IdRequisicao":1,"Telefone":"190","telefone":"191","IDREQUISICAO":2}'
    request = parse_request(raw, cell="c", wire=ALL)
    assert (request.request_id, request.number) == ("1", "190")
    twice = b'{"IdRequisicao":1,"telefone":"190","TELEFONE":"191"}'
    assert parse_request(twice, cell="c", wire=ALL).number == "191"


def test_an_element_may_be_json_in_a_json_string() -> None:
    inner = json.dumps({**MINIMAL, "Dados": {"é": 1.10}}, ensure_ascii=False).replace("1.1", "1.10")
    for text in (inner, f"\ufeff {inner}\n"):
        raw = json.dumps(text).encode()
        for wrapped in (raw, b"\xef\xbb\xbf" + raw, b" \n" + raw + b"\r\n"):
            request = parse_request(wrapped, cell="c", wire=only("json_in_text"))
            assert request.data_json == '{"é": 1.10}'
            assert readable_id(wrapped, ALL) == '"a-1"'
            with pytest.raises(InvalidRequest, match="push the object itself, not JSON in a JSON"):
                parse_request(wrapped, cell="c")


@pytest.mark.parametrize(
    "raw",
    [
        b'"',
        b'""',
        b'"x"',
        b'"{\\"IdRequisicao\\":1',
        b'"{}" x',
        b'"\xff"',
        b'"\\ud800"',
        b'"{\\"IdRequisicao\\":1,\\"a\\":\\"\\ud800\\"}"',
        b'"' + b"[" * 60_000 + b'"',
        b'"' + b" " * 70_000 + b'{}"',
        json.dumps(json.dumps(json.dumps(MINIMAL))).encode(),
    ],
)
def test_broken_json_in_a_string_is_refused(raw: bytes) -> None:
    assert request_of(raw, ALL) is None
    assert code_of(raw, ALL) is None


def test_a_dollar_name_never_reaches_asterisk() -> None:
    for wire in (STRICT, *map(only, NAMES), ALL):
        for name in ("$type", "$id", "$ref", "$values", "$", "$MC_A", "__$type"):
            try:
                request = parse(wire, Variaveis={"MC_A": "1", name: "x"})
            except InvalidRequest:
                continue
            assert [variable for variable, _ in request.variables] == ["MC_A"]


# --- strict-valid elements read the same ------------------------------------------------

TEXTS = st.text(max_size=10)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.sampled_from(["", "0", "30", "(11) 9", "0001-01-01T00:00:00", "190", "Loja <190>", "s"]),
    st.sampled_from(["2026-05-04T09:30:00Z", "+5511900000010", "a.b", "*72#", "1.5"]),
    st.dictionaries(st.sampled_from(["MC_A", "$type", "A", "é"]), TEXTS | st.none(), max_size=2),
)
OPTIONAL = ["CallerID", "Contexto", "Extensao", "Prioridade", "Tronco", "TempoToque", "CriadaEm"]
OPTIONAL += ["ValidadeSeg", "Variaveis", "Dados", "Telefone", "IdRequisicao", "Outro", "$type"]
ELEMENTS = st.dictionaries(st.sampled_from(OPTIONAL), VALUES, max_size=4)


@given(fields=ELEMENTS)
def test_strict_elements_read_the_same_in_lenient_mode(fields: dict[str, Any]) -> None:
    raw = json.dumps({**MINIMAL, **fields}).encode()
    try:
        strict = parse_request(raw, cell="c")
    except InvalidRequest:
        return
    for wire in (ALL, *map(only, NAMES)):
        assert parse_request(raw, cell="c", wire=wire) == strict


@given(fields=ELEMENTS)
def test_the_ledger_reads_what_the_bridge_has_read(fields: dict[str, Any]) -> None:
    for wire in (STRICT, ALL):
        try:
            request = parse_request(json.dumps({**MINIMAL, **fields}).encode(), cell="c", wire=wire)
        except InvalidRequest:
            continue
        assert parse_request(element_of(request), cell="c") == request


def test_odd_but_valid_requests_read_the_same_in_all_modes() -> None:
    for element in odd_requests(20260504, 300):
        strict = parse_request(element.raw, cell="c")
        assert parse_request(element.raw, cell="c", wire=ALL) == strict
        assert parse_request(element_of(strict), cell="c") == strict


# --- hostile elements --------------------------------------------------------------------


def request_of(raw: bytes, wire: Wire) -> CallRequest | None:
    """The request, None if it is refused with one sentence or more on one line."""
    try:
        return parse_request(raw, cell="c", wire=wire)
    except InvalidRequest as error:
        check_sentence(error)
        return None


def code_of(raw: bytes, wire: Wire) -> str | None:
    try:
        return parse_code(raw, wire).code_json
    except InvalidRequest as error:
        check_sentence(error)
        return None


def check_sentence(error: InvalidRequest) -> None:
    if not str(error) or "\n" in str(error):
        pytest.fail(f"not a sentence: {error!s}")


@pytest.mark.parametrize("wire", [ALL, RENAMED, BOTH], ids=["lenient", "renamed", "both"])
def test_hostile_elements_never_raise_anything_else(wire: Wire) -> None:
    for element in hostile_requests(20260505, 3_000):
        for raw in (element.raw, json.dumps(element.raw.decode("latin-1")).encode()):
            readable_id(raw, wire)
            if (request := request_of(raw, wire)) is None:
                continue
            assert parse_request(element_of(request), cell="c") == request
            texts = [request.number, request.caller_id or "", request.context or ""]
            texts += [request.exten or "", request.trunk or ""]
            texts += [text for pair in request.variables for text in pair]
            assert not any(mark in text for text in texts for mark in ("\r", "\n", "${", "\x00"))
    for element in hostile_codes(20260505, 1_000):
        if (code := code_of(element.raw, wire)) is not None:
            json.loads(code)


@given(raw=st.binary(max_size=120), text=st.text(max_size=60))
def test_any_bytes_are_read_or_refused_in_all_modes(raw: bytes, text: str) -> None:
    for wire in (ALL, RENAMED, BOTH):
        for one in (raw, b'"' + raw, json.dumps(text).encode(), json.dumps("{" + text).encode()):
            readable_id(one, wire)
            request_of(one, wire)
            code_of(one, wire)


def test_a_long_element_must_fit_the_ledger() -> None:
    variables = {f"MC_{n:02}": "é\\" * 240 for n in range(64)}

    def of_size(size: int) -> bytes:
        element = {"Id": "a", "Fone": "190", "Variaveis": variables, "D": ""}
        raw = json.dumps(element, ensure_ascii=False, separators=(",", ":")).encode()
        return raw[:-2] + b"x" * (size - len(raw)) + raw[-2:]

    assert parse_request(of_size(65_300), cell="c", wire=RENAMED).number == "190"
    with pytest.raises(InvalidRequest, match=r"with the dialer's own names .* at most 65536 are"):
        parse_request(of_size(65_536), cell="c", wire=RENAMED)
