from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from dialer.domain.allowed import Allowed
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall import identity
from dialer.multcall.code import parse_code
from dialer.multcall.identity import request_id_of
from dialer.multcall.request import admissible_request
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

ALLOWED = Allowed(contexts=("dialer-ura",), extensions=("s",), priorities=(1,))


def taken(element: HostileElement) -> CallRequest:
    return admissible_request(element.raw, cell="ASR_TIM", allowed=ALLOWED)


def check_refusal(element: HostileElement, error: InvalidRequest) -> None:
    assert str(error), element
    assert "\n" not in str(error), element
    if not element.has_id:
        assert error.request_id_json is None, element
        return
    assert error.request_id_json is not None, element
    assert request_id_of(error.request_id_json) == element.request_id, element


def test_hostile_requests_are_refused_with_one_sentence() -> None:
    for element in hostile_requests(SEED, 10_000):
        with pytest.raises(InvalidRequest) as refused:
            print(element.kind, taken(element))
        check_refusal(element, refused.value)


def test_hostile_codes_are_refused_or_match_no_call() -> None:
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


def test_odd_but_valid_requests_are_accepted() -> None:
    for element in odd_requests(SEED, 1_000):
        request = taken(element)
        assert request.request_id == element.request_id
        assert request.number == "5511987654321"
        assert request.data_json.encode() in element.raw


def test_corpus_depends_on_the_seed_and_has_unique_ids() -> None:
    elements = hostile_requests(1, 300)
    assert elements == hostile_requests(1, 300)
    assert elements != hostile_requests(2, 300)
    ids = [element.request_id for element in elements if element.has_id]
    assert len(ids) == len(set(ids))


def test_small_corpus_has_every_kind_of_hostility() -> None:
    assert {e.kind for e in hostile_requests(1, 50)} == {m.__name__ for m in REQUEST_MAKERS}
    assert {e.kind for e in odd_requests(1, 50)} == {m.__name__ for m in ODD_MAKERS}
    codes = {m.__name__ for m in BAD_CODE_MAKERS} | {"code_for_nobody"}
    assert {e.kind for e in hostile_codes(1, 50)} == codes


def test_accepted_request_has_no_line_end_outside_json() -> None:
    for element in odd_requests(SEED, 1_000):
        request = dataclasses.asdict(taken(element))
        for name in ("request_id_json", "created_at_json", "data_json"):
            json.loads(request.pop(name).replace("9" * 5000, "9"))
        assert "\\n" not in repr(request)
        assert "\\r" not in repr(request)


def test_readable_id_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity.readable_id(b'{"IdRequisicao": "r-1", "Telefone": 1}') == '"r-1"'
    assert identity.readable_id(b"\xff") is None
    monkeypatch.setattr(identity, "read_object", lambda _: 1 / 0)
    assert identity.readable_id(b'{"IdRequisicao": "r-1"}') is None
