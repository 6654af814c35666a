"""The pages of cells and PBXs on a real Redis: what they show, and what their forms do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dialer.domain.agents import Agent, AgentState, Team
from dialer.domain.call import Result
from dialer.domain.limits import Limit
from dialer.domain.parameters import Edit, Subject
from dialer.domain.roles import Role
from dialer.store.agents import AgentStore, agents_text
from dialer.store.keys import LedgerKeys
from dialer.web.access import COOKIE
from dialer.web.live import LivePage
from dialer.web.pages import cells, pbxs
from dialer.web.rendering import rendered
from dialer.web.site import Visitor
from dialer.web.texts import texts
from tests.integration.cell_rig import BRIDGE, BUSY, Site, element, governor
from tests.integration.web_site import CELL, Web, settings_at, web_site

TIM, PBX01 = Subject("cell", CELL), Subject("pbx", "pbx01")
AT_CELL, AT_PBX = f"/cells/{CELL}", "/pbxs/pbx01"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.ledger.take_over(BRIDGE)  # its heartbeat
        for name in ("pbx01", "pbx02"):
            await site.beat(name, asterisk="Asterisk 20.5.0")
        yield site


@pytest.fixture
async def web(site: Site, tmp_path: Path) -> AsyncIterator[Web]:
    async with web_site(settings_at(site.url, tmp_path)) as web:
        await web.sign_in(Role.OPERATE, "ana")
        yield web


def part(html: str, name: str) -> str:
    """What is in a part of a page, without its tags."""
    found = re.search(rf'data-part="{name}"[^>]*>(.*?)</(p|dd|div|table)>', html, re.DOTALL)
    assert found is not None, name
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", found[1])).strip()


def filled(html: str, **changes: str) -> dict[str, str]:
    """The form of parameters as a browser sends it, after somebody typed these values."""
    inputs = re.findall(r'<input(?: [^>]*)? name="([^"]*)"[^>]* value="([^"]*)"', html)
    selects = re.findall(r'<select id="set-[^"]*" name="([^"]*)".*?<option selected>', html, re.S)
    fields = {name: value for name, value in inputs if name not in ("csrf", "back", "at", "to")}
    fields |= {name: fields[f"was-{name}"] for name in selects}
    return {**fields, **changes}


async def value(web: Web, subject: Subject, name: str) -> Any:
    settings = (await web.site.collector.parameters.read()).settings(subject)
    return settings[name].value if name in settings else None


# --- what is shown --------------------------------------------------------------------------


async def test_a_cell_says_why_it_dials_or_not(web: Web, site: Site) -> None:
    await site.push_requests(element("a"), element("b"))
    await site.admitted("up")
    html = await web.shown(AT_CELL)
    assert part(html, "state") == "dialing"
    assert part(html, "why") == "nothing limits ASR_TIM: 1 calls are up and 2 requests wait"
    assert part(html, "waiting") == "2"
    assert part(html, "calls") == "1 / 50"


async def test_a_cell_without_a_queue_has_no_operators(web: Web) -> None:
    assert "Operators of queue" not in await web.shown(AT_CELL)


async def test_a_cell_shows_its_operators(site: Site, tmp_path: Path) -> None:
    now_s = float((await site.redis.time())[0])
    ana = Agent(
        interface="PJSIP/1001",
        name="Ana <b>",
        state=AgentState.PAUSED,
        since=now_s - 600,
        queues={"q": AgentState.PAUSED},
        reason="almoço",
        calls=12,
    )
    bob = replace(ana, interface="SIP/2", name="Bob", state=AgentState.AVAILABLE, reason="")
    bob = replace(bob, queues={"q": AgentState.AVAILABLE})
    eve = replace(bob, interface="SIP/3", name="Eve", queues={"r": AgentState.AVAILABLE})
    await AgentStore(site.steps).show("pbx01", [ana, bob, eve], fence=0)
    team = Team(available=1, paused=1)
    await site.beat(agents=agents_text({"Q": team}, {}, "i1"))
    cells_of_file = {CELL: {"threads": 50, "queue": "Q"}}
    async with web_site(settings_at(site.url, tmp_path, cells=cells_of_file)) as web:
        await web.sign_in(Role.VIEW)
        html = await web.shown(AT_CELL)
        assert part(html, "team") == "free: 1 · pauses: 1"
        shown = part(html, "operators")
        assert shown.index("Bob") < shown.index("Ana")
        assert "Ana &lt;b&gt;" in shown
        assert "almoço" in shown
        assert "Eve" not in shown, "of another queue"
        assert f'data-part="cell-operators-{CELL}">1 / 0 / 1<' in await web.shown("/")
        await site.silence("pbx01", seconds=9)
        shown = part(await web.shown(AT_CELL), "operators")
        assert shown.count("not known") == 2


async def test_a_cell_says_since_when(web: Web, site: Site) -> None:
    seconds, _ = await site.redis.time()
    at_ms = (seconds - 90) * 1000
    key = LedgerKeys(CELL).decisions
    await site.redis.zadd(key, {f"{at_ms} {Limit.NO_REQUESTS} {{}}": at_ms})
    html = await web.shown(AT_CELL)
    assert part(html, "since").startswith("since 20")
    await site.push_requests(element("a"))
    assert part(await web.shown(AT_CELL), "since") == "", "the log does not have that limit yet"


async def test_outcomes_are_shown_by_result_and_pbx(web: Web, site: Site) -> None:
    for name, result in (("a", Result.ANSWERED), ("b", Result.BUSY), ("c", Result.BUSY)):
        await site.admitted(name, pbx="pbx02")
        await site.end(name, replace(BUSY, result=result))
    html = await web.shown(AT_CELL)
    shown = part(html, "outcomes")
    assert "Result pbx02 All" in shown
    assert "busy 2 2" in shown
    assert "Calls per minute of ASR_TIM, the last 60 minutes" in html
    assert html.count('<rect class="bar open"') == 1, "all in the present minute"
    assert html.count("<tr>") > 60, "the numbers of the charts"


@pytest.mark.parametrize("path", ["/cells/nope", "/pbxs/nope"])
async def test_what_is_not_in_the_settings_is_not_found(web: Web, path: str) -> None:
    assert (await web.get(path)).status_code == 404


async def test_a_pbx_says_what_keeps_calls_away(web: Web, site: Site) -> None:
    await site.beat("pbx01", link="down", asterisk="Asterisk 20.5.0")
    html = await web.shown(AT_PBX)
    assert part(html, "state") == "AMI down"
    assert "is its Asterisk up" in part(html, "reasons")
    assert part(html, "link") == "down"
    assert "Asterisk: Asterisk 20.5.0" in html
    assert part(html, "cells").endswith("ASR_TIM nothing")


async def test_a_pbx_shows_what_its_governor_limits(web: Web, site: Site) -> None:
    trunks = {"backup": {"limit": 2.0, "share": 0.5}}
    said = governor(4.0, trunks, starts=4.0, answer_ms=900, normal_ms=20)
    await site.beat("pbx01", governor=said)
    html = await web.shown(AT_PBX)
    assert part(html, "state") == "slowed down"
    assert part(html, "governor") == "4.0 calls a second"
    assert "2 backup 2.0 50%" in part(html, "trunks")
    assert "pbx_slow: limited to 4 of 20 calls a second" in part(html, "reasons")


async def test_what_redis_says_is_text_and_no_html(web: Web, site: Site) -> None:
    evil = "<script>alert(1)</script>"
    await site.beat("pbx01", link="down", trouble=evil, asterisk=evil)
    edit = Edit(name="threads", old=50, new=3, was_live=False, is_live=True)
    await web.site.collector.parameters.change(TIM, [edit], version=0, by=evil, why=evil)
    for path in (AT_PBX, AT_CELL, "/changes"):
        html = await web.shown(path)
        assert "<script>alert" not in html
        assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("live", "names"), [(cells.CELL, {"cell": CELL}), (pbxs.PBX, {"pbx": "pbx01"})]
)
async def test_a_stream_has_all_that_the_live_part_needs(
    web: Web, live: LivePage, names: dict[str, str]
) -> None:
    html = await web.shown(live.path_of(names))
    look, session = (
        await web.site.hub.now(),
        await web.site.people.session(web.client.cookies[COOKIE]),
    )
    visitor = Visitor(session=session, texts=texts("en"), address="")
    known = {"look": look, "site": web.site, "visitor": visitor}
    shown = rendered(
        live.live_template, texts("en"), {**known, **await live.context(web.site, look, names)}
    )
    parts = re.findall('data-part="([^"]*)"', shown)
    assert parts == re.findall('data-part="([^"]*)"', html)
    assert len(set(parts)) == len(parts) > 10
    assert web.csrf not in shown


# --- the past -------------------------------------------------------------------------------


async def test_a_cell_says_why_at_a_time_of_the_past(web: Web, site: Site) -> None:
    seconds, _ = await site.redis.time()
    at_ms = (seconds - 600) * 1000
    entry = f'{at_ms} {Limit.PAUSED} {{"reason":"paused by bia","numbers":{{"waiting":7}}}}'
    await site.redis.zadd(LedgerKeys(CELL).decisions, {entry: at_ms})
    asked = (datetime.now(UTC) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    html = await web.shown(f"{AT_CELL}?at={asked}")
    assert "ASR_TIM is paused by bia; 7 requests wait" in html


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("10h42", "10h42 is no time: write 10:42"),
        ("2999-01-01T10:00", "has not come yet"),
        ("2020-01-01T10:00", "nothing is known of 2020-01-01"),
    ],
)
async def test_a_time_without_an_answer_is_said(web: Web, asked: str, said: str) -> None:
    html = await web.shown(f"{AT_CELL}?at={asked}")
    assert said in html
    assert f'value="{asked}"' in html, "it can be corrected"


# --- pause, drain, resume -------------------------------------------------------------------


async def test_a_paused_cell_is_shown_at_once(web: Web) -> None:
    web.site.hub.every_s = 60.0
    await web.shown("/")
    response = await web.post(f"{AT_CELL}/pause", back=AT_CELL, why="fire alarm")
    assert (response.status_code, response.headers["location"]) == (303, AT_CELL)
    assert part(await web.shown(AT_CELL), "state").startswith("paused ana, 20")
    assert "(fire alarm)" in await web.shown("/")
    await web.post(f"{AT_CELL}/resume", referer=f"{AT_CELL}?at=10:42")
    assert part(await web.shown(AT_CELL), "state") == "no requests"


async def test_a_drained_pbx_is_shown_at_once(web: Web) -> None:
    response = await web.post(f"{AT_PBX}/drain", referer="/")
    assert (response.status_code, response.headers["location"]) == (303, "/")
    html = await web.shown(AT_PBX)
    assert part(html, "state").startswith("drained ana")
    assert "data-ask" not in html
    await web.post(f"{AT_PBX}/resume", referer=AT_PBX)
    html = await web.shown(AT_PBX)
    assert part(html, "state") == "takes calls"
    assert 'data-ask="Drain pbx01?' in html


async def test_a_change_leads_to_no_other_site(web: Web) -> None:
    response = await web.post(f"{AT_CELL}/pause", back="//evil.test")
    assert response.headers["location"] == "/"


@pytest.mark.parametrize("what", ["pause", "resume", "set"])
async def test_who_may_only_look_changes_nothing(web: Web, what: str) -> None:
    await web.sign_in(Role.VIEW)
    response = await web.post(f"{AT_CELL}/{what}", threads="3")
    assert response.status_code == 403
    assert (await web.site.collector.parameters.read()).version == 0
    for path in (AT_CELL, AT_PBX):
        assert 'method="post" action="/' not in (await web.shown(path)).replace('"/logout"', "")


async def test_a_change_that_redis_refuses_is_not_made_later(web: Web) -> None:
    """What the page answered with an error must not come true when Redis takes writes again."""
    store = web.site.collector.parameters
    await store.steps.redis.config_set("maxmemory", 1)
    try:
        paused = await web.post(f"{AT_CELL}/pause")
        assert paused.status_code == 409
        assert "refuses to write" in paused.text
        changed = await web.post(f"{AT_CELL}/set", {"threads": "3", "was-threads": "50"})
        assert changed.status_code == 409
    finally:
        await store.steps.redis.config_set("maxmemory", 0)
    await web.site.people.users()
    assert (await store.read()).version == 0
    assert (await web.post(f"{AT_CELL}/pause")).status_code == 303


async def test_a_cell_that_is_not_there_cannot_be_paused(web: Web) -> None:
    assert (await web.post("/cells/nope/pause")).status_code == 422


# --- parameters -----------------------------------------------------------------------------


async def test_a_value_is_set_with_who_and_why(web: Web) -> None:
    form = filled(await web.shown(AT_CELL), threads="30", why="lunch")
    response = await web.post(f"{AT_CELL}/set", form)
    assert response.headers["location"] == f"{AT_CELL}?done=1"
    html = await web.shown(response.headers["location"])
    assert "Change 1 is in force" in html
    assert part(html, "calls") == "0 / 30"
    assert re.search(r"ana, 20[0-9: -]+ \(lunch\)", html)
    (change,) = await web.site.collector.parameters.changes(at_most=9)
    assert [edit.name for edit in change.edits] == ["threads"], "and nothing else"


async def test_what_another_person_changed_stays(web: Web) -> None:
    form = filled(await web.shown(AT_CELL), threads="30")
    await web.site.steering("bia").set(TIM, {"retries": 5})
    await web.post(f"{AT_CELL}/set", form)
    assert (await value(web, TIM, "retries"), await value(web, TIM, "threads")) == (5, 30)


async def test_an_emptied_field_is_the_value_of_the_file(web: Web) -> None:
    await web.post(f"{AT_CELL}/set", filled(await web.shown(AT_CELL), threads="30", amd="hangup"))
    assert await value(web, TIM, "amd") == "hangup"
    await web.post(f"{AT_CELL}/set", filled(await web.shown(AT_CELL), threads="", amd=""))
    assert (await value(web, TIM, "threads"), await value(web, TIM, "amd")) == (None, None)
    assert part(await web.shown(AT_CELL), "calls") == "0 / 50"


async def test_an_unchanged_form_changes_nothing(web: Web) -> None:
    for path in (AT_CELL, AT_PBX):
        response = await web.post(f"{path}/set", filled(await web.shown(path)))
        assert "Nothing has changed" in await web.shown(response.headers["location"])
    assert (await web.site.collector.parameters.read()).version == 0


async def test_wrong_values_are_shown_with_what_was_typed(web: Web) -> None:
    form = filled(await web.shown(AT_CELL), threads="0", pbxs="pbx01,pbx09", retries="3", why="x")
    response = await web.post(f"{AT_CELL}/set", form)
    assert response.status_code == 422
    html = response.text
    for said in ("threads: ", "there is no PBX pbx09", 'value="0"', 'value="pbx01,pbx09"'):
        assert said in html
    assert html.count('aria-invalid="true"') == 2
    assert f'data-page="{AT_CELL}"' in html, "the page is live"
    assert (await web.site.collector.parameters.read()).version == 0
    again = await web.post(f"{AT_CELL}/set", filled(html, threads="9", pbxs="pbx02"))
    assert again.status_code == 303
    assert [await value(web, TIM, name) for name in ("threads", "pbxs", "retries")] == [
        9,
        ["pbx02"],
        3,
    ]


async def test_text_that_is_no_value_is_shown_for_each_field(web: Web) -> None:
    form = filled(await web.shown(AT_CELL), threads="many", calling_hours="always")
    response = await web.post(f"{AT_CELL}/set", form)
    assert response.status_code == 422
    assert "&#39;many&#39; is no whole number" in response.text
    assert "calling_hours: &#39;always&#39; is wrong" in response.text


async def test_a_reason_that_is_too_long_is_said(web: Web) -> None:
    form = filled(await web.shown(AT_CELL), threads="3", why="x" * 201)
    response = await web.post(f"{AT_CELL}/set", form)
    assert response.status_code == 409
    assert "the reason has 201 characters" in response.text
    assert 'value="3"' in response.text


async def test_enter_in_a_reason_presses_no_button(web: Web) -> None:
    for path in (AT_CELL, AT_PBX):
        first = re.search(r'<form id="act".*?<button([^>]*)>', await web.shown(path), re.DOTALL)
        assert first is not None
        assert "disabled" in first[1]


async def test_values_of_a_pbx_are_set(web: Web) -> None:
    form = filled(await web.shown(AT_PBX), trunks="backup,tim", cps="2.5", governor="false")
    await web.post(f"{AT_PBX}/set", form)
    html = await web.shown(AT_PBX)
    assert part(html, "cps") == "2.5"
    assert part(html, "governor") == "off"
    assert "1 backup (default)" in part(html, "trunks")


async def test_live_values_that_are_not_valid_here_are_said(web: Web) -> None:
    edit = Edit(name="pbxs", old=["pbx01"], new=["gone"], was_live=False, is_live=True)
    await web.site.collector.parameters.change(TIM, [edit], version=0, by="another host")
    html = await web.shown(AT_CELL)
    assert "These live values are not valid here" in html
    assert "cells[ASR_TIM].pbxs: lists an unknown PBX" in html
    assert "another host" not in html, "its value is not in force"
    form = filled(html, pbxs="")
    await web.post(f"{AT_CELL}/set", form)
    assert "not valid here" not in await web.shown(AT_CELL), "the live value has ended"
