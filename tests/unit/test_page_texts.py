"""The page in Portuguese is complete: every text has a translation with the same places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from io import BytesIO

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po

from dialer.web import words
from dialer.web.texts import LANGUAGES, language_for, texts

WEB = resources.files("dialer.web")
TRANSLATED = [name for name in LANGUAGES if name != "en"]


def texts_in(folder: str, method: str, *, ending: str) -> Iterator[str]:
    for entry in sorted((WEB / folder).iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from texts_in(f"{folder}/{entry.name}", method, ending=ending)
        elif entry.name.endswith(ending):
            source = BytesIO(entry.read_bytes())
            keywords = {"_": None, "gettext": None, "n_": None}
            options = {"newstyle_gettext": "true", "trimmed": "false"}
            for _, message, _, _ in extract(method, source, keywords, options=options):
                assert isinstance(message, str), message
                yield message


def needed() -> set[str]:
    """Every text that a page shows in the language of the visitor."""
    found = {*words.names()}
    found |= {*texts_in("templates", "jinja2.ext.babel_extract", ending=".html")}
    found |= {*texts_in(".", "python", ending=".py")}
    return found


def catalog(language: str) -> Catalog:
    return read_po(BytesIO((WEB / "locale" / f"{language}.po").read_bytes()), locale=language)


def places(text: str) -> set[str]:
    return {*re.findall(r"%\(\w+\)s|\{\w+\}", text)}


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_text_is_translated(language: str) -> None:
    found = {str(m.id): m for m in catalog(language) if m.id}
    assert sorted(needed() - found.keys()) == []
    assert sorted(text for text, m in found.items() if not m.string or m.fuzzy) == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_no_translation_is_left_over(language: str) -> None:
    assert sorted({str(m.id) for m in catalog(language) if m.id} - needed()) == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_translations_have_the_same_places(language: str) -> None:
    for message in catalog(language):
        if message.id:
            assert places(str(message.id)) == places(str(message.string)), message.id


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "pt-BR,pt;q=0.9,en;q=0.8", "pt_BR"),
        ("", "pt-PT", "pt_BR"),
        ("", "de-DE,en;q=0.5", "en"),
        ("", "de", "en"),
        ("en", "pt-BR", "en"),
        ("xx", "pt-BR", "pt_BR"),
        ("", "", "en"),
        ("", "\x00,;;;q=, " + "a" * 9_000, "en"),
        ("../../etc/passwd", "../..", "en"),
    ],
)
def test_a_language_is_found(chosen: str, accepted: str, language: str) -> None:
    assert language_for(chosen, accepted) == language


def test_numbers_and_times_are_of_the_language() -> None:
    english, portuguese = texts("en"), texts("pt_BR")
    assert (english.number(1234.5, 1), portuguese.number(1234.5, 1)) == ("1,234.5", "1.234,5")
    assert (english.percent(0.125, 1), portuguese.percent(0.125, 1)) == ("12.5%", "12,5%")
    assert english.percent(None) == portuguese.percent(None)
    assert [english.duration(s) for s in (0.44, 59, 3600, 90_000, 800_000)] == [
        "0.4 s", "59 s", "60 min", "25 h", "9 d",
    ]  # fmt: skip
