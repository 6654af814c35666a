"""Redis answers and refuses writes: people still look, and every order says it at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from dialer.domain.people import Did
from dialer.domain.roles import Role
from dialer.passwords import hashed
from dialer.simulation.valkey import EmbeddedValkey
from dialer.web.access import COOKIE, SESSION_WITHIN_S
from tests.integration.cell_rig import CELL, Site
from tests.integration.web_site import Web, settings_at, web_site
from tests.waiting import SOON_S

PASSWORD = "correct horse battery"
NEW = "another horse battery"

#: Settings with which a server refuses writes, and those with which it takes them.
REFUSING = {"min-replicas-to-write": ("1", "0"), "maxmemory": ("1", "0")}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedValkey() as server:
        yield server.url()


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        yield redis
        for name, (_, taking) in REFUSING.items():
            await redis.config_set(name, taking)


@pytest.fixture
async def web(url: str, redis: Redis, tmp_path: Path) -> AsyncIterator[Web]:
    async with web_site(settings_at(url, tmp_path)) as web:
        await web.site.people.put("root", Role.ADMIN, hashed(PASSWORD), by="test")
        await web.sign_in(Role.ADMIN, "ana")
        yield web


async def refuse(redis: Redis, name: str) -> None:
    await redis.config_set(name, REFUSING[name][0])


async def take(redis: Redis, name: str) -> None:
    await redis.config_set(name, REFUSING[name][1])


def says_why(answer: httpx.Response, status: int) -> bool:
    return answer.status_code == status and "refuses to write" in answer.text


@pytest.mark.parametrize("name", REFUSING)
async def test_people_look_while_redis_refuses_writes(web: Web, redis: Redis, name: str) -> None:
    await refuse(redis, name)
    for path in ("/", f"/cells/{CELL}", "/queues", "/changes", "/users"):
        began = time.monotonic()
        assert (await web.get(path)).status_code == 200, path
        assert time.monotonic() - began < SOON_S


async def test_a_session_that_has_ended_is_none_while_redis_refuses(web: Web, redis: Redis) -> None:
    token = web.client.cookies[COOKIE]
    await web.site.people.put("ana", Role.VIEW, None, by="root")
    await refuse(redis, "min-replicas-to-write")
    async with asyncio.timeout(SESSION_WITHIN_S):
        assert await web.site.people.session(token) is None


@pytest.mark.parametrize("name", REFUSING)
async def test_a_sign_in_that_redis_refuses_is_said_at_once(
    web: Web, redis: Redis, name: str
) -> None:
    people = web.site.people
    entering = await people.new_link("ana", Role.ADMIN, enters=True)
    setting = await people.new_link("bob", Role.VIEW)
    await refuse(redis, name)
    web.client.cookies.clear()
    forms = (
        {"name": "root", "password": PASSWORD},
        {"name": "root", "password": "wrong"},
        {"link": entering},
        {"link": setting, "password": NEW, "again": NEW},
    )
    for form in forms:
        began = time.monotonic()
        answer = await web.post("/login", form)
        assert time.monotonic() - began < SOON_S
        assert says_why(answer, 503), answer.text
        assert COOKIE not in web.client.cookies
    await take(redis, name)
    assert (await web.post("/login", {"link": entering})).status_code == 303
    assert (await web.post("/login", forms[3])).status_code == 303, "the link was not used up"
    assert (await web.post("/login", forms[0])).status_code == 303
    did = [(deed.did, deed.by) for deed in await people.deeds(9)]
    assert did.count((Did.SIGNED_IN, "root")) == 1


@pytest.mark.parametrize("name", REFUSING)
async def test_users_do_not_change_after_redis_refused_it(
    web: Web, redis: Redis, name: str
) -> None:
    people = web.site.people
    await people.put("eva", Role.VIEW, hashed(PASSWORD), by="test")
    before = await people.users()
    await refuse(redis, name)
    new = {"name": "bob", "role": "view", "password": NEW, "again": NEW}
    for path, form in (
        ("/users/add", new),
        ("/users/role", {"name": "eva", "role": "operate"}),
        ("/users/link", {"name": "eva"}),
        ("/users/remove", {"name": "eva"}),
    ):
        began = time.monotonic()
        assert says_why(await web.post(path, form), 409), path
        assert time.monotonic() - began < SOON_S
    await take(redis, name)
    assert await people.users() == before


async def test_a_sign_out_that_redis_refuses_is_said(web: Web, redis: Redis) -> None:
    await refuse(redis, "min-replicas-to-write")
    assert says_why(await web.post("/logout"), 409)
    assert (await web.get("/")).status_code == 200, "still signed in"


async def test_a_sign_out_without_a_trail_is_one(web: Web, redis: Redis) -> None:
    token = web.client.cookies[COOKIE]
    await refuse(redis, "maxmemory")  # Redis still deletes
    assert (await web.post("/logout")).status_code == 303
    assert await web.site.people.session(token) is None


async def test_a_call_is_hung_up_while_redis_refuses_writes(
    web: Web, redis: Redis, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[tuple[str, str]] = []
    monkeypatch.setattr("dialer.hangup.hang_up", lambda *order: orders.append(order))
    async with Site(url) as site:
        await site.accepted("r-1")
        await refuse(redis, "min-replicas-to-write")
        began = time.monotonic()
        answer = await web.post("/calls/hangup", cell=CELL, id="r-1", why="annoyed")
        assert time.monotonic() - began < SOON_S
        assert answer.status_code == 200
        assert "The call was hung up, but the trail has nothing of it" in answer.text
        assert orders == [(f"{CELL}:r-1", "pbx01")]
        number = await web.post("/calls/number", cell=CELL, id="r-1")
        assert says_why(number, 409), "nobody sees a number without a trace"
