"""Which name a user may have."""

from __future__ import annotations

import pytest

from dialer.domain.people import require_name
from dialer.errors import DialerError


@pytest.mark.parametrize("name", ["a", "ana", "Ana.B-c_d@ops", "0", "-", "x" * 64])
def test_letters_digits_and_some_signs_are_a_name(name: str) -> None:
    require_name(name)


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "ana\n", "a:b", "joão", ":since", "a\x00", "\ud800", "٣"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DialerError, match="cannot be the name of a user; take 1 to 64 letters"):
        require_name(name)


def test_a_refusal_shows_only_the_start_of_a_name() -> None:
    with pytest.raises(DialerError) as refused:
        require_name("x" * 9_000)
    assert len(str(refused.value)) < 250
