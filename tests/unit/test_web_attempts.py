"""Attempts to sign in: how many, and how many at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage

from dialer.web.attempts import NOTES, Attempts, TooMany
from tests.waiting import wait_until

HOME = "203.0.113.7"


@dataclass(slots=True)
class Verifier:
    """Says that only the password `right` is right, and counts how often it was asked."""

    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.go.set()

    def __call__(self, password_hash: str | None, password: str) -> bool:
        with self._lock:
            self.asked += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.go.wait(10)
        with self._lock:
            self.at_once -= 1
        return password_hash is not None and password == "right"


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
def attempts(verifier: Verifier) -> Attempts:
    return Attempts(verify=verifier, key=b"the same buckets each time")


async def kept(name: str) -> str | None:
    return "hash" if name == "ana" else None


async def tried(
    attempts: Attempts, name: str = "ana", *, address: str = HOME, password: str = "wrong"
) -> bool:
    return await attempts.is_right(address, name, password, kept)


async def failed(attempts: Attempts, pairs: Sequence[tuple[str, str]]) -> None:
    for address, name in pairs:
        assert not await tried(attempts, name, address=address)


async def test_right_passwords_are_no_failures(attempts: Attempts) -> None:
    for _ in range(30):
        assert await tried(attempts, password="right")


async def test_sixth_password_for_a_name_is_not_verified(
    attempts: Attempts, verifier: Verifier
) -> None:
    await failed(attempts, [(HOME, "ana")] * 5)
    with pytest.raises(TooMany) as caught:
        await tried(attempts, password="right")
    assert verifier.asked == 5
    assert 1 <= caught.value.wait_s <= 61
    assert await tried(attempts, address="198.51.100.1", password="right")
    assert not await tried(attempts, "bob")


async def test_one_address_tries_twenty_names(attempts: Attempts, verifier: Verifier) -> None:
    await failed(attempts, [(HOME, f"user{n}") for n in range(20)])
    with pytest.raises(TooMany):
        await tried(attempts, password="right")
    assert verifier.asked == 20
    assert await tried(attempts, address="198.51.100.1", password="right")


async def test_many_addresses_try_sixty_times(attempts: Attempts, verifier: Verifier) -> None:
    await failed(attempts, [(f"10.0.0.{n}", "ana") for n in range(60)])
    with pytest.raises(TooMany) as caught:
        await tried(attempts, password="right")
    assert verifier.asked == 60
    assert caught.value.wait_s > 60
    assert not await tried(attempts, "bob")


async def test_names_of_no_user_count_as_one(attempts: Attempts) -> None:
    await failed(attempts, [(HOME, "\r\n" + "a" * n) for n in range(5)])
    with pytest.raises(TooMany):
        await tried(attempts, "<script>")


async def test_ipv6_network_counts_as_one(attempts: Attempts) -> None:
    await failed(attempts, [(f"2001:db8:0:1::{n:x}", "ana") for n in range(5)])
    with pytest.raises(TooMany):
        await tried(attempts, address="2001:db8:0:1:ffff::%eth0")
    assert not await tried(attempts, address="2001:db8:0:2::1")


async def test_ipv4_inside_ipv6_counts_as_itself(attempts: Attempts) -> None:
    await failed(attempts, [(f"::ffff:{HOME}", "ana")] * 5)
    with pytest.raises(TooMany):
        await tried(attempts)
    assert not await tried(attempts, address="::ffff:203.0.113.8")


async def test_attempts_at_once_are_not_too_many(attempts: Attempts, verifier: Verifier) -> None:
    verifier.go.clear()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caught(attempts)) for _ in range(40)]
        await wait_until(lambda: verifier.at_once == 2, "two verifications")
        verifier.go.set()
    assert [task.result() for task in tasks].count(True) == 35
    assert verifier.asked == 5
    assert verifier.most_at_once == 2


async def caught(attempts: Attempts, name: str = "ana", address: str = HOME) -> bool:
    try:
        await tried(attempts, name, address=address)
    except TooMany:
        return True
    return False


async def test_only_so_many_wait_for_a_verification(attempts: Attempts, verifier: Verifier) -> None:
    verifier.go.clear()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caught(attempts, f"user{n}", f"10.0.{n}.1")) for n in range(80)]
        await wait_until(lambda: sum(task.done() for task in tasks) == 28, "28 refused")
        verifier.go.set()
    assert verifier.asked == 52


async def test_hash_that_cannot_be_read_is_no_failure(attempts: Attempts) -> None:
    async def lost(name: str) -> str | None:
        raise ConnectionError("Redis is away")

    for _ in range(10):
        with pytest.raises(ConnectionError):
            await attempts.is_right(HOME, "ana", "right", lost)
    assert await tried(attempts, password="right")


async def test_failures_are_forgotten_after_the_window(verifier: Verifier) -> None:
    rules = (RateLimitItemPerSecond(1),) * 3
    attempts = Attempts(verify=verifier, rules=rules)
    await failed(attempts, [(HOME, "ana")])
    assert await caught(attempts)

    async def is_in() -> bool:
        try:
            return await tried(attempts, password="right")
        except TooMany:
            return False

    await wait_until(is_in, "the window is over")


async def test_memory_does_not_grow_with_names_and_addresses(verifier: Verifier) -> None:
    rules = (RateLimitItemPerSecond(1000),) * 3
    attempts = Attempts(verify=verifier, rules=rules, buckets=4)
    await failed(attempts, [(f"10.1.{n}.1", f"user{n}") for n in range(200)])
    storage = attempts._limiter.storage
    assert isinstance(storage, MemoryStorage)
    assert len(storage.events) <= 12
    assert not attempts._under_way


def test_notes_of_a_minute_are_few(attempts: Attempts) -> None:
    assert [attempts.spend_note() for _ in range(50)].count(True) == NOTES.amount
