"""Sign in and out, one-time links, the language of the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from dialer.domain.people import Did, Link
from dialer.domain.roles import Role
from dialer.passwords import hashed
from dialer.store.people import People
from dialer.web.access import COOKIE, LANGUAGE_COOKIE
from dialer.web.app import application
from tests.integration.web_site import ORIGIN, Web, settings_at, web_site

PASSWORD = "correct horse battery"
NEW = "another horse battery"


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    async with web_site(settings_at(redis_url, tmp_path)) as web:
        await web.site.people.put("ana", Role.OPERATE, hashed(PASSWORD), by="test")
        yield web


async def signed_in(web: Web, **fields: str) -> httpx.Response:
    return await web.post("/login", {"name": "ana", "password": PASSWORD} | fields)


async def did(web: Web) -> list[tuple[Did, str, str]]:
    people = web.site.people
    found = [*await people.failures(5), *await people.deeds(5)]
    return [(deed.did, deed.by, deed.what) for deed in found]


class RemovedInBetween(People):
    """People who remove the user ana right after a link was used."""

    __slots__ = ()

    async def use_link(self, token: str) -> Link | None:
        found = await People.use_link(self, token)
        await self.remove("ana", "boss")
        return found


async def test_form_has_what_password_managers_need(web: Web) -> None:
    html = await web.shown("/login?next=/dead%3Fcell%3DX")
    assert 'autocomplete="username"' in html
    assert 'autocomplete="current-password"' in html
    assert 'name="next" value="/dead?cell=X"' in html


async def test_right_password_leads_back(web: Web) -> None:
    response = await signed_in(web, next="/dead?cell=X")
    assert response.status_code == 303
    assert response.headers["location"] == "/dead?cell=X"
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    for part in ("HttpOnly", "Secure", "Path=/", "SameSite=strict"):
        assert part.casefold() in cookie.casefold()
    assert "max-age" not in cookie.casefold()
    assert "domain" not in cookie.casefold()
    assert (await did(web))[0] == (Did.SIGNED_IN, "ana", "127.0.0.1")
    assert "ana" in await web.shown("/")


async def test_wrong_password_and_unknown_name_look_the_same(web: Web) -> None:
    wrong = await signed_in(web, password="wrong")
    unknown = await signed_in(web, name="bob")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace("ana", "bob") == unknown.text
    assert "Name or password is wrong." in wrong.text
    assert "set-cookie" not in wrong.headers
    assert (await did(web))[:2] == [
        (Did.SIGN_IN_FAILED, "unknown name", "127.0.0.1"),
        (Did.SIGN_IN_FAILED, "ana", "127.0.0.1"),
    ]


async def test_password_in_the_field_for_the_name_is_not_kept(web: Web) -> None:
    await signed_in(web, name=PASSWORD)
    assert PASSWORD not in repr(await web.site.people.deeds(10))


async def test_user_without_password_cannot_sign_in(web: Web) -> None:
    await web.site.people.put("bob", Role.VIEW, None, by="test")
    for password in ("", "-", PASSWORD):
        assert (await signed_in(web, name="bob", password=password)).status_code == 401


async def test_sign_out_ends_the_session(web: Web) -> None:
    await web.sign_in(Role.VIEW)
    token = web.client.cookies[COOKIE]
    response = await web.post("/logout")
    assert response.status_code == 303
    assert response.headers["location"] == "/login"
    assert COOKIE not in web.client.cookies
    assert (await did(web))[0][0] is Did.SIGNED_OUT
    assert await web.site.people.session(token) is None


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("http://dialer.test", 403),
        ("http://192.0.2.1:8080", 403),
        ("http://127.evil.test", 403),
        ("http://localhost.evil.test", 403),
        ("http://localhost:8080", 200),
        ("http://127.0.0.1:8080", 200),
        ("http://[::1]:8080", 200),
    ],
)
async def test_plain_http_is_only_for_this_host(web: Web, host: str, status: int) -> None:
    for path in ("/login", "/login?link=x"):
        response = await web.client.get(f"{host}{path}")
        assert response.status_code == (410 if "link" in path and status == 200 else status)
        assert ("reverse proxy with TLS" in response.text) is (status == 403)
    form = {"name": "ana", "password": PASSWORD}
    response = await web.client.post(f"{host}/login", data=form, headers={"Origin": host})
    assert response.status_code == (303 if status == 200 else 403)


async def test_link_that_enters_works_once(web: Web) -> None:
    token = await web.site.people.new_link("ana", Role.OPERATE, enters=True)
    for _ in range(3):  # a look, also by a mail scanner, uses nothing up
        assert "Sign in as ana" in await web.shown(f"/login?link={token}")
    assert (await web.post("/login", link=token)).status_code == 303
    assert "ana" in await web.shown("/")
    web.client.cookies.clear()
    again = await web.post("/login", link=token)
    assert again.status_code == 410
    assert "dialer users link NAME" in again.text.replace("&#39;", "'")
    assert (await web.get(f"/login?link={token}")).status_code == 410


async def test_first_link_makes_a_user(web: Web) -> None:
    await web.site.people.remove("ana", "test")
    token = await web.site.people.new_link("", Role.ADMIN)
    form = {"link": token, "name": "root", "password": NEW, "again": NEW}
    assert (await web.post("/login", form)).status_code == 303
    user = await web.site.people.user("root")
    assert user is not None
    assert (user.role, user.by, user.has_password) == (Role.ADMIN, "root", True)
    web.client.cookies.clear()
    assert (await signed_in(web, name="root", password=NEW)).status_code == 303


async def test_two_first_links_make_one_user(web: Web) -> None:
    await web.site.people.remove("ana", "test")
    tokens = [await web.site.people.new_link("", Role.ADMIN) for _ in range(3)]
    form = {"password": NEW, "again": NEW}
    posts = [web.post("/login", form, link=token, name=f"root-{token}") for token in tokens]
    codes = sorted([answer.status_code for answer in await asyncio.gather(*posts)])
    assert codes == [303, 410, 410]
    assert len(await web.site.people.users()) == 1


async def test_user_removed_in_between_does_not_come_back(web: Web) -> None:
    steps = web.site.people.steps
    app = application(replace(web.site, people=RemovedInBetween(steps)))
    token = await web.site.people.new_link("ana", Role.ADMIN)
    form = {"link": token, "password": NEW, "again": NEW}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        answer = await client.post("/login", data=form, headers={"Origin": ORIGIN})
    assert answer.status_code == 410
    assert await web.site.people.user("ana") is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "a b"}, "cannot be the name of a user"),
        ({"name": "<b>"}, "&lt;b&gt;"),
        ({"again": "another"}, "The two passwords differ."),
        ({"password": "short", "again": "short"}, "5 characters"),
        ({"password": ""}, "The two passwords differ."),
    ],
)
async def test_wrong_form_does_not_use_the_link_up(
    web: Web, fields: dict[str, str], sentence: str
) -> None:
    await web.site.people.remove("ana", "test")
    token = await web.site.people.new_link("", Role.VIEW)
    form = {"link": token, "name": "bob", "password": NEW, "again": NEW}
    response = await web.post("/login", form | fields)
    assert response.status_code == 422
    assert sentence in response.text
    assert NEW not in response.text
    assert await web.site.people.is_empty()
    assert (await web.post("/login", form)).status_code == 303


async def test_link_of_a_user_sets_only_that_password(web: Web) -> None:
    token = await web.site.people.new_link("ana", Role.ADMIN)
    form = {"link": token, "name": "bob", "password": NEW, "again": NEW}
    assert (await web.post("/login", form)).status_code == 303
    assert await web.site.people.user("bob") is None
    user = await web.site.people.user("ana")
    assert user is not None
    assert user.role is Role.OPERATE  # as it is now, not as it was in the link
    web.client.cookies.clear()
    assert (await signed_in(web)).status_code == 401
    assert (await signed_in(web, password=NEW)).status_code == 303


async def test_link_enters_no_removed_user(web: Web) -> None:
    await web.site.people.put("boss", Role.ADMIN, None, by="test")
    token = await web.site.people.new_link("ana", Role.OPERATE, enters=True)
    await web.site.people.remove("ana", "boss")
    assert (await web.post("/login", link=token)).status_code == 410
    assert COOKIE not in web.client.cookies


async def test_link_of_another_shape_does_not_ask_redis(web: Web) -> None:
    for token in ("", "x", "x" * 42, "x" * 44, "ü" * 43, "x" * 100_000):
        response = await web.post("/login", link=token)
        assert response.status_code == 410


async def test_language_is_kept_for_a_year(web: Web) -> None:
    response = await web.get("/language?to=pt_BR&back=/login%3Fnext%3D/dead")
    assert response.status_code == 303
    assert response.headers["location"] == "/login?next=/dead"
    cookie = response.headers["set-cookie"].casefold()
    assert cookie.startswith(f"{LANGUAGE_COOKIE}=pt_BR".casefold())
    for part in ("httponly", "secure", "samesite=lax", "max-age=31536000", "path=/"):
        assert part in cookie
    assert 'lang="pt-BR"' in await web.shown("/login")


async def test_unknown_language_is_not_kept(web: Web) -> None:
    for to in ("xx", "", "pt_BR%0d%0aX: y", "../../etc"):
        response = await web.get(f"/language?to={to}&back=//evil.test")
        assert response.headers["location"] == "/"
        assert "set-cookie" not in response.headers


async def test_language_form_leads_back_to_the_link(web: Web) -> None:
    token = await web.site.people.new_link("bob", Role.VIEW)
    assert f'name="back" value="/login?link={token}"' in await web.shown(f"/login?link={token}")


async def test_form_from_elsewhere_signs_nobody_in(web: Web) -> None:
    form = {"name": "ana", "password": PASSWORD}
    for headers in ({}, {"Origin": "https://evil.test"}, {"Origin": "null"}):
        response = await web.client.post("/login", data=form, headers=headers)
        assert response.status_code == 403
