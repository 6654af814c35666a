"""A real Valkey for every integration test: one server a session, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dialer.simulation.valkey import EmbeddedValkey

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an integration test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    """A running server that keeps its data over kill() and start().

    A test that leaves it dead does no harm: `redis_url` starts it again.
    """
    with EmbeddedValkey(appendonly=True) as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: EmbeddedValkey) -> str:
    """Address of an empty database 0; the server's other databases are empty too."""
    valkey_server.start()
    with redis.Redis.from_url(valkey_server.url(), retry=Retry(NoBackoff(), 0)) as client:
        client.flushall()
        client.script_flush()
    return valkey_server.url()
