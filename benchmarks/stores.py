"""Redis and broker of a run: plain, behind sentinels, over TLS, or with RabbitMQ as broker.

Redis is an embedded Valkey with the durability that the manual recommends; over TLS it is the
lab's Redis in a container, because the embedded one has no TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from dialer.simulation.valkey import EmbeddedValkey
from tests.acceptance.lab.lab import NETWORK, wait_for
from tests.acceptance.lab.rabbitmq import RabbitMq, free_port
from tests.chaos.places import Sentinels
from tests.tls import certificate

VARIANTS: Final = ("plain", "sentinel", "rabbitmq", "tls")

#: As the manual recommends: nothing that Redis has answered is lost.
DURABLE: Final = {"appendfsync": "always"}

_TLS_IMAGE: Final = "redis:8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """URLs for dialer.toml, the URL for Multcall, and the processes that are measured."""

    redis_url: str
    broker_url: str
    caller_url: str
    redis_pid: int
    broker_pid: int | None = None


@contextmanager
def stores(variant: str, folder: Path) -> Iterator[Stores]:
    """Start what the variant needs, and stop it."""
    kinds = {"plain": _plain, "sentinel": _sentinel, "rabbitmq": _rabbitmq, "tls": _tls}
    with kinds[variant](folder) as started:
        yield started


@contextmanager
def _plain(_: Path) -> Iterator[Stores]:
    with EmbeddedValkey(appendonly=True, config=DURABLE) as redis:
        yield Stores(
            redis_url=redis.url(0),
            broker_url=redis.url(1),
            caller_url=redis.url(0),
            redis_pid=_known(redis.pid),
        )


@contextmanager
def _sentinel(folder: Path) -> Iterator[Stores]:
    folder.mkdir()
    sentinels = Sentinels(folder)
    try:
        asyncio.run(sentinels.up())
        assert sentinels.watched is not None
        master = sentinels.watched.master
        with Redis.from_url(master.url(0)) as redis:
            redis.config_set("appendfsync", DURABLE["appendfsync"])
        yield Stores(
            redis_url=sentinels.url(0),
            broker_url=sentinels.url(1),
            caller_url=master.url(0),
            redis_pid=_known(master.pid),
        )
    finally:
        asyncio.run(sentinels.down())


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[Stores]:
    import docker

    client = docker.from_env()
    broker = RabbitMq(client, NETWORK)
    try:
        broker.start()
        with _plain(folder) as plain:
            yield replace(plain, broker_url=broker.url, broker_pid=_pid(broker.container))
    finally:
        broker.remove()
        client.close()


@contextmanager
def _tls(folder: Path) -> Iterator[Stores]:
    import docker

    folder.mkdir()
    folder.chmod(0o755)
    cert, key = asyncio.run(certificate(folder))
    key.chmod(0o644)  # Redis is another user in there
    port = free_port()
    command = [
        *("redis-server", "--bind", "127.0.0.1", "--port", "0", "--tls-port", str(port)),
        *("--tls-cert-file", f"/tls/{cert.name}", "--tls-key-file", f"/tls/{key.name}"),
        *("--tls-auth-clients", "no", "--appendonly", "yes"),
        *("--appendfsync", DURABLE["appendfsync"]),
    ]
    client = docker.from_env()
    container = client.containers.run(
        _TLS_IMAGE,
        command,
        detach=True,
        network_mode="host",
        volumes={str(folder): {"bind": "/tls", "mode": "ro"}},
    )
    url = f"rediss://127.0.0.1:{port}/{{}}?ssl_ca_certs={cert}"
    try:
        wait_for("Redis over TLS", lambda: _answers(url.format(0)))
        yield Stores(
            redis_url=url.format(0),
            broker_url=url.format(1),
            caller_url=url.format(0),
            redis_pid=_pid(container),
        )
    finally:
        container.remove(force=True, v=True)
        client.close()


def _answers(url: str) -> bool:
    try:
        with Redis.from_url(url) as redis:
            return bool(redis.ping())
    except RedisConnectionError:
        return False


def _pid(container: Any) -> int:
    container.reload()
    return int(container.attrs["State"]["Pid"])


def _known(pid: int | None) -> int:
    assert pid is not None
    return pid
