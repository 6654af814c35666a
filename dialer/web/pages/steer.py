"""What the buttons of pages do to cells and PBXs, and where the person is after it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dialer.domain.parameters import Subject
from dialer.errors import DialerError
from dialer.settings.problems import SettingsRefused
from dialer.steering import Made, Steering
from dialer.web.hub import NotRead
from dialer.web.paths import safe_path
from dialer.web.site import done_or_refused, site_of, visitor_of

#: Numbers of changes, as in addresses.
NUMBER: Final = re.compile(r"[0-9]{1,14}")


async def stop(request: Request, subject: Subject) -> Response:
    """Pause a cell, or drain a PBX."""
    await steered(request, lambda steering: steering.stop(subject, why=reason(request)))
    return await seen_at(request, way_back(request))


async def resume(request: Request, subject: Subject) -> Response:
    """End the pause of a cell, or the draining of a PBX."""
    await steered(request, lambda steering: steering.resume(subject, why=reason(request)))
    return await seen_at(request, way_back(request))


async def steered(
    request: Request, operation: Callable[[Steering], Coroutine[Any, Any, Made]]
) -> Made:
    """Do an operation in the name of the visitor.

    Raises:
        StoreUnavailable: Redis does not take it, and nothing is changed later.
    """
    site = site_of(request)
    work = operation(site.steering(visitor_of(request).name))
    return await done_or_refused(site.collector.registry, work)


def reason(request: Request) -> str:
    """Return why the person does it, '' if the form does not say."""
    found: str = request.state.form.get("why", "")
    return found.strip()


async def seen_at(request: Request, path: str) -> Response:
    """Go to a page that shows the change that was made."""
    with contextlib.suppress(NotRead):  # the change is made; that page says what is wrong
        await site_of(request).hub.now(max_age_s=0.0)
    return RedirectResponse(path, status_code=303)


def way_back(request: Request) -> str:
    """Return the path that the form names, else that of the page with the form, else `/`."""
    if back := safe_path(request.state.form.get("back", ""), ""):
        return back
    site = f"{request.url.scheme}://{request.headers.get('host', '')}"
    page = request.headers.get("referer", "")
    return safe_path(page.removeprefix(site)) if page.startswith(f"{site}/") else "/"


def number_in(text: str) -> int | None:
    """Return the number of a change in an address; None if it is none."""
    return int(text) if NUMBER.fullmatch(text) else None


def sentences(error: DialerError) -> list[str]:
    """Return what is wrong, one sentence each."""
    if isinstance(error, SettingsRefused):
        return [str(problem) for problem in error.problems]
    return [str(error)]
