from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from dialer.errors import InvalidRequest
from dialer.multcall.code import parse_code
from dialer.multcall.identity import request_id_of
from dialer.multcall.request import parse_request
from tests.unit.hostile_requests import (
    BAD_CODE_MAKERS,
    ODD_MAKERS,
    REQUEST_MAKERS,
    HostileElement,
    hostile_codes,
    hostile_requests,
    odd_requests,
)

SEED = 20260504


def check_refusal(element: HostileElement, error: InvalidRequest) -> None:
    assert str(error), element
    assert "\n" not in str(error), element
    if not element.has_id:
        assert error.request_id_json is None, element
        return
    assert error.request_id_json is not None, element
    assert request_id_of(error.request_id_json) == element.request_id, element


def test_ten_thousand_hostile_requests_are_each_refused_with_one_sentence() -> None:
    for element in hostile_requests(SEED, 10_000):
        with pytest.raises(InvalidRequest) as refused:
            print(element.kind, parse_request(element.raw, cell="ASR_TIM"))
        check_refusal(element, refused.value)


def test_ten_thousand_hostile_codes_are_refused_or_are_for_nobody() -> None:
    seen = Counter[str]()
    for element in hostile_codes(SEED, 10_000):
        seen[element.expect] += 1
        if element.expect == "orphan_code":
            assert parse_code(element.raw).request_id == element.request_id
            continue
        with pytest.raises(InvalidRequest) as refused:
            print(element.kind, parse_code(element.raw))
        check_refusal(element, refused.value)
    assert seen == {"invalid_code": 9_000, "orphan_code": 1_000}


def test_odd_but_valid_requests_are_taken() -> None:
    for element in odd_requests(SEED, 1_000):
        request = parse_request(element.raw, cell="ASR_TIM")
        assert request.request_id == element.request_id
        assert request.number == "5511987654321"
        assert request.data_json.encode() in element.raw


def test_the_corpus_is_the_same_for_the_same_seed_and_names_each_call_once() -> None:
    elements = hostile_requests(1, 300)
    assert elements == hostile_requests(1, 300)
    assert elements != hostile_requests(2, 300)
    ids = [element.request_id for element in elements if element.has_id]
    assert len(ids) == len(set(ids))


def test_every_kind_of_hostility_is_in_even_a_small_corpus() -> None:
    assert {e.kind for e in hostile_requests(1, 50)} == {m.__name__ for m in REQUEST_MAKERS}
    assert {e.kind for e in odd_requests(1, 50)} == {m.__name__ for m in ODD_MAKERS}
    codes = {m.__name__ for m in BAD_CODE_MAKERS} | {"code_for_nobody"}
    assert {e.kind for e in hostile_codes(1, 50)} == codes


def test_a_taken_request_shows_no_line_end_in_anything_but_what_goes_back_as_json() -> None:
    for element in odd_requests(SEED, 1_000):
        request = dataclasses.asdict(parse_request(element.raw, cell="ASR_TIM"))
        for name in ("request_id_json", "created_at_json", "data_json"):
            json.loads(request.pop(name).replace("9" * 5000, "9"))
        assert "\\n" not in repr(request)
        assert "\\r" not in repr(request)
