"""Hostile texts in everything that others can fill, on every page; nothing of them is HTML."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from dialer.domain.limits import Limit
from dialer.domain.parameters import Edit, Subject, Value
from dialer.domain.people import Deed, Did
from dialer.domain.roles import Role
from dialer.store import keys
from dialer.store.ledger import DeadList
from dialer.web.app import pages
from tests.integration.cell_rig import Site as Rig
from tests.integration.test_web_security import path_of
from tests.integration.web_site import CELL, Web, settings_at, web_site
from tests.integration.web_stream import first_event

HOSTILE: Final = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>"""
ESCAPED: Final = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;&lt;img"

#: What only a text that is not escaped has.
PIECES: Final = ("<script>", "<img", "onerror=alert(1)>")

#: Attributes whose value is an address.
ADDRESSES: Final = {"href", "src", "action", "formaction", "xlink:href"}


class Elements(HTMLParser):
    """The elements of a page, as a browser finds them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def names_in_forms(self) -> set[str]:
        return {
            attrs["name"]
            for tag, attrs in self.found
            if tag in {"input", "select", "textarea", "button"} and "name" in attrs
        }


def require_harmless(html: str) -> None:
    """Fail if a text became an element, an attribute or a foreign address."""
    for piece in PIECES:
        assert piece not in html
    for tag, attrs in Elements(html).found:
        assert tag not in {"img", "iframe", "object", "embed", "base", "style"}
        assert tag != "script" or attrs == {"src": "/static/page.js", "defer": ""}
        for name, value in attrs.items():
            assert not name.startswith("on")
            assert name != "style"
            assert name not in ADDRESSES or re.match(r"[/#](?![/\\])", value) or value == "/"


@pytest.fixture
async def rig(redis_url: str) -> AsyncIterator[Rig]:
    async with Rig(redis_url) as rig:
        yield rig


@pytest.fixture
async def web(redis_url: str, tmp_path: Path, rig: Rig) -> AsyncIterator[Web]:
    async with web_site(settings_at(redis_url, tmp_path)) as web:
        await web.sign_in(Role.ADMIN)
        await poison_calls(rig)
        await poison_processes(rig)
        await poison_people(web)
        yield web


async def poison_calls(rig: Rig) -> None:
    """Put hostile texts into calls, the dead list and what is counted."""
    await rig.ledger.take_over(HOSTILE)
    await rig.accepted("up")
    await rig.admitted("done")
    await rig.claimed("done")
    await rig.end("done")
    ledger = rig.ledger.keys
    call: dict[Any, Any] = await rig.redis.hgetall(ledger.call(f"{CELL}:up"))
    request = json.dumps({"IdRequisicao": HOSTILE, "Telefone": HOSTILE})
    hostile = {"pbx": HOSTILE, "uniqueid": HOSTILE, "boot": HOSTILE, "request": request}
    for name, fields in (
        (HOSTILE, hostile),
        ("of-a-stranger", hostile | {"state": HOSTILE, "code_state": HOSTILE}),
        ("ended", {"state": "ended", "result": HOSTILE, "error": HOSTILE, "pbx": HOSTILE}),
    ):
        await rig.redis.hset(ledger.call(f"{CELL}:{name}"), mapping=call | fields)
        await rig.redis.zadd(ledger.live, {f"{CELL}:{name}": 2e12})
        await rig.redis.zadd(ledger.queued, {f"{CELL}:{name}": 1})
    story = await rig.field("done", "story")
    assert story is not None
    told = story.replace("pbx01", HOSTILE.replace(" ", "_"))
    await rig.redis.hset(ledger.call(f"{CELL}:done"), "story", told)
    await rig.redis.set(
        ledger.replaced("up"),
        json.dumps(dict.fromkeys(("replaces", "by", "at", "entry", "why"), HOSTILE)),
    )
    await rig.redis.rpush(ledger.dead, *dead_entries())
    await rig.redis.sadd(ledger.parking, HOSTILE)
    await rig.redis.rpush(ledger.parked(HOSTILE), HOSTILE)
    now_s, _ = await rig.redis.time()
    counted: dict[Any, Any] = {f"{HOSTILE.replace(' ', '_')} BUSY": 1, f"pbx01 {HOSTILE}": 1}
    await rig.redis.hset(ledger.minute(now_s // 60), mapping=counted)
    said = json.dumps({"reason": HOSTILE, "numbers": {"pbx": HOSTILE, "calls": HOSTILE}})
    entry = f"{now_s * 1000} {Limit.AMI_DOWN} {said}"
    await rig.redis.zadd(ledger.decisions, {entry: now_s * 1000})


def dead_entries() -> list[str]:
    """Return refused elements: in the form of ours, and in none."""
    element = json.dumps({"IdRequisicao": "r-1", "Telefone": HOSTILE, HOSTILE: HOSTILE})
    known = {"at": "2026-05-04T12:00:00.000Z", "source": "request", "reason": "invalid"}
    return [
        json.dumps(known | {"message": HOSTILE, "raw": element}),
        json.dumps(known | {"message": HOSTILE, "raw": HOSTILE}),
        json.dumps(dict.fromkeys(("at", "source", "reason", "message", "raw"), HOSTILE)),
        HOSTILE,
    ]


async def poison_processes(rig: Rig) -> None:
    """Put hostile texts into what workers and bridges say of themselves."""
    of_cell = json.dumps({CELL: HOSTILE})
    await rig.beat("pbx01", instance=HOSTILE, trouble=HOSTILE, lacking=of_cell, rival=HOSTILE)
    await rig.beat("pbx02", instance=HOSTILE, lacking=of_cell)
    now_s, _ = await rig.redis.time()
    await rig.redis.hset(keys.pbx("pbx02"), mapping={"rival": HOSTILE, "rival_ms": now_s * 1000})
    await rig.redis.hset(keys.bridge(HOSTILE), mapping={"skew_ms": 0, "broker": HOSTILE})
    holder = json.dumps({"name": HOSTILE, "host": HOSTILE, "pid": HOSTILE, "place": HOSTILE})
    await rig.redis.set(rig.ledger.keys.worker("pbx01"), holder)


async def poison_people(web: Web) -> None:
    """Put hostile texts into the trails."""
    store = web.site.collector.parameters
    cell = Subject("cell", CELL)
    changes: list[tuple[Subject, str, Value]] = [
        (cell, "threads", HOSTILE),
        (cell, "trunk", HOSTILE),
        (cell, "paused", True),
        (Subject("pbx", "pbx02"), "drained", True),
        (Subject("pbx", "pbx01"), "trunks", [HOSTILE]),
    ]
    for version, (subject, name, new) in enumerate(changes):
        edit = Edit(name=name, old=HOSTILE, new=new, was_live=True, is_live=True)
        await store.change(subject, [edit], version=version, by=HOSTILE, why=HOSTILE)
    await web.site.people.put("ana", Role.VIEW, None, by=HOSTILE)
    for did in Did:
        await web.site.people.note(Deed(by=HOSTILE, did=did, what=HOSTILE, why=HOSTILE))


# --- pages -----------------------------------------------------------------------------------


async def test_no_page_shows_hostile_texts_as_html(web: Web) -> None:
    shown = 0
    for page in pages():
        if page.method == "GET" and not page.is_stream:
            html = (await web.get(path_of(page))).text
            require_harmless(html)
            shown += ESCAPED in html
    assert shown >= 4


@pytest.mark.parametrize(
    "path", ["/", f"/cells/{CELL}", "/pbxs/pbx01", "/calls", "/changes", "/users", "/dead"]
)
async def test_hostile_texts_are_shown_as_text(web: Web, path: str) -> None:
    html = await web.shown(path)
    assert ESCAPED in html
    require_harmless(html)


@pytest.mark.parametrize("path", [page.path for page in pages() if page.method == "GET"])
async def test_no_query_is_shown_as_html(web: Web, path: str) -> None:
    names = {"id", "of", "server", "at", "cell", "name", "entry", "reason", "below", "next", "link",
             "to", "back", "page", "done", "sent", "discarded", "q", "trouble"}  # fmt: skip
    filled = re.sub(r"\{\w+(:\w+)?\}", quote(HOSTILE, safe=""), path)
    query = "&".join(f"{name}={quote(HOSTILE)}" for name in names)
    for address in (filled, f"{filled}?{query}", f"/{quote(HOSTILE)}"):
        response = await web.get(address)
        assert response.status_code != 500
        require_harmless(response.text)


@pytest.mark.parametrize("role", list(Role))
async def test_no_stream_sends_hostile_texts_as_html(web: Web, role: Role) -> None:
    await web.sign_in(role, "somebody")
    shown = 0
    for page in pages():
        if page.method != "GET" or page.is_stream:
            continue
        stream = await first_event(web, path_of(page))
        for line in stream.text.splitlines():
            if line.startswith("data: {"):
                html = json.loads(line.removeprefix("data: "))["html"]
                require_harmless(html)
                shown += ESCAPED in html
    assert shown >= 3


async def test_no_form_sends_hostile_texts_back_as_html(web: Web) -> None:
    names = {"name", "role", "password", "again", "old", "why", "cell", "id", "of", "back"}
    for page in pages():
        if page.method == "GET" and not page.is_stream:
            names |= Elements((await web.get(path_of(page))).text).names_in_forms()
    for entry in await DeadList(web.site.steps_of(CELL), CELL).newest(9):
        address = f"/dead/entry?cell={CELL}&entry={entry.name}&name={entry.name}"
        html = (await web.get(address)).text
        require_harmless(html)
        names |= Elements(html).names_in_forms()
    fields = dict.fromkeys(names - {"csrf", "link"}, HOSTILE)
    for page in pages():
        if page.method == "POST" and page.path != "/logout":
            for more in ({}, {"cell": CELL}):
                response = await web.post(path_of(page), fields | more)
                assert response.status_code != 500
                require_harmless(response.text)


# --- headers ---------------------------------------------------------------------------------

INJECTED: Final = "/x\r\nX-Injected: 1\r\nSet-Cookie: a=b"


@pytest.mark.parametrize(
    "path",
    [
        f"/login?next={quote(INJECTED)}",
        f"/language?to=pt_BR&back={quote(INJECTED)}",
        f"/language?to={quote(INJECTED)}&back=/",
        f"/calls?id={quote(INJECTED)}",
        f"/queues?server={quote(INJECTED)}",
        f"/cells/{quote(INJECTED, safe='')}",
        f"/calls/{CELL}/{quote(INJECTED, safe='')}",
        f"/{quote(INJECTED, safe='')}",
    ],
)
async def test_line_ends_in_an_address_make_no_header(web: Web, path: str) -> None:
    for is_signed_in in (True, False):
        if not is_signed_in:
            web.client.cookies.clear()
        require_sound_headers((await web.get(path)).headers.raw)


async def test_line_ends_in_forms_make_no_header(web: Web) -> None:
    fields = dict.fromkeys(("name", "next", "back", "cell", "id", "of", "why", "role"), INJECTED)
    for page in pages():
        if page.method == "POST" and page.path != "/logout":
            response = await web.post(path_of(page), fields, referer=quote(INJECTED))
            require_sound_headers(response.headers.raw)


@pytest.mark.parametrize(
    "to", ["//evil.test", "/\\evil.test", "https://evil.test/", "/\t/evil.test"]
)
async def test_no_page_leads_to_another_site(web: Web, to: str) -> None:
    await web.post(f"/cells/{CELL}/resume")
    answers = [
        await web.get(f"/language?to=en&back={quote(to, safe='')}"),
        await web.post(f"/cells/{CELL}/pause", back=to),
        await web.post(f"/cells/{CELL}/resume", referer=to),
    ]
    for response in answers:
        assert response.status_code == 303
        location = response.headers["location"]
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))
        assert "evil.test" not in location


def require_sound_headers(raw: list[tuple[bytes, bytes]]) -> None:
    for name, value in raw:
        assert b"\r" not in value
        assert b"\n" not in value
        assert name.lower() != b"x-injected"
        assert not (name.lower() == b"set-cookie" and value.startswith(b"a=b"))
