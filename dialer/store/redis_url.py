"""Parser for Redis URLs, and their form without passwords for printing.

Accepts `redis://`, `rediss://`, `unix://` and `sentinel://h1:26379,h2:26379/service?db=0`.
Owns the rule that a password in a URL is never printed. The options after `?` are in
`redis_options`. Opens no connection and does not know redis-py or the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dialer.store import redis_options
from dialer.store.redis_options import OptionRefused

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

#: If a reply takes longer, the connection counts as dead (stopped server, cut cable). In seconds.
REPLY_TIMEOUT_S: Final = 5.0

#: If a sentinel does not answer within this time, the next one is queried. In seconds.
SENTINEL_WITHIN_S: Final = 2.0
HIDDEN: Final = "***"

#: Text of the error for a bad URL. It never repeats the URL, which may contain a password.
EXPECTED: Final = (
    "redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix:///PATH?db=DB or "
    "sentinel://HOST:PORT,HOST:PORT/SERVICE?db=DB"
)

_QUERY_SECRET: Final = re.compile(r"([?&][^=&]*(?:password|secret)[^=&]*=)[^&]*", re.IGNORECASE)

#: A connection string of StackExchange.Redis: `host:6379,password=...,abortConnect=false`.
_DOTNET: Final = re.compile(r"^(rediss?://)?[^/?@]*,[A-Za-z]+=[^@]*$")
_DOTNET_CURE: Final = (
    "is a connection string of .NET; write it as redis://:PASSWORD@HOST:PORT/DB, "
    "or rediss://... over TLS"
)
_SEVERAL_HOSTS: Final = (
    "names several servers; Redis Cluster cannot be used: name one server, or sentinels as "
    "sentinel://HOST:PORT,HOST:PORT/SERVICE"
)


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
    `password` are for Redis, `sentinel_username` and `sentinel_password` for the sentinels. `tls`
    and `sentinel_tls`: the connection to Redis, or to the sentinels, is encrypted. `options` are
    those of the connection and of TLS, by redis-py's names. `url` is the whole URL as written.
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
    sentinel_tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def timeout_s(self) -> float | None:
        """The longest wait for a reply that the URL sets; None if it sets none."""
        timeout: float | None = self.options.get("socket_timeout", self.options.get("timeout"))
        return timeout

    @property
    def connect_timeout_s(self) -> float | None:
        """The longest wait for a connection that the URL sets; None if it sets none."""
        timeout: float | None = self.options.get(
            "socket_connect_timeout", self.options.get("timeout")
        )
        return timeout

    @property
    def tls_options(self) -> dict[str, Any]:
        """The TLS options for redis-py. Certificate and host name are verified by default."""
        given = {k: v for k, v in self.options.items() if k in redis_options.TLS}
        verifies = given.get("ssl_cert_reqs", "required") == "required"
        return {"ssl_cert_reqs": "required", "ssl_check_hostname": verifies, **given}

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL.

        Raises:
            OptionRefused: an option after `?` cannot be used; the message names it and the cure.
            ValueError: the URL cannot be used; the message contains no value of it.
        """
        if _DOTNET.match(url):
            raise OptionRefused(_DOTNET_CURE)
        address = _parsed(url)
        if address is None:
            raise ValueError(f"is not a Redis URL: {EXPECTED}")
        return cls(**address)


def place_of(url: str) -> str:
    """Return where a URL leads, as `host:port`, several with commas, or the path of a socket."""
    address = RedisAddress.parse(url)
    return address.path or ",".join(f"{host}:{port}" for host, port in address.hosts)


def reply_timeout_s(url: str) -> float:
    """Return how long a reply of the server may take, in seconds."""
    return RedisAddress.parse(url).timeout_s or REPLY_TIMEOUT_S


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
        if parts.fragment or not is_plain(url) or "@" in parts.query.partition("=")[0]:
            return None  # perhaps a password with an unquoted "#" or "?"
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        login, _, hosts = parts.netloc.rpartition("@")
        found = _login_parts(login, options) | {"url": url, "scheme": scheme}
        match scheme:
            case Scheme.UNIX:
                found |= _unix(parts, options)
            case Scheme.SENTINEL:
                found |= _sentinel(parts, hosts, options)
            case _:
                found |= _tcp(parts, hosts, options)
        return found | {"options": _options(scheme, options, tls=bool(found.get("tls")))}
    except OptionRefused:
        raise
    except ValueError:
        return None


def _options(scheme: Scheme, given: Mapping[str, str], *, tls: bool) -> dict[str, Any]:
    """Return the options that are not part of the address."""
    of_address = redis_options.ADDRESS
    if scheme is Scheme.SENTINEL:
        of_address |= redis_options.SENTINEL
    options = {
        name: redis_options.read(name, text, tls=tls)
        for name, text in given.items()
        if name not in of_address
    }
    redis_options.require_usable(options)
    return options


def _login_parts(login: str, options: Mapping[str, str]) -> dict[str, Any]:
    user, _, password = login.partition(":")
    return {
        "username": unquote(user) or options.get("username") or None,
        "password": unquote(password) or options.get("password") or None,
    }


def _unix(parts: SplitResult, options: dict[str, str]) -> dict[str, Any]:
    if not parts.path.startswith("/") or parts.path == "/":
        raise ValueError
    return {"path": unquote(parts.path), "db": _db(options.get("db", "0"))}


def _tcp(parts: SplitResult, hosts: str, options: dict[str, str]) -> dict[str, Any]:
    if "," in hosts:
        raise OptionRefused(_SEVERAL_HOSTS)
    db = _db(options.get("db") or parts.path.strip("/") or "0")
    tls = parts.scheme == Scheme.TLS
    return {"hosts": (_host(hosts, REDIS_PORT),), "db": db, "tls": tls}


def _sentinel(parts: SplitResult, hosts: str, options: dict[str, str]) -> dict[str, Any]:
    service = unquote(parts.path.strip("/"))
    if not service or "/" in service:
        raise ValueError
    return {
        "hosts": tuple(_host(one, SENTINEL_PORT) for one in hosts.split(",")),
        "service": service,
        "db": _db(options.get("db", "0")),
        "sentinel_username": options.get("sentinel_username"),
        "sentinel_password": options.get("sentinel_password"),
        "tls": _is_yes(options.get("tls", "")),
        "sentinel_tls": _is_yes(options.get("sentinel_tls", "")),
    }


def _is_yes(text: str) -> bool:
    return text.lower() in {"1", "true", "yes"}


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or "@" in text:
        raise ValueError
    return parts.hostname, parts.port or default_port


def _db(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError
    return int(text)
