"""The dead list on a real Redis: masked for viewers, corrected, sent and discarded by others."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from dialer.dead_list import SOUGHT_AMONG
from dialer.domain.parameters import Subject
from dialer.domain.people import Did
from dialer.domain.roles import Role
from dialer.errors import StoreUnavailable
from dialer.monitor.collector import Seen
from dialer.multcall.keys import CellKeys
from dialer.settings import load
from dialer.store.keys import LedgerKeys
from dialer.store.ledger import DeadList
from dialer.store.people import People
from dialer.web.access import PAGE_WITHIN_S, SESSION_WITHIN_S
from dialer.web.pages.dead import actions, elements
from dialer.web.texts import NOTHING
from tests.integration.cell_rig import CELL, Site
from tests.integration.slow_proxy import SlowProxy
from tests.integration.web_site import Web, settings_at, web_site
from tests.processes import PbxPlace, site_toml

NUMBER = "5511987654321"
KEYS, WIRE = LedgerKeys(CELL), CellKeys(CELL)
GONE = "somebody else sent or discarded it already"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    cells: dict[str, dict[str, object]] = {"OTHER": {"threads": 5}, CELL: {"threads": 50}}
    async with web_site(settings_at(redis_url, tmp_path, cells=cells)) as web:
        await web.sign_in(Role.OPERATE, "ana")
        yield web


async def buried(
    site: Site, name: str = "r-1", *, reason: str = "invalid_request", source: str = "request",
    message: str = "Tronco is not known", **fields: Any,
) -> str:  # fmt: skip
    """Put an element on the dead list; return the name of its entry."""
    raw = json.dumps({"IdRequisicao": name, "Telefone": NUMBER, **fields})
    entry = {"at": "2026-11-27T09:00:00.000Z", "source": source, "reason": reason,
             "message": message, "raw": raw, "raw_base64": None}  # fmt: skip
    await site.redis.rpush(KEYS.dead, json.dumps(entry))
    return (await DeadList(site.steps, CELL).newest(1))[0].name


async def send(web: Web, *names: str, **fields: str) -> httpx.Response:
    return await web.post(
        "/dead/send", {f"entry.{name}": "on" for name in names}, cell=CELL, **fields
    )


async def sent(site: Site) -> list[Any]:
    return [json.loads(one) for one in await site.listed(WIRE.request)]


async def deeds(web: Web) -> list[tuple[str, Did, str, str]]:
    """What users did, without that the test made them."""
    found = await web.site.people.deeds(9)
    return [(one.by, one.did, one.what, one.why) for one in found if one.did != Did.USER_ADDED]


# --- the list -------------------------------------------------------------------------------


async def test_the_list_counts_by_reason_and_masks(web: Web, site: Site) -> None:
    await buried(site, "r-1", message=f"Telefone {NUMBER} is wrong")
    await buried(site, "r-2")
    await buried(site, "r-3", reason="duplicate_request")
    await web.sign_in(Role.VIEW, "bia")
    html = await web.shown("/dead")
    assert 'reason=invalid_request">invalid_request</a> 2' in html
    assert 'reason=duplicate_request">duplicate_request</a> 1,' in html
    assert f"Newest entries of {CELL}" in html, "the first cell with entries"
    assert NUMBER not in html
    assert html.count("*********4321") == 1, "of the message; elements show nothing of it"
    assert "2026-11-27 06:00:00" in html, "in the zone of the cell"
    assert "/dead/send" not in html
    assert await deeds(web) == []


async def test_enter_in_a_field_sends_nothing(web: Web, site: Site) -> None:
    """A browser presses the first button of a form; a disabled one does nothing."""
    name = await buried(site, "r-1")
    for path in (f"/dead?cell={CELL}", f"/dead/entry?cell={CELL}&name={name}"):
        form = (await web.shown(path)).partition('action="/dead/send"')[2]
        assert form.index("<button disabled hidden>") == form.index("<button")


async def test_entries_are_chosen_by_reason(web: Web, site: Site) -> None:
    one, other = await buried(site, "r-1"), await buried(site, "r-2", reason="internal_error")
    html = await web.shown(f"/dead?cell={CELL}&reason=internal_error&limit=200")
    assert other in html
    assert one not in html
    assert one in await web.shown(f"/dead?cell={CELL}&reason=nonsense&limit=-1")
    assert (await web.get("/dead?cell=%3Cb%3E")).status_code == 404


async def test_at_most_fifty_entries_are_shown_first(web: Web, site: Site) -> None:
    for n in range(60):
        await buried(site, f"r-{n}")
    html = await web.shown("/dead")
    assert "The newest 50 of 60." in html
    assert html.count('type="checkbox" name="entry.') == 50
    html = await web.shown("/dead?limit=100")
    assert html.count('type="checkbox" name="entry.') == 60


async def test_an_empty_list_is_a_page(web: Web) -> None:
    assert "The newest 0 of 0." in await web.shown("/dead")


@pytest.mark.parametrize("garbage", [b"", b"\xff\x00", b"<script>alert(1)</script> 100 %", b"[]"])
async def test_garbage_is_shown_escaped(web: Web, site: Site, garbage: bytes) -> None:
    await site.redis.rpush(KEYS.dead, garbage)
    name = (await DeadList(site.steps, CELL).newest(1))[0].name
    assert "<script>alert" not in await web.shown("/dead")
    html = await web.shown(f"/dead/entry?cell={CELL}&name={name}")
    assert "<script>alert" not in html
    assert "It is no request" in html


@pytest.mark.parametrize("at", ["2026-11-27", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "%"])
async def test_a_strange_time_is_not_shown(web: Web, site: Site, at: str) -> None:
    entry = {"at": at, "source": "request", "reason": "<b>", "message": "", "raw": "{}"}
    await site.redis.rpush(KEYS.dead, json.dumps(entry))
    html = await web.shown("/dead")
    assert f"<td>{NOTHING}</td>" in html
    assert "&lt;b&gt;" in html


async def test_a_list_of_another_type_is_said(web: Web, site: Site) -> None:
    await site.redis.set(KEYS.dead, "x")
    assert "WRONGTYPE" in await web.shown(f"/dead?cell={CELL}")


@pytest.mark.parametrize(
    "number",
    ["11,98888,7777", "11\u201198888\u20117777", "11\t98888_7777", "11/98888/7777",
     "11    98888    7777", "2011-98-88T77:77", "1 1 9 8 8 8 8 x 7 7 7 7"],
)  # fmt: skip
@pytest.mark.parametrize("is_ascii", [True, False])
async def test_viewers_see_no_number(web: Web, site: Site, number: str, is_ascii: bool) -> None:
    for name in ("Telefone", "telefone", "Dados"):
        if name == "Dados" and "x" in number:
            continue
        raw = json.dumps({name: number}, ensure_ascii=is_ascii).replace("/", "\\/")
        entry = {"at": "", "source": "request", "reason": "invalid_request",
                 "message": number.replace("x", ""), "raw": raw, "raw_base64": None}  # fmt: skip
        await site.redis.rpush(KEYS.dead, json.dumps(entry))
    await web.sign_in(Role.VIEW, "bia")
    html = await web.shown("/dead")
    cells = "".join(re.findall(r'<td[^>]*class="excerpt">(.*?)</td>', html, re.DOTALL))
    assert cells.count("&#34;***&#34;") == 2
    assert {*re.findall(r"[0-9]", cells.replace("&#34;", ""))} <= {"7"}
    assert "&#34;Dados&#34;" in cells or "x" in number


async def test_entries_that_are_alike_have_one_row(web: Web, site: Site) -> None:
    name = await buried(site)
    await site.redis.rpush(KEYS.dead, (await DeadList(site.steps, CELL).newest(1))[0].text)
    await buried(site, "r-2")
    html = await web.shown("/dead")
    assert html.count(f'name="entry.{name}"') == 1
    assert html.count("(2 times)") == 1
    assert "The newest 3 of 3." in html
    assert "Choose all 2 that are shown" in html


async def test_the_list_says_how_old_its_figures_are(
    web: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await buried(site)
    html = await web.shown("/dead")
    assert "As of" in html
    assert "these figures are old" not in html

    async def fail() -> Seen:
        raise StoreUnavailable("the registry is away")

    monkeypatch.setattr(web.site.hub, "read", fail)
    html = await web.shown("/dead")
    assert "these figures are old" in html
    assert "the registry is away" in html


# --- one entry ------------------------------------------------------------------------------


async def test_a_look_at_an_element_is_in_the_trail(web: Web, site: Site) -> None:
    name = await buried(site, Tronco="tmi")
    html = await web.shown(f"/dead/entry?cell={CELL}&name={name}")
    assert NUMBER in html
    assert "Why it would be refused" in html
    assert "Tronco" in html
    assert await deeds(web) == [("ana", Did.NUMBER_SEEN, f"dead entry {name} of {CELL}", "")]
    await web.sign_in(Role.VIEW, "bia")
    assert (await web.get(f"/dead/entry?cell={CELL}&name={name}")).status_code == 403


async def test_a_corrected_element_is_sent_once(web: Web, site: Site) -> None:
    name = await buried(site, Tronco="tmi")
    right = json.dumps({"IdRequisicao": "r-1", "Telefone": NUMBER, "Tronco": "tim"})
    answer = await send(web, name, element=right, why="typo")
    assert answer.status_code == 200
    assert f'href="/calls/{CELL}/r-1-c1"' in answer.text
    assert [one["IdRequisicao"] for one in await sent(site)] == ["r-1-c1"]
    link = await DeadList(site.steps, CELL).replaced_by("r-1-c1")
    assert link is not None
    assert (link.by, link.why, link.replaces) == ("ana", "typo", "r-1")
    assert await deeds(web) == [
        ("ana", Did.DEAD_SENT, f"1 of {CELL}: {name} as r-1-c1", "typo"),
    ]  # fmt: skip
    again = await send(web, name, element=right)
    assert again.status_code == 409
    assert GONE in again.text
    assert len(await sent(site)) == 1


async def test_a_wrong_element_stays_in_its_form(web: Web, site: Site) -> None:
    name = await buried(site)
    typed = '{"IdRequisicao": "r-1", "Telefone": "</textarea>"}'
    answer = await send(web, name, element=typed, why="kept")
    assert answer.status_code == 422
    assert "it would be refused again: Telefone" in answer.text
    assert "&#34;Telefone&#34;: &#34;&lt;/textarea&gt;&#34;}</textarea>" in answer.text
    assert 'value="kept"' in answer.text
    assert NUMBER not in answer.text, "the trail has no look"
    assert await sent(site) == []


async def test_ringing_again_needs_a_tick(web: Web, site: Site) -> None:
    name = await buried(site, reason="duplicate_request")
    element = json.dumps({"IdRequisicao": "r-1", "Telefone": NUMBER})
    answer = await send(web, name, element=element)
    assert answer.status_code == 422
    assert "may have been rung already (duplicate_request): tick the box" in answer.text
    assert "r-1-c1" in (await send(web, name, element=element, may_ring_again="1")).text


async def test_settings_in_force_decide(redis_url: str, site: Site, tmp_path: Path) -> None:
    """Only pbx02 has the trunk, and a live parameter takes it from the cell."""
    places = [
        PbxPlace(name=name, port=5038, secret="x", trunks={trunk: "PJSIP/{number}@x"})
        for name, trunk in (("pbx01", "tim"), ("pbx02", "rare"))
    ]
    path = tmp_path / "dialer.toml"
    path.write_text(site_toml(redis_url, redis_url, places, cells={CELL: {}}))
    async with web_site(load(path)) as web:
        await web.sign_in(Role.OPERATE, "ana")
        name = await buried(site, Tronco="rare")
        entry = f"/dead/entry?cell={CELL}&name={name}"
        assert "The bridge would take it as it is." in await web.shown(entry)
        await web.site.steering("rui").set(Subject("cell", CELL), {"pbxs": ["pbx01"]})
        assert "Why it would be refused" in await web.shown(entry)
        assert "it would be refused again: Tronco" in (await send(web, name)).text


async def test_a_code_can_only_be_discarded(web: Web, site: Site) -> None:
    name = await buried(site, source="code", reason="orphan_code")
    html = await web.shown(f"/dead/entry?cell={CELL}&name={name}")
    assert "<textarea" not in html
    assert "a CODLIGACAO cannot be sent again" in (await send(web, name)).text


@pytest.mark.parametrize("name", ["", "0123456789", "<b>", "x" * 300])
async def test_an_entry_that_is_gone_is_said(web: Web, name: str) -> None:
    answer = await web.client.get("/dead/entry", params={"cell": CELL, "name": name})
    assert answer.status_code == 404
    assert GONE in answer.text
    assert await deeds(web) == []


async def test_only_the_newest_entries_are_read(web: Web, site: Site) -> None:
    name = await buried(site)
    for _ in range(10):
        await site.redis.rpush(KEYS.dead, *(f"x{n}" for n in range(SOUGHT_AMONG // 10)))
    answer = await web.get(f"/dead/entry?cell={CELL}&name={name}")
    assert answer.status_code == 404
    assert GONE in answer.text
    assert GONE in (await send(web, name)).text
    assert GONE in (await send(web, name, element="{}")).text
    assert (await web.post("/dead/discard", {f"entry.{name}": "on"}, cell=CELL)).text.count(GONE)


@pytest.mark.parametrize("name", ["", "<b>", "x" * 300, "ABCDEF0123"])
async def test_what_is_no_name_is_not_sought(site: Site, name: str) -> None:
    await buried(site)
    await site.steps.read("CONFIG", "RESETSTAT")
    assert await elements.named(DeadList(site.steps, CELL), [name]) == []
    assert "cmdstat_llen" not in await site.redis.info("commandstats")


async def test_an_entry_like_one_that_was_sent_is_not_sent_by_mistake(web: Web, site: Site) -> None:
    """A double click, a second try or F5 must not ring the number of the twin."""
    name = await buried(site)
    (entry,) = await DeadList(site.steps, CELL).newest(1)
    await site.redis.rpush(KEYS.dead, entry.text, entry.text)
    element = entry.raw.decode()
    assert "sent as" in (await send(web, name, element=element)).text
    again = await send(web, name)
    assert "one like it was sent again as r-1-c1: discard this one" in again.text
    assert "open it, and decide there" in again.text
    again = await send(web, name, element=element)
    assert again.status_code == 422
    assert "may ring again: tick the box" in again.text
    assert 'name="sent_before" value="r-1-c1"' in again.text
    again = await send(web, name, element=element, may_ring_again="1", sent_before="")
    assert again.status_code == 422, "the tick was not for this"
    assert len(await sent(site)) == 1
    ticked = {"element": element, "may_ring_again": "1", "sent_before": "r-1-c1"}
    assert "r-1-c2" in (await send(web, name, **ticked)).text
    again = await send(web, name, **ticked)
    assert again.status_code == 422, "a second click with the tick"
    assert 'value="r-1-c1 r-1-c2"' in again.text
    assert [one["IdRequisicao"] for one in await sent(site)] == ["r-1-c1", "r-1-c2"]
    assert await DeadList(site.steps, CELL).size() == 1


# --- many -----------------------------------------------------------------------------------


async def test_many_are_sent_with_one_change(web: Web, site: Site) -> None:
    names = [await buried(site, f"r-{n}", Tronco="tmi") for n in range(3)]
    twice = await buried(site, "r-9", reason="duplicate_request")
    answer = await send(web, *names, twice, "0123456789", set="Tronco=tim")
    assert [one["IdRequisicao"] for one in await sent(site)] == [f"r-{n}-c1" for n in range(3)]
    assert {one["Tronco"] for one in await sent(site)} == {"tim"}
    assert answer.text.count("sent as") == 3
    assert "(duplicate_request): open it, and decide there" in answer.text
    assert GONE in answer.text
    ((_, did, what, _),) = await deeds(web)
    assert (did, what.partition(":")[0]) == (Did.DEAD_SENT, f"3 of {CELL}")


@asynccontextmanager
async def slow_web(redis_url: str, tmp_path: Path, delay_s: float) -> AsyncIterator[Web]:
    """Serve a page whose Redis is slow from the first look on."""
    port = urlsplit(redis_url).port
    assert port is not None
    async with SlowProxy(port, delay_s=0.0) as slow:
        url = redis_url.replace(str(port), str(slow.port))
        async with web_site(settings_at(url, tmp_path)) as web:
            await web.sign_in(Role.OPERATE, "ana")
            await web.shown("/")
            slow.delay_s = delay_s
            yield web


async def test_a_slow_redis_leaves_the_rest(
    redis_url: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [await buried(site, f"r-{n}") for n in range(9)]
    monkeypatch.setattr(actions, "ACTION_S", 4.0)
    async with slow_web(redis_url, tmp_path, delay_s=0.3) as web:
        answer = await send(web, *names)
        done, left = (answer.text.count(said) for said in ("sent as", "not tried"))
        assert done > 0
        assert left > 0
        assert len(names) - done - left <= 1, "Redis has not answered for one"
        assert len(await sent(site)) - done <= 1
        ((_, did, what, _),) = await deeds(web)
        assert (did, what.partition(":")[0]) == (Did.DEAD_SENT, f"{done} of {CELL}")


async def test_outcomes_are_said_before_the_page_must_answer(
    redis_url: str, site: Site, tmp_path: Path
) -> None:
    """So slow that session, look, entries, sending and trail together would take too long."""
    assert SESSION_WITHIN_S + actions.ACTION_S + actions.NOTE_S < PAGE_WITHIN_S
    names = [await buried(site, f"r-{n}") for n in range(3)]
    async with slow_web(redis_url, tmp_path, delay_s=1.6) as web:
        answer = await send(web, *names)
    assert answer.status_code == 200
    assert all(name in answer.text for name in names)
    assert "not tried" in answer.text


async def test_outcomes_are_said_if_the_trail_fails(
    web: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise StoreUnavailable("the registry refuses to write")

    monkeypatch.setattr(People, "note", refuse)
    answer = await send(web, await buried(site))
    assert answer.status_code == 200
    assert "sent as" in answer.text
    assert "the trail of the web page has nothing of this: the registry refuses" in answer.text


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("/dead/send", "maxmemory"),
        ("/dead/send", "min-replicas-to-write"),
        ("/dead/discard", "min-replicas-to-write"),
    ],
)
async def test_what_redis_refuses_is_not_done_later(
    web: Web, site: Site, path: str, setting: str
) -> None:
    name, other = await buried(site, "r-1"), await buried(site, "r-2")
    await site.redis.config_set(setting, 1)
    try:
        async with asyncio.timeout(4):
            answer = await web.post(
                path, {f"entry.{name}": "on", f"entry.{other}": "on"}, cell=CELL
            )
        assert answer.status_code == 200
        assert "refuses to write" in answer.text
        assert "look at the list" in answer.text
    finally:
        await site.redis.config_set(setting, 0)
    await web.shown("/dead")
    await web.site.people.put("rui", Role.VIEW, None, by="test")  # Redis takes writes again
    assert await DeadList(site.steps, CELL).size() == 2
    assert await sent(site) == []
    assert "r-1-c1" in (await send(web, name)).text


async def test_all_that_are_shown_can_be_sent(web: Web, site: Site) -> None:
    names = [await buried(site, f"r-{n}") for n in range(3)]
    assert f'name="shown" value="{" ".join(reversed(names))}"' in await web.shown("/dead")
    answer = await send(web, all="1", shown=" ".join(names[:2]))
    assert answer.text.count("sent as") == 2
    assert await DeadList(site.steps, CELL).size() == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("Telefone=1", "Telefone is for one entry"),
        ("Tronco", "a change is FIELD=VALUE, not Tronco"),
        ('Dados={"a"', "the value of Dados is not valid JSON"),
    ],
)
async def test_a_wrong_change_is_beside_the_form(
    web: Web, site: Site, typed: str, said: str
) -> None:
    names = [await buried(site, f"r-{n}") for n in range(3)]
    answer = await send(web, *names[:2], set=typed, why="kept", limit="100")
    assert answer.status_code == 422
    assert said in answer.text
    assert answer.text.count(" checked") == 2
    assert 'value="kept"' in answer.text
    assert await sent(site) == []


async def test_nothing_or_too_many_are_not_taken(web: Web, site: Site) -> None:
    await buried(site)
    assert "no entry is chosen" in (await send(web)).text
    many = [f"{n:010x}" for n in range(elements.MANY + 1)]
    for path in ("/dead/send", "/dead/discard"):
        fields = {f"entry.{name}": "on" for name in many}
        answer = await web.post(path, fields, cell=CELL)
        assert answer.status_code == 422
        assert "choose at most 200 at a time" in answer.text


async def test_entries_are_discarded_with_a_reason(web: Web, site: Site) -> None:
    names = [await buried(site, f"r-{n}") for n in range(3)]
    fields = {f"entry.{name}": "on" for name in (*names[:2], "0123456789")}
    answer = await web.post("/dead/discard", fields, cell=CELL, why="a test")
    assert answer.text.count("discarded</td>") == 2
    assert GONE in answer.text
    assert await DeadList(site.steps, CELL).size() == 1
    trail = [json.loads(one) for one in await site.listed(KEYS.dead_trail)]
    assert {(one["by"], one["why"], one["did"]) for one in trail} == {
        ("ana", "a test", "discarded")
    }
    ((_, did, what, why),) = await deeds(web)
    assert (did, why) == (Did.DEAD_DISCARDED, "a test")
    assert what == f"2 of {CELL}: {', '.join(sorted(names[:2]))}"


async def test_two_people_send_an_entry_once(web: Web, site: Site) -> None:
    name = await buried(site)
    both = await asyncio.gather(send(web, name), send(web, name))
    assert sorted("sent as" in one.text for one in both) == [False, True]
    assert sum(GONE in one.text for one in both) == 1
    assert len(await sent(site)) == 1


async def test_viewers_send_and_discard_nothing(web: Web, site: Site) -> None:
    name = await buried(site)
    await web.sign_in(Role.VIEW, "bia")
    for path in ("/dead/send", "/dead/discard"):
        answer = await web.post(path, {f"entry.{name}": "on"}, cell=CELL)
        assert answer.status_code == 403
    assert await DeadList(site.steps, CELL).size() == 1
