"""From what the dead list shows of an element, nobody can read the telephone number."""

from __future__ import annotations

import json

import pytest

from dialer.multcall.fields import Fields
from dialer.web.pages.dead.excerpts import EXCERPT_MAX, excerpt

OURS = Fields()


@pytest.mark.parametrize(
    "number",
    [
        "5511987654321", "1 1 x 9 8 x 8 8 8", "2011-08-28T17:17", 5511987654321, ["119", "8888"],
        {"ddd": "11", "n": "988887777"}, None,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["Telefone", "telefone", " TELEFONE"])
def test_the_telephone_field_is_hidden_whole(name: str, number: object) -> None:
    shown = excerpt(json.dumps({"IdRequisicao": "r-1", name: number}).encode(), OURS)
    assert shown == f'{{"IdRequisicao": "r-1", "{name}": "***"}}'


def test_the_telephone_field_has_the_name_of_the_site() -> None:
    raw = b'{"Phone": "988", "Telefone": "988", "Fone": "988"}'
    shown = excerpt(raw, Fields({"Telefone": "Phone"}))
    assert shown == '{"Phone": "***", "Telefone": "***", "Fone": "988"}'


def test_telephone_fields_are_hidden_at_any_depth() -> None:
    raw = json.dumps([{"a": [{"Telefone": "988", "b": 1.5}, "x"]}, True])
    expected = '[{"a": [{"Telefone": "***", "b": 1.5}, "x"]}, true]'
    assert excerpt(raw.encode(), OURS) == expected
    assert excerpt(json.dumps(raw).encode(), OURS) == expected, "JSON in a JSON string"
    assert excerpt(b"\xef\xbb\xbf" + raw.encode(), OURS) == expected


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"Dados": {"5511988887777": "11,98888,7777"}}', "7777"),
        (b'{"Telefone": "5511988887777"', "*********7777"),
        (rb'{"Telefone": "11\/98888\/7777"', "**/*****/7777"),
        (b'\xff{"Telefone": "11 988887777"}', "** *****7777"),
        (b"", ""),
    ],
)
def test_other_texts_are_masked(raw: bytes, shown: str) -> None:
    found = excerpt(raw, OURS)
    assert shown in found
    assert "98888" not in found


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b'"' + b"\\u0031" * 9_000 + b'"',
        b'{"Dados": "' + b"1" * 70_000 + b'"}',
        json.dumps([1] * 20_000).encode(),
        rb'{"Tronco": "\ud800 \udfff"}',
    ],
)
def test_strange_elements_have_an_excerpt(raw: bytes) -> None:
    shown = excerpt(raw, OURS)
    assert len(shown) <= EXCERPT_MAX + 1
    assert shown.encode()
    assert "11111" not in shown
