"""The page of changes on a real Redis: the trail, undo, and what else users did."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dialer.domain.parameters import Subject
from dialer.domain.people import Deed, Did
from dialer.domain.roles import Role
from dialer.store.steps import redis_time
from dialer.web.pages import changes
from dialer.web.pages.changes import shown_changes
from tests.integration.web_site import CELL, Web, settings_at, web_site

TIM, PBX01 = Subject("cell", CELL), Subject("pbx", "pbx01")


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    async with web_site(settings_at(redis_url, tmp_path)) as web:
        await web.sign_in(Role.OPERATE, "ana")
        yield web


async def change(web: Web, threads: int) -> None:
    await web.site.steering("bia").set(TIM, {"threads": threads}, why=f"for {threads}")


async def test_the_trail_says_who_what_and_why(web: Web) -> None:
    assert "no changes" in await web.shown("/changes")
    await change(web, 30)
    await web.site.steering("caio").stop(PBX01)
    html = await web.shown("/changes")
    assert "threads of cell ASR_TIM: 50 -&gt; 30" in html
    assert "for 30" in html
    assert "PBX pbx01 is drained" in html
    assert html.index("caio") < html.index("bia"), "the newest first"


async def test_a_change_is_undone_with_who_and_why(web: Web) -> None:
    await change(web, 30)
    response = await web.post("/changes/1/undo", why="too few")
    assert (response.status_code, response.headers["location"]) == (303, "/changes")
    html = await web.shown("/changes")
    assert "undoes 1" in html
    assert "too few" in html
    assert (await web.site.collector.parameters.read()).of == {}


async def test_what_was_changed_since_is_not_undone(web: Web) -> None:
    await change(web, 30)
    await change(web, 31)
    response = await web.post("/changes/1/undo", of=CELL)
    assert response.status_code == 409
    assert "change 1 cannot be undone: threads of cell ASR_TIM was changed" in response.text
    assert "threads of cell ASR_TIM: 30 -&gt; 31" in response.text, "beside the changes"


@pytest.mark.parametrize("number", ["7", "x", "0", "9" * 15, "9" * 5000])
async def test_a_change_that_is_not_there_is_not_undone(web: Web, number: str) -> None:
    response = await web.post(f"/changes/{number}/undo")
    assert response.status_code == 409
    assert "there is no change" in response.text


async def test_who_may_only_look_undoes_nothing(web: Web) -> None:
    await change(web, 30)
    await web.sign_in(Role.VIEW)
    assert (await web.post("/changes/1/undo")).status_code == 403
    assert "/undo" not in await web.shown("/changes")
    assert len(await web.site.collector.parameters.changes(at_most=9)) == 1


async def test_the_trail_has_pages(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "ON_A_PAGE", 3)
    for threads in range(1, 8):
        await change(web, threads)
    html = await web.shown("/changes")
    assert "below=5" in html
    assert "6 -&gt; 7" in html
    assert "3 -&gt; 4" not in html
    html = await web.shown("/changes?below=5")
    assert "3 -&gt; 4" in html
    assert "4 -&gt; 5" not in html
    last = await web.shown("/changes?below=2")
    assert "50 -&gt; 1" in last
    assert "Older" not in last


async def test_the_changes_of_one_cell_or_pbx_are_found(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "AT_ONCE", 2)
    await web.site.steering("caio").stop(PBX01)
    for threads in range(1, 6):
        await change(web, threads)
    html = await web.shown("/changes?of=pbx01")
    assert "PBX pbx01 is drained" in html
    assert "threads of cell" not in html
    assert "no changes" in await web.shown("/changes?of=gone")
    found = await shown_changes(web.site.collector.parameters, of=CELL)
    assert [one.number for one in found.changes] == [6, 5, 4, 3, 2]


async def test_strange_addresses_are_the_first_page(web: Web) -> None:
    await change(web, 30)
    for query in ("below=x", "below=-1", f"below={'9' * 5000}", "below=", "of="):
        assert "50 -&gt; 30" in await web.shown(f"/changes?{query}")


async def test_deeds_are_for_administrators(web: Web) -> None:
    await web.site.people.note(Deed(by="eva", did=Did.NUMBER_SEEN, what="<b>ASR_TIM:r-1</b>"))
    assert "looked at a telephone number" not in await web.shown("/changes")
    await web.sign_in(Role.ADMIN)
    html = await web.shown("/changes")
    assert "looked at a telephone number" in html
    assert "&lt;b&gt;ASR_TIM:r-1" in html
    assert "looked at a telephone number" not in await web.shown("/changes?of=pbx01")


async def test_failed_sign_ins_are_among_the_deeds_by_time(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "ON_A_PAGE", 3)
    await web.sign_in(Role.ADMIN)
    people = web.site.people
    for n in range(8):
        did = Did.SIGN_IN_FAILED if n % 2 else Did.HUNG_UP
        await people.note(Deed(by="eva", did=did, what=f"deed-{n}"))
        await passed(web, ms=2)
    path, html = "/changes", ""
    seen: list[str] = []
    while path:
        html = await web.shown(path)
        on_page = re.findall(r"deed-\d", html)
        assert len(on_page) <= 3
        seen += on_page
        older = re.search(r'href="(/changes\?before=[^"#]+)#deeds">Older', html)
        path = older[1] if older is not None else ""
    assert seen == [f"deed-{n}" for n in reversed(range(8))]
    assert 'href="/changes#deeds"' in html


async def passed(web: Web, *, ms: int) -> None:
    """Wait until the clock of Redis is later by this."""
    steps = web.site.people.steps
    until = await redis_time(steps) + ms / 1000
    while await redis_time(steps) < until:
        pass


@pytest.mark.parametrize("before", ["x", "-", "1-", "9" * 500, "%00"])
async def test_a_bad_place_shows_the_newest_deeds(web: Web, before: str) -> None:
    await web.sign_in(Role.ADMIN)
    await web.site.people.note(Deed(by="eva", did=Did.HUNG_UP, what="deed-1"))
    assert "deed-1" in await web.shown(f"/changes?before={before}")
