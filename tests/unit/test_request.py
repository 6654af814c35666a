"""Call ids and masked numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.request import CallRequest, call_id, cell_of, mask, mask_in

cells = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
request_ids = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True)


@given(cells, request_ids)
def test_call_id_contains_its_cell_despite_colons(cell: str, request_id: str) -> None:
    name = call_id(cell, request_id)
    assert cell_of(name) == cell
    assert name.removeprefix(f"{cell}:") == request_id


@given(st.tuples(cells, request_ids), st.tuples(cells, request_ids))
def test_two_calls_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (call_id(*one) == call_id(*other)) == (one == other)


def test_a_request_knows_its_call() -> None:
    request = CallRequest(cell="ura-2", request_id="a:1", request_id_json='"a:1"', number="190")
    assert request.call_id == "ura-2:a:1"


@given(st.from_regex(r"\+?[0-9]{3,20}", fullmatch=True))
def test_a_masked_number_shows_at_most_its_last_four_digits(number: str) -> None:
    masked = mask(number)
    assert len(masked) == len(number)
    assert masked[-4:] == number[-4:]
    assert set(masked[:-4]) <= {"*"}
    assert mask("190") == "190"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('{"Telefone":"5511987654321"}', '{"Telefone":"*********4321"}'),
        ("+55 (11) 98765-4321.", "+**************4321."),
        ("from 1198765 to 1187654", "from ***8765 to ***7654"),
        ("r-123456, 99 calls", "r-123456, 99 calls"),
        ("2026-11-27T10:00:00.123Z", "2026-11-27T10:00:00.123Z"),
        ("\u0661" * 8, "****" + "\u0661" * 4),
    ],
)
def test_numbers_in_a_text_are_masked(text: str, masked: str) -> None:
    assert mask_in(text) == masked


@given(st.text(), st.from_regex(r"[0-9]{7,20}", fullmatch=True), st.text())
def test_no_number_stays_whole_in_a_text(before: str, number: str, after: str) -> None:
    assert number not in mask_in(f"{before}|{number}|{after}")
