"""Sign in and out, and the language of the page."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dialer.domain.people import Deed, Did, User
from dialer.domain.roles import Role
from dialer.errors import StoreUnavailable
from dialer.web.access import LANGUAGE_COOKIE, Page, sign_out, token_of
from dialer.web.attempts import TooMany
from dialer.web.live import LivePage
from dialer.web.pages import links
from dialer.web.pages.new_session import can_keep_cookie, signed_in
from dialer.web.paths import safe_path
from dialer.web.rendering import message_page, page
from dialer.web.site import done_or_refused, site_of, visitor_of
from dialer.web.texts import LANGUAGES

#: The browser keeps the chosen language for a year, in seconds.
LANGUAGE_KEPT_S: Final = 365 * 86_400


async def _form(request: Request) -> Response:
    """Show the form, or what a one-time link is for."""
    if not can_keep_cookie(request):
        return _only_over_https(request)
    if "link" in request.query_params:
        return await links.form(request, request.query_params["link"])
    return _shown(request, to=safe_path(request.query_params.get("next", "")))


async def _sign_in(request: Request) -> Response:
    """Check name and password, or use a one-time link."""
    if not can_keep_cookie(request):
        return _only_over_https(request)
    form = request.state.form
    try:
        if "link" in form:
            return await links.use(request, form["link"])
        return await _with_password(request)
    except StoreUnavailable as error:
        return message_page(request, str(error), status=503)


async def _with_password(request: Request) -> Response:
    """Check name and password, and begin a session.

    Raises:
        StoreUnavailable: Redis does not take it.
    """
    form = request.state.form
    site, address = site_of(request), visitor_of(request).address
    name, to = form.get("name", "").strip(), safe_path(form.get("next", ""))
    user: User | None = None

    async def kept(name: str) -> str | None:
        nonlocal user
        # Before the hash: a password that changes in between ends the new session.
        user = await site.people.user(name)
        return await site.people.password_hash(name)

    try:
        is_right = await site.attempts.is_right(address, name, form.get("password", ""), kept)
    except TooMany as error:
        response = _shown(request, to=to, name=name, wait_s=error.wait_s, status=429)
        response.headers["Retry-After"] = str(error.wait_s)
        return response
    if user is None or not is_right:
        await _note_failure(request, user.name if user is not None else "")
        return _shown(request, to=to, name=name, is_wrong=True, status=401)
    return await signed_in(request, user, to)


async def _note_failure(request: Request, name: str) -> None:
    """Write it to the trail. A name that nobody has is not written: it may be a password."""
    site, address = site_of(request), visitor_of(request).address
    if site.attempts.spend_note():
        by = name or "unknown name"
        deed = Deed(by=by, did=Did.SIGN_IN_FAILED, what=address)
        await done_or_refused(site.people.steps, site.people.note(deed))


async def _sign_out(request: Request) -> Response:
    people, visitor = site_of(request).people, visitor_of(request)
    await done_or_refused(people.steps, people.end_session(token_of(request)))
    deed = Deed(by=visitor.name, did=Did.SIGNED_OUT, what=visitor.address)
    with contextlib.suppress(StoreUnavailable):  # signed out all the same
        await done_or_refused(people.steps, people.note(deed))
    response = RedirectResponse("/login", status_code=303)
    sign_out(response)
    return response


async def _language(request: Request) -> Response:
    """Keep the chosen language in the browser, and go back."""
    back = safe_path(request.query_params.get("back", ""))
    response = RedirectResponse(back, status_code=303)
    if (chosen := request.query_params.get("to")) in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, chosen, max_age=LANGUAGE_KEPT_S, path="/",
                            secure=True, httponly=True, samesite="lax")  # fmt: skip
    return response


def _shown(
    request: Request,
    *,
    to: str,
    name: str = "",
    wait_s: int = 0,
    is_wrong: bool = False,
    status: int = 200,
) -> HTMLResponse:
    return page(request, "sign_in.html", status=status, is_secure=True, to=to, name=name,
                wait_s=wait_s, is_wrong=is_wrong, query=request.url.query)  # fmt: skip


def _only_over_https(request: Request) -> HTMLResponse:
    return page(request, "sign_in.html", status=403, is_secure=False, query="")


LIVE: Sequence[LivePage] = ()
PAGES: Sequence[Page] = (
    Page(path="/login", show=_form, needs=None),
    Page(path="/login", show=_sign_in, needs=None, method="POST"),
    Page(path="/logout", show=_sign_out, needs=Role.VIEW, method="POST"),
    Page(path="/language", show=_language, needs=None),
)
