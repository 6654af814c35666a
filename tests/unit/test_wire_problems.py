"""Refusals name every problem of an element at once, each with a true sentence and the cure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dialer.domain.allowed import Allowed
from dialer.errors import InvalidRequest
from dialer.multcall.code import parse_code
from dialer.multcall.request import admissible_request, parse_request

DIGITS = "3 to 20 digits with an optional leading +"
TEXT79 = "text of 1 to 79 characters out of A-Z a-z 0-9 _ . -"


def problems(element: dict[str, Any], allowed: Allowed | None = None) -> list[str]:
    raw = json.dumps(element).encode()
    with pytest.raises(InvalidRequest) as refused:
        read(raw, allowed)
    assert str(refused.value) == " | ".join(refused.value.problems)
    return list(refused.value.problems)


def read(raw: bytes, allowed: Allowed | None) -> object:
    if allowed is None:
        return parse_request(raw, cell="c")
    return admissible_request(raw, cell="c", allowed=allowed, trunks={"tim"})


def of(**fields: Any) -> list[str]:
    return problems({"IdRequisicao": "a", "Telefone": "190", **fields})


def test_dotnet_defaults_are_refused_all_at_once() -> None:
    element = {
        "IdRequisicao": "a-1",
        "Telefone": "(11) 90000-0010",
        "CallerID": "",
        "Contexto": "",
        "Tronco": "",
        "Prioridade": 0,
        "TempoToque": 0,
        "ValidadeSeg": 0,
        "CriadaEm": "0001-01-01T00:00:00",
        "Variaveis": {"$type": "System.Collections, mscorlib", "MC_A": None, "MC_B": 1},
    }
    assert problems(element) == [
        f"Telefone must be {DIGITS}; leave out blanks and punctuation",
        "CallerID must be digits with an optional leading +, or Name <digits>, at most 80 "
        "characters, where Name has only Latin letters, digits, blanks and . _ ' / + -; "
        "it is empty: leave the field out",
        f"Contexto must be {TEXT79}; it is empty: leave the field out",
        "Prioridade must be an integer from 1 to 9999; it is 0: leave the field out",
        "Tronco must be text of 1 to 64 characters out of A-Z a-z 0-9 _ . -; "
        "it is empty: leave the field out",
        "TempoToque must be an integer from 1 to 120 (seconds); it is 0: leave the field out",
        "CriadaEm must be ISO-8601 text with a zone, such as 2026-05-04T09:30:00.000-03:00, in the "
        "years 2000 to 2099; it is the empty date of .NET: leave the field out",
        "ValidadeSeg must be a number above 0 and up to 604800 (seconds; a week); "
        "it is 0: leave the field out",
        "a name in Variaveis must match [A-Za-z_][A-Za-z0-9_]{0,79}; leave out those that .NET "
        "adds, which begin with $",
        "Variaveis.MC_A must be text of at most 512 characters; it is null: leave it out",
        "Variaveis.MC_B must be text of at most 512 characters; it is not text: put it in quotes",
    ]


def test_names_in_another_case_are_named() -> None:
    element = {"idRequisicao": "a-1", "telefone": "190", "callerId": "190", "outro": 1}
    assert problems(element) == [
        "IdRequisicao is missing; the element has idRequisicao: capital and small letters differ, "
        "write IdRequisicao",
        "Telefone is missing; the element has telefone: capital and small letters differ, "
        "write Telefone",
        "CallerID is missing; the element has callerId: capital and small letters differ, "
        "write CallerID",
    ]
    with pytest.raises(InvalidRequest) as refused:
        parse_code(b'{"IdRequisicao": 1, "codLigacao": 2}')
    assert str(refused.value) == (
        "CodLigacao is missing; the element has codLigacao: capital and small letters differ, "
        "write CodLigacao"
    )


def test_an_optional_field_in_another_case_alone_is_ignored() -> None:
    raw = b'{"IdRequisicao": "a", "Telefone": "190", "callerid": "1"}'
    assert parse_request(raw, cell="c").caller_id is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"Telefone": 190}, f"Telefone must be text, not a number: {DIGITS}"),
        ({"Telefone": "12"}, f"Telefone must be {DIGITS}"),
        ({"Telefone": ""}, f"Telefone must be {DIGITS}; it is empty"),
        ({"Telefone": True}, f"Telefone must be text, not a number: {DIGITS}; it is true or false"),
        ({"Telefone": ["190"]}, f"Telefone must be text, not a number: {DIGITS}; it is a list"),
        ({"Contexto": 7}, f"Contexto must be {TEXT79}; it is a number: put it in quotes"),
        ({"Contexto": "a b"}, f"Contexto must be {TEXT79}"),
        ({"Contexto": {}}, f"Contexto must be {TEXT79}; it is an object"),
        (
            {"Prioridade": "1"},
            "Prioridade must be an integer from 1 to 9999; it is text: remove the quotes",
        ),
        (
            {"Prioridade": 1.0},
            "Prioridade must be an integer from 1 to 9999; it has a decimal point",
        ),
        ({"Prioridade": 10000}, "Prioridade must be an integer from 1 to 9999"),
        (
            {"ValidadeSeg": "600"},
            "ValidadeSeg must be a number above 0 and up to 604800 (seconds; a week); "
            "it is text: remove the quotes",
        ),
        (
            {"Variaveis": "A=1"},
            "Variaveis must be an object of at most 64 channel variables; "
            "it is text: remove the quotes",
        ),
        (
            {"Variaveis": []},
            "Variaveis must be an object of at most 64 channel variables; it is a list",
        ),
        (
            {"Variaveis": {f"V{n}": "" for n in range(65)}},
            "Variaveis must be an object of at most 64 channel variables",
        ),
        (
            {"Dados": "x" * 8191},
            "Dados must be JSON of at most 8192 bytes of UTF-8, nested at most 500 deep",
        ),
    ],
)
def test_each_sentence_is_true_for_its_value(fields: dict[str, Any], sentence: str) -> None:
    assert of(**fields) == [sentence]


def test_the_rules_of_the_cell_are_checked_at_once_too() -> None:
    element = {
        "IdRequisicao": "a",
        "Telefone": "x",
        "Contexto": "internal",
        "Extensao": "100",
        "Prioridade": 9,
        "Tronco": "oi",
        "Variaveis": {"A B": "1", "CPF": "1", "MONITOR_EXEC": "x"},
        "Dados": "x" * 9000,
    }
    found = problems(element, Allowed())
    assert [sentence.partition(" ")[0] for sentence in found] == [
        "Telefone",
        "a",
        "Dados",
        "Variaveis.CPF:",
        "Variaveis.MONITOR_EXEC:",
        "Contexto",
        "Extensao",
        "Prioridade",
        "Tronco",
    ]
    assert found[-1] == "Tronco names no trunk of this cell's PBXs; known are tim"


def test_a_wrong_id_does_not_hide_other_problems() -> None:
    found = problems({"IdRequisicao": "", "Telefone": 1, "Contexto": "internal"}, Allowed())
    assert [sentence.partition(" ")[0] for sentence in found] == [
        "IdRequisicao",
        "Telefone",
        "Contexto",
    ]


def test_every_bad_variable_is_named_once() -> None:
    found = of(Variaveis={"A B": "1", "C D": "2", "MC_X": "${Y}", "MC_OK": "1", "DIALER_Z": "1"})
    assert len(found) == 3
    assert not any("MC_OK" in sentence for sentence in found)
