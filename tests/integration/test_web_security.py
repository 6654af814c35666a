"""Who gets through the doors of the web page: every page, also those that are added later."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import Mount, Route

from dialer.domain.roles import Role
from dialer.passwords import hashed
from dialer.web.access import COOKIE, FIELDS_MAX, FORM_MAX, Page, Refused, form_of
from dialer.web.app import application, pages
from dialer.web.attempts import Attempts
from tests.integration.web_site import CELL, ORIGIN, Web, settings_at, web_site

PASSWORD: Final = "correct horse battery"

#: Pages for everybody, and what each signed-in user may do.
FOR_ALL: Final = {"/healthz", "/language", "/login"}
FOR_VIEWERS: Final = {"/logout", "/password"}

#: What stands in the paths of pages.
NAMES: Final = {"cell": CELL, "pbx": "pbx01", "number": "1", "id": "r-1", "server": "127.0.0.1"}

PAGES: Final = pages()
GUARDED: Final = [page for page in PAGES if page.needs is not None]
CHANGES: Final = [page for page in GUARDED if page.method == "POST"]
FORMS: Final = [page for page in PAGES if page.method == "POST"]


@dataclass(slots=True)
class Verifier:
    """Counts how many passwords are verified."""

    asked: int = 0

    def __call__(self, password_hash: str | None, password: str) -> bool:
        self.asked += 1
        return password_hash is not None and password == PASSWORD


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
async def web(redis_url: str, tmp_path: Path, verifier: Verifier) -> AsyncIterator[Web]:
    attempts = Attempts(verify=verifier, key=b"the same buckets each time")
    async with web_site(settings_at(redis_url, tmp_path), attempts=attempts) as web:
        await web.site.people.put("root", Role.ADMIN, None, by="test")
        yield web


def title(page: Page) -> str:
    """Return the name of a page in the name of a test."""
    return f"{page.method} {page.path}"


def path_of(page: Page) -> str:
    """Return an address of the page."""
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: NAMES.get(found[1], "x"), page.path)


def from_address(web: Web, address: str) -> httpx.AsyncClient:
    """Return a browser on another host."""
    transport = httpx.ASGITransport(app=web.app, client=(address, 50_000))
    return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"Origin": ORIGIN})


# --- every page ------------------------------------------------------------------------------


def test_only_these_pages_are_for_everybody() -> None:
    assert {page.path for page in PAGES if page.needs is None} == FOR_ALL


def test_only_these_changes_need_no_operator() -> None:
    changes = {page.path for page in CHANGES if page.needs is Role.VIEW}
    assert changes == FOR_VIEWERS


async def test_no_route_is_outside_the_pages(web: Web) -> None:
    routes = application(web.site).app.routes  # type: ignore[attr-defined]
    assert [one.path for one in routes if isinstance(one, Mount)] == ["/static"]
    known = {(page.path, page.method) for page in pages()}
    found = {
        (one.path, method)
        for one in routes
        if isinstance(one, Route)
        for method in one.methods or ()
        if method != "HEAD"
    }
    assert found == known


@pytest.mark.parametrize("page", GUARDED, ids=title)
async def test_page_needs_a_login(web: Web, page: Page) -> None:
    for token in ("", "A" * 43, "A" * 42, "\xe9" * 43):
        cookie = f"{COOKIE}={token}".encode("latin-1")
        headers = [(b"Origin", ORIGIN.encode()), (b"Cookie", cookie)]
        response = await web.client.request(page.method, path_of(page), headers=headers)
        if page.method == "POST" or page.is_stream:
            assert response.status_code == 401
        else:
            assert response.status_code == 303
            assert response.headers["location"].startswith("/login?next=/")


@pytest.mark.parametrize("page", FORMS, ids=title)
async def test_change_needs_a_form_of_this_site(web: Web, page: Page) -> None:
    await web.sign_in(Role.ADMIN)
    for headers in (
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.test"},
        {"Origin": "http://dialer.test"},
        {"Origin": "https://dialer.test:8443"},
        {"Origin": "https://dialer.test.evil.test"},
        {"Origin": "https://evil.test", "Referer": f"{ORIGIN}/"},
        {"Referer": "https://evil.test/https://dialer.test/"},
        {"Referer": "https://dialer.test@evil.test/"},
        {"Referer": "http://["},
    ):
        response = await web.client.post(path_of(page), data={"csrf": web.csrf}, headers=headers)
        assert response.status_code == 403, headers
        assert "does not come from this page" in response.text


@pytest.mark.parametrize("page", CHANGES, ids=title)
async def test_change_needs_the_token_of_the_session(web: Web, page: Page) -> None:
    await web.sign_in(Role.ADMIN, "eve")
    of_eve = web.csrf
    await web.sign_in(Role.ADMIN, "bob")
    for token in ("", "x", of_eve, web.csrf[:-1], f"{web.csrf}x", "\xe9"):
        response = await web.post(path_of(page), csrf=token)
        assert response.status_code == 403
        assert "not of this session" in response.text
    response = await web.client.post(path_of(page), headers={"Origin": ORIGIN})
    assert response.status_code == 403


@pytest.mark.parametrize("page", GUARDED, ids=title)
async def test_page_needs_the_role(web: Web, page: Page) -> None:
    assert page.needs is not None
    for role in Role:
        if role.may(page.needs):
            continue
        await web.sign_in(role)
        path = path_of(page)
        response = await (web.post(path) if page.method == "POST" else web.get(path))
        assert response.status_code == 403
        assert f"This needs the role {page.needs}" in response.text


@pytest.mark.parametrize("page", PAGES, ids=title)
async def test_page_takes_only_its_methods(web: Web, page: Page) -> None:
    await web.sign_in(Role.ADMIN)
    known = {one.method for one in pages() if path_of(one) == path_of(page)}
    for method in {"PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"} - known:
        response = await web.client.request(method, path_of(page), headers={"Origin": ORIGIN})
        assert response.status_code == 405


# --- sessions --------------------------------------------------------------------------------


async def signed_in(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    form = {"name": "ana", "password": PASSWORD} | fields
    return await client.post("/login", data=form, headers={"Origin": ORIGIN})


async def test_cookie_that_an_attacker_chose_is_replaced(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, hashed(PASSWORD), by="test")
    chosen = "A" * 43
    web.client.cookies.set(COOKIE, chosen, domain="dialer.test", path="/")
    assert (await web.get("/")).status_code == 303
    assert (await signed_in(web.client)).status_code == 303
    assert web.client.cookies[COOKIE] != chosen
    assert await web.site.people.session(chosen) is None


async def test_session_of_an_attacker_ends_at_a_login(web: Web) -> None:
    await web.site.people.put("ana", Role.ADMIN, hashed(PASSWORD), by="test")
    await web.sign_in(Role.VIEW, "eve")
    planted = web.client.cookies[COOKIE]
    await signed_in(web.client)
    assert web.client.cookies[COOKIE] != planted
    assert await web.site.people.session(planted) is None
    session = await web.site.people.session(web.client.cookies[COOKIE])
    assert session is not None
    assert session.user.name == "ana"


async def test_each_login_has_its_own_token(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, hashed(PASSWORD), by="test")
    tokens = set()
    for _ in range(3):
        await signed_in(web.client)
        tokens.add(web.client.cookies[COOKIE])
    assert len(tokens) == 3


async def test_session_cannot_be_used_after_the_sign_out(web: Web) -> None:
    await web.sign_in(Role.ADMIN)
    token, csrf = web.client.cookies[COOKIE], web.csrf
    assert (await web.post("/logout")).status_code == 303
    web.client.cookies.set(COOKIE, token, domain="dialer.test", path="/")
    assert (await web.get("/")).headers["location"].startswith("/login")
    assert (await web.get("/events?page=/")).status_code == 401
    assert (await web.post("/users/add", csrf=csrf)).status_code == 401


# --- passwords are not guessed ---------------------------------------------------------------


async def test_guessing_is_stopped_and_nothing_is_verified(web: Web, verifier: Verifier) -> None:
    await web.site.people.put("ana", Role.VIEW, hashed(PASSWORD), by="test")
    await web.site.people.put("bob", Role.VIEW, hashed(PASSWORD), by="test")
    for n in range(5):
        assert (await signed_in(web.client, password=f"guess {n}")).status_code == 401
    for password in (PASSWORD, "guess"):
        response = await signed_in(web.client, password=password)
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= 61
        assert "Too many failed attempts" in response.text
        assert COOKIE not in web.client.cookies
    assert verifier.asked == 5
    assert (await signed_in(web.client, name="bob")).status_code == 303
    async with from_address(web, "203.0.113.9") as other:
        assert (await signed_in(other)).status_code == 303


async def test_guessing_from_many_hosts_is_stopped(web: Web, verifier: Verifier) -> None:
    await web.site.people.put("ana", Role.VIEW, hashed(PASSWORD), by="test")
    for n in range(60):
        async with from_address(web, f"10.0.0.{n}") as one:
            assert (await signed_in(one, password="guess")).status_code == 401
    async with from_address(web, "203.0.113.9") as one:
        assert (await signed_in(one)).status_code == 429
    assert verifier.asked == 60
    assert len(await web.site.people.failures(100)) == 10


async def test_forwarded_address_is_no_way_around(web: Web) -> None:
    statuses = []
    for n in range(6):
        headers = {"Origin": ORIGIN, "X-Forwarded-For": f"10.0.0.{n}"}
        form = {"name": "ana", "password": "guess"}
        statuses.append((await web.client.post("/login", data=form, headers=headers)).status_code)
    assert statuses == [401] * 5 + [429]


# --- forms -----------------------------------------------------------------------------------


async def test_form_that_is_too_long_is_refused(web: Web) -> None:
    headers = {"Origin": ORIGIN}
    for body in (
        b"name=" + b"a" * FORM_MAX,
        b"&".join(b"a%d=1" % n for n in range(FIELDS_MAX + 1)),
        b"name=\xff\xfe",
    ):
        response = await web.client.post("/login", content=body, headers=headers)
        assert response.status_code == 403


async def test_form_that_never_ends_is_refused() -> None:
    sent = 0

    async def endless() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": b"a" * 10_000, "more_body": True}

    with pytest.raises(Refused, match="too long"):
        await form_of(Request({"type": "http", "method": "POST", "headers": []}, endless))
    assert sent <= FORM_MAX // 10_000 + 1
