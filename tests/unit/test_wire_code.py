from __future__ import annotations

import json

import pytest

from dialer.errors import InvalidRequest
from dialer.multcall.code import CallCode, parse_code


@pytest.mark.parametrize(
    "code_json", ['"L-1"', "7", "-7", "9" * 256, '"' + "x" * 256 + '"', '"\\u00e7\\/"', '"${X}"']
)
def test_code_is_kept_as_its_original_text(code_json: str) -> None:
    raw = f'{{ "IdRequisicao": "a-1", "CodLigacao":  {code_json} }}'.encode()
    assert parse_code(raw) == CallCode(request_id="a-1", code_json=code_json)


@pytest.mark.parametrize(
    "value",
    [True, 1.5, [], {}, "", "x" * 257, 10**256, 10**4100, "a\r\nb", "\x7f", "\u2028", "\ud800"],
)
def test_a_bad_code_is_refused_with_its_id(value: object) -> None:
    raw = json.dumps({"IdRequisicao": 1, "CodLigacao": value}).encode()
    with pytest.raises(InvalidRequest, match=r"^CodLigacao must be text of 1 to 256") as refused:
        parse_code(raw)
    assert (refused.value.field, refused.value.request_id_json) == ("CodLigacao", "1")


def test_null_is_not_a_code() -> None:
    with pytest.raises(InvalidRequest, match=r"^CodLigacao is missing"):
        parse_code(b'{"IdRequisicao": 1, "CodLigacao": null}')


def test_a_code_without_an_id_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^IdRequisicao is missing") as refused:
        parse_code(b'{"CodLigacao": 1}')
    assert refused.value.request_id_json is None


def test_code_that_is_not_json_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^The element must be one JSON object"):
        parse_code(b"L-1")
