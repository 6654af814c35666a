"""Who may see and do what. Every page goes through `guarded`; there is no other way in.

A change needs a session with the role, the site's own Origin, and the token of the session in the
form. The cookie has the prefix `__Host-`: the browser sends it to this host only, and never over
a connection that others can read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, quote

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dialer.domain.roles import Role
from dialer.errors import ConfigError, DialerError
from dialer.store.people import Session
from dialer.web.rendering import message_page
from dialer.web.site import Visitor, site_of
from dialer.web.texts import language_for, n_, texts

COOKIE: Final = "__Host-dialer"
LANGUAGE_COOKIE: Final = "dialer-language"

#: Longest body of a form, in bytes, and most fields in it.
FORM_MAX: Final = 200_000
FIELDS_MAX: Final = 1_000

#: A browser has so long to send a form, and a page to answer, in seconds.
FORM_WITHIN_S: Final = 10.0
PAGE_WITHIN_S: Final = 15.0

#: Redis has so long to find a session, in seconds.
SESSION_WITHIN_S: Final = 3.0

#: Length of the token of a session or a link.
TOKEN_LENGTH: Final = 43

#: What is said to somebody without this role.
NEEDED: Final[Mapping[Role, str]] = {
    Role.VIEW: n_("This needs the role view: ask an administrator."),
    Role.OPERATE: n_("This needs the role operate: ask an administrator."),
    Role.ADMIN: n_("This needs the role admin: ask an administrator."),
}

Show = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A path with its function. `needs` is the role, None for everybody.

    A page with POST changes something. `is_stream`: it is asked by a script, not by a person.
    """

    path: str
    show: Show
    needs: Role | None = Role.VIEW
    method: str = "GET"
    is_stream: bool = False


class Refused(DialerError):
    """The form did not come from a page of this site, or is too long."""

    code = "refused"


def guarded(page: Page, *, within_s: float = PAGE_WITHIN_S) -> Show:
    """Return the page's function behind all checks. It answers within that time."""

    async def endpoint(request: Request) -> Response:
        # Known before anything can fail, so that errors are in the right language.
        request.state.visitor = visitor = stranger(request)
        try:
            async with asyncio.timeout(within_s):
                session = await session_of(request) if page.needs is not None else None
                return await _checked(page, request, replace(visitor, session=session))
        except Refused as error:
            return message_page(request, str(error), status=403)
        except ConfigError as error:  # no such cell, or a value that is not valid
            status = 404 if page.method == "GET" else 422
            return message_page(request, str(error), status=status)
        except DialerError as error:
            return message_page(request, str(error), status=503 if page.method == "GET" else 409)
        except (RedisError, OSError) as error:
            text = f"Redis does not answer ({str(error) or 'no answer in time'}): see that it runs"
            return message_page(request, text, status=503)

    return endpoint


def stranger(request: Request) -> Visitor:
    """Return who asks, as if without a session."""
    language = language_for(
        request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
    )
    address = request.client.host if request.client is not None else ""
    return Visitor(session=None, texts=texts(language), address=address)


async def _checked(page: Page, request: Request, visitor: Visitor) -> Response:
    request.state.visitor = visitor
    if page.method == "POST":
        require_own_origin(request)
        request.state.form = await form_of(request)
    if page.needs is None:
        return await page.show(request)
    if visitor.session is None:
        if page.is_stream or page.method != "GET":
            return message_page(request, n_("Your session has ended: sign in again."), status=401)
        query = f"?{request.url.query}" if request.url.query else ""
        asked = quote(request.scope["path"]) + query
        return RedirectResponse(f"/login?next={quote(asked)}", status_code=303)
    if page.method == "POST" and not _has_token(request.state.form, visitor.session):
        raise Refused(n_("The form is not of this session: load the page again."))
    if not visitor.may(page.needs):
        return message_page(request, NEEDED[page.needs], status=403)
    return await page.show(request)


async def session_of(request: Request) -> Session | None:
    """Return the session of the cookie, None if there is none."""
    if not (token := token_of(request)):
        return None  # Redis is not asked
    async with asyncio.timeout(SESSION_WITHIN_S):
        return await site_of(request).people.session(token)


def token_of(request: Request) -> str:
    """Return the token of the cookie, '' if there is none or it is of another shape."""
    token = request.cookies.get(COOKIE, "")
    return token if is_token(token) else ""


def is_token(text: str) -> bool:
    """True if a text has the shape of a token; Redis is not asked for others."""
    return len(text) == TOKEN_LENGTH and text.isascii()


def require_own_origin(request: Request) -> None:
    """Check that the browser sends the form from a page of this site.

    Raises:
        Refused: it says another origin, or none.
    """
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    origin, referer = request.headers.get("origin", ""), request.headers.get("referer", "")
    if origin != own and (origin or not referer.startswith(f"{own}/")):
        raise Refused(
            n_(
                "The form does not come from this page. Behind a reverse proxy, it must send Host "
                "and X-Forwarded-Proto: see docs/operations.md."
            )
        )


async def form_of(request: Request, *, within_s: float = FORM_WITHIN_S) -> dict[str, str]:
    """Return the fields of a form; of several with one name the last.

    Raises:
        Refused: it is too long, comes too slowly, or is no form.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for part in request.stream():
                body += part
                if len(body) > FORM_MAX:
                    raise Refused(n_("The form is too long."))
    except TimeoutError:
        raise Refused(n_("The form did not come in time.")) from None
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        raise Refused(n_("The form cannot be read.")) from None


def _has_token(form: dict[str, str], session: Session) -> bool:
    return secrets.compare_digest(form.get("csrf", "").encode(), session.csrf.encode())


def sign_in(response: Response, token: str) -> None:
    """Give the browser the cookie of a new session. It ends with the browser."""
    response.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="strict")


def sign_out(response: Response) -> None:
    """Take the cookie from the browser."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
