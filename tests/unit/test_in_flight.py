"""What is shown of a call that is not done, whatever is in its hash."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.call import State
from dialer.store.ledger.in_flight import FIELDS, in_flight_of

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
