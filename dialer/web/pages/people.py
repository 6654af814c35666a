"""Users: an admin adds, changes and removes them; everybody changes the own password."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dialer.domain.people import NoSuchUser, require_name
from dialer.domain.roles import Role
from dialer.errors import DialerError, StoreUnavailable
from dialer.passwords import require_good
from dialer.web.access import Page
from dialer.web.attempts import TooMany
from dialer.web.live import LivePage
from dialer.web.pages.new_session import with_new_session
from dialer.web.rendering import page
from dialer.web.site import done_or_refused, site_of, visitor_of


async def _list(request: Request) -> Response:
    return await _shown(request)


async def _add(request: Request) -> Response:
    """Add a user; without a password make a link with which the person sets one."""
    site, form, by = site_of(request), request.state.form, visitor_of(request).name
    name, password = form.get("name", "").strip(), form.get("password", "")
    typed = {"name": name, "role": form.get("role", "")}
    if password != form.get("again", ""):
        return await _shown(request, at="add", wrong="differ", typed=typed, status=422)
    try:
        require_name(name)
        role = _role(form.get("role", ""))
        if password:
            require_good(password)
        kept = await site.attempts.hashed(password) if password else None
        adding = site.people.add(name, role, kept, by=by)
        if not await done_or_refused(site.people.steps, adding):
            return await _shown(request, at="add", wrong="taken", typed=typed, status=422)
    except StoreUnavailable:
        raise
    except DialerError as error:
        return await _shown(request, at="add", sentence=str(error), typed=typed, status=422)
    return _back() if password else await _with_link(request, name, role)


async def _change_role(request: Request) -> Response:
    form, visitor, people = request.state.form, visitor_of(request), site_of(request).people
    name = form.get("name", "")
    if name == visitor.name:
        return await _shown(request, at="list", wrong="own_role", status=422)
    try:
        role = _role(form.get("role", ""))
        await done_or_refused(people.steps, people.change_role(name, role, visitor.name))
    except StoreUnavailable:
        raise
    except DialerError as error:
        return await _shown(request, at="list", sentence=str(error), status=422)
    return _back()


async def _make_link(request: Request) -> Response:
    """Make a link with which the person sets a password."""
    name = request.state.form.get("name", "")
    user = await site_of(request).people.user(name)
    if user is None:
        return await _shown(request, at="list", wrong="gone", status=422)
    return await _with_link(request, user.name, user.role)


async def _remove(request: Request) -> Response:
    name, by = request.state.form.get("name", ""), visitor_of(request).name
    people = site_of(request).people
    if name == by:
        return await _shown(request, at="list", wrong="self", status=422)
    try:
        if not await done_or_refused(people.steps, people.remove(name, by)):
            return await _shown(request, at="list", wrong="gone", status=422)
    except StoreUnavailable:
        raise
    except DialerError as error:
        return await _shown(request, at="list", sentence=str(error), status=422)
    return _back()


async def _with_link(request: Request, name: str, role: Role) -> Response:
    """Show a new link. Nobody can see it again."""
    by, people = visitor_of(request).name, site_of(request).people
    token = await done_or_refused(people.steps, people.new_link(name, role, by=by))
    link = f"{request.url.scheme}://{request.headers.get('host', '')}/login?link={token}"
    return await _shown(request, link=link, link_for=name)


async def _shown(
    request: Request,
    *,
    at: str = "",
    wrong: str = "",
    sentence: str = "",
    typed: dict[str, str] | None = None,
    link: str = "",
    link_for: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Show the users. `at` is the form that is wrong, because of `wrong` or the `sentence`."""
    site = site_of(request)
    users = [
        {"user": user, "added_at": datetime.fromtimestamp(user.created_ms / 1000, UTC)}
        for user in await site.people.users()
    ]
    return page(request, "people.html", status=status, path="/users", query="", site=site,
                users=users, at=at, wrong=wrong, sentence=sentence,
                typed=typed or {"name": "", "role": Role.VIEW},
                link=link, link_for=link_for)  # fmt: skip


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise DialerError("There is no such role: choose view, operate or admin.") from None


def _back() -> Response:
    return RedirectResponse("/users", status_code=303)


async def _password(request: Request) -> Response:
    return _password_shown(request)


async def _change_password(request: Request) -> Response:
    """Change the own password. Other sessions of this user end."""
    site, form, visitor = site_of(request), request.state.form, visitor_of(request)
    password = form.get("password", "")
    if password != form.get("again", ""):
        return _password_shown(request, wrong="differ", status=422)
    try:
        require_good(password)
        is_right = await site.attempts.is_right(
            visitor.address, visitor.name, form.get("old", ""), site.people.password_hash
        )
        if not is_right:
            return _password_shown(request, wrong="old", status=422)
        kept = await site.attempts.hashed(password)
        setting = site.people.set_password(visitor.name, kept, visitor.name)
        await done_or_refused(site.people.steps, setting)
    except TooMany as error:
        response = _password_shown(request, wait_s=error.wait_s, status=429)
        response.headers["Retry-After"] = str(error.wait_s)
        return response
    except StoreUnavailable:
        raise
    except DialerError as error:
        return _password_shown(request, sentence=str(error), status=422)
    user = await site.people.user(visitor.name)
    if user is None:
        raise NoSuchUser(f"there is no user {visitor.name} any longer")
    return await with_new_session(request, user, "/")


def _password_shown(request: Request, *, status: int = 200, **more: Any) -> HTMLResponse:
    context = {"wrong": "", "sentence": "", "wait_s": 0} | more
    return page(request, "password.html", status=status, **context)


LIVE: Sequence[LivePage] = ()
PAGES: Sequence[Page] = (
    Page(path="/users", show=_list, needs=Role.ADMIN),
    Page(path="/users/add", show=_add, needs=Role.ADMIN, method="POST"),
    Page(path="/users/role", show=_change_role, needs=Role.ADMIN, method="POST"),
    Page(path="/users/link", show=_make_link, needs=Role.ADMIN, method="POST"),
    Page(path="/users/remove", show=_remove, needs=Role.ADMIN, method="POST"),
    Page(path="/password", show=_password),
    Page(path="/password", show=_change_password, method="POST"),
)
