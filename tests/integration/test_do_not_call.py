"""The do-not-call set takes a number with and without `+` for the same telephone."""

from __future__ import annotations

from dialer.store.client import connect
from dialer.store.registry import Registry
from dialer.store.steps import Steps


async def test_a_number_is_the_same_telephone_with_and_without_its_plus(redis_url: str) -> None:
    steps = Steps(connect(redis_url), "test")
    registry = Registry(steps)
    try:
        assert await registry.dnc_add(["+5511999990000", "5511999990000"]) == 1
        asked = ["5511999990000", "+5511999990000", "5511999990001"]
        assert await registry.dnc_contains(asked) == [True, True, False]
        assert await registry.dnc_remove(["+5511999990000"]) == 1
        assert await registry.dnc_contains(asked) == [False, False, False]
    finally:
        await steps.close()
