"""One-time links: they sign a user in, or let a person choose name and password.

A link is used up only when everything in the form is right.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dialer.domain.people import Link, require_name
from dialer.errors import DialerError
from dialer.passwords import require_good
from dialer.web.access import TOKEN_LENGTH
from dialer.web.pages.new_session import signed_in
from dialer.web.rendering import page
from dialer.web.site import site_of


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
    name = link.name or request.state.form.get("name", "")
    try:
        wrong = await _wrong(request, link, name)
    except DialerError as error:
        return _shown(request, token, link, name=name, sentence=str(error), status=422)
    if wrong:
        return _shown(request, token, link, name=name, wrong=wrong, status=422)
    return await _join(request, token, link, name)


async def _wrong(request: Request, link: Link, name: str) -> str:
    """Return what is wrong with name or password, '' if nothing.

    Raises:
        DialerError: a user cannot have that name or password.
    """
    form = request.state.form
    require_name(name)
    if not link.name and await site_of(request).people.user(name) is not None:
        return "taken"
    if form.get("password") != form.get("again"):
        return "differ"
    require_good(form.get("password", ""))
    return ""


async def _join(request: Request, token: str, link: Link, name: str) -> Response:
    """Set the password, and sign in. A user who is there keeps the role."""
    site = site_of(request)
    kept = await site.attempts.hashed(request.state.form["password"])
    if await site.people.use_link(token) is None:
        return _over(request)
    if link.name and await site.people.user(name) is not None:
        await site.people.set_password(name, kept, name)
    elif not await site.people.add(name, link.role, kept, by=name):
        return _over(request)  # somebody took the name in the meantime
    return await _enter_as(request, name)


async def _enter(request: Request, token: str, link: Link) -> Response:
    if await site_of(request).people.use_link(token) is None:
        return _over(request)
    return await _enter_as(request, link.name)


async def _enter_as(request: Request, name: str) -> Response:
    user = await site_of(request).people.user(name)
    return _over(request) if user is None else await signed_in(request, user, "/")


async def _looked_at(request: Request, token: str) -> Link | None:
    if len(token) != TOKEN_LENGTH or not token.isascii():
        return None  # Redis is not asked
    return await site_of(request).people.link(token)


def _shown(
    request: Request, token: str, link: Link, *, status: int = 200, **more: Any
) -> HTMLResponse:
    context = {"name": link.name, "wrong": "", "sentence": ""} | more
    return page(request, "link.html", status=status, link=link, token=token,
                query=f"link={token}", **context)  # fmt: skip


def _over(request: Request) -> HTMLResponse:
    return page(request, "link.html", status=410, link=None, query="")
