"""Users on the web page, and the own password."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dialer.domain.people import Did
from dialer.domain.roles import Role
from dialer.passwords import hashed, is_right
from dialer.web.access import COOKIE
from tests.integration.web_site import ORIGIN, Web, settings_at, web_site

PASSWORD = "correct horse battery"
NEW = "another horse battery"
LINK = re.compile(r"https://dialer\.test(/login\?link=[\w-]{43})<")


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    async with web_site(settings_at(redis_url, tmp_path)) as web:
        await web.sign_in(Role.ADMIN, "boss")
        yield web


async def role_of(web: Web, name: str) -> Role | None:
    user = await web.site.people.user(name)
    return user.role if user is not None else None


async def test_users_are_listed(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, "hash", by="boss")
    html = await web.shown("/users")
    row = html[html.index('<th scope="row">ana') :]
    assert "<td>yes</td>" in row
    assert "<td>boss</td>" in row
    assert '<option value="view" selected>' in row


async def test_user_with_password_is_added(web: Web) -> None:
    form = {"name": "ana", "role": "operate", "password": NEW, "again": NEW}
    response = await web.post("/users/add", form)
    assert response.status_code == 303
    assert response.headers["location"] == "/users"
    assert await role_of(web, "ana") is Role.OPERATE
    assert is_right(await web.site.people.password_hash("ana"), NEW)
    deed, *_ = await web.site.people.deeds(1)
    assert (deed.did, deed.by) == (Did.USER_ADDED, "boss")


async def test_user_without_password_gets_a_link_that_is_shown_once(web: Web) -> None:
    form = {"name": "ana", "role": "view", "password": "", "again": ""}
    response = await web.post("/users/add", form)
    assert response.status_code == 200
    found = LINK.search(response.text)
    assert found is not None
    assert "link=" not in await web.shown("/users")
    assert 'value="ana"' in await web.shown(found[1])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"again": "x"}, "The two passwords differ."),
        ({"password": "short", "again": "short"}, "5 characters"),
        ({"name": ""}, "cannot be the name of a user"),
        ({"name": "x<i>"}, "x&lt;i&gt;"),
        ({"name": "boss"}, "There is a user of this name"),
        ({"role": "root"}, "There is no such role"),
        ({"role": ""}, "There is no such role"),
    ],
)
async def test_wrong_new_user_is_said_beside_the_form(
    web: Web, fields: dict[str, str], sentence: str
) -> None:
    form = {"name": "ana", "role": "operate", "password": NEW, "again": NEW} | fields
    response = await web.post("/users/add", form)
    assert response.status_code == 422
    assert response.text.index(sentence) > response.text.index('id="add"')
    assert NEW not in response.text
    assert [user.name for user in await web.site.people.users()] == ["boss"]
    if fields.keys().isdisjoint({"role", "name"}):
        assert 'name="name" value="ana"' in response.text
        assert '<option value="operate" selected>' in response.text


async def test_role_is_changed(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, None, by="boss")
    assert (await web.post("/users/role", name="ana", role="operate")).status_code == 303
    assert await role_of(web, "ana") is Role.OPERATE


async def test_changed_user_is_signed_out(web: Web) -> None:
    await web.sign_in(Role.ADMIN, "ana")
    await web.site.people.change_role("ana", Role.VIEW, "boss")
    response = await web.get("/")
    assert response.headers["location"].startswith("/login")


async def test_nobody_demotes_or_removes_himself(web: Web) -> None:
    await web.site.people.put("other", Role.ADMIN, None, by="boss")
    response = await web.post("/users/role", name="boss", role="view")
    assert response.status_code == 422
    assert "You cannot change your own role" in response.text
    response = await web.post("/users/remove", name="boss")
    assert response.status_code == 422
    assert "You cannot remove yourself" in response.text
    assert await role_of(web, "boss") is Role.ADMIN


async def test_user_is_removed(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, None, by="boss")
    assert (await web.post("/users/remove", name="ana")).status_code == 303
    assert await role_of(web, "ana") is None


@pytest.mark.parametrize("path", ["/users/role", "/users/link", "/users/remove"])
@pytest.mark.parametrize("name", ["ana", "", "a\r\nb", "<script>", "x" * 5000])
async def test_change_of_nobody_is_said(web: Web, path: str, name: str) -> None:
    response = await web.post(path, name=name, role="view")
    assert response.status_code == 422
    assert 'class="trouble"' in response.text
    assert "<script>" not in response.text


async def test_new_link_is_for_that_user(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, "hash", by="boss")
    response = await web.post("/users/link", name="ana")
    found = LINK.search(response.text)
    assert found is not None
    assert 'value="ana"' in await web.shown(found[1])


async def test_own_password_is_changed(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, hashed(PASSWORD), by="boss")
    await web.sign_in_as("ana")
    before = web.client.cookies[COOKIE]
    assert 'autocomplete="current-password"' in await web.shown("/password")
    response = await web.post("/password", old=PASSWORD, password=NEW, again=NEW)
    assert response.status_code == 303
    assert web.client.cookies[COOKIE] != before
    assert await web.site.people.session(before) is None
    assert "ana" in await web.shown("/")
    assert is_right(await web.site.people.password_hash("ana"), NEW)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"old": "wrong"}, "The present password is wrong."),
        ({"again": "x"}, "The two passwords differ."),
        ({"password": "short", "again": "short"}, "5 characters"),
    ],
)
async def test_wrong_change_of_the_own_password_is_said(
    web: Web, fields: dict[str, str], sentence: str
) -> None:
    await web.site.people.put("ana", Role.VIEW, hashed(PASSWORD), by="boss")
    await web.sign_in_as("ana")
    form = {"old": PASSWORD, "password": NEW, "again": NEW} | fields
    response = await web.post("/password", form)
    assert response.status_code == 422
    assert sentence in response.text
    assert is_right(await web.site.people.password_hash("ana"), PASSWORD)


async def test_stolen_session_does_not_guess_the_password(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, hashed(PASSWORD), by="boss")
    await web.sign_in_as("ana")
    for _ in range(5):
        await web.post("/password", old="wrong", password=NEW, again=NEW)
    response = await web.post("/password", old=PASSWORD, password=NEW, again=NEW)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert "Too many failed attempts" in response.text


async def test_user_without_password_is_told_how_to_get_one(web: Web) -> None:
    assert "ask an administrator for a link" in await web.shown("/password")
    response = await web.post("/password", old="", password=NEW, again=NEW)
    assert response.status_code == 422


async def test_host_of_the_link_is_that_of_the_form(web: Web) -> None:
    await web.site.people.put("ana", Role.VIEW, None, by="boss")
    token = web.client.cookies[COOKIE]
    response = await web.client.post(
        "/users/link",
        data={"csrf": web.csrf, "name": "ana"},
        headers={"Origin": ORIGIN, "Host": "evil.test", "Cookie": f"{COOKIE}={token}"},
    )
    assert response.status_code == 403
