"""Parser for Redis URLs, and their form without passwords for printing.

Accepts `redis://`, `rediss://`, `unix://` and `sentinel://h1:26379,h2:26379/service?db=0`.
Owns the rule that a password in a URL is never printed. Opens no connection and does not know
redis-py or the settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

#: If a sentinel does not answer within this time, the next one is queried. In seconds.
SENTINEL_WITHIN_S: Final = 2.0
HIDDEN: Final = "***"

#: Text of the error for a bad URL. It never repeats the URL, which may contain a password.
EXPECTED: Final = (
    "redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix:///PATH?db=DB or "
    "sentinel://HOST:PORT,HOST:PORT/SERVICE?db=DB"
)

_QUERY_SECRET: Final = re.compile(r"([?&][^=&]*(?:password|secret)[^=&]*=)[^&]*", re.IGNORECASE)
_SENTINEL_OPTIONS: Final = frozenset({"db", "tls", "sentinel_username", "sentinel_password"})


class Scheme(StrEnum):
    """Transport of a Redis URL."""

    TCP = "redis"
    TLS = "rediss"
    UNIX = "unix"
    SENTINEL = "sentinel"


class SecretUrl(str):
    """A URL whose `repr` hides the password; `str` is the complete URL."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(redacted(str(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """The parts of a Redis URL.

    `hosts` are those of Redis, or of the sentinels if `scheme` is SENTINEL. They are empty for
    UNIX, which has a `path`. `service` is the sentinels' name of the master. `username` and
    `password` are for Redis, `sentinel_username` and `sentinel_password` for the sentinels. `tls`:
    the connection to Redis is encrypted. `url` is the whole URL as written; redis-py accepts it
    for every scheme but SENTINEL.
    """

    url: str = field(repr=False)
    scheme: Scheme
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str | None = None
    db: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL.

        Raises:
            ValueError: the URL cannot be used; the message contains no part of it.
        """
        address = _parsed(url)
        if address is None:
            raise ValueError(f"is not a Redis URL: {EXPECTED}")
        return cls(**address)


def redacted(url: str) -> str:
    """Return the URL with its passwords hidden. Text that is not a URL is hidden completely."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return HIDDEN
    # Split at the last "@", so that a password with an unquoted "/" or "@" is hidden too.
    login, at, host = rest.rpartition("@")
    if at:
        user, colon, _ = login.partition(":")
        login = f"{user}:{HIDDEN}" if colon else HIDDEN
    return _QUERY_SECRET.sub(rf"\g<1>{HIDDEN}", f"{scheme}://{login}{at}{host}")


def is_plain(url: str) -> bool:
    """True if a URL contains no blank and no control character."""
    return url.isprintable() and " " not in url


def _parsed(url: str) -> dict[str, Any] | None:
    """Return the fields of a RedisAddress, None if the URL cannot be used."""
    try:
        parts = urlsplit(url)
        scheme = Scheme(parts.scheme)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=False))
        login, _, hosts = parts.netloc.rpartition("@")
        found = _login_parts(login) | {"url": url, "scheme": scheme}
        match scheme:
            case Scheme.UNIX:
                found |= _unix(parts, options)
            case Scheme.SENTINEL:
                found |= _sentinel(parts, hosts, options)
            case _:
                found |= _tcp(parts, hosts, options)
    except ValueError:
        return None
    return found if not parts.fragment and is_plain(url) else None


def _login_parts(login: str) -> dict[str, Any]:
    user, _, password = login.partition(":")
    return {"username": unquote(user) or None, "password": unquote(password) or None}


def _unix(parts: SplitResult, options: dict[str, str]) -> dict[str, Any]:
    if not parts.path.startswith("/") or parts.path == "/":
        raise ValueError
    found: dict[str, Any] = {"path": unquote(parts.path), "db": _db(options.get("db", "0"))}
    if "password" in options:
        found["password"] = options["password"]
    return found


def _tcp(parts: SplitResult, hosts: str, options: dict[str, str]) -> dict[str, Any]:
    db = _db(options.get("db") or parts.path.strip("/") or "0")
    tls = parts.scheme == Scheme.TLS
    return {"hosts": (_host(hosts, REDIS_PORT),), "db": db, "tls": tls}


def _sentinel(parts: SplitResult, hosts: str, options: dict[str, str]) -> dict[str, Any]:
    service = unquote(parts.path.strip("/"))
    if not service or "/" in service or options.keys() - _SENTINEL_OPTIONS:
        raise ValueError
    return {
        "hosts": tuple(_host(one, SENTINEL_PORT) for one in hosts.split(",")),
        "service": service,
        "db": _db(options.get("db", "0")),
        "sentinel_username": options.get("sentinel_username"),
        "sentinel_password": options.get("sentinel_password"),
        "tls": options.get("tls", "").lower() in {"1", "true", "yes"},
    }


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or "@" in text:
        raise ValueError
    return parts.hostname, parts.port or default_port


def _db(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError
    return int(text)
