"""Parser for the broker's URL (Redis or RabbitMQ), and its conversion to Celery's settings.

Accepts every URL that `redis_url` accepts, and `amqp://` and `amqps://`. Owns every Celery setting
that differs between Redis and RabbitMQ (kombu 5.7, py-amqp 5.4). Opens no connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, urlsplit

from dialer.store.redis_url import EXPECTED, SENTINEL_WITHIN_S, RedisAddress, Scheme, is_plain

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

_REDIS_OPTIONS: Final[dict[str, Any]] = {
    "priority_steps": [0],  # one Redis list per queue; kombu's default is four
    "socket_keepalive": True,
    "socket_timeout": 15,  # longer than the transport's own blocking wait
    "socket_connect_timeout": 5,
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
        if scheme is AmqpScheme.TCP:
            if options:
                raise ValueError
            return cls(url=url)
        if options.keys() - _TLS_FILES.keys() or not all(options.values()):
            raise ValueError
        # py-amqp checks the name in a certificate only if `server_hostname` is set.
        tls = {"server_hostname": parts.hostname}
        tls |= {_TLS_FILES[option]: path for option, path in options.items()}
        return cls(url=url.partition("?")[0], tls=tls)


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryBroker:
    """Celery's settings `broker_url`, `broker_transport_options` and `broker_use_ssl`."""

    url: str = field(repr=False)
    transport_options: dict[str, Any] = field(repr=False)
    tls: dict[str, str] | None = None
    is_redis: bool = True


def require_broker_url(url: str) -> str:
    """Return the URL if `for_celery` accepts it.

    Raises:
        ValueError: it does not; the message contains no part of the URL.
    """
    try:
        for_celery(url)
    except ValueError:
        raise ValueError(f"is not the URL of a broker: {BROKER_EXPECTED}") from None
    return url


def for_celery(url: str) -> CeleryBroker:
    """Convert a broker's URL to Celery's settings.

    Raises:
        ValueError: the URL cannot be used; the message contains no part of it.
    """
    if url.partition("://")[0] in set(AmqpScheme):
        amqp = AmqpAddress.parse(url)
        return CeleryBroker(
            url=amqp.url, transport_options=_AMQP_OPTIONS, tls=amqp.tls, is_redis=False
        )
    redis_url, options = _redis_for_celery(RedisAddress.parse(url))
    return CeleryBroker(url=redis_url, transport_options=_REDIS_OPTIONS | options)


def _redis_for_celery(address: RedisAddress) -> tuple[str, dict[str, Any]]:
    """Return Celery's URL and transport options for a Redis.

    Celery writes a Unix socket as `redis+socket://`. For Sentinel it wants the whole URL once per
    sentinel, and the service name in the transport options (kombu 5.7).
    """
    if address.scheme is Scheme.UNIX:
        return f"redis+socket://{_login(address)}{address.path}?virtual_host={address.db}", {}
    if address.scheme is not Scheme.SENTINEL:
        return address.url, {}
    login = _login(address)
    urls = (f"sentinel://{login}{host}:{port}/{address.db}" for host, port in address.hosts)
    sentinel: dict[str, Any] = {"socket_timeout": SENTINEL_WITHIN_S}
    if address.sentinel_password is not None:
        sentinel["username"] = address.sentinel_username
        sentinel["password"] = address.sentinel_password
    return ";".join(urls), {"master_name": address.service, "sentinel_kwargs": sentinel}


def _login(address: RedisAddress) -> str:
    if address.username is None and address.password is None:
        return ""
    return f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"
