"""Lenient reading: what the default settings of .NET serializers write, by `[multcall.lenient]`.

Owns how a lenient value becomes a strict one. The rules of the fields are applied afterwards, so
nothing that a strict rule refuses for its content gets through. An element that is valid by the
strict rules reads the same, unless it has a field of ours in other capital and small letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from dialer.domain.numbers import without_separators
from dialer.multcall.rawjson import RawObject, text_of, value_of

_TEXTS: Final = ("CallerID", "Contexto", "Extensao", "Tronco")
_INTEGERS: Final = ("Prioridade", "TempoToque")
_NUMBERS: Final = ("ValidadeSeg",)
_PHONES: Final = ("Telefone", "CallerID")
_OPTIONAL: Final = (*_TEXTS, *_INTEGERS, *_NUMBERS, "CriadaEm", "Variaveis")

#: .NET's default DateTime, in the spellings of its serializers.
EMPTY_DATE: Final = re.compile(r"0001-01-01T00:00:00(\.0+)?(Z|[+-][0-9]{2}:?[0-9]{2})?")

_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

#: Largest JSON number that is read as text: longer than any telephone number.
_DIGITS_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Lenient:
    """What is accepted besides the strict form; see docs/wire.md."""

    empty_values: bool = False
    any_case: bool = False
    dollar_names: bool = False
    json_in_text: bool = False
    phone_signs: bool = False
    quoted_numbers: bool = False

    def element(self, raw: bytes) -> bytes:
        """Return the element out of the JSON string that contains it; `raw` if it is in none."""
        inner = text_of(raw) if self.json_in_text else None
        return raw if inner is None else inner

    def request(self, found: RawObject) -> RawObject:
        """Return the element of a request, whose names are ours, with strict values."""
        values, spans = dict(found.values), dict(found.spans)
        if self.quoted_numbers:
            _change(values, _as_text, "Telefone", *_TEXTS)
            _change(values, _as_integer, *_INTEGERS)
            _change(values, _as_number, *_NUMBERS)
        if "Variaveis" in values:
            values["Variaveis"] = self._variables(found.json("Variaveis"), values["Variaveis"])
        if self.empty_values:
            for name in _OPTIONAL:
                if name in values and _is_empty(name, values[name], found.values[name]):
                    del values[name], spans[name]
        if self.phone_signs:
            _change(values, _as_phone, *_PHONES)
        return replace(found, values=values, spans=spans)

    def _variables(self, text: str, value: object) -> object:
        """Return the object of channel variables with strict values, if it is one."""
        if isinstance(value, str) and self.json_in_text:
            text = value
        elif not isinstance(value, dict):
            return value
        variables = value_of(text, numbers_as_text=self.quoted_numbers)
        if not isinstance(variables, dict):
            return value
        return {
            name: inner
            for name, inner in variables.items()
            if not (self.dollar_names and name.startswith("$"))
            and not (self.empty_values and inner is None)
        }


#: The strict wire.
NOTHING: Final = Lenient()


def _change(values: dict[str, object], how: Callable[[object], object], *names: str) -> None:
    for name in names:
        if name in values:
            values[name] = how(values[name])


def _as_text(value: object) -> object:
    """Return a whole number as text. Its digits are the same: JSON has no leading zeros."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return str(value) if 0 <= value < 10**_DIGITS_MAX else value


def _as_integer(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value


def _as_number(value: object) -> object:
    """Return text such as `1.5` as a number; `1,5` and `1.000,0` may mean either and stay text."""
    return float(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else value


def _as_phone(value: object) -> object:
    plain = without_separators(value) if isinstance(value, str) else None
    return value if plain is None else plain


def _is_empty(name: str, value: object, sent: object) -> bool:
    """True if a serializer wrote it for a field that has no value; `sent` is not changed yet."""
    if value == "":
        return True
    if name == "CriadaEm":
        return isinstance(value, str) and EMPTY_DATE.fullmatch(value) is not None
    return name != "Variaveis" and (_is_zero(value) or _is_zero(sent))


def _is_zero(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0
