"""How often passwords may be tried, and how many are verified at a time.

Failures are counted in memory, in windows that move. Names and addresses come from anybody, so they
are counted in a fixed number of buckets: memory does not grow, and strangers rarely share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import math
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from dialer import passwords
from dialer.domain.people import is_name
from dialer.errors import DialerError

#: Failures for one address and name, for one address, and for one name over all addresses.
RULES: Final[Sequence[RateLimitItem]] = (
    RateLimitItemPerMinute(5),
    RateLimitItemPerMinute(20),
    RateLimitItemPerMinute(60, 10),
)

#: Failures that the trail of deeds gets.
NOTES: Final[RateLimitItem] = RateLimitItemPerMinute(10)

#: The library keeps each key for the life of the process, so that there is a fixed number.
BUCKETS: Final = 4096

#: A password takes 50 ms of a core and 64 MiB.
VERIFIED_AT_ONCE: Final = 2

#: Most people who wait for that.
WAITING_MAX: Final = 50

#: An attacker with IPv6 has this whole network.
IPV6_PREFIX: Final = 64


class TooMany(DialerError):
    """Too many passwords were tried. None is verified for `wait_s` seconds."""

    code = "too_many_attempts"

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"Too many failed attempts: try again in {wait_s} s.")
        self.wait_s = wait_s


@dataclass(slots=True)
class Attempts:
    """Attempts to sign in. `verify` takes the hash, or None, and the password.

    `rules` are as in `RULES`. `key` makes it unknown who shares a bucket.
    """

    verify: Callable[[str | None, str], bool] = passwords.is_right
    rules: Sequence[RateLimitItem] = RULES
    buckets: int = BUCKETS
    key: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    _limiter: MovingWindowRateLimiter = field(
        default_factory=lambda: MovingWindowRateLimiter(MemoryStorage())
    )
    _under_way: Counter[tuple[RateLimitItem, str]] = field(default_factory=Counter)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(VERIFIED_AT_ONCE))
    _in_slots: int = 0

    async def is_right(
        self, address: str, name: str, password: str, kept: Callable[[str], Awaitable[str | None]]
    ) -> bool:
        """Return whether it is the password of that user; a wrong one counts as a failure.

        `kept` returns the hash by the name. A name that nobody has takes as long.

        Raises:
            TooMany: the password was not verified.
        """
        counted = self._counted(address, name)
        with self._trying(counted):
            password_hash = await kept(name)
            async with self._slot():
                is_right = await asyncio.to_thread(self.verify, password_hash, password)
        if not is_right:
            for rule, bucket in counted:
                self._limiter.hit(rule, bucket)
        return is_right

    async def hashed(self, password: str) -> str:
        """Return what is kept of a new password.

        Raises:
            TooMany: too many people wait for that.
        """
        async with self._slot():
            return await asyncio.to_thread(passwords.hashed, password)

    def spend_note(self) -> bool:
        """Take one of this minute's notes of failures; false if none is left."""
        return self._limiter.hit(NOTES, "notes")

    def _counted(self, address: str, name: str) -> Sequence[tuple[RateLimitItem, str]]:
        """Return each rule with the bucket that it counts in."""
        network, known = _network(address), name if is_name(name) else ""
        texts = (f"both {network} {known}", f"address {network}", f"name {known}")
        return [(rule, self._bucket(text)) for rule, text in zip(self.rules, texts, strict=True)]

    def _bucket(self, text: str) -> str:
        """Return where a text is counted."""
        digest = hashlib.blake2b(text.encode(errors="replace"), key=self.key, digest_size=8)
        kind = text.partition(" ")[0]
        return f"{kind}-{int.from_bytes(digest.digest()) % self.buckets}"

    @contextlib.contextmanager
    def _trying(self, counted: Sequence[tuple[RateLimitItem, str]]) -> Iterator[None]:
        """Count attempts under way as failures, so that many at once are not too many."""
        wait_s = max(self._wait_s(rule, bucket) for rule, bucket in counted)
        if wait_s:
            raise TooMany(wait_s)
        self._under_way.update(counted)
        try:
            yield
        finally:
            for one in counted:
                self._under_way[one] -= 1
                if not self._under_way[one]:
                    del self._under_way[one]

    def _wait_s(self, rule: RateLimitItem, bucket: str) -> int:
        """Return how long nobody may try, 0 if somebody may now."""
        under_way = self._under_way[rule, bucket]
        if self._limiter.test(rule, bucket, cost=under_way + 1):
            return 0
        if under_way:
            return 1
        ends_at = self._limiter.get_window_stats(rule, bucket).reset_time
        return max(1, math.ceil(ends_at - time.time()))

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._in_slots >= WAITING_MAX + VERIFIED_AT_ONCE:
            raise TooMany(wait_s=3)
        self._in_slots += 1
        try:
            async with self._slots:
                yield
        finally:
            self._in_slots -= 1


def _network(address: str) -> str:
    """Return what is counted as one address: itself, or its IPv6 network."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if (inside := found.ipv4_mapped) is not None:
            return str(inside)
        return str(ipaddress.ip_network((int(found), IPV6_PREFIX), strict=False))
    return str(found)
