"""What is left in Redis when all calls are over."""

from __future__ import annotations

from redis.asyncio import Redis


async def leaks(redis: Redis, cell: str) -> list[str]:
    """Keys of the ledger and the registry that only calls under way may have."""
    found = [
        f"{key.decode()} is left"
        for pattern in (
            *("live", "queued", "awaiting", "claimed", "slots"),
            *("hand", "codehand", "parked", "parking"),
        )
        async for key in redis.scan_iter(f"dialer:{pattern}:*", count=1000)
    ]
    for name in ("Counter", "CounterACK"):
        value = await redis.get(f"ZancURA2.0-{name}-{cell}")
        if int(value or 0):
            found.append(f"{name} is {value!r}")
    async for key in redis.scan_iter("dialer:call:*", count=1000):
        if await redis.ttl(key) < 0:
            found.append(f"{key.decode()} has no lifetime")
    return found
