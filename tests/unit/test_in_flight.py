"""What is shown of a call in a list, whatever Redis has of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import Result, State
from dialer.store.ledger.in_flight import FIELDS, ended_in, in_flight_of

NAME = "ASR:r-1"
REQUEST = json.dumps({"IdRequisicao": "r-1", "Telefone": "5511987654321"}).encode()


def test_a_call_is_shown_by_its_fields() -> None:
    row = [b"accepted", b"pbx01", REQUEST, b"1000", b"2000", b"3000", None]
    found = in_flight_of(NAME, row)
    assert (found.state, found.pbx, found.number) == (State.ACCEPTED, "pbx01", "5511987654321")
    assert found.since == found.accepted_at == datetime.fromtimestamp(3, UTC)
    assert found.answered_at is None


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"nan", b"-1", b"9" * 5_000, b"[" * 5_000, b"{}", b"\xd9\xa1"]
)
def test_garbage_is_not_known(garbage: bytes) -> None:
    found = in_flight_of(NAME, [garbage] * len(FIELDS))
    assert (found.state, found.number, found.since) == (None, "", None)


@given(st.lists(st.none() | st.binary(), min_size=len(FIELDS), max_size=len(FIELDS)))
def test_no_field_raises(row: list[bytes | None]) -> None:
    in_flight_of(NAME, row)


def test_an_ended_call_is_shown_by_its_line() -> None:
    found = ended_in(b"3000 NO_ANSWER pbx01 ASR:r-1", "ASR")
    assert found is not None
    assert (found.call_id, found.result, found.pbx) == ("ASR:r-1", Result.NO_ANSWER, "pbx01")
    assert found.at == datetime.fromtimestamp(3, UTC)


def test_an_ended_call_that_had_no_pbx_has_none() -> None:
    found = ended_in(b"3000 EXPIRED - ASR:r-1", "ASR")
    assert found is not None
    assert found.pbx == ""


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"3000", b"3000 BUSY pbx01", b"3000 MOON pbx01 ASR:r-1", b"x BUSY pbx01 ASR:r-1"),
        *(b"3000 BUSY pbx01 OTHER:r-1", b"\xff \xff \xff \xff", b"9" * 5_000 + b" BUSY p ASR:r-1"),
    ],
)
def test_a_strange_line_is_no_ended_call(line: bytes) -> None:
    assert ended_in(line, "ASR") is None
