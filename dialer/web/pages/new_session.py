"""How a session begins: always with a fresh token, whatever cookie the browser had."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dialer.domain.people import Deed, Did, User
from dialer.web.access import sign_in, token_of
from dialer.web.site import site_of, visitor_of


async def signed_in(request: Request, user: User, to: str) -> Response:
    """Note that somebody signed in, and begin a session."""
    address = visitor_of(request).address
    await site_of(request).people.note(Deed(by=user.name, did=Did.SIGNED_IN, what=address))
    return await with_new_session(request, user, to)


async def with_new_session(request: Request, user: User, to: str) -> Response:
    """Begin a session, end the one that the browser had, and go to a path of this site."""
    people = site_of(request).people
    if old := token_of(request):
        await people.end_session(old)
    response = RedirectResponse(to, status_code=303)
    sign_in(response, await people.begin_session(user))
    return response


def can_keep_cookie(request: Request) -> bool:
    """True if the browser keeps the cookie: over HTTPS, or on this host."""
    if request.url.scheme == "https":
        return True
    host = request.url.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
