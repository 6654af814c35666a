"""Corrections of dead elements: only what was changed is another text."""

from __future__ import annotations

import json

import pytest

from dialer.errors import InvalidRequest
from dialer.multcall.correct import corrected, id_of, next_id, typed_value, with_id
from dialer.multcall.fields import Fields
from dialer.multcall.lenient import Lenient
from dialer.multcall.wire import Wire

RENAMED = Wire(fields=Fields({"ValidadeSeg": "Validade", "IdRequisicao": "Id"}))


@pytest.mark.parametrize(
    ("name", "typed", "text"),
    [
        ("Tronco", "tim", '"tim"'),
        ("Telefone", "5511999990000", '"5511999990000"'),
        ("Telefone", '"5511"', '"5511"'),
        ("TempoToque", "30", "30"),
        ("TempoToque", "030", "30"),
        ("TempoToque", "soon", '"soon"'),
        ("Dados", '{"a": 1.10}', '{"a": 1.10}'),
        ("Dados", "[1]", "[1]"),
        ("Dados", "null", "null"),
        ("Dados", "true", "true"),
        ("Dados", "nullify", '"nullify"'),
        ("CallerID", 'Ana "A"', '"Ana \\"A\\""'),
        ("CallerID", "São", '"São"'),
    ],
)
def test_what_people_type_becomes_json(name: str, typed: str, text: str) -> None:
    assert typed_value(name, typed) == text


def test_whole_numbers_are_known_by_the_names_of_the_wire() -> None:
    assert typed_value("Validade", "60", RENAMED) == "60"
    assert typed_value("ValidadeSeg", "60", RENAMED) == '"60"'


@pytest.mark.parametrize("typed", ["{", '["a"', '"a', '{"a": NaN}'])
def test_half_a_json_text_is_refused(typed: str) -> None:
    with pytest.raises(InvalidRequest, match="the value of Dados is not valid JSON"):
        typed_value("Dados", typed)


def test_other_fields_keep_their_text() -> None:
    raw = b'{"Dados" : 1.10, "CallerID":"a\\u00e3", "Tronco":"tmi","Y":{"b":[1, 2]}}'
    found = corrected(raw, {"Tronco": '"tim"', "CallerID": None, "Prioridade": "1"})
    assert found == b'{"Dados":1.10,"Tronco":"tim","Y":{"b":[1, 2]},"Prioridade":1}'


@pytest.mark.parametrize("name", ["telefone", "Tronko", "", "X"])
def test_a_field_that_no_request_has_is_refused(name: str) -> None:
    """Else the old value would be dialed."""
    with pytest.raises(InvalidRequest, match=f"a request has no field {name}; there are Id"):
        corrected(b'{"Telefone":"1"}', {name: '"2"'})


def test_a_field_is_found_as_it_is_read() -> None:
    wire = Wire(lenient=Lenient(any_case=True))
    raw = b'{"telefone":"1","CONTEXTO":"a"}'
    assert corrected(raw, {"Telefone": '"2"', "Contexto": None}, wire) == b'{"telefone":"2"}'
    assert corrected(b"{}", {"Validade": "60"}, RENAMED) == b'{"Validade":60}'


def test_an_element_in_a_json_text_is_taken_out_of_it() -> None:
    wire = Wire(lenient=Lenient(json_in_text=True))
    found = corrected(json.dumps('{"a":1}').encode(), {"Prioridade": "2"}, wire)
    assert found == b'{"a":1,"Prioridade":2}'


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"\xff", b'{"a":1} x'])
def test_what_is_no_object_needs_the_whole_element(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="give the whole element instead"):
        corrected(raw, {})


def test_the_new_id_is_text() -> None:
    assert with_id(b'{"IdRequisicao":7}', "7-c1") == b'{"IdRequisicao":"7-c1"}'
    assert with_id(b'{"Id":"a"}', "a-c1", RENAMED) == b'{"Id":"a-c1"}'


@pytest.mark.parametrize(
    ("old", "n", "new"),
    [
        ("a-1", 1, "a-1-c1"),
        ("a-1-c1", 2, "a-1-c1-c2"),
        ("x" * 64, 1000, "x" * 58 + "-c1000"),
    ],
)
def test_ids_of_corrected_elements_are_numbered(old: str, n: int, new: str) -> None:
    assert next_id(old, n) == new
    assert len(new) <= 64


def test_an_id_is_text_or_none() -> None:
    assert (id_of('"a"'), id_of("7"), id_of(None)) == ("a", "7", None)
