"""A page in Portuguese says what the English one says: same sections, tables, code and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
MARKDOWN = MarkdownIt("commonmark").enable("table")
PAGES = [
    ("README.md", "README.pt-BR.md"),
    *((f"docs/{name}.md", f"docs/pt-BR/{name}.md") for name in ("wire", "install", "operations")),
]


@dataclass
class Section:
    """What lies under one heading. `tables` are counts of cells, row by row."""

    level: str
    title: str
    tables: list[list[int]] = field(default_factory=list)
    blocks: list[tuple[str, str]] = field(default_factory=list)
    code: set[str] = field(default_factory=set)

    @property
    def anchor(self) -> str:
        """The name by which a link reaches the section, as GitHub makes it."""
        return re.sub(r"[^\w\- ]", "", self.title.replace("`", "").lower()).replace(" ", "-")


@cache
def parsed(page: str) -> list[Token]:
    return MARKDOWN.parse((ROOT / page).read_text(encoding="utf-8"))


@cache
def sections(page: str) -> list[Section]:
    found = [Section("", "")]
    tokens = parsed(page)
    for number, token in enumerate(tokens):
        now = found[-1]
        match token.type:
            case "heading_open":
                found.append(Section(token.tag, tokens[number + 1].content))
            case "table_open":
                now.tables.append([])
            case "tr_open":
                now.tables[-1].append(0)
            case "th_open" | "td_open":
                now.tables[-1][-1] += 1
            case "fence" | "code_block":
                now.blocks.append((token.info, token.content))
            case "inline":
                now.code |= {one.content for one in inside(token) if one.type == "code_inline"}
            case _:
                pass
    return found


def inside(token: Token) -> Iterator[Token]:
    for child in token.children or ():
        yield child
        yield from inside(child)


def links(page: str) -> Iterator[str]:
    for token in parsed(page):
        for one in inside(token):
            if one.type in ("link_open", "image"):
                yield unquote(str(one.attrs.get("href") or one.attrs.get("src")))


@pytest.mark.parametrize(("english", "portuguese"), PAGES)
def test_both_languages_have_the_same_sections(english: str, portuguese: str) -> None:
    assert [one.level for one in sections(portuguese)] == [one.level for one in sections(english)]


@pytest.mark.parametrize(("english", "portuguese"), PAGES)
def test_both_languages_have_the_same_tables(english: str, portuguese: str) -> None:
    for ours, theirs in zip(sections(portuguese), sections(english), strict=True):
        assert ours.tables == theirs.tables, f"{portuguese}: {ours.title}"


@pytest.mark.parametrize(("english", "portuguese"), PAGES[1:])
def test_both_languages_have_the_same_blocks_of_code(english: str, portuguese: str) -> None:
    for ours, theirs in zip(sections(portuguese), sections(english), strict=True):
        assert ours.blocks == theirs.blocks, f"{portuguese}: {ours.title}"


@pytest.mark.parametrize(("english", "portuguese"), PAGES[1:])
def test_both_languages_name_the_same_commands_fields_and_messages(
    english: str, portuguese: str
) -> None:
    for ours, theirs in zip(sections(portuguese), sections(english), strict=True):
        where = f"{portuguese}: {ours.title}"
        assert (ours.code - theirs.code, theirs.code - ours.code) == (set(), set()), where


@pytest.mark.parametrize("page", [page for pair in PAGES for page in pair])
def test_every_link_of_a_page_reaches_a_file_and_a_section(page: str) -> None:
    broken = []
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        is_there = target.exists()
        if is_there and anchor:
            reached = str(target.resolve().relative_to(ROOT))
            is_there = anchor in {one.anchor for one in sections(reached)}
        if not is_there:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(("own", "page"), PAGES)
def test_a_page_in_portuguese_leads_to_pages_in_portuguese(own: str, page: str) -> None:
    """Only one link leads to the same page in English."""
    english = {(ROOT / one).resolve() for one, _ in PAGES}
    reached = [((ROOT / page).parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert [one for one in reached if one in english] == [ROOT / own]
