from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.numbers import BY_DIGITS, Numbering, ambiguous, without_separators

BRAZIL = Numbering(country="55")

WRITTEN = st.from_regex(r"\+?[0-9]{3,20}", fullmatch=True)


@pytest.mark.parametrize(
    "number",
    [
        "11900000010",
        "011900000010",
        "5511900000010",
        "+5511900000010",
        "005511900000010",
    ],
)
def test_national_and_international_form_are_the_same(number: str) -> None:
    assert BRAZIL.same(number) == "5511900000010"


@pytest.mark.parametrize(("digits", "is_international"), [(6, 0), (7, 1), (15, 1), (16, 0)])
def test_after_00_only_7_to_15_digits_are_a_number(digits: int, is_international: int) -> None:
    number = "1" * digits
    assert BRAZIL.same(f"00{number}") == (number if is_international else f"00{number}")


@pytest.mark.parametrize(
    ("number", "full"),
    [
        ("55912345678", "5555912345678"),  # mobile of area 55, not the country code
        ("5534123456", "555534123456"),  # landline of area 55
        ("5555912345678", "5555912345678"),
        ("+5555912345678", "5555912345678"),
        ("555534123456", "555534123456"),
        ("1140041234", "551140041234"),
        ("551140041234", "551140041234"),
        ("08001234567", "558001234567"),
    ],
)
def test_area_55_is_not_the_country_code_55(number: str, full: str) -> None:
    assert BRAZIL.same(number) == full


@pytest.mark.parametrize("number", ["190", "40041234", "0190", "911900000010", "00190", "000123"])
def test_other_numbers_are_compared_as_they_are(number: str) -> None:
    assert BRAZIL.same(number) == number


def test_an_international_number_keeps_its_country() -> None:
    assert BRAZIL.same("+11900000010") == "11900000010"
    assert BRAZIL.same("0011900000010") == "11900000010"
    assert BRAZIL.same("+4930123456") == BRAZIL.same("004930123456") == "4930123456"


def test_without_a_country_only_the_plus_is_ignored() -> None:
    assert BY_DIGITS.same("+5511987654321") == BY_DIGITS.same("5511987654321") == "5511987654321"
    assert BY_DIGITS.same("11987654321") != BY_DIGITS.same("5511987654321")
    assert BY_DIGITS.spellings("+190") == ("190", "+190")


def test_every_spelling_of_a_number_is_looked_for() -> None:
    forms = {"11900000010", "011900000010", "5511900000010", "005511900000010", "+5511900000010"}
    for form in forms:
        assert set(BRAZIL.spellings(form)) == forms


def test_a_foreign_number_is_not_spelt_as_a_national_one() -> None:
    """Ten digits alone are a number of Brazil, whatever they begin with."""
    assert BRAZIL.spellings("005595055050") == ("005595055050", "+5595055050")


def test_a_foreign_number_is_stored_with_its_plus() -> None:
    assert BRAZIL.stored("+11900000010") == "+11900000010"  # without + it would be Brazilian
    assert BRAZIL.stored("+5511900000010") == "5511900000010"
    assert BRAZIL.stored("11900000010") == "11900000010"
    assert BY_DIGITS.stored("+11900000010") == "11900000010"


@given(number=WRITTEN)
def test_what_was_stored_is_found_by_any_setting(number: str) -> None:
    plans = (BY_DIGITS, BRAZIL, Numbering(country="49", national_digits=(9, 10)))
    for before in plans:
        for after in plans:
            assert before.stored(number) in after.spellings(number)


@given(number=WRITTEN)
def test_spellings_of_a_number_are_the_same_number(number: str) -> None:
    full = BRAZIL.same(number)
    assert BRAZIL.same(f"+{full}") == full
    assert all(BRAZIL.same(form) == full for form in BRAZIL.spellings(number)[1:])


@given(one=WRITTEN, other=WRITTEN)
def test_the_same_number_is_found_under_each_spelling(one: str, other: str) -> None:
    for plan in (BRAZIL, BY_DIGITS):
        if plan.same(one) == plan.same(other):
            assert plan.stored(one) in plan.spellings(other)


def test_lengths_that_make_a_number_ambiguous_are_found() -> None:
    assert ambiguous("1", (10, 11)) == (10, 11)
    assert ambiguous("55", (11, 9)) == (9, 11)
    assert ambiguous("55", (10, 11)) is None
    assert ambiguous("", (10, 11)) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("(11) 90000-0010", "11900000010"),
        ("+55 (11) 90000-0010", "+5511900000010"),
        ("11.90000.0010", "11900000010"),
        ("190", "190"),
        ("+55 (0)11 90000-0010", None),
        ("11900000010.0", None),
        ("11900000010.", None),
        ("5,5119E+12", None),
        ("11900000010 ramal 2", None),
        ("tel:11900000010", None),
        ("55+11900000010", None),
        ("12", None),
        ("1" * 21, None),
        ("", None),
        ("١٢٣٤", None),
        ("1190\n00010", None),
    ],
)
def test_separators_are_left_out_if_that_is_safe(text: str, number: str | None) -> None:
    assert without_separators(text) == number
