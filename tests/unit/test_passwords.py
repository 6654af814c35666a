"""Passwords: what is kept of them, and which are refused."""

from __future__ import annotations

import sys

import pytest
from argon2 import PasswordHasher, extract_parameters

from dialer import passwords
from dialer.errors import DialerError
from dialer.passwords import hashed, is_right, require_good

PASSWORD = "correct horse"


def test_only_the_right_password_is_right() -> None:
    kept = hashed(PASSWORD)
    assert PASSWORD not in kept
    assert is_right(kept, PASSWORD)
    assert not is_right(kept, f"{PASSWORD} ")
    assert hashed(PASSWORD) != kept, "each hash has its own salt"


def test_no_password_is_right_for_nobody() -> None:
    for unknown in (None, ""):
        assert not is_right(unknown, PASSWORD)
        assert not is_right(unknown, "")


def test_checking_for_nobody_costs_the_same() -> None:
    assert extract_parameters(passwords._NOBODYS) == extract_parameters(PasswordHasher().hash("x"))


@pytest.mark.parametrize("garbage", ["x", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$x$y", "\ufffd"])
def test_a_hash_that_is_none_is_never_right(garbage: str) -> None:
    assert not is_right(garbage, PASSWORD)


def test_keyboards_may_write_a_letter_in_two_ways() -> None:
    assert is_right(hashed("coração-1234"), "corac\u0327a\u0303o-1234")


def test_bytes_that_are_no_text_raise_nothing_at_a_sign_in() -> None:
    assert not is_right(hashed(PASSWORD), "\udcff" * 12)


LONG = "a" + "\u0300\u0323" * 98_000


def test_a_long_password_takes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    plain = passwords._plain

    def noted(text: str) -> bytes:
        given.append(text)
        return plain(text)

    monkeypatch.setattr(passwords, "_plain", noted)
    kept = hashed(PASSWORD)
    for use in (hashed, require_good):
        with pytest.raises(DialerError, match="has 196001 characters"):
            use(LONG)
    assert not is_right(kept, LONG)
    assert not is_right(None, LONG)
    assert LONG not in given
    assert len(given) == 3, "a hash is verified all the same"


def test_a_password_that_is_too_long_is_never_right() -> None:
    kept = PasswordHasher().hash("x" * 201)
    assert not is_right(kept, "x" * 201)


@pytest.mark.parametrize("length", [10, 200])
def test_a_password_of_good_length_is_accepted(length: int) -> None:
    require_good("x" * length)


@pytest.mark.parametrize("length", [0, 9, 201])
def test_a_short_or_long_password_is_refused(length: int) -> None:
    with pytest.raises(DialerError) as refused:
        require_good("x" * length)
    assert str(refused.value) == (
        f"the password has {length} characters; choose one with 10 to 200"
    )


def test_a_password_that_is_no_text_is_refused() -> None:
    with pytest.raises(DialerError, match="has bytes that are no characters"):
        require_good("\udcff" * 12)


def test_a_missing_argon2_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    for use in (lambda: hashed(PASSWORD), lambda: is_right(None, PASSWORD)):
        with pytest.raises(DialerError) as missing:
            use()
        assert str(missing.value) == (
            "this command needs argon2, which is not installed: in the checkout, "
            "/opt/dialer/bin/pip install -c constraints.txt '.[web]'"
        )
