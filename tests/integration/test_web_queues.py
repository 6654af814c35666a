"""The page of the queues on a real Redis: all lists, or those of one server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from dialer.multcall.keys import CellKeys
from dialer.store.redis_url import place_of
from dialer.web.live import Streams
from dialer.web.pages.queues import LIVE
from tests.integration.web_site import CELL, Web, settings_at, web_site

FUNCTIONS = ("Request", "ACK", "CODLIGACAO", "Response", "Counter", "CounterACK")


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    async with web_site(settings_at(redis_url, tmp_path)) as web:
        await web.sign_in()
        yield web


async def test_every_list_is_shown_also_empty_ones(web: Web, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.rpush(CellKeys(CELL).request, *[b"x"] * 1_234)
    html = await web.shown("/queues")
    for function in FUNCTIONS:
        assert f"ZancURA2.0-{function}-{CELL}" in html
    assert ">1,234</td>" in html
    assert place_of(redis_url) in html
    for column in ("Server", "Key", "Cell", "Function", "Quantity"):
        assert f">{column}</th>" in html


async def test_the_form_leads_to_the_page_of_a_server(web: Web, redis_url: str) -> None:
    place = place_of(redis_url)
    answer = await web.get(f"/queues?server={quote(f' {place} ')}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/queues/{quote(place, '')}")
    html = await web.shown(answer.headers["location"])
    assert f'data-page="/queues/{place}"' in html, "its stream is of that server"
    assert f'value="{place}"' in html
    assert f"ZancURA2.0-Request-{CELL}" in html
    assert (await web.get("/queues?server=")).headers["location"] == "/queues"


async def test_an_unknown_server_is_said_beside_the_form(web: Web) -> None:
    answer = await web.get("/queues?server=%3Cb%3E")
    assert answer.status_code == 422
    assert "no cell is on the Redis &lt;b&gt;; there are:" in answer.text
    assert 'data-page="/queues"' in answer.text
    assert (await web.get("/queues/nowhere")).status_code == 404


def test_streams_know_the_server_of_a_path() -> None:
    of_all, of_server = Streams(LIVE).pages
    assert of_all.names_in("/queues") == {}
    assert of_server.names_in("/queues/10.0.0.5:6379") == {"server": "10.0.0.5:6379"}
