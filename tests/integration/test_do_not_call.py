"""The do-not-call set: how numbers compare, and that a repeated change counts once."""

from __future__ import annotations

from dialer.store import keys
from dialer.store.client import connect
from dialer.store.registry import Registry
from dialer.store.steps import Steps


async def test_repeated_dnc_change_tells_the_same_count(redis_url: str) -> None:
    steps = Steps(connect(redis_url), "test")
    numbers, reply = ["5511999990000", "5511999990001"], keys.dnc_reply("change-1")
    try:
        for command, count in (("SADD", 2), ("SREM", 2)):
            names = [keys.DO_NOT_CALL, f"{reply}{command}"]
            for _ in range(3):  # the replies were lost
                assert await steps.run("dnc_change", names, [command, 60, *numbers]) == count
    finally:
        await steps.close()


async def test_long_list_of_numbers_is_changed_in_batches(redis_url: str) -> None:
    steps = Steps(connect(redis_url), "test")
    registry = Registry(steps)
    numbers = [f"55119{i:08}" for i in range(20_001)]
    try:
        assert await registry.dnc_add(numbers) == len(numbers)
        assert all(await registry.dnc_contains(numbers))
        assert await registry.dnc_remove(numbers) == len(numbers)
    finally:
        await steps.close()


async def test_dnc_changes_do_not_share_their_replies(redis_url: str) -> None:
    steps = Steps(connect(redis_url), "test")
    registry = Registry(steps)
    try:
        assert await registry.dnc_add(["5511999990000"]) == 1
        assert await registry.dnc_add(["5511999990000", "5511999990001"]) == 1
        assert await registry.dnc_remove(["5511999990000", "190"]) == 1
    finally:
        await steps.close()


async def test_dnc_finds_a_number_with_and_without_plus(redis_url: str) -> None:
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
