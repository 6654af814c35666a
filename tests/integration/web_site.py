"""The real application of `dialer web` on a real Redis, and a browser without scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.types import ASGIApp

from dialer.domain.roles import Role
from dialer.monitor.collector import Collector
from dialer.settings import Settings, load
from dialer.store.people import People
from dialer.web.access import COOKIE
from dialer.web.app import application
from dialer.web.attempts import Attempts
from dialer.web.hub import Hub
from dialer.web.site import Site
from tests.processes import PbxPlace, site_toml

ORIGIN: Final = "https://dialer.test"
CELL: Final = "ASR_TIM"


@dataclass(slots=True)
class Web:
    """The application, and a browser that has the cookie of whoever signed in last."""

    site: Site
    client: httpx.AsyncClient
    app: ASGIApp
    csrf: str = field(default="")

    async def sign_in(self, role: Role = Role.VIEW, name: str = "") -> str:
        """Begin a session of a new user with that role; return the name."""
        name = name or f"{role}-user"
        await self.site.people.put(name, role, None, by="test")
        await self.sign_in_as(name)
        return name

    async def sign_in_as(self, name: str) -> None:
        """Begin a session of a user who is there."""
        user = await self.site.people.user(name)
        assert user is not None
        token = await self.site.people.begin_session(user)
        session = await self.site.people.session(token)
        assert session is not None
        self.csrf = session.csrf
        self.client.cookies.set(COOKIE, token, domain="dialer.test", path="/")

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Ask for a page."""
        return await self.client.get(path, headers=headers)

    async def post(
        self, path: str, fields: Mapping[str, Any] | None = None, *, referer: str = "", **more: Any
    ) -> httpx.Response:
        """Send a form of a page of this site. `referer` is the path of that page."""
        headers = {"Origin": ORIGIN} | ({"Referer": f"{ORIGIN}{referer}"} if referer else {})
        data = {"csrf": self.csrf, **(fields or {}), **more}
        return await self.client.post(path, data=data, headers=headers)

    async def shown(self, path: str) -> str:
        """Return the HTML of a page that must be there."""
        response = await self.get(path)
        assert response.status_code == 200, response.text
        return response.text


@asynccontextmanager
async def web_site(settings: Settings, *, attempts: Attempts | None = None) -> AsyncIterator[Web]:
    """Serve these settings. Every page is made of a new look at the system."""
    async with Collector(settings, needs_every_redis=False) as collector:
        site = Site(
            file=settings,
            collector=collector,
            hub=Hub(collector.look, every_s=0.0),
            people=People(collector.registry),
            attempts=attempts or Attempts(),
        )
        app = application(site)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            yield Web(site, client, app)


def settings_at(
    redis_url: str, folder: Path, *, cells: Mapping[str, Mapping[str, object]] | None = None
) -> Settings:
    """Return settings with two PBXs, `pbx01` and `pbx02`; by default with the cell `CELL`."""
    trunks = {"tim": "PJSIP/{number}@tim", "backup": "PJSIP/{number}@backup"}
    pbxs = [
        PbxPlace(name=name, port=5038, secret="x", max_calls=60, cps=20, trunks=trunks)
        for name in ("pbx01", "pbx02")
    ]
    path = folder / "dialer.toml"
    path.write_text(site_toml(redis_url, redis_url, pbxs, cells=cells or {CELL: {"threads": 50}}))
    return load(path)
