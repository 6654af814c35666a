"""Ids of calls with characters that paths and queries use: each leads to its own call."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from dialer.domain.roles import Role
from dialer.web.pages.call import path_of
from tests.integration.web_site import CELL, Web, settings_at, web_site

IDS = ["a%41", "a?b", "a b", "a&b#c"]


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    async with web_site(settings_at(redis_url, tmp_path)) as web:
        yield web


def leads_to(address: str) -> str:
    """Return the decoded path of an address that has no query."""
    found = urlsplit(address)
    assert not found.query
    assert not found.fragment
    return unquote(found.path)


@pytest.mark.parametrize("name", IDS)
async def test_sign_in_leads_back_to_the_call(web: Web, name: str) -> None:
    answer = await web.get(path_of(CELL, name))
    assert answer.status_code == 303
    (back,) = parse_qs(urlsplit(answer.headers["location"]).query)["next"]
    assert leads_to(back) == f"/calls/{CELL}/{name}"


async def test_sign_in_keeps_the_query(web: Web) -> None:
    answer = await web.get("/calls?id=a%26b")
    (back,) = parse_qs(urlsplit(answer.headers["location"]).query)["next"]
    assert back == "/calls?id=a%26b"


@pytest.mark.parametrize("name", IDS)
async def test_another_language_shows_the_same_call(web: Web, name: str) -> None:
    await web.sign_in()
    page = await web.get(path_of(CELL, name))
    assert page.status_code == 404, "it is a page of a call that is not known"
    found = re.search(r'name="back" value="([^"]*)"', page.text)
    assert found is not None
    answer = await web.get(f"/language?to=en&back={quote(unescape(found[1]), safe='')}")
    assert leads_to(answer.headers["location"]) == f"/calls/{CELL}/{name}"


async def test_cell_and_pbx_of_one_name_share_no_part(redis_url: str, tmp_path: Path) -> None:
    settings = settings_at(redis_url, tmp_path, cells={"pbx01": {}, CELL: {}})
    async with web_site(settings) as web:
        await web.sign_in(Role.OPERATE)
        html = await web.shown("/")
    for attribute in ("id", "data-part"):
        found = re.findall(rf' {attribute}="([^"]*)"', html)
        assert len(found) == len(set(found)), sorted(found)
