"""Call ids and masked numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.request import CallRequest, call_id, cell_of, mask

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
