"""Forms of telephone numbers: which two spellings are the same telephone.

Owns the comparison for the do-not-call set and for limits per number. The number that is dialed
is never changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Characters between the digits of a number as people write it: `(11) 90000-0010`.
_SEPARATORS: Final = re.compile(r"[ ()./-]")
_NUMBER: Final = re.compile(r"\+?[0-9]{3,20}")

#: `11900000010.0`: a spreadsheet's number, whose last digit is none of the telephone's.
_DECIMAL: Final = re.compile(r"\+?[0-9]+\.[0-9]{0,2}")

#: E.164: at most 15 digits with the country code; the shortest that exist have 7.
_INTERNATIONAL_DIGITS: Final = range(7, 16)


def digits(number: str) -> str:
    """Return the number without its leading `+`."""
    return number.removeprefix("+")


def without_separators(text: str) -> str | None:
    """Return a written number as digits with an optional leading `+`; None if it is none.

    None too if leaving out the separators would make another number of it: `+55 (0)11...` and
    `11900000010.0`.
    """
    if "(0)" in text or _DECIMAL.fullmatch(text):
        return None
    plain = _SEPARATORS.sub("", text)
    return plain if _NUMBER.fullmatch(plain) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """The numbering plan of a site: its country code, and how long a national number is.

    Without a country, numbers are compared by their digits. With one:

    - `+` and `00` begin an international number.
    - `0` and a national number is a national number (trunk prefix).
    - Digits as long as a national number are one, also if they begin with the country code: in
      Brazil (55) the eleven digits 55912345678 belong to area 55.
    - The country code and digits as long as a national number are an international number.
    - Anything else, such as 190, is compared as it is.

    No two lengths differ by the length of the country code (see `ambiguous`), so each number has
    one meaning.
    """

    country: str = ""
    national_digits: tuple[int, ...] = (10, 11)

    def same(self, number: str) -> str:
        """Return the form in which numbers are compared: equal for the same telephone."""
        plain = digits(number)
        if not self.country:
            return plain
        if number.startswith("+"):
            return plain
        if number.startswith("00") and self._is_international(number[2:]):
            return number[2:]
        national = plain.removeprefix("0")
        return self.country + national if len(national) in self.national_digits else plain

    def spellings(self, number: str) -> tuple[str, ...]:
        """Return every form in which the do-not-call set may hold this telephone.

        The set holds numbers as they were added, so that a change of the country loses none.
        The digits as given are always one of the forms.
        """
        full = self.same(number)
        forms = [digits(number), full, f"+{full}"]
        if self.country:
            forms.append(f"00{full}")
            if full.startswith(self.country):
                national = full.removeprefix(self.country)
                forms += [national, f"0{national}"]
        kept = (form for form in forms[1:] if self.same(form) == full)
        return tuple(dict.fromkeys([forms[0], *kept]))

    def stored(self, number: str) -> str:
        """Return the form in which the do-not-call set holds a number that is added now.

        Its digits; with the `+` if they would be another telephone without it.
        """
        plain = digits(number)
        return plain if self.same(plain) == self.same(number) else number

    def _is_international(self, rest: str) -> bool:
        return len(rest) in _INTERNATIONAL_DIGITS and not rest.startswith("0")


#: Without a country code.
BY_DIGITS: Final = Numbering()


def ambiguous(country: str, national_digits: Sequence[int]) -> tuple[int, int] | None:
    """Return two lengths that make numbers ambiguous: one may be the other with the country code.

    None if there are none.
    """
    for short in sorted(national_digits) if country else ():
        if (long := short + len(country)) in national_digits:
            return short, long
    return None
