from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.identity import request_id_of
from dialer.multcall.request import parse_request

MINIMAL = {"IdRequisicao": "a-1", "Telefone": "5511987654321"}


def parse(**fields: Any) -> CallRequest:
    return parse_request(json.dumps({**MINIMAL, **fields}).encode(), cell="ASR_TIM")


def refusal(raw: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(raw, cell="ASR_TIM")
    return refused.value


def refusal_of(**fields: Any) -> InvalidRequest:
    return refusal(json.dumps({**MINIMAL, **fields}).encode())


def test_request_with_every_field_is_parsed() -> None:
    raw = (
        b'{"IdRequisicao": 77, "Telefone": "+5511987654321", "CallerID": "Cobran\xc3\xa7a'
        b' <1140041234>", "Contexto": "ura", "Extensao": "s", "Prioridade": 2,'
        b' "Tronco": "tim", "TempoToque": 25, "CriadaEm": "2026-05-04T09:30:00.1234567-03:00",'
        b' "ValidadeSeg": 90.5, "Variaveis": {"CPF": "1,2", "_X": ""},'
        b' "Dados": {"b": 1.10, "a": [ ]}, "Outro": 1}'
    )
    assert parse_request(raw, cell="ASR_TIM") == CallRequest(
        cell="ASR_TIM",
        request_id="77",
        request_id_json="77",
        number="+5511987654321",
        caller_id="Cobrança <1140041234>",
        context="ura",
        exten="s",
        priority=2,
        trunk="tim",
        ring_timeout_s=25,
        created_at=datetime(2026, 5, 4, 12, 30, 0, 123456, tzinfo=UTC),
        created_at_json='"2026-05-04T09:30:00.1234567-03:00"',
        valid_for_s=90.5,
        variables=(("CPF", "1,2"), ("_X", "")),
        data_json='{"b": 1.10, "a": [ ]}',
    )


def test_smallest_request_uses_the_cells_defaults() -> None:
    assert parse() == CallRequest(
        cell="ASR_TIM", request_id="a-1", request_id_json='"a-1"', number="5511987654321"
    )


def test_null_for_an_optional_field_counts_as_missing() -> None:
    optional = ["CallerID", "Contexto", "Extensao", "Prioridade", "Tronco", "TempoToque"]
    optional += ["CriadaEm", "ValidadeSeg", "Variaveis", "Dados"]
    assert parse(**dict.fromkeys(optional)) == parse()


def test_byte_order_mark_is_skipped() -> None:
    assert parse_request(b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode(), cell="ASR_TIM") == parse()


def test_last_of_repeated_fields_counts() -> None:
    raw = (
        b'{"IdRequisicao":1,"Telefone":"190","Dados":1,'
        b'"IdRequisicao":2,"Telefone":"5511","Dados":1.0}'
    )
    request = parse_request(raw, cell="c")
    assert (request.request_id, request.request_id_json) == ("2", "2")
    assert (request.number, request.data_json) == ("5511", "1.0")


def test_a_field_name_may_be_escaped() -> None:
    raw = b'{"\\u0049dRequisicao":"x","Telefone":"5511"}'
    assert parse_request(raw, cell="c").request_id == "x"


@pytest.mark.parametrize("value", ["a", "A-z_0.9:x", "x" * 64, 0, -7, 10**64 - 1])
def test_an_id_is_text_or_an_integer_of_up_to_64_characters(value: str | int) -> None:
    request = parse(IdRequisicao=value)
    assert request.request_id == str(value)
    assert request.request_id_json == json.dumps(value)
    assert request_id_of(request.request_id_json) == request.request_id


@pytest.mark.parametrize(
    "value",
    [True, False, 1.0, "", "a b", "a\n", "x" * 65, 10**64, "\u0661", "\ud800", [], {"a": 1}],
)
def test_a_bad_id_is_refused_and_never_echoed(value: object) -> None:
    error = refusal_of(IdRequisicao=value)
    assert str(error).startswith("IdRequisicao must be text or an integer of 1 to 64 characters")
    assert (error.field, error.request_id_json) == ("IdRequisicao", None)
    with pytest.raises(InvalidRequest, match="IdRequisicao must be"):
        request_id_of(json.dumps(value))


@pytest.mark.parametrize("name", ["IdRequisicao", "Telefone"])
@pytest.mark.parametrize("null", [True, False])
def test_a_missing_required_field_is_named(name: str, null: bool) -> None:
    fields: dict[str, Any] = {**MINIMAL, name: None}
    if not null:
        del fields[name]
    error = refusal(json.dumps(fields).encode())
    assert str(error).startswith(f"{name} is missing; it must be text")
    assert error.field == name
    assert error.request_id_json == (None if name == "IdRequisicao" else '"a-1"')


GOOD: list[tuple[str, list[Any]]] = [
    ("Telefone", ["190", "+123", "1" * 20, "+" + "1" * 20]),
    ("CallerID", ["1", "+5511", "Loja <1>", "Loja<+55>", "D'Ávila/Cia. 2 <1>", "1" * 80]),
    ("Contexto", ["a", "A.b_c-9", "x" * 79]),
    ("Extensao", ["s", "*72#", "+55", "_X.", "x" * 79]),
    ("Prioridade", [1, 9999]),
    ("Tronco", ["tim", "x" * 64]),
    ("TempoToque", [1, 120]),
    ("CriadaEm", ["2000-01-01T00:00:00Z", "2099-12-31T23:59:59.999999999+14:00"]),
    ("CriadaEm", ["2026-05-04T09:30:00-0300"]),
    ("ValidadeSeg", [0.001, 1, 604800]),
    ("Variaveis", [{}, {f"V{n}": "" for n in range(64)}, {"A" * 80: "x" * 512}, {"A": "$ {"}]),
    ("Variaveis", [{"A": "," * 489}, {"DIALER": "x"}, {"MY_DIALER_X": "x"}]),
    ("Dados", ["x" * 8190, [[]], False, 0, "\x00"]),
]

BAD: list[tuple[str, list[Any]]] = [
    (
        "Telefone",
        [5511, True, "", "12", "1" * 21, "+12", "++123", "12\n3", "123\n", "١٢٣", "Local/1"],
    ),
    ("CallerID", [5511, "", "Loja", "<1>", " Loja <1>", 'a"b <1>', "a,b <1>", "Loja <1>\n"]),
    ("CallerID", ["L" * 78 + "<1>", "a<b<1>", "a\\b <1>", "${X} <1>", "²<1>", "1" * 81]),
    ("Contexto", [1, "", "a b", "a,b", "x" * 80, "a\n", "é"]),
    ("Extensao", [1, "", "a b", "a,b", "x" * 80, "s\n", "${X}"]),
    ("Prioridade", [0, 10000, True, "1", 1.0, 10**5000 // 10**900]),
    ("Tronco", [1, "", "a/b", "a&b", "x" * 65, "tim\n"]),
    ("TempoToque", [0, 121, True, "30", 30.0, -1]),
    ("CriadaEm", [1, "", "2026-05-04T09:30:00", "2026-05-04", "1999-12-31T23:59:59Z"]),
    ("CriadaEm", ["2100-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-05-04T09:30:00Z\n"]),
    ("ValidadeSeg", [0, -1, 604800.1, True, "60", 10**4200, 1e308]),
    ("Variaveis", [[], "A=1", 1, {f"V{n}": "" for n in range(65)}]),
    ("Dados", ["x" * 8191, "é" * 4096]),
]


@pytest.mark.parametrize(("name", "values"), GOOD)
def test_value_within_its_rule_is_accepted(name: str, values: list[Any]) -> None:
    for value in values:
        assert parse(**{name: value}) is not None


@pytest.mark.parametrize(("name", "values"), BAD)
def test_value_that_breaks_its_rule_names_the_field(name: str, values: list[Any]) -> None:
    for value in values:
        raw = json.dumps({**MINIMAL, name: value}, ensure_ascii=False).encode()
        error = refusal(raw)
        assert str(error).startswith(f"{name} must be "), value
        assert (error.field, error.request_id_json) == (name, '"a-1"')


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"A": 1}, "Variaveis.A must be text of at most 512 characters"),
        ({"A": None}, "Variaveis.A must be text of at most 512 characters"),
        ({"A": "x" * 513}, "Variaveis.A must be text of at most 512 characters"),
        ({"A": "${X}"}, "Variaveis.A must not contain control characters, line ends, ${, $[ or ^{"),
        ({"A": "^{X}"}, "Variaveis.A must not contain control characters, line ends, ${, $[ or ^{"),
        ({"A": "$[1]"}, "Variaveis.A must not contain control characters, line ends, ${, $[ or ^{"),
        (
            {"A": "\u2028"},
            "Variaveis.A must not contain control characters, line ends, ${, $[ or ^{",
        ),
        (
            {"A": "\ud800"},
            "Variaveis.A must not contain control characters, line ends, ${, $[ or ^{",
        ),
        ({"1": "x"}, "a name in Variaveis must match"),
        ({"A\n": "x"}, "a name in Variaveis must match"),
        ({"A" * 81: "x"}, "a name in Variaveis must match"),
        ({"Á": "x"}, "a name in Variaveis must match"),
        ({"DIALER_ID": "x"}, "Variaveis.DIALER_ID: names that begin with DIALER_ are reserved"),
        ({"__dialer_id": "x"}, "Variaveis.__dialer_id: names that begin with DIALER_ are reserved"),
        ({"A": "," * 495}, "Variaveis.A is too long for one AMI line"),
        ({"A": "€" * 400}, "Variaveis.A is too long for one AMI line"),
    ],
)
def test_a_bad_variable_is_named(variables: dict[str, Any], sentence: str) -> None:
    error = refusal_of(Variaveis=variables)
    assert str(error).startswith(sentence)
    assert (error.field, error.request_id_json) == ("Variaveis", '"a-1"')


def test_data_may_be_nested_500_deep_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        text = json.dumps(MINIMAL)[:-1] + ',"Dados":' + '[{"a":1},' * (depth - 1) + "{}"
        return (text + "]" * (depth - 1) + "}").encode()

    assert parse_request(nested(500), cell="c").data_json.startswith("[{")
    assert refusal(nested(501)).field == "Dados"


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert parse(Dados=[[]] * 600).data_json.count("[") == 601


def test_numbers_of_any_length_come_back_unchanged() -> None:
    for number in ("9" * 5000, "-" + "9" * 5000, "1e999", "0.10", "-0"):
        raw = json.dumps(MINIMAL)[:-1] + f',"Dados":{number}}}'
        assert parse_request(raw.encode(), cell="c").data_json == number


@pytest.mark.parametrize(
    ("raw", "sentence", "field", "id_json"),
    [
        (b"", "The element must be one JSON object", None, None),
        (b"[]", "The element must be one JSON object", None, None),
        (b'"x"', "The element must be one JSON object", None, None),
        (b"{}", "IdRequisicao is missing", "IdRequisicao", None),
        (b"{ }", "IdRequisicao is missing", "IdRequisicao", None),
        (b'{"IdRequisicao":1', "The element is not valid JSON: expecting , or } at 18", None, None),
        (
            b'{"IdRequisicao":12,',
            "The element is not valid JSON: expecting a field name",
            None,
            "12",
        ),
        (
            b'{"IdRequisicao":12,}',
            "The element is not valid JSON: expecting a field name",
            None,
            "12",
        ),
        (
            b'{"IdRequisicao":1}x',
            "There is text after the JSON object, from character 19",
            None,
            "1",
        ),
        (b'{"IdRequisicao":1}\x00', "There is text after the JSON object", None, "1"),
        (
            b'{"IdRequisicao":1,"Dados":NaN}',
            "The element is not valid JSON: NaN is no",
            "Dados",
            "1",
        ),
        (
            b'{"IdRequisicao":1,"Dados":[-Infinity]}',
            "The element is not valid JSON: -Inf",
            "Dados",
            "1",
        ),
        (
            b'{"IdRequisicao":1,"Dados":',
            "The element is not valid JSON: expecting value at 27",
            "Dados",
            "1",
        ),
        (
            b'{"IdRequisicao":1,"a b":tru}',
            "The element is not valid JSON: expecting value",
            None,
            "1",
        ),
        (b'{"IdRequisicao":1,"\\x":1}', "The element is not valid JSON: invalid", None, "1"),
        (b'{"IdRequisicao":1,"a":"\xff"}', "The element must be UTF-8; byte 24 is not", None, "1"),
        (
            b'{"IdRequisicao":true,"a":"\xff"}',
            "The element must be UTF-8; byte 27 is not",
            None,
            None,
        ),
        (
            b'{"IdRequisicao":1,"a":"\n"}',
            "The element is not valid JSON: invalid control",
            "a",
            "1",
        ),
    ],
)
def test_incomplete_json_object_is_refused_with_position(
    raw: bytes, sentence: str, field: str | None, id_json: str | None
) -> None:
    error = refusal(raw)
    assert str(error).startswith(sentence)
    assert (error.field, error.request_id_json) == (field, id_json)


def test_more_than_64_kib_is_refused_with_an_early_id() -> None:
    padding = json.dumps({"Outro": "x" * 65536})[1:-1]
    early = refusal(json.dumps(MINIMAL)[:-1].encode() + b"," + padding.encode() + b"}")
    assert str(early) == "The element has 65600 bytes; at most 65536 are allowed"
    assert early.request_id_json == '"a-1"'
    late = refusal(b"{" + padding.encode() + b"," + json.dumps(MINIMAL)[1:].encode())
    assert late.request_id_json is None
    split = refusal(json.dumps(MINIMAL)[:-1].encode() + b',"a":"' + "é".encode() * 65536 + b'"}')
    assert str(split).endswith("bytes; at most 65536 are allowed")
    assert split.request_id_json == '"a-1"'


def test_nesting_too_deep_for_python_is_refused() -> None:
    error = refusal(json.dumps(MINIMAL)[:-1].encode() + b',"a":' + b"[" * 30_000)
    assert error.request_id_json == '"a-1"'
    assert error.field == "a"


def test_a_bad_element_is_never_quoted_back() -> None:
    assert "190190" not in str(refusal_of(Telefone="Local/190190"))
