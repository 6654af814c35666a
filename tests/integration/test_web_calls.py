"""Pages of calls on a real ledger: in flight, search, story, number, hang up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dialer.domain.people import Did
from dialer.domain.roles import Role
from dialer.errors import DialerError
from dialer.store.keys import LedgerKeys
from dialer.web.pages import calls
from tests.integration.cell_rig import CELL, Site, code_element
from tests.integration.web_site import Web, settings_at, web_site
from tests.integration.web_stream import first_event

NUMBER = "5511987654321"
OTHER = "OTHER"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    cells: dict[str, dict[str, object]] = {OTHER: {"threads": 5}, CELL: {"threads": 50}}
    async with web_site(settings_at(redis_url, tmp_path, cells=cells)) as web:
        await web.sign_in(Role.OPERATE, "ana")
        yield web


async def deeds(web: Web) -> list[tuple[str, Did, str, str]]:
    """What users did, without that the test made them."""
    found = await web.site.people.deeds(9)
    return [(one.by, one.did, one.what, one.why) for one in found if one.did != Did.USER_ADDED]


# --- in flight ------------------------------------------------------------------------------


async def test_calls_in_flight_are_shown_masked(web: Web, site: Site) -> None:
    await site.accepted("r:1")
    html = await web.shown("/calls")
    assert f'href="/calls/{CELL}/r%3A1"' in html
    assert "*********4321" in html
    assert NUMBER not in html
    assert "accepted" in html
    assert "Calls in flight: 1." in html


async def test_the_newest_of_many_are_shown(
    web: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CALLS_SHOWN", 3)
    async with Site(site.url, OTHER) as other:
        for n in range(4):
            one = (site, other)[n % 2]
            await one.admitted(f"r-{n}")
            await one.redis.zadd(one.ledger.keys.live, {f"{one.cell}:r-{n}": n})
    html = await web.shown("/calls")
    assert "The newest 3 of 4 calls in flight." in html
    places = [html.find(f'href="/calls/{cell}/r-{n}"') for n, cell in
              ((3, OTHER), (2, CELL), (1, OTHER))]  # fmt: skip
    assert places == sorted(places)
    assert places[0] > 0
    assert f"/calls/{CELL}/r-0" not in html


async def test_ended_calls_are_listed_the_newest_first(web: Web, site: Site) -> None:
    await site.admitted("r:1")
    await site.end("r:1")
    async with Site(site.url, OTHER) as other:
        await other.admitted("r-2", pbx="pbx02")
        await other.end("r-2")
    html = await web.shown("/calls")
    first, second = f'id="ended-{OTHER}:r-2"', f'id="ended-{CELL}:r:1"'
    assert 0 < html.find(first) < html.find(second)
    assert f'href="/calls/{CELL}/r%3A1"' in html
    assert "busy" in html


async def test_a_broken_cell_hides_no_other(web: Web, site: Site) -> None:
    await site.admitted("r-1")
    await site.redis.set(LedgerKeys(OTHER).live, "x")
    html = await web.shown("/calls")
    assert f"/calls/{CELL}/r-1" in html
    assert f"{OTHER}: WRONGTYPE" in html


# --- search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sought", ["r-1", f" {CELL}:r-1 "])
async def test_a_search_leads_to_the_only_call(web: Web, site: Site, sought: str) -> None:
    await site.admitted("r-1")
    answer = await web.client.get("/calls", params={"id": sought})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/calls/{CELL}/r-1")


async def test_a_search_lists_the_calls_of_several_cells(web: Web, site: Site) -> None:
    await site.admitted("r-1")
    async with Site(site.url, OTHER) as other:
        await other.admitted("r-1")
    html = await web.shown("/calls?id=r-1")
    assert all(f'<li><a href="/calls/{cell}/r-1">' in html for cell in (CELL, OTHER))


@pytest.mark.parametrize("sought", ["r-9", "<script>", "x" * 5_000, "100 %", "\x00\ud83d"])
async def test_a_search_says_what_there_is_not(web: Web, sought: str) -> None:
    answer = await web.client.get("/calls", params={"id": sought.encode("utf-8", "replace")})
    assert answer.status_code == 404
    assert f"of the last 24 hours in {OTHER}, {CELL}; its request may" in answer.text
    assert "<script>" not in answer.text


# --- one call -------------------------------------------------------------------------------


async def test_a_story_has_every_state(web: Web, site: Site) -> None:
    await site.accepted("r:1")
    html = await web.shown(f"/calls/{CELL}/r%3A1")
    assert f'data-page="/calls/{CELL}/r:1"' in html
    for text in ("queued", "originating", "accepted", "worker of pbx01", "ACK sent, no code yet"):
        assert text in html
    assert "/calls/hangup" in html
    await site.code(code_element("r:1"))
    await site.end("r:1")
    html = await web.shown(f"/calls/{CELL}/r:1")
    assert "<dd>busy</dd>" in html
    assert "/calls/hangup" not in html


async def test_a_story_says_what_it_replaces(web: Web, site: Site) -> None:
    await site.admitted("r-1-c1")
    link = {"replaces": "r-1", "by": "<b>", "at": "2026-11-27T10:00:00+00:00"}
    key = LedgerKeys(CELL).replaced("r-1-c1")
    await site.redis.set(key, json.dumps({**link, "entry": "e", "why": "typo"}))
    html = await web.shown(f"/calls/{CELL}/r-1-c1")
    assert f'href="/calls/{CELL}/r-1"' in html
    assert "corrected and sent again by &lt;b&gt;, 2026-11-27 07:00:00 (typo)." in html


async def test_a_missing_call_is_said_and_awaited(web: Web) -> None:
    answer = await web.get(f"/calls/{CELL}/r-9")
    assert answer.status_code == 404
    assert f"there is no call r-9 of the last 24 hours in {CELL}" in answer.text
    assert f'data-page="/calls/{CELL}/r-9"' in answer.text, "it may be admitted soon"
    assert (await web.get("/calls/NONE/r-9")).status_code == 404


@pytest.mark.parametrize("path", ["/calls", f"/calls/{CELL}/r:1"])
async def test_streams_show_calls_without_a_token(web: Web, site: Site, path: str) -> None:
    await site.accepted("r:1")
    stream = await first_event(web, path)
    (data,) = (line for line in stream.text.splitlines() if line.startswith("data: {"))
    html = json.loads(data.removeprefix("data: "))["html"]
    assert "accepted" in html
    assert "csrf" not in html
    assert NUMBER not in html


async def test_garbage_in_a_story_is_escaped(web: Web, site: Site) -> None:
    hostile = "<script>alert(1)</script> 100 %"
    await site.redis.hset(
        LedgerKeys(CELL).call(f"{CELL}:x"),
        mapping=dict.fromkeys(("state", "pbx", "result", "error", "admitted_ms"), hostile),
    )
    html = await web.shown(f"/calls/{CELL}/x")
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 100 %" in html


# --- number ---------------------------------------------------------------------------------


async def test_a_look_at_a_number_is_in_the_trail(web: Web, site: Site) -> None:
    await site.admitted("r-1")
    assert NUMBER not in await web.shown(f"/calls/{CELL}/r-1")
    answer = await web.post("/calls/number", cell=CELL, id="r-1", why="a complaint")
    assert answer.status_code == 200
    assert NUMBER in answer.text
    assert await deeds(web) == [("ana", Did.NUMBER_SEEN, f"{CELL}:r-1", "a complaint")]


async def test_a_done_call_has_no_number(web: Web, site: Site) -> None:
    await site.accepted("r-1")
    await site.code(code_element("r-1"))
    await site.end("r-1")
    answer = await web.post("/calls/number", cell=CELL, id="r-1")
    assert answer.status_code == 404
    assert "a call that is done does not keep it" in answer.text
    assert await deeds(web) == []


async def test_no_number_is_shown_if_the_trail_fails(web: Web, site: Site) -> None:
    await site.admitted("r-1")
    await may(site, "-xadd")
    try:
        answer = await web.post("/calls/number", cell=CELL, id="r-1")
    finally:
        await may(site, "+xadd")
    assert answer.status_code == 503
    assert NUMBER not in answer.text


async def may(site: Site, rule: str) -> None:
    """Give a right to every client of the server, or take it."""
    await site.redis.execute_command(  # type: ignore[no-untyped-call]
        "ACL", "SETUSER", "default", rule
    )


async def test_viewers_see_no_number_and_hang_up_nothing(web: Web, site: Site) -> None:
    await site.accepted("r-1")
    await web.sign_in(Role.VIEW, "bia")
    html = await web.shown(f"/calls/{CELL}/r-1")
    assert "/calls/number" not in html
    assert "/calls/hangup" not in html
    for path in ("/calls/number", "/calls/hangup"):
        assert (await web.post(path, cell=CELL, id="r-1")).status_code == 403
    assert await deeds(web) == []


# --- hang up --------------------------------------------------------------------------------


async def test_a_dialed_call_is_hung_up(
    web: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[tuple[str, str]] = []
    monkeypatch.setattr("dialer.hangup.hang_up", lambda *order: orders.append(order))
    await site.accepted("r:1")
    answer = await web.post("/calls/hangup", cell=CELL, id="r:1", why="test")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/calls/{CELL}/r%3A1")
    assert orders == [(f"{CELL}:r:1", "pbx01")]
    assert await deeds(web) == [("ana", Did.HUNG_UP, f"{CELL}:r:1", "test")]


async def test_what_prevents_a_hang_up_is_beside_the_button(
    web: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> str:
        raise DialerError("the broker does not take the order: <away>")

    monkeypatch.setattr("dialer.hangup.hang_up", refuse)
    await site.accepted("r-1")
    answer = await web.post("/calls/hangup", cell=CELL, id="r-1", why="kept")
    assert answer.status_code == 409
    assert "does not take the order: &lt;away&gt;" in answer.text
    assert f'data-page="/calls/{CELL}/r-1"' in answer.text
    assert 'value="kept"' in answer.text


async def test_a_call_that_is_not_dialed_is_not_hung_up(web: Web, site: Site) -> None:
    await site.admitted("r-1")
    answer = await web.post("/calls/hangup", cell=CELL, id="r-1")
    assert answer.status_code == 409
    assert f"{CELL}:r-1 is not dialed now: it is queued" in answer.text
    assert await deeds(web) == []
