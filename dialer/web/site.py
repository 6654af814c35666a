"""What all pages share: the settings, the newest snapshot, the people and the open connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from starlette.requests import Request

from dialer.domain.roles import Role
from dialer.errors import StoreUnavailable
from dialer.monitor.collector import Collector
from dialer.settings import Settings
from dialer.steering import Steering
from dialer.store.client import cancel
from dialer.store.people import People, Session
from dialer.store.steps import Steps
from dialer.web.attempts import Attempts
from dialer.web.hub import Hub
from dialer.web.texts import Texts

#: Redis has so long for one operation of a page, in seconds.
WITHIN_S: Final = 5.0

#: A Redis that was unavailable until now has so long to take a write, in seconds.
AGAIN_WITHIN_S: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """`file` are the settings of dialer.toml; those in force are in each look of the hub."""

    file: Settings
    collector: Collector
    hub: Hub
    people: People
    attempts: Attempts = field(default_factory=Attempts)

    def steering(self, by: str) -> Steering:
        """Return the operations of one person on live parameters."""
        return Steering(store=self.collector.parameters, file=self.file, by=by)

    def steps_of(self, cell: str) -> Steps:
        """Return the steps of a cell's Redis.

        Raises:
            ConfigError: there is no such cell.
        """
        return self.collector.steps_at(self.file.cell_redis_url(self.file.cell(cell)))

    @property
    def zone(self) -> str:
        """Time zone of pages that are of no single cell: that of the first cell."""
        return self.file.cells[0].limits.time_zone if self.file.cells else "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who asks. `session` is None for somebody who has not signed in."""

    session: Session | None
    texts: Texts
    address: str

    @property
    def name(self) -> str:
        """Name for the audit trail, '' without a session."""
        return self.session.user.name if self.session is not None else ""

    def may(self, needed: Role) -> bool:
        """True if the visitor has signed in and has this role, or a greater one."""
        return self.session is not None and self.session.user.role.may(needed)


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    return cast("Site", request.app.state.site)


def visitor_of(request: Request) -> Visitor:
    """Return who asks; `access` found out."""
    return cast("Visitor", request.state.visitor)


async def done_or_refused(steps: Steps, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, which writes by these steps; cancel it if the server does not take it.

    The steps alone would wait until the server takes writes again.

    Raises:
        StoreUnavailable: the server refuses writes, or does not answer; the sentence says why.
    """
    working = asyncio.ensure_future(work)
    try:
        if steps.is_down:  # perhaps no longer: nobody may have asked it since
            await asyncio.wait({working}, timeout=AGAIN_WITHIN_S)
        else:
            await steps.wait_done_or_down(working)
        if working.done():
            return working.result()
        obstacle = steps.obstacle
        raise StoreUnavailable(obstacle.reason if obstacle else f"{steps.where} is too slow")
    finally:
        await cancel([working])
