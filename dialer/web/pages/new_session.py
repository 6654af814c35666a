"""How a session begins: always with a fresh token, whatever cookie the browser had."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dialer.domain.people import Deed, Did, User
from dialer.web.access import sign_in, token_of
from dialer.web.site import done_or_refused, site_of, visitor_of


async def signed_in(request: Request, user: User, to: str) -> Response:
    """Begin a session, and note that somebody signed in.

    Raises:
        StoreUnavailable: Redis does not take it.
    """
    people, address = site_of(request).people, visitor_of(request).address
    # The browser has no session until it has this response.
    response = await with_new_session(request, user, to)
    deed = Deed(by=user.name, did=Did.SIGNED_IN, what=address)
    await done_or_refused(people.steps, people.note(deed))
    return response


async def with_new_session(request: Request, user: User, to: str) -> Response:
    """Begin a session, end the one that the browser had, and go to a path of this site.

    Raises:
        StoreUnavailable: Redis does not take it.
    """
    people = site_of(request).people
    if old := token_of(request):
        await done_or_refused(people.steps, people.end_session(old))
    response = RedirectResponse(to, status_code=303)
    sign_in(response, await done_or_refused(people.steps, people.begin_session(user)))
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
