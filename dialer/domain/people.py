"""Who uses the web page: users, their sessions, one-time links and deeds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dialer.domain.roles import Role
from dialer.errors import DialerError

_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class LastAdmin(DialerError):
    """No admin would be left, or none with a password."""

    code = "last_admin"


class NoSuchUser(DialerError):
    """There is no user of that name."""

    code = "no_such_user"


class Did(StrEnum):
    """What somebody did."""

    SIGNED_IN = "signed_in"
    SIGNED_OUT = "signed_out"
    SIGN_IN_FAILED = "sign_in_failed"
    USER_ADDED = "user_added"
    USER_CHANGED = "user_changed"
    USER_REMOVED = "user_removed"
    LINK_MADE = "link_made"
    NUMBER_SEEN = "number_seen"
    HUNG_UP = "hung_up"
    DEAD_SENT = "dead_sent"
    DEAD_DISCARDED = "dead_discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user. `since` is the generation: it changes with the role and the password.

    `created_ms` and `by`: when the user was added, and who did it.
    """

    name: str
    role: Role
    has_password: bool
    created_ms: int
    by: str
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of a user. `csrf` is the token that its forms send back."""

    user: User
    csrf: str
    token_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A one-time link. `name` is '' if the person chooses it.

    `enters`: it signs that user in. Otherwise it leads to the form for name and password.
    """

    name: str
    role: Role
    enters: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What somebody did. Redis gives it `at_ms`, and `id`, its place in the trail."""

    by: str
    did: Did
    what: str = ""
    why: str = ""
    at_ms: int = 0
    id: str = ""


def is_name(name: str) -> bool:
    """True if a user may have this name. As in `_user.lua`."""
    return _NAME.fullmatch(name) is not None


def require_name(name: str) -> None:
    """Check the name of a user.

    Raises:
        DialerError: a user cannot have it.
    """
    if not is_name(name):
        raise DialerError(
            f"{name[:100]!r} cannot be the name of a user; take 1 to 64 letters (a to z, A to Z), "
            "digits and . - _ @"
        )
