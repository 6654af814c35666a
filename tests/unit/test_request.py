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
        ("+55 (11) 98765-4321.", "+** (**) *****-4321."),
        ("from 1198765 to 1187654", "from ***8765 to ***7654"),
        ("r-123456 of 99 calls", "r-123456 of 99 calls"),
        ("\u0661" * 8, "****" + "\u0661" * 4),
        ("\u2460" * 8, "****" + "\u2460" * 4),
        ("11,98888,7777", "**,*****,7777"),
        ("11\u201198888\u20117777", "**\u2011*****\u20117777"),
        ("11\u201098888\u20107777", "**\u2010*****\u20107777"),
        ("11\u201398888\u20137777", "**\u2013*****\u20137777"),
        ("11\t98888_7777", "**\t*****_7777"),
        ("11    98888    7777", "**    *****    7777"),
        ("11     98888     777", "11     98888     777"),
        (r"11\/98888\/7777", "**/*****/7777"),
        (r"11\t98888\t7777", "** ***** 7777"),
        (r"\u0031\u00319\u0038888\u0037777", "*******7777"),
        (r"\\u0031\\u0031988887777", "*******7777"),
        (r"\ud835\udfd3" * 8, "****" + "\U0001d7d3" * 4),
        (r"a\ud835b", "a\ufffdb"),
        (r"a \"b\" c:\\d", 'a "b" c:\\d'),
        ("2011-98-88T77:77", "****-**-**T77:77"),
        ("112011-08-28T17:17", "******-**-**T17:17"),
        ("2011-08-28T17:17:00.1234567", "****-**-**T**:**:**.***4567"),
        ("2011-08-28T17:17:98", "****-**-**T**:17:98"),
    ],
)
def test_numbers_in_a_text_are_masked(text: str, masked: str) -> None:
    assert mask_in(text) == masked


@given(st.text(), st.from_regex(r"[0-9]{7,20}", fullmatch=True), st.text())
def test_no_number_stays_whole_in_a_text(before: str, number: str, after: str) -> None:
    assert number not in mask_in(f"{before}|{number}|{after}")


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-27T10:00",
        "2026-11-27T10:00:00Z",
        "2026-11-27T23:59:59.123Z",
        "2026-11-27T10:00:00.123456-03:00",
    ],
)
def test_times_stay_in_a_text(time: str) -> None:
    for text in (time, f'"CriadaEm":"{time}"', f"CriadaEm {time} is past."):
        assert mask_in(text) == text
