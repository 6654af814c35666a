"""The dead list on a real Redis: masked for viewers, corrected, sent and discarded by others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dialer.domain.parameters import Subject
from dialer.domain.people import Did
from dialer.domain.roles import Role
from dialer.multcall.keys import CellKeys
from dialer.settings import load
from dialer.store.keys import LedgerKeys
from dialer.store.ledger import DeadList
from dialer.web.pages.dead import actions, elements
from dialer.web.texts import NOTHING
from tests.integration.cell_rig import CELL, Site
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
    assert html.count("*********4321") == 4
    assert "2026-11-27 06:00:00" in html, "in the zone of the cell"
    assert "/dead/send" not in html
    assert await deeds(web) == []


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


async def test_a_slow_redis_leaves_the_rest(
    web: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [await buried(site, f"r-{n}") for n in range(3)]
    monkeypatch.setattr(actions, "SENDING_S", -1.0)
    answer = await send(web, *names)
    assert answer.text.count("not tried") == 3
    assert await sent(site) == []
    assert await deeds(web) == []


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
    assert answer.text.count("discarded</span>") == 2
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
