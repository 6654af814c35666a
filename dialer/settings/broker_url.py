"""Parser for the broker's URL (Redis or RabbitMQ), and its conversion to Celery's settings.

Accepts every URL that `redis_url` accepts, and `amqp://` and `amqps://`. Owns every Celery setting
that differs between Redis and RabbitMQ (kombu 5.7, py-amqp 5.4). Opens no connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, urlsplit

from dialer.store.redis_options import OptionRefused
from dialer.store.redis_url import (
    EXPECTED,
    REPLY_TIMEOUT_S,
    SENTINEL_WITHIN_S,
    RedisAddress,
    Scheme,
    is_plain,
)

#: Text of the error for a wrong URL; the URL itself is never repeated, it may contain a password.
BROKER_EXPECTED: Final = (
    f"{EXPECTED}; or for RabbitMQ amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://... over TLS"
)

#: Options of an `amqps://` URL that name certificate files, and py-amqp's names for them.
_TLS_FILES: Final = {
    "ssl_ca_certs": "ca_certs",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
}

#: kombu waits for messages in Redis up to this much longer than for other replies. In seconds.
_BLOCKING_S: Final = 10.0

_REDIS_OPTIONS: Final[dict[str, Any]] = {
    "priority_steps": [0],  # one Redis list per queue; kombu's default is four
    "socket_keepalive": True,
    "socket_timeout": REPLY_TIMEOUT_S + _BLOCKING_S,
    "socket_connect_timeout": REPLY_TIMEOUT_S,
}

#: A dead RabbitMQ is reported at once, not after four seconds of kombu's own retries.
_AMQP_OPTIONS: Final[dict[str, Any]] = {"max_retries": 0}


class AmqpScheme(StrEnum):
    """URL schemes of RabbitMQ."""

    TCP = "amqp"
    TLS = "amqps"


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpAddress:
    """A parsed RabbitMQ URL: `url` for Celery, without options; `tls` is None without TLS."""

    url: str = field(repr=False)
    tls: dict[str, str] | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL.

        Raises:
            ValueError: the URL cannot be used; the message contains no part of it.
        """
        parts = urlsplit(url)
        scheme = AmqpScheme(parts.scheme)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if not is_plain(url) or parts.fragment or not parts.hostname or parts.port == 0:
            raise ValueError
        if {"/", "@"} & set(parts.path[1:]):  # a vhost's name has %2F and %40 instead
            raise ValueError
        for option, value in options.items():
            _require_amqp_option(option, value, scheme)
        if scheme is AmqpScheme.TCP:
            return cls(url=url)
        # py-amqp checks the name in a certificate only if `server_hostname` is set.
        tls = {"server_hostname": parts.hostname}
        tls |= {_TLS_FILES[option]: path for option, path in options.items()}
        return cls(url=url.partition("?")[0], tls=tls)


def _require_amqp_option(option: str, value: str, scheme: AmqpScheme) -> None:
    known = ", ".join(_TLS_FILES)
    if option not in _TLS_FILES:
        name = option if re.fullmatch(r"[A-Za-z_]{1,40}", option) else "an option"
        raise OptionRefused(
            f"has {name} after ?, which is not known for RabbitMQ; an amqps:// URL takes {known}, "
            "an amqp:// URL nothing"
        )
    if scheme is AmqpScheme.TCP:
        raise OptionRefused(f"has the option {option}, which needs TLS; write amqps://")
    if not value:
        raise OptionRefused(f"has the option {option} without a value; it takes a PEM file's path")


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryBroker:
    """Celery's settings `broker_url`, `broker_transport_options` and `broker_use_ssl`."""

    url: str = field(repr=False)
    transport_options: dict[str, Any] = field(repr=False)
    tls: dict[str, Any] | None = field(default=None, repr=False)
    is_redis: bool = True


def is_rabbitmq(url: str) -> bool:
    """True if the URL is one of a RabbitMQ, false if of a Redis."""
    return url.partition("://")[0] in set(AmqpScheme)


def require_broker_url(url: str) -> str:
    """Return the URL if `for_celery` accepts it.

    Raises:
        ValueError: it does not; the message contains no part of the URL.
    """
    try:
        for_celery(url)
    except OptionRefused:
        raise
    except ValueError:
        raise ValueError(f"is not the URL of a broker: {BROKER_EXPECTED}") from None
    return url


def for_celery(url: str) -> CeleryBroker:
    """Convert a broker's URL to Celery's settings.

    Raises:
        ValueError: the URL cannot be used; the message contains no part of it.
    """
    if is_rabbitmq(url):
        amqp = AmqpAddress.parse(url)
        return CeleryBroker(
            url=amqp.url, transport_options=_AMQP_OPTIONS, tls=amqp.tls, is_redis=False
        )
    address = RedisAddress.parse(url)
    if "protocol" in address.options:
        raise OptionRefused("has the option protocol, which Celery cannot set; leave it out")
    redis_url, options = _redis_for_celery(address)
    return CeleryBroker(
        url=redis_url,
        transport_options=_REDIS_OPTIONS | _connection_options(address) | options,
        tls=address.tls_options if address.tls else None,
    )


def _connection_options(address: RedisAddress) -> dict[str, Any]:
    """Return kombu's options for those that the URL has."""
    passed = ("client_name", "health_check_interval", "socket_keepalive")
    options = {name: value for name, value in address.options.items() if name in passed}
    if address.timeout_s is not None:
        options["socket_timeout"] = address.timeout_s + _BLOCKING_S
    if address.connect_timeout_s is not None:
        options["socket_connect_timeout"] = address.connect_timeout_s
    return options


def _redis_for_celery(address: RedisAddress) -> tuple[str, dict[str, Any]]:
    """Return Celery's URL and transport options for a Redis.

    Celery writes a Unix socket as `redis+socket://`. For Sentinel it wants the whole URL once per
    sentinel, and the service name in the transport options (kombu 5.7). With `rediss://` and no
    `broker_use_ssl` kombu verifies neither certificate nor name.
    """
    login = _login(address)
    if address.scheme is Scheme.UNIX:
        return f"redis+socket://{login}{address.path}?virtual_host={address.db}", {}
    if address.scheme is not Scheme.SENTINEL:
        ((host, port),) = address.hosts
        return f"{address.scheme}://{login}{_bracketed(host)}:{port}/{address.db}", {}
    urls = (
        f"sentinel://{login}{_bracketed(host)}:{port}/{address.db}" for host, port in address.hosts
    )
    sentinel: dict[str, Any] = {"socket_timeout": SENTINEL_WITHIN_S}
    if address.sentinel_password is not None:
        sentinel["username"] = address.sentinel_username
        sentinel["password"] = address.sentinel_password
    if address.sentinel_tls:
        sentinel |= {"ssl": True, **address.tls_options}
    return ";".join(urls), {"master_name": address.service, "sentinel_kwargs": sentinel}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _login(address: RedisAddress) -> str:
    if address.username is None and address.password is None:
        return ""
    return f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"
