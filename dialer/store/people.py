"""Users of the web page in the registry's Redis, their sessions, one-time links and deeds.

Of a session or a link Redis has only the SHA-256 of its token. `dialer.passwords` hashes
passwords; what a role may do is in `dialer.domain.roles`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dialer.domain.people import (
    Deed,
    Did,
    LastAdmin,
    Link,
    NoSuchUser,
    Session,
    User,
    is_name,
    require_name,
)
from dialer.domain.roles import Role
from dialer.store import keys
from dialer.store.deeds import add_deed, newest_deeds
from dialer.store.keys import SESSION_IDLE_S, SESSION_MAX_S
from dialer.store.parameters import one_line
from dialer.store.steps import Arg, Steps

__all__ = [
    "SESSION_IDLE_S", "SESSION_MAX_S", "Deed", "Did", "LastAdmin", "Link", "NoSuchUser", "People",
    "Session", "User", "require_name",
]  # fmt: skip

#: Stands for the hash of a user who has no password.
_NO_PASSWORD: Final = "-"


@dataclass(frozen=True, slots=True)
class People:
    """The users of the web page. `steps` are those of the registry's Redis.

    A session ends after `session_idle_s` without use, `session_max_s` after its beginning, and
    when its user is removed or gets another role or password.
    """

    steps: Steps
    session_idle_s: int = SESSION_IDLE_S
    session_max_s: int = SESSION_MAX_S

    # --- users ------------------------------------------------------------------------------

    async def users(self) -> list[User]:
        """Return all users, by name. What cannot be read is left out."""
        return sorted(map(_user, await self._rows("")), key=lambda user: user.name)

    async def user(self, name: str) -> User | None:
        """Return a user, None if there is none of that name."""
        row = await self._row(name)
        return _user(row) if row else None

    async def is_empty(self) -> bool:
        """True if there is no user yet."""
        return not await self._rows("")

    async def password_hash(self, name: str) -> str | None:
        """Return the hash of a user's password, None if there is no such user or no password.

        To sign in, read the user first: if the password changes in between, the session ends.
        """
        row = await self._row(name)
        found = row[4].decode(errors="replace") if row else _NO_PASSWORD
        return None if found == _NO_PASSWORD else found

    async def add(self, name: str, role: Role, password_hash: str | None, *, by: str) -> bool:
        """Add a user; return false if there is one of that name, who stays as he is.

        Raises:
            DialerError: a user cannot have that name.
        """
        return await self._set(name, role, password_hash or _NO_PASSWORD, by, "new") == "added"

    async def add_first(self, name: str, role: Role, password_hash: str, *, by: str) -> bool:
        """Add the first user; return false if there is any user.

        Raises:
            DialerError: a user cannot have that name.
        """
        return await self._set(name, role, password_hash, by, "first") == "added"

    async def put(self, name: str, role: Role, password_hash: str | None, *, by: str) -> None:
        """Add a user, or replace the one of that name.

        Raises:
            DialerError: a user cannot have that name.
            LastAdmin: no admin would be left, or none with a password.
        """
        await self._set(name, role, password_hash or _NO_PASSWORD, by, "any")

    async def change_role(self, name: str, role: Role, by: str) -> None:
        """Give a user another role.

        Raises:
            NoSuchUser: there is none of that name.
            LastAdmin: no admin would be left, or none with a password.
        """
        await self._set(name, role, "", by, "known")

    async def set_password(self, name: str, password_hash: str, by: str) -> None:
        """Give a user another password.

        Raises:
            NoSuchUser: there is none of that name.
        """
        await self._set(name, "", password_hash, by, "known")

    async def remove(self, name: str, by: str) -> bool:
        """Remove a user; return false if there is none of that name.

        Raises:
            LastAdmin: no admin would be left, or none with a password.
        """
        return await self._change("user_remove", name, [name, one_line(by)]) == "removed"

    async def _set(
        self,
        name: str,
        role: Role | Literal[""],
        password_hash: str,
        by: str,
        must_be: Literal["new", "first", "known", "any"],
    ) -> str:
        """Add or change a user; '' leaves the role or the password as it is."""
        require_name(name)
        args: list[Arg] = [name, role, password_hash, one_line(by), must_be]
        said = await self._change("user_set", name, args)
        if said == "gone":
            raise NoSuchUser(f"there is no user {name}; `dialer users list` names all")
        return said

    async def _change(self, step: str, name: str, args: Sequence[Arg]) -> str:
        names = [keys.USERS, keys.DEEDS, keys.deed_reply(secrets.token_hex(16))]
        kept = [keys.DEEDS_KEPT, keys.DEED_REPLY_RETENTION_S]
        said: str = (await self.steps.run(step, names, [*args, *kept])).decode()
        if said == "last_admin":
            raise LastAdmin(
                f"besides {name} no admin has a password; give another user the role admin and a "
                "password first"
            )
        return said

    async def _rows(self, name: str) -> list[Sequence[bytes]]:
        rows: list[Sequence[bytes]] = await self.steps.run("users", [keys.USERS], [name])
        return rows

    async def _row(self, name: str) -> Sequence[bytes] | None:
        rows = await self._rows(name) if is_name(name) else []
        return rows[0] if rows else None

    # --- sessions ---------------------------------------------------------------------------

    async def begin_session(self, user: User) -> str:
        """Begin a session; return its token, which is not stored."""
        token = secrets.token_urlsafe(32)
        args: list[Arg] = [user.name, user.since, secrets.token_urlsafe(32)]
        args.append(1000 * min(self.session_idle_s, self.session_max_s))
        await self.steps.run("session_begin", [keys.session(_digest(token))], args)
        return token

    async def session(self, token: str) -> Session | None:
        """Return a session and renew its lifetime; None if there is none, or it has ended."""
        digest = _digest(token)
        limits = [1000 * self.session_idle_s, 1000 * self.session_max_s]
        found = await self.steps.run("session", [keys.session(digest), keys.USERS], limits)
        if not found:
            return None
        csrf, *row = found
        return Session(user=_user(row), csrf=csrf.decode(errors="replace"), token_digest=digest)

    async def end_session(self, token: str) -> None:
        """End a session. Nothing happens if there is none."""
        await self.steps.run("session_end", [keys.session(_digest(token))])

    # --- one-time links ---------------------------------------------------------------------

    async def new_link(
        self,
        name: str,
        role: Role,
        *,
        lifetime_s: int = keys.LINK_S,
        enters: bool = False,
        by: str = "dialer",
    ) -> str:
        """Make a one-time link; return its token, which is not stored. The deed is noted.

        It is over when its user is removed or added, or gets another role or password. One without
        a name is for the first user: it is over when there is any.

        Args:
            name: of the user, '' if the person chooses it.
            role: that the user gets.
            lifetime_s: in seconds.
            enters: it signs that user in without a password; it needs a name.
            by: who makes it.

        Raises:
            DialerError: a user cannot have that name.
        """
        if name or enters:
            require_name(name)
        token = secrets.token_urlsafe(32)
        args: list[Arg] = [name, role, int(enters), lifetime_s, one_line(by), keys.DEEDS_KEPT]
        await self.steps.run("link_make", [keys.link(_digest(token)), keys.DEEDS, keys.USERS], args)
        return token

    async def link(self, token: str) -> Link | None:
        """Return a one-time link that nobody has used; it stays."""
        return _link(await self.steps.run("link", [keys.link(_digest(token)), keys.USERS], [""]))

    async def use_link(self, token: str) -> Link | None:
        """Use a one-time link; None if there is none, or somebody has used it."""
        use = secrets.token_hex(16)
        return _link(await self.steps.run("link", [keys.link(_digest(token)), keys.USERS], [use]))

    # --- deeds ------------------------------------------------------------------------------

    async def note(self, deed: Deed) -> None:
        """Add a deed to its trail, at the time of Redis: failed sign-ins have one of their own."""
        await add_deed(self.steps, deed)

    async def deeds(self, at_most: int, before: str | None = None) -> list[Deed]:
        """Return the newest deeds first, without failed sign-ins.

        With `before`, the `id` of a deed or a failure, those before it.
        """
        return await newest_deeds(self.steps, keys.DEEDS, at_most, before)

    async def failures(self, at_most: int, before: str | None = None) -> list[Deed]:
        """Return the newest failed sign-ins first; `before` as in `deeds`."""
        return await newest_deeds(self.steps, keys.SIGN_IN_FAILURES, at_most, before)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _user(row: Sequence[bytes]) -> User:
    """Return a user of a step. `_user.lua` has checked all but who added the user."""
    name, role, since, created_ms, password_hash, by = (one.decode(errors="replace") for one in row)
    return User(
        name=name,
        role=Role(role),
        has_password=password_hash != _NO_PASSWORD,
        created_ms=int(created_ms),
        by=one_line(by),
        since=int(since),
    )


def _link(row: Sequence[bytes]) -> Link | None:
    """Return a link of a step, which has checked it."""
    if not row:
        return None
    name, role, enters = row
    return Link(name=name.decode(), role=Role(role.decode()), enters=enters == b"1")
