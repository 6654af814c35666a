"""The languages of the page, and how each writes numbers and times.

`locale/<language>.po` has the translations; English texts are their names. `tests/unit` holds that
none is missing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from gettext import GNUTranslations, NullTranslations
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

from babel import Locale, negotiate_locale
from babel.dates import format_datetime, format_time
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

from dialer.store.ledger.outcomes import ACKS_MEASURED_S
from dialer.web.phrases import Phrasebook

#: The languages, the first for browsers that want another one. `lang` of HTML is the value.
LANGUAGES: Final = {"en": "en", "pt_BR": "pt-BR"}

#: What is not known, or cannot be computed.
NOTHING: Final = "\N{EN DASH}"


def n_(text: str) -> str:
    """Mark a text for translation, and return it."""
    return text


@dataclass(frozen=True, slots=True)
class Texts:
    """One language. `name` is a key of `LANGUAGES`, `translations` those of its file."""

    name: str
    translations: NullTranslations

    @property
    def lang(self) -> str:
        """The language for HTML."""
        return LANGUAGES[self.name]

    @property
    def translate(self) -> Callable[[str], str]:
        """Return a text in this language, by the English one."""
        return self.translations.gettext

    def say(self, sentence: str) -> str | None:
        """Return sentences of the programs in this language, None if their form is not known."""
        return sentence if self.name == "en" else _phrasebook(self.name).say(sentence)

    @property
    def _locale(self) -> Locale:
        return Locale.parse(self.name)

    def number(self, value: float, places: int = 0) -> str:
        """Return a number with so many places after the point."""
        return _decimal(self.name, value, places)

    def percent(self, share: float | None, places: int = 0) -> str:
        """Return a share of 1 in percent, a dash if there is none."""
        if share is None:
            return NOTHING
        shape = "#,##0" + ("." + "0" * places if places else "") + "%"
        return str(format_percent(share, format=shape, locale=self._locale))

    def delay(self, seconds: float | None) -> str:
        """Return the time until an ACK: 50 ms, 1.5 s, > 30 s if infinite, a dash for None."""
        if seconds is None:
            return NOTHING
        if math.isinf(seconds):
            return f"> {ACKS_MEASURED_S} s"
        return (
            f"{self.number(seconds * 1000)} ms" if seconds < 1 else f"{self.number(seconds, 1)} s"
        )

    def time(self, at: datetime, zone: str) -> str:
        """Return a time of the day in a time zone."""
        return str(format_time(at, format="HH:mm:ss", tzinfo=ZoneInfo(zone), locale=self._locale))

    def moment(self, at: datetime, zone: str) -> str:
        """Return date and time in a time zone."""
        shape = "dd/MM/yyyy HH:mm:ss" if self.name == "pt_BR" else "yyyy-MM-dd HH:mm:ss"
        return str(format_datetime(at, format=shape, tzinfo=ZoneInfo(zone), locale=self._locale))

    def duration(self, seconds: float) -> str:
        """Return a duration: 0.4 s, 12 s, 3 min, 5 h, 2 d."""
        if seconds < 10:
            return f"{self.number(seconds, 1)} s"
        for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
            if seconds < limit:
                return f"{self.number(seconds // unit)} {name}"
        return f"{self.number(seconds // 86_400)} d"


@lru_cache(10_000)  # a page has hundreds of them, most the same as a second ago
def _decimal(language: str, value: float, places: int) -> str:
    shape = "#,##0" + ("." + "0" * places if places else "")
    return str(format_decimal(value, format=shape, locale=Locale.parse(language)))


@cache
def _phrasebook(name: str) -> Phrasebook:
    return Phrasebook(texts(name).translate)


@cache
def texts(name: str) -> Texts:
    """Return a language of `LANGUAGES`."""
    if name == "en":
        return Texts(name, NullTranslations())
    text = (resources.files("dialer.web") / "locale" / f"{name}.po").read_bytes()
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(text), locale=name))
    compiled.seek(0)
    return Texts(name, GNUTranslations(compiled))


def language_for(chosen: str, accepted: str) -> str:
    """Return the language that was chosen, or the best that the browser accepts.

    `accepted` is the header Accept-Language; strange ones get the first language.
    """
    if chosen in LANGUAGES:
        return chosen
    wanted = [part.partition(";")[0].strip().replace("-", "_") for part in accepted.split(",")]
    found = _negotiated([one for one in wanted[:20] if one.replace("_", "").isalnum()])
    return found or "en"


def _negotiated(wanted: Sequence[str]) -> str | None:
    for one in wanted:  # `pt` and `pt_PT` get the Portuguese that there is
        if one.casefold().startswith("pt"):
            return "pt_BR"
        if one.casefold().startswith("en"):
            return "en"
    return negotiate_locale(list(wanted), list(LANGUAGES))
