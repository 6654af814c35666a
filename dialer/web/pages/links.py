"""One-time links: they sign a user in, or let a person choose name and password.

A link is used up only when everything in the form is right.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dialer.domain.people import Link, NoSuchUser, require_name
from dialer.errors import DialerError
from dialer.passwords import require_good
from dialer.store.people import People
from dialer.web.access import is_token
from dialer.web.pages.new_session import signed_in
from dialer.web.rendering import page
from dialer.web.site import done_or_refused, site_of


async def form(request: Request, token: str) -> Response:
    """Show what the link is for. It stays."""
    link = await _looked_at(request, token)
    return _over(request) if link is None else _shown(request, token, link)


async def use(request: Request, token: str) -> Response:
    """Use the link, and sign in."""
    link = await _looked_at(request, token)
    if link is None:
        return _over(request)
    if link.enters:
        return await _enter(request, token, link)
    fields = request.state.form
    name, password = link.name or fields.get("name", ""), fields.get("password", "")
    try:
        require_name(name)
        if password != fields.get("again", ""):
            return _shown(request, token, link, name=name, has_two=True, status=422)
        require_good(password)
    except DialerError as error:
        return _shown(request, token, link, name=name, sentence=str(error), status=422)
    return await _join(request, token, link, name)


async def _join(request: Request, token: str, link: Link, name: str) -> Response:
    """Set the password, and sign in. A user who is there keeps the role."""
    site = site_of(request)
    kept = await site.attempts.hashed(request.state.form["password"])
    is_known = await site.people.user(name) is not None
    if not await _used_up(request, token):
        return _over(request)
    if not await done_or_refused(site.people.steps, _set(site.people, link, name, kept, is_known)):
        return _over(request)
    return await _enter_as(request, name)


async def _set(people: People, link: Link, name: str, kept: str, is_known: bool) -> bool:
    """Set the password of a new user, or of the one that `is_known`.

    Returns false if somebody added or removed the user since the link was used.
    """
    if not link.name:
        return await people.add_first(name, link.role, kept, by=name)
    if not is_known:
        return await people.add(name, link.role, kept, by=name)
    try:
        await people.set_password(name, kept, name)
    except NoSuchUser:
        return False
    return True


async def _used_up(request: Request, token: str) -> bool:
    """Use the link; return false if it is over.

    Raises:
        StoreUnavailable: Redis does not take it; the link stays.
    """
    people = site_of(request).people
    return await done_or_refused(people.steps, people.use_link(token)) is not None


async def _enter(request: Request, token: str, link: Link) -> Response:
    if not await _used_up(request, token):
        return _over(request)
    return await _enter_as(request, link.name)


async def _enter_as(request: Request, name: str) -> Response:
    user = await site_of(request).people.user(name)
    return _over(request) if user is None else await signed_in(request, user, "/")


async def _looked_at(request: Request, token: str) -> Link | None:
    return await site_of(request).people.link(token) if is_token(token) else None


def _shown(
    request: Request, token: str, link: Link, *, status: int = 200, **more: Any
) -> HTMLResponse:
    context = {"name": link.name, "has_two": False, "sentence": ""} | more
    return page(request, "link.html", status=status, link=link, token=token,
                query=f"link={token}", **context)  # fmt: skip


def _over(request: Request) -> HTMLResponse:
    return page(request, "link.html", status=410, link=None, query="")
