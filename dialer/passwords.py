"""Passwords of the users of the web page: what is kept of them, and the check of one.

Owns argon2, which only the extra `web` installs. Knows no user and no Redis. A hash takes about
50 ms of a core and 64 MiB, so an event loop must run it in a thread.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from dialer.errors import DialerError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

#: Characters of a password.
LEAST_CHARACTERS: Final = 10
MOST_CHARACTERS: Final = 200

#: Hash of a random password that nobody has, with the parameters of `PasswordHasher`.
_NOBODYS: Final = (
    "$argon2id$v=19$m=65536,t=3,p=4$DBRUEW2Zft1+WaxCT3QqDQ$S9993S"
    "9KKOfX9HjABS+QSDL2FuqCMF126hHpNBZoO3Q"
)


def hashed(password: str) -> str:
    """Return what is kept of a password: argon2id with its salt and parameters.

    Raises:
        DialerError: it is too long, or argon2 is not installed.
    """
    _require_not_too_long(password)
    return _hasher().hash(_plain(password))


def is_right(password_hash: str | None, password: str) -> bool:
    """True if this is the password of that hash. Without one it takes as long, and is false.

    So the time does not tell whether there is a user of some name. Nothing in a hash raises. A
    password that is too long is no user's: it is neither normalized nor hashed, which would hold
    the GIL for seconds.

    Raises:
        DialerError: argon2 is not installed.
    """
    hasher = _hasher()
    from argon2.exceptions import InvalidHashError, VerificationError

    if len(password) > MOST_CHARACTERS:
        password_hash, password = None, ""
    given = _plain(password)
    try:
        hasher.verify(password_hash or _NOBODYS, given)
    except VerificationError:
        return False
    except (InvalidHashError, UnicodeEncodeError):  # somebody wrote it by hand
        return is_right(None, password)
    return bool(password_hash)


def require_good(password: str) -> None:
    """Check a new password.

    Raises:
        DialerError: it is too short or too long, or no text.
    """
    _require_not_too_long(password)
    try:
        password.encode()
    except UnicodeEncodeError:
        raise DialerError(
            "the password has bytes that are no characters; type it, or send it as UTF-8"
        ) from None
    if len(password) < LEAST_CHARACTERS:
        raise _wrong_length(password)


def _require_not_too_long(password: str) -> None:
    """Check it before anything that takes longer for a longer password."""
    if len(password) > MOST_CHARACTERS:
        raise _wrong_length(password)


def _wrong_length(password: str) -> DialerError:
    return DialerError(
        f"the password has {len(password)} characters; choose one with {LEAST_CHARACTERS} to "
        f"{MOST_CHARACTERS}"
    )


def _plain(password: str) -> bytes:
    """Return the same bytes for each way in which keyboards write the same characters."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ImportError:
        raise DialerError(
            "this command needs argon2, which is not installed: in the checkout, "
            "/opt/dialer/bin/pip install -c constraints.txt '.[web]'"
        ) from None
    return PasswordHasher()
