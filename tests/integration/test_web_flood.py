"""Many requests of strangers, and the headers of every kind of answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from dialer.domain.roles import Role
from dialer.store.client import connect
from dialer.store.keys import PROBE
from dialer.web.access import COOKIE, FORM_MAX
from dialer.web.attempts import Attempts
from dialer.web.rendering import HEADERS
from tests.integration.web_site import CELL, ORIGIN, Web, settings_at, web_site
from tests.integration.web_stream import first_event

FLOOD: Final = 2_000
AT_ONCE: Final = 100


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def web(redis_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    attempts = Attempts(verify=lambda password_hash, password: False)
    async with web_site(settings_at(redis_url, tmp_path), attempts=attempts) as web:
        yield web


@dataclass(frozen=True, slots=True)
class Load:
    """What Redis says of its connections, and of its keys but the probe, which comes and goes."""

    connections: int
    ever: int
    keys: int


async def load_of(redis: Redis) -> Load:
    clients, stats = await redis.info("clients"), await redis.info("stats")
    return Load(
        connections=int(clients["connected_clients"]),
        ever=int(stats["total_connections_received"]),
        keys=len({*await redis.keys()} - {PROBE.encode()}),
    )


async def flooded(n: int, ask: Callable[[int], Coroutine[Any, Any, httpx.Response]]) -> set[int]:
    """Ask so often, many at once; return the statuses of the answers."""
    found = set()
    for start in range(0, n, AT_ONCE):
        answers = await asyncio.gather(*(ask(k) for k in range(start, start + AT_ONCE)))
        found |= {answer.status_code for answer in answers}
    return found


async def test_strangers_open_no_connection_to_redis(web: Web, redis: Redis) -> None:
    paths = ["/", "/healthz", "/login", "/events?page=/", f"/cells/{CELL}", "/nothing"]
    await web.get("/healthz")
    before = await load_of(redis)
    statuses = await flooded(FLOOD, lambda n: web.get(paths[n % len(paths)]))
    assert statuses == {200, 303, 401, 404}
    assert await load_of(redis) == before


async def test_random_cookies_open_no_connection_and_leave_no_key(web: Web, redis: Redis) -> None:
    paths = ["/", f"/cells/{CELL}", "/events?page=/"]
    await web.get("/healthz")
    before = await load_of(redis)

    async def ask(n: int) -> httpx.Response:
        headers = {"Cookie": f"{COOKIE}={secrets.token_urlsafe(32)}"}
        return await web.client.get(paths[n % len(paths)], headers=headers)

    statuses = await flooded(600, ask)
    assert statuses - {503} == {303, 401}  # 503: on a busy machine some wait too long
    assert await load_of(redis) == before


async def test_random_links_open_no_connection_and_leave_no_key(web: Web, redis: Redis) -> None:
    await web.get("/healthz")
    before = await load_of(redis)
    statuses = await flooded(300, lambda _: web.get(f"/login?link={secrets.token_urlsafe(32)}"))
    statuses |= await flooded(300, lambda _: web.post("/login", link=secrets.token_urlsafe(32)))
    assert statuses == {410}
    assert await load_of(redis) == before


async def test_random_names_leave_a_bounded_trail(web: Web, redis: Redis) -> None:
    await web.get("/healthz")
    before = await load_of(redis)

    async def ask(n: int) -> httpx.Response:
        transport = httpx.ASGITransport(app=web.app, client=(f"10.{n // 250}.{n % 250}.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            form = {"name": f"user{n}", "password": "x"}
            return await client.post("/login", data=form, headers={"Origin": ORIGIN})

    assert await flooded(300, ask) <= {401, 429}
    after = await load_of(redis)
    assert (after.connections, after.ever) == (before.connections, before.ever)
    assert len(await web.site.people.failures(1_000)) == 10
    assert after.keys <= before.keys + 11  # the trail, and the replies to its deeds


async def test_forms_of_strangers_need_no_redis(web: Web, redis: Redis) -> None:
    await web.get("/healthz")
    before = await load_of(redis)
    body, headers = b"a=" + b"b" * FORM_MAX, {"Origin": ORIGIN}
    statuses = await flooded(
        100, lambda _: web.client.post("/login", content=body, headers=headers)
    )
    assert statuses == {403}
    assert await load_of(redis) == before


# --- headers ---------------------------------------------------------------------------------


def require_headers(headers: Any, *, is_static: bool = False) -> None:
    for name, value in HEADERS.items():
        if not (is_static and name == "Cache-Control"):
            assert headers[name] == value
    for name in ("server", "x-powered-by"):
        assert name not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 303),
        ("HEAD", "/", 303),
        ("GET", "/login", 200),
        ("GET", "/login?link=x", 410),
        ("GET", "/language?to=en", 303),
        ("GET", "/healthz", 200),
        ("GET", "/events", 401),
        ("GET", "/nothing", 404),
        ("GET", "/users/", 307),
        ("GET", "/static/nothing", 404),
        ("PUT", "/login", 405),
        ("POST", "/login", 403),
        ("POST", "/logout", 403),
    ],
)
async def test_every_answer_to_a_stranger_has_the_headers(
    web: Web, method: str, path: str, status: int
) -> None:
    response = await web.client.request(method, path)
    assert response.status_code == status
    require_headers(response.headers, is_static=path.startswith("/static/"))


@pytest.mark.parametrize("path", ["/", f"/cells/{CELL}", "/cells/NONE", "/users", "/password"])
async def test_every_page_has_the_headers(web: Web, path: str) -> None:
    await web.sign_in(Role.ADMIN)
    require_headers((await web.get(path)).headers)


@pytest.mark.parametrize("name", ["page.js", "page.css", "icon.svg"])
async def test_static_files_have_the_headers(web: Web, name: str) -> None:
    response = await web.get(f"/static/{name}")
    assert response.status_code == 200
    require_headers(response.headers, is_static=True)


@pytest.mark.parametrize("path", ["..%2fapp.py", "../app.py", "%2e%2e/app.py", "..\\app.py"])
async def test_only_static_files_are_static(web: Web, path: str) -> None:
    response = await web.get(f"/static/{path}")
    assert response.status_code == 404


async def test_stream_has_the_headers(web: Web) -> None:
    await web.sign_in(Role.VIEW)
    stream = await first_event(web, "/")
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    require_headers(stream.headers)


async def test_failed_page_has_the_headers_and_says_nothing(web: Web) -> None:
    async def failing() -> Any:
        raise RuntimeError("a secret of the program")

    await web.sign_in(Role.VIEW)
    web.site.hub.read = failing
    transport = httpx.ASGITransport(app=web.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url=ORIGIN, cookies=web.client.cookies
    ) as client:
        response = await client.get("/")
    assert response.status_code == 500
    assert "a secret" not in response.text
    require_headers(response.headers)
